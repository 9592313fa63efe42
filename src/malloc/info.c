/*
 * info.c - the questions that malloc.h lets a program ask.
 *
 * Answers are truthful for quire; fields that name parts quire does not have
 * (fast bins, arenas of sbrk) are 0. Numbers of other threads' heaps are read
 * while these run, so they may be a few objects off, never torn.
 */
#include <errno.h>
#include <malloc.h>
#include <stdio.h>

#include "base/msg.h"
#include "base/opt.h"
#include "malloc/malloc.h"
#include "quire/quire.h"
#include "slab/cache.h"
#include "stat/stat.h"
#include "zone/reclaim.h"
#include "zone/special.h"
#include "zone/vmalloc.h"

Q_PUBLIC size_t quire_trim(size_t keep)
{
    if (q_interrupted() || !q_slub_init())
        return 0;
    q_enter();
    size_t given = q_slub_trim();
    q_caches_shrink();
    given += q_reclaim_all(keep >> q_page_shift) + q_special_trim();
    given = (given << q_page_shift) + q_vtrim(true);
    q_leave();
    return given;
}

Q_PUBLIC int malloc_trim(size_t pad)
{
    return quire_trim(pad) > 0;
}

Q_PUBLIC struct mallinfo2 mallinfo2(void)
{
    struct mallinfo2 mi = {0};
    struct q_stat st;

    if (q_interrupted())
        return mi; /* in a signal handler, and the locks may be ours */
    q_enter();
    q_stat_read(&st);
    q_leave();
    mi.arena = st.mapped_bytes;
    mi.ordblks = st.free_blocks;
    mi.hblks = st.large.blocks;
    mi.hblkhd = st.large.bytes;
    mi.uordblks = st.slab_live_bytes + st.run_bytes;
    mi.fordblks = st.mapped_bytes - q_min(st.mapped_bytes, mi.uordblks);
    mi.keepcost = st.dirty_bytes;
    return mi;
}

static int clip(size_t n)
{
    return n > 0x7fffffff ? 0x7fffffff : (int)n;
}

/* The old form has ints; what does not fit is cut at their largest value instead of wrapping. */
Q_PUBLIC struct mallinfo mallinfo(void)
{
    struct mallinfo2 m = mallinfo2();
    struct mallinfo mi = {0};

    mi.arena = clip(m.arena);
    mi.ordblks = clip(m.ordblks);
    mi.hblks = clip(m.hblks);
    mi.hblkhd = clip(m.hblkhd);
    mi.uordblks = clip(m.uordblks);
    mi.fordblks = clip(m.fordblks);
    mi.keepcost = clip(m.keepcost);
    return mi;
}

/*
 * glibc's parameters tune glibc's arenas. Those that mean something here
 * are taken to heart; the others are accepted, as glibc accepts them.
 */
Q_PUBLIC int mallopt(int param, int value)
{
    switch (param) {
    case M_TRIM_THRESHOLD:
        if (value < 0)
            q_opt.decay_ms = 3600000; /* -1: never trim */
        return 1;
    case M_MXFAST:
        return value >= 0 && value <= 160;
    case M_MMAP_THRESHOLD:
    case M_MMAP_MAX:
    case M_TOP_PAD:
    case M_CHECK_ACTION:
    case M_PERTURB:
    case M_ARENA_TEST:
    case M_ARENA_MAX:
        return 1;
    default:
        return 0;
    }
}

/* glibc's three lines, which scripts look for, and then the table. */
Q_PUBLIC void malloc_stats(void)
{
    if (q_interrupted())
        return;
    struct mallinfo2 mi = mallinfo2();
    char text[256];
    struct q_buf b = {.at = text, .size = sizeof(text)};

    q_buf_printf(&b, "Arena 0:\nsystem bytes     = %10zu\nin use bytes     = %10zu\n", mi.arena,
                 mi.uordblks);
    q_buf_printf(&b, "Total (incl. mmap):\nsystem bytes     = %10zu\nin use bytes     = %10zu\n",
                 mi.arena + mi.hblkhd, mi.uordblks + mi.hblkhd);
    q_write_all(2, b.at, b.len);
    quire_stats_print(2);
}

/* XML in the shape of glibc's malloc_info(3): sizes, totals, and what the system gave. */
Q_PUBLIC int malloc_info(int options, FILE *out)
{
    struct q_stat st;

    if (options != 0)
        return EINVAL; /* itself, as glibc does */
    if (q_interrupted())
        return EAGAIN;
    q_enter();
    q_stat_read(&st);
    q_leave();
    fprintf(out, "<malloc version=\"1\">\n<heap nr=\"0\">\n<sizes>\n");
    for (unsigned c = 0; c < Q_NR_CLASSES; c++)
        if (st.cls[c].slabs > 0)
            fprintf(out, "  <size from=\"%u\" to=\"%u\" total=\"%zu\" count=\"%zu\"/>\n",
                    q_classes[c].size, q_classes[c].size, st.cls[c].free * q_classes[c].size,
                    st.cls[c].free);
    fprintf(out, "</sizes>\n<total type=\"fast\" count=\"0\" size=\"0\"/>\n");
    fprintf(out, "<total type=\"rest\" count=\"%zu\" size=\"%zu\"/>\n", st.slab_free_objs,
            st.slab_free_bytes);
    fprintf(out, "<total type=\"mmap\" count=\"%zu\" size=\"%zu\"/>\n", st.large.blocks,
            st.large.bytes);
    fprintf(out, "<system type=\"current\" size=\"%zu\"/>\n<system type=\"max\" size=\"%zu\"/>\n",
            st.mapped_bytes + st.large.bytes, st.mapped_bytes + st.large.bytes);
    fprintf(out,
            "<aspace type=\"total\" size=\"%zu\"/>\n<aspace type=\"mprotect\" size=\"%zu\"/>\n",
            st.mapped_bytes, st.mapped_bytes);
    fprintf(out, "</heap>\n</malloc>\n");
    return 0;
}

Q_PUBLIC void quire_stats_print(int fd)
{
    if (q_interrupted())
        return; /* in a signal handler, and the locks may be ours */
    q_enter();
    q_stat_print(fd);
    q_leave();
}
