/* inbox.c - see inbox.h. */
#include "cow/inbox.h"

#include "cow/cow.h"

#define ROOM 1024u /* a power of two; one for each thread that waits */

static struct box {
    _Atomic uint32_t in, out; /* count up; in - out messages are there */
    uintptr_t message[ROOM];  /* the page, and 1 for a write */
} boxes[Q_MAX_HANDLERS];

bool q_inbox_post(unsigned box, uintptr_t page, bool write)
{
    struct box *b = &boxes[box];
    uint32_t in = atomic_load_explicit(&b->in, memory_order_relaxed); /* our own */

    /* Acquire: pairs with the release in q_inbox_next(); the place has been read. */
    if (in - atomic_load_explicit(&b->out, memory_order_acquire) >= ROOM)
        return false;
    b->message[in % ROOM] = page | write;
    /* Release: who sees the number sees the message. */
    atomic_store_explicit(&b->in, in + 1, memory_order_release);
    /* This before the poster's look at the lock: see q_store_unlock(). */
    atomic_thread_fence(memory_order_seq_cst);
    return true;
}

static bool has_any(const struct box *b)
{
    /* Acquire: pairs with the release in q_inbox_post(). */
    return atomic_load_explicit(&b->in, memory_order_acquire) !=
           atomic_load_explicit(&b->out, memory_order_relaxed);
}

bool q_inbox_any(void)
{
    for (unsigned i = 0; i < Q_MAX_HANDLERS; i++)
        if (has_any(&boxes[i]))
            return true;
    return false;
}

bool q_inbox_next(uintptr_t *page, bool *write)
{
    for (unsigned i = 0; i < Q_MAX_HANDLERS; i++) {
        struct box *b = &boxes[i];

        if (!has_any(b))
            continue;
        uint32_t out = atomic_load_explicit(&b->out, memory_order_relaxed); /* under the lock */
        *page = b->message[out % ROOM] & ~(uintptr_t)1;
        *write = (b->message[out % ROOM] & 1) != 0;
        /* Release: the place may be used again. */
        atomic_store_explicit(&b->out, out + 1, memory_order_release);
        return true;
    }
    return false;
}

void q_inbox_reset(void)
{
    for (unsigned i = 0; i < Q_MAX_HANDLERS; i++) {
        atomic_store_explicit(&boxes[i].in, 0, memory_order_relaxed);
        atomic_store_explicit(&boxes[i].out, 0, memory_order_relaxed);
    }
}

void q_store_unlock(void)
{
    q_unlock(&q_store.lock);
    /*
     * Sequentially consistent, and so is the poster's: either it finds the lock
     * free, or its message is seen here.
     */
    atomic_thread_fence(memory_order_seq_cst);
    if (q_unlikely(q_inbox_any()))
        q_sweep_ring();
}
