/*
 * cxx.c - C++ operator new and delete, from C.
 *
 * The names are those of the Itanium C++ ABI (also that of aarch64): m is
 * size_t, St11align_val_t the alignment, RKSt9nothrow_t nothrow. What the
 * standard asks of a failing operator new (call the handler, try again, throw
 * std::bad_alloc) is left to libstdc++ or libc++, found through weak
 * references: programs without C++ never need them. The nothrow forms of new
 * have to catch what a handler throws, which C cannot; the C++ library's own,
 * which call the plain forms here, do it.
 */
#include <stdlib.h>

#include "base/msg.h"
#include "malloc/malloc.h"
#include "quire/quire.h"

typedef void (*new_handler)(void);

extern new_handler std_get_new_handler(void) __asm__("_ZSt15get_new_handlerv")
    __attribute__((weak));
extern void std_throw_bad_alloc(void) __asm__("_ZSt17__throw_bad_allocv") __attribute__((weak));

/* No memory: false to give up, true to try once more. */
static bool call_new_handler(void)
{
    new_handler handler = std_get_new_handler != NULL ? std_get_new_handler() : NULL;

    if (handler == NULL)
        return false;
    handler();
    return true;
}

static Q_COLD void *new_failed(size_t n, size_t align)
{
    void *p;

    while (call_new_handler()) {
        p = q_alloc(n, align, false);
        if (p != NULL)
            return p;
    }
    if (std_throw_bad_alloc != NULL)
        std_throw_bad_alloc();
    q_die("operator new(%zu): out of memory, and no C++ library to throw std::bad_alloc", n);
}

Q_INLINE void *new_plain(size_t n)
{
    void *p = malloc(n);

    return q_likely(p != NULL) ? p : new_failed(n, 16);
}

Q_INLINE void *new_aligned(size_t n, size_t align)
{
    void *p = q_alloc(n, q_max(align, 16), false);

    return q_likely(p != NULL) ? p : new_failed(n, q_max(align, 16));
}

#define NEW(name) Q_PUBLIC void *name
#define DELETE(name) Q_PUBLIC void name

NEW(_Znwm)(size_t n);
NEW(_Znam)(size_t n);
NEW(_ZnwmSt11align_val_t)(size_t n, size_t align);
NEW(_ZnamSt11align_val_t)(size_t n, size_t align);
DELETE(_ZdlPv)(void *p);
DELETE(_ZdaPv)(void *p);
DELETE(_ZdlPvm)(void *p, size_t n);
DELETE(_ZdaPvm)(void *p, size_t n);
DELETE(_ZdlPvRKSt9nothrow_t)(void *p, const void *tag);
DELETE(_ZdaPvRKSt9nothrow_t)(void *p, const void *tag);
DELETE(_ZdlPvSt11align_val_t)(void *p, size_t align);
DELETE(_ZdaPvSt11align_val_t)(void *p, size_t align);
DELETE(_ZdlPvmSt11align_val_t)(void *p, size_t n, size_t align);
DELETE(_ZdaPvmSt11align_val_t)(void *p, size_t n, size_t align);
DELETE(_ZdlPvSt11align_val_tRKSt9nothrow_t)(void *p, size_t align, const void *tag);
DELETE(_ZdaPvSt11align_val_tRKSt9nothrow_t)(void *p, size_t align, const void *tag);

/* A table. */
/* clang-format off */
NEW(_Znwm)(size_t n) { return new_plain(n); }
NEW(_Znam)(size_t n) { return new_plain(n); }
NEW(_ZnwmSt11align_val_t)(size_t n, size_t align) { return new_aligned(n, align); }
NEW(_ZnamSt11align_val_t)(size_t n, size_t align) { return new_aligned(n, align); }

/* The size and alignment given to delete are not needed: the slab knows. */
DELETE(_ZdlPv)(void *p) { free(p); }
DELETE(_ZdaPv)(void *p) { free(p); }
DELETE(_ZdlPvm)(void *p, size_t n) { free(p); }
DELETE(_ZdaPvm)(void *p, size_t n) { free(p); }
DELETE(_ZdlPvRKSt9nothrow_t)(void *p, const void *tag) { free(p); }
DELETE(_ZdaPvRKSt9nothrow_t)(void *p, const void *tag) { free(p); }
DELETE(_ZdlPvSt11align_val_t)(void *p, size_t align) { free(p); }
DELETE(_ZdaPvSt11align_val_t)(void *p, size_t align) { free(p); }
DELETE(_ZdlPvmSt11align_val_t)(void *p, size_t n, size_t align) { free(p); }
DELETE(_ZdaPvmSt11align_val_t)(void *p, size_t n, size_t align) { free(p); }
DELETE(_ZdlPvSt11align_val_tRKSt9nothrow_t)(void *p, size_t align, const void *tag) { free(p); }
DELETE(_ZdaPvSt11align_val_tRKSt9nothrow_t)(void *p, size_t align, const void *tag) { free(p); }
/* clang-format on */
