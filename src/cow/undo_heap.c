/* undo_heap.c - see undo.h: what going back needs of one heap. */
#include <errno.h>

#include "cow/undo.h"
#include "slab/arena_undo.h"
#include "slab/heap.h"

/* What stands before mappings that were kept for an older cut: their list is as it was, too. */
static void add_kept(struct q_ranges *r, const struct q_arena *a)
{
    for (struct q_list *l = a->kept_huge.next; l != NULL && l != &a->kept_huge; l = l->next) {
        uintptr_t at = (uintptr_t)q_container_of(l, struct q_arena_block, list);

        q_ranges_add(r, at, at + q_page_size());
    }
    q_ranges_sort(r);
}

static bool collect(struct q_ranges *r, const struct q_arena *a)
{
    if (q_ranges_collect_arena(r, a))
        add_kept(r, a);
    return !r->failed;
}

bool q_undo_new_heap(struct q_undo *u)
{
    q_enter();
    u->cut = q_arena_new_cut();
    q_leave();
    return u->cut != NULL;
}

int q_undo_collect_heap(struct q_undo *u, struct q_arena *a)
{
    if (!collect(&u->guarded, a) || !q_undo_make_log(u))
        return ENOMEM;
    if (!q_arena_make_cut(a, u->cut))
        return ENOMEM;
    u->heap = a;
    u->serial = a->serial;
    return 0;
}

int q_undo_enter_heap(const struct q_undo *u)
{
    int error = q_arena_enter_again(u->heap, u->serial);

    if (error != 0 || (!u->heap->lost && !u->cut->lost))
        return error;
    q_arena_leave(u->heap);
    return ENOMEM;
}

bool q_undo_heap_is_others(const struct q_undo *u)
{
    q_enter();
    int error = q_arena_enter_again(u->heap, u->serial);
    if (error == 0)
        q_arena_leave(u->heap);
    q_leave();
    return error == EPERM;
}

void q_undo_leave_heap(struct q_undo *u)
{
    if (u->cut == NULL)
        return;
    q_enter();
    if (u->heap == NULL) {
        q_inner_free(u->cut);
    } else if (q_arena_enter_again(u->heap, u->serial) == 0) {
        if (!u->heap->lost)
            q_arena_end_cut(u->heap, u->cut);
        q_arena_leave(u->heap);
    }
    q_leave();
    u->heap = NULL;
    u->cut = NULL;
}
