/* objcache.c - the functions of quire/slab.h over src/slab/cache.h: arguments, errno, complaints. */
#include "malloc/objcache.h"

#include <errno.h>
#include <string.h>

#include "malloc/enter.h"
#include "malloc/heaps.h"
#include "malloc/shrink.h"
#include "quire/slab.h"

_Static_assert(QUIRE_CACHE_HWALIGN == Q_CACHE_HWALIGN && QUIRE_CACHE_POISON == Q_CACHE_POISON &&
                   QUIRE_CACHE_RED_ZONE == Q_CACHE_RED_ZONE &&
                   QUIRE_CACHE_TYPESAFE == Q_CACHE_TYPESAFE,
               "the same");
_Static_assert(QUIRE_CACHE_NAME_MAX == Q_CACHE_NAME - 1, "with its end");

Q_INLINE struct q_cache *inner(const struct quire_cache *cache)
{
    return (struct q_cache *)(uintptr_t)cache;
}

static bool fail(int error)
{
    errno = error;
    return false;
}

/* Enter the allocator; false with errno set where that cannot be. */
static bool begin(void)
{
    int error = q_call_begin();

    return error == 0 || fail(error);
}

/* The same for a cache that must exist. */
static bool begin_with(const char *caller, const struct q_cache *c)
{
    if (q_unlikely(!q_cache_valid(c))) {
        q_misuse_no_cache(caller, c);
        return fail(EINVAL);
    }
    return begin();
}

Q_PUBLIC struct quire_cache *quire_cache_create(const char *name, size_t size, size_t align,
                                                unsigned flags, void (*ctor)(void *object))
{
    struct q_cache *c = NULL;
    unsigned tries = 0;
    int error;

    do {
        if (!begin())
            return NULL;
        error = q_cache_create(name, size, align, flags, ctor, &c);
        q_call_end();
    } while (error == ENOMEM && q_memory_is_short(sizeof(*c), &tries));
    if (error != 0)
        fail(error);
    return (struct quire_cache *)c;
}

static Q_NOINLINE void *alloc_slow(struct q_cache *c, const char *caller)
{
    struct q_cache_fault fault;
    unsigned tries = 0;
    void *p;

    do {
        if (!begin_with(caller, c))
            return NULL;
        p = q_cache_alloc_slow(c, &fault);
        q_call_end();
    } while (q_unlikely(fault.result == Q_CACHE_NO_MEMORY) &&
             q_memory_is_short(q_page_size() << c->order, &tries));
    if (q_unlikely(fault.result == Q_CACHE_NO_MEMORY))
        return q_enomem();
    if (q_unlikely(fault.result != Q_CACHE_OK))
        q_misuse_cache(caller, c, p, &fault);
    return p;
}

Q_PUBLIC void *quire_cache_alloc(struct quire_cache *cache)
{
    void *p = q_cache_pop(inner(cache));

    return q_likely(p != NULL) ? p : alloc_slow(inner(cache), "quire_cache_alloc");
}

Q_PUBLIC void *quire_cache_zalloc(struct quire_cache *cache)
{
    struct q_cache *c = inner(cache);

    if (c->ctor != NULL) {
        fail(EINVAL);
        return NULL;
    }
    void *p = q_cache_pop(c);
    if (q_unlikely(p == NULL))
        p = alloc_slow(c, "quire_cache_zalloc");
    return p != NULL ? memset(p, 0, c->size) : NULL;
}

static Q_NOINLINE void free_slow(struct q_cache *c, void *p, const char *caller)
{
    struct q_cache_fault fault;
    int saved = errno;

    if (p == NULL)
        return;
    if (q_unlikely(!q_cache_valid(c))) {
        q_misuse_no_cache(caller, c);
    } else if (q_interrupted()) {
        fault = (struct q_cache_fault){.result = Q_CACHE_INTERRUPTED};
        q_misuse_cache(caller, c, p, &fault);
    } else {
        q_enter();
        q_cache_free_slow(c, p, &fault);
        q_leave();
        if (q_unlikely(fault.result != Q_CACHE_OK))
            q_misuse_cache(caller, c, p, &fault);
    }
    errno = saved;
}

Q_PUBLIC void quire_cache_free(struct quire_cache *cache, void *object)
{
    if (q_unlikely(!q_cache_push(inner(cache), object)))
        free_slow(inner(cache), object, "quire_cache_free");
}

Q_PUBLIC int quire_cache_alloc_bulk(struct quire_cache *cache, size_t nr, void **objects)
{
    struct q_cache *c = inner(cache);

    for (size_t i = 0; i < nr; i++) {
        objects[i] = q_cache_pop(c);
        if (q_unlikely(objects[i] == NULL))
            objects[i] = alloc_slow(c, "quire_cache_alloc_bulk");
        if (q_unlikely(objects[i] == NULL)) {
            quire_cache_free_bulk(cache, i, objects); /* keeps errno */
            memset(objects, 0, i * sizeof(*objects));
            return 0;
        }
    }
    return 1;
}

Q_PUBLIC void quire_cache_free_bulk(struct quire_cache *cache, size_t nr, void **objects)
{
    for (size_t i = 0; i < nr; i++)
        if (q_unlikely(!q_cache_push(inner(cache), objects[i])))
            free_slow(inner(cache), objects[i], "quire_cache_free_bulk");
}

