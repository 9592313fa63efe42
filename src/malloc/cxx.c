/*
 * cxx.c - C++ operator new and delete, from C.
 *
 * The names are those of the Itanium C++ ABI (also that of aarch64): nw and na
 * are new and new[], dl and da delete and delete[], St11align_val_t the
 * alignment, RKSt9nothrow_t nothrow. What the
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

/* How size_t is written in a name: unsigned long, or unsigned int in a 32-bit process. */
#if SIZE_MAX == UINT32_MAX
#define Z "j"
#else
#define Z "m"
#endif

/* clang-format off */
Q_PUBLIC void *new_one(size_t n) __asm__("_Znw" Z);
Q_PUBLIC void *new_many(size_t n) __asm__("_Zna" Z);
Q_PUBLIC void *new_one_aligned(size_t n, size_t align) __asm__("_Znw" Z "St11align_val_t");
Q_PUBLIC void *new_many_aligned(size_t n, size_t align) __asm__("_Zna" Z "St11align_val_t");

Q_PUBLIC void delete_one(void *p) __asm__("_ZdlPv");
Q_PUBLIC void delete_many(void *p) __asm__("_ZdaPv");
Q_PUBLIC void delete_one_sized(void *p, size_t n) __asm__("_ZdlPv" Z);
Q_PUBLIC void delete_many_sized(void *p, size_t n) __asm__("_ZdaPv" Z);
Q_PUBLIC void delete_one_nothrow(void *p, const void *tag) __asm__("_ZdlPvRKSt9nothrow_t");
Q_PUBLIC void delete_many_nothrow(void *p, const void *tag) __asm__("_ZdaPvRKSt9nothrow_t");
Q_PUBLIC void delete_one_aligned(void *p, size_t align) __asm__("_ZdlPvSt11align_val_t");
Q_PUBLIC void delete_many_aligned(void *p, size_t align) __asm__("_ZdaPvSt11align_val_t");
Q_PUBLIC void delete_one_sized_aligned(void *p, size_t n, size_t align)
    __asm__("_ZdlPv" Z "St11align_val_t");
Q_PUBLIC void delete_many_sized_aligned(void *p, size_t n, size_t align)
    __asm__("_ZdaPv" Z "St11align_val_t");
Q_PUBLIC void delete_one_aligned_nothrow(void *p, size_t align, const void *tag)
    __asm__("_ZdlPvSt11align_val_tRKSt9nothrow_t");
Q_PUBLIC void delete_many_aligned_nothrow(void *p, size_t align, const void *tag)
    __asm__("_ZdaPvSt11align_val_tRKSt9nothrow_t");

void *new_one(size_t n) { return new_plain(n); }
void *new_many(size_t n) { return new_plain(n); }
void *new_one_aligned(size_t n, size_t align) { return new_aligned(n, align); }
void *new_many_aligned(size_t n, size_t align) { return new_aligned(n, align); }

/* The size and alignment given to delete are not needed: the slab knows. */
void delete_one(void *p) { free(p); }
void delete_many(void *p) { free(p); }
void delete_one_sized(void *p, size_t n) { free(p); }
void delete_many_sized(void *p, size_t n) { free(p); }
void delete_one_nothrow(void *p, const void *tag) { free(p); }
void delete_many_nothrow(void *p, const void *tag) { free(p); }
void delete_one_aligned(void *p, size_t align) { free(p); }
void delete_many_aligned(void *p, size_t align) { free(p); }
void delete_one_sized_aligned(void *p, size_t n, size_t align) { free(p); }
void delete_many_sized_aligned(void *p, size_t n, size_t align) { free(p); }
void delete_one_aligned_nothrow(void *p, size_t align, const void *tag) { free(p); }
void delete_many_aligned_nothrow(void *p, size_t align, const void *tag) { free(p); }
/* clang-format on */
