/*
 * view.h - what is there, in the formats of the kernel's own files, or as JSON.
 *
 *   buddyinfo  pagetypeinfo  zoneinfo  numastat     view_zone.c
 *   extfrag_index  unusable_index                   view_zone.c
 *   slabinfo  vmallocinfo                           view_slab.c
 *
 * A view is rendered into a mapping of its own, which grows until the text
 * fits: a write to the heap may wait for a snapshot's handler, and no lock of
 * src/zone may be held meanwhile. Each zone is copied under its lock and
 * printed afterwards; the zones of one text may differ by what happened
 * meanwhile, as they do in the kernel.
 */
#ifndef Q_STAT_VIEW_H
#define Q_STAT_VIEW_H

#include "base/msg.h"
#include "base/types.h"

struct q_view {
    struct q_buf out;
    bool json;
    bool comma; /* JSON: something stands before, in the array that is open */
};

/* Text in a mapping; released by q_view_release(). */
struct q_view_text {
    char *at;
    size_t len, mapped;
};

/* Render the view of this name. 0, or an errno: ENOENT, ENOMEM. */
int q_view_render(const char *name, bool json, struct q_view_text *text);
void q_view_release(struct q_view_text *text);

/* The names, one after the other; NULL ends them. */
const char *q_view_name(unsigned index);

/* JSON: the comma that an element of an array needs before it. */
Q_INLINE void q_view_next(struct q_view *v)
{
    if (v->comma)
        q_buf_printf(&v->out, ",\n");
    v->comma = true;
}

/* 0 or an errno. */
int q_view_buddyinfo(struct q_view *v);
int q_view_pagetypeinfo(struct q_view *v);
int q_view_zoneinfo(struct q_view *v);
int q_view_extfrag(struct q_view *v);
int q_view_unusable(struct q_view *v);
int q_view_slabinfo(struct q_view *v);
int q_view_vmallocinfo(struct q_view *v);

int q_view_numastat(struct q_view *v);

#endif
