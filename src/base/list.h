/*
 * list.h - circular, doubly linked, intrusive lists.
 *
 * A list head that is all zero counts as empty, so that lists in untouched
 * memory need no initialisation.
 */
#ifndef Q_BASE_LIST_H
#define Q_BASE_LIST_H

#include "base/types.h"

struct q_list {
    struct q_list *next, *prev;
};

#define q_container_of(ptr, type, member) ((type *)((char *)(ptr)-offsetof(type, member)))

Q_INLINE void q_list_init(struct q_list *head)
{
    head->next = head->prev = head;
}

Q_INLINE bool q_list_empty(const struct q_list *head)
{
    return head->next == NULL || head->next == head;
}

Q_INLINE void q_list_insert(struct q_list *node, struct q_list *prev, struct q_list *next)
{
    node->next = next;
    node->prev = prev;
    prev->next = node;
    next->prev = node;
}

/* Insert at the front of a list: the hot end. */
Q_INLINE void q_list_add(struct q_list *head, struct q_list *node)
{
    if (head->next == NULL)
        q_list_init(head);
    q_list_insert(node, head, head->next);
}

/* Insert at the back of a list: the cold end. */
Q_INLINE void q_list_add_tail(struct q_list *head, struct q_list *node)
{
    if (head->next == NULL)
        q_list_init(head);
    q_list_insert(node, head->prev, head);
}

/* Unlink; the node's own links become NULL, which says "on no list". */
Q_INLINE void q_list_del(struct q_list *node)
{
    node->prev->next = node->next;
    node->next->prev = node->prev;
    node->next = node->prev = NULL;
}

Q_INLINE bool q_list_linked(const struct q_list *node)
{
    return node->next != NULL;
}

#endif