Q_PUBLIC size_t quire_cache_shrink(struct quire_cache *cache)
{
    size_t bytes = 0;

    if (begin_with("quire_cache_shrink", inner(cache))) {
        bytes = q_cache_shrink(inner(cache));
        q_call_end();
    }
    return bytes;
}

static void report_leaks(const struct q_cache *c, const struct q_leaks *leaks)
{
    char text[600];
    struct q_buf b = {.at = text, .size = sizeof(text)};

    for (size_t i = 0; i < q_min(leaks->nr, Q_LEAKS_SHOWN); i++)
        q_buf_printf(&b, " %p", leaks->object[i]);
    q_msg("quire_cache_destroy(%p, \"%s\"): %zu objects are not free:%s%s", (const void *)c,
          c->name, leaks->nr, text, leaks->nr > Q_LEAKS_SHOWN ? " ..." : "");
}

Q_PUBLIC int quire_cache_destroy(struct quire_cache *cache)
{
    struct q_leaks leaks;

    if (cache == NULL)
        return 0;
    if (!begin_with("quire_cache_destroy", inner(cache)))
        return -1;
    bool done = q_cache_destroy(inner(cache), &leaks);
    q_call_end();
    if (done)
        return 0;
    report_leaks(inner(cache), &leaks);
    return (int)fail(EBUSY) - 1;
}

Q_PUBLIC int quire_cache_owns(const struct quire_cache *cache, const void *object)
{
    size_t k, offset;
    struct q_cache_slab *s = q_cache_slab_of(object, &k, &offset);

    return s != NULL && s->cache == inner(cache) && offset == 0 && k < s->cache->objs &&
           s->state[k] == Q_OBJ_LIVE;
}

Q_PUBLIC size_t quire_cache_size(const struct quire_cache *cache)
{
    return inner(cache)->size;
}

Q_PUBLIC const char *quire_cache_name(const struct quire_cache *cache)
{
    return inner(cache)->name;
}

Q_PUBLIC void quire_cache_stat(struct quire_cache *cache, struct quire_cache_stat *st)
{
    struct q_cache *c = inner(cache);
    struct q_cache_stat is;

    *st = (struct quire_cache_stat){0};
    if (!begin_with("quire_cache_stat", c))
        return;
    q_lock(&q_caches.lock);
    q_cache_stat(c, &is);
    q_unlock(&q_caches.lock);
    q_call_end();
    *st = (struct quire_cache_stat){.live = is.live,
                                    .cached = is.cached,
                                    .slabs = is.slabs,
                                    .empty = is.empty,
                                    .stride = c->stride,
                                    .per_slab = c->objs,
                                    .bytes = is.slabs * (q_page_size() << c->order)};
}

/* --- complaints ------------------------------------------------------------------------------ */

static void describe_object(struct q_buf *b, const struct q_cache_slab *s, size_t k, size_t offset)
{
    const struct q_cache *c = s->cache;
    const char *object = s->start + k * c->stride + c->left;
    const char *state = k < c->objs && s->state[k] == Q_OBJ_LIVE   ? "a live"
                        : k < c->objs && s->state[k] != Q_OBJ_NONE ? "a free"
                                                                   : NULL;

    if (state == NULL)
        q_buf_printf(b, "in memory of cache \"%s\" that was never handed out", c->name);
    else if (offset == 0)
        q_buf_printf(b, "%s object of cache \"%s\"", state, c->name);
    else
        q_buf_printf(b, "inside %s object of cache \"%s\" at %p (offset %ld)", state, c->name,
                     (const void *)object, (long)offset);
}

void q_describe_owned(struct q_buf *b, const void *p)
{
    size_t k, offset;
    const struct q_cache_slab *s = q_cache_slab_of(p, &k, &offset);

    if (s != NULL)
        describe_object(b, s, k, offset);
    else
        q_describe_heap(b, p);
}

static void describe_fault(struct q_buf *b, const void *p, const struct q_cache_fault *fault)
{
    switch (fault->result) {
    case Q_CACHE_TWICE:
        q_buf_printf(b, "already free");
        break;
    case Q_CACHE_OVERRUN:
        q_buf_printf(b, "written outside the object, at offset %ld", (long)fault->offset);
        break;
    case Q_CACHE_USED_FREE:
        q_buf_printf(b, "written while it was free, at offset %ld", (long)fault->offset);
        break;
    case Q_CACHE_INTERRUPTED:
        q_buf_printf(b, "called in a signal handler that interrupted the allocator");
        break;
    case Q_CACHE_NOT_OBJECT:
        q_buf_printf(b, "not an object of any cache");
        break;
    default:
        q_describe_owned(b, p);
    }
}

void q_misuse_cache(const char *caller, const struct q_cache *c, const void *p,
                    const struct q_cache_fault *fault)
{
    char text[400];
    struct q_buf b = {.at = text, .size = sizeof(text)};

    q_buf_printf(&b, "%s(\"%s\", %p): ", caller, c->name, p);
    describe_fault(&b, p, fault);
    q_complain(text);
}

void q_misuse_no_cache(const char *caller, const void *c)
{
    char text[200];
    struct q_buf b = {.at = text, .size = sizeof(text)};

    q_buf_printf(&b, "%s(%p): not a cache, or one that was destroyed", caller, c);
    q_complain(text);
}
