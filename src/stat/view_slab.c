/*
 * view_slab.c - slabinfo and vmallocinfo: objects by class, and the blocks that
 * have mappings of their own. In the layout of the kernel's mm/slab_common.c
 * (version 2.1) and mm/vmalloc.c.
 */
#include <inttypes.h>

#include "slab/cache.h"
#include "stat/stat.h"
#include "stat/view.h"
#include "zone/area.h"

static void class_line(struct q_view *v, unsigned cls, const struct q_class_stat *st)
{
    const struct q_class *k = &q_classes[cls];
    unsigned pages = 1u << q_slab_order();
    size_t objs = st->slabs * k->objs;
    char name[32];
    struct q_buf b = {.at = name, .size = sizeof(name)};

    q_buf_printf(&b, "malloc-%u", k->size);
    if (v->json) {
        q_view_next(v);
        q_buf_printf(&v->out,
                     "{\"name\":\"%s\",\"active_objs\":%zu,\"num_objs\":%zu,\"objsize\":%u,"
                     "\"objperslab\":%u,\"pagesperslab\":%u,\"active_slabs\":%zu,"
                     "\"num_slabs\":%zu,\"allocated\":%" PRIu64 "}",
                     name, st->live, objs, k->size, k->objs, pages, st->slabs, st->slabs,
                     st->allocated);
        return;
    }
    q_buf_printf(&v->out, "%-17s %6zu %6zu %6u %4u %4u : tunables %4u %4u %4u", name, st->live,
                 objs, k->size, k->objs, pages, 0u, 0u, 0u);
    q_buf_printf(&v->out, " : slabdata %6zu %6zu %6zu\n", st->slabs, st->slabs, (size_t)0);
}

static void cache_line(struct q_view *v, struct q_cache *c)
{
    struct q_cache_stat st;
    unsigned pages = 1u << c->order;

    q_cache_stat(c, &st);
    if (v->json) {
        q_view_next(v);
        q_buf_printf(&v->out,
                     "{\"name\":\"%s\",\"active_objs\":%zu,\"num_objs\":%zu,\"objsize\":%u,"
                     "\"objperslab\":%u,\"pagesperslab\":%u,\"active_slabs\":%zu,"
                     "\"num_slabs\":%zu,\"cached\":%zu}",
                     c->name, st.live, st.slabs * c->objs, c->stride, c->objs, pages,
                     st.slabs - st.empty, st.slabs, st.cached);
        return;
    }
    q_buf_printf(&v->out, "%-17s %6zu %6zu %6u %4u %4u : tunables %4u %4u %4u", c->name, st.live,
                 st.slabs * c->objs, c->stride, c->objs, pages, 2 * c->batch, c->batch, 0u);
    q_buf_printf(&v->out, " : slabdata %6zu %6zu %6zu\n", st.slabs - st.empty, st.slabs, (size_t)0);
}

/* What programs made by quire_cache_create(), oldest first. */
static void cache_lines(struct q_view *v)
{
    q_lock(&q_caches.lock);
    for (struct q_list *l = q_caches.list.next; l != NULL && l != &q_caches.list; l = l->next)
        cache_line(v, q_container_of(l, struct q_cache, list));
    q_unlock(&q_caches.lock);
}

int q_view_slabinfo(struct q_view *v)
{
    struct q_stat st;

    q_stat_read(&st);
    if (v->json)
        q_buf_printf(&v->out, "[");
    else
        q_buf_printf(&v->out, "slabinfo - version: 2.1\n"
                              "# name            <active_objs> <num_objs> <objsize> <objperslab> "
                              "<pagesperslab> : tunables <limit> <batchcount> <sharedfactor> : "
                              "slabdata <active_slabs> <num_slabs> <sharedavail>\n");
    for (unsigned cls = 0; cls < Q_NR_CLASSES; cls++)
        class_line(v, cls, &st.cls[cls]);
    cache_lines(v);
    q_buf_printf(&v->out, v->json ? "]\n" : "");
    return 0;
}

static void mapping_line(void *arg, void *addr, size_t bytes)
{
    struct q_view *v = arg;
    uintptr_t start = (uintptr_t)addr;

    if (v->json) {
        q_view_next(v);
        q_buf_printf(&v->out,
                     "{\"start\":\"0x%016zx\",\"end\":\"0x%016zx\",\"size\":%zu,"
                     "\"pages\":%zu}",
                     start, start + bytes, bytes, bytes >> q_page_shift);
        return;
    }
    q_buf_printf(&v->out, "0x%016zx-0x%016zx %7zu malloc pages=%zu vmalloc\n", start, start + bytes,
                 bytes, bytes >> q_page_shift);
}

static void area_line(void *arg, const struct q_area *a)
{
    struct q_view *v = arg;
    /* As the kernel: a guard page is part of it. */
    uintptr_t end = a->addr + ((a->nr + 1) << q_page_shift);
    const char *kind = a->pages != NULL ? "vmap" : "vmalloc";

    if (v->json) {
        q_view_next(v);
        q_buf_printf(&v->out,
                     "{\"start\":\"0x%016zx\",\"end\":\"0x%016zx\",\"size\":%zu,"
                     "\"pages\":%zu,\"kind\":\"%s\"}",
                     a->addr, end, end - a->addr, a->nr, kind);
        return;
    }
    q_buf_printf(&v->out, "0x%016zx-0x%016zx %7zu quire_%s pages=%zu %s\n", a->addr, end,
                 end - a->addr, kind, a->nr, kind);
}

int q_view_vmallocinfo(struct q_view *v)
{
    q_buf_printf(&v->out, v->json ? "[" : "");
    q_lock(&q_vm_lock);
    q_veach(mapping_line, v);
    q_unlock(&q_vm_lock);
    q_area_each(area_line, v);
    q_buf_printf(&v->out, v->json ? "]\n" : "");
    return 0;
}
