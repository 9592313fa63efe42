/*
 * cow.h - what the files of this folder share: snapshots and their life.
 *
 *   writer            handler thread            taker              reader
 *   ------            --------------            -----              ------
 *                                               protect all
 *   write *p ------>  fault: save p's page,
 *   (waits)           un-protect it
 *   goes on <-------                                               saved page, or,
 *                                                                  while there is none,
 *                                                                  the page itself
 *
 * The handler is a thread on each CPU, made with the first snapshot and kept;
 * one at a time serves. It runs no code but this folder's, has a stack of its
 * own, allocates nothing, and writes to no heap memory. It waits for no lock
 * (inbox.h).
 *
 * Locks, from the top:
 *   api_lock       one thread at a time takes, releases, goes back, makes views
 *   arena->lock    of a heap that the snapshot is of, at the cut, going back and at the end
 *   locks of src/zone, all of them: while a snapshot comes or goes
 *   q_store.lock   with all signals blocked; see store.h
 *
 * q_cow.live, the list of snapshots by protection, changes only with all
 * three held. So one is enough for looking: the handler has q_store.lock, the
 * hooks of hold.h have a lock of src/zone.
 *
 * The cut: with q_store.lock held everything in use is protected, stretch by
 * stretch. Who writes meanwhile to what is protected already waits for the
 * handler, who waits for the lock. So nobody gets past the cut before it is
 * complete. The taker must not write to the heap then: a stack in the heap
 * is dealt with in take.c. Nor may any other holder of that lock: own.c.
 */
#ifndef Q_COW_COW_H
#define Q_COW_COW_H

#include <errno.h>
#include <stdatomic.h>

#include "cow/blocks.h"
#include "cow/range.h"
#include "cow/store.h"
#include "cow/sweep.h"
#include "cow/uffd.h"
#include "cow/undo.h"
#include "quire/snapshot.h"

#define Q_MAX_HANDLERS 8u
#define Q_SNAPSHOT_MAGIC 0x7370616e736f6374ull

struct q_image;

/*
 * A descriptor in the program's own table: it may close it, and have another
 * file under that number then, which is the program's to close.
 */
struct q_file {
    int fd; /* -1: none */
    uint64_t dev, ino;
};

struct quire_snapshot {
    uint64_t magic;
    int pid;    /* of the process it belongs to */
    int method; /* enum quire_snapshot_method */
    uint32_t epoch;
    _Atomic int error;      /* errno once it is lost; never goes back to 0 */
    _Atomic uintptr_t gone; /* what lies below is dropped (drop.c); grows, under api_lock */
    struct q_ranges ranges;
    struct q_arena *heap;             /* at the cut: show its memory only; NULL: all */
    struct quire_snapshot *older;     /* on q_cow.live, newest first */
    struct quire_snapshot *next_view; /* on q_cow.views */
    char *view;                       /* NULL: none; address of ranges.at[0].start in it */
    char *view_map;
    size_t view_bytes;
    uint64_t pause_ns, take_ns;
    uint64_t faults_before, saved_before, touched_before, own_faults_before;
    const char *why_not;
    size_t moved_bytes;                    /* by QUIRE_SNAPSHOT_LAZY */
    int holder_pid;                        /* holder.c */
    struct q_file holder_proc, holder_mem; /* /proc/PID, by which it is ended; its memory */
    struct q_file holder_pipe;             /* closing it ends the holder, too */
    struct q_image *image;                 /* image.c */
    struct quire_snapshot *base;           /* of a loaded increment; under api_lock: */
    unsigned increments;                   /* loaded ones that this is the base of */
    struct q_blocks blocks;                /* where `sized` */
    bool sized;                            /* QUIRE_SNAPSHOT_SIZES */
    uint64_t root;                         /* address; quire_snapshot_set_root() */
    uint64_t id[2];                        /* of its images; 0: none was saved or loaded */
    struct q_undo *undo;                   /* QUIRE_SNAPSHOT_ROLLBACK; else NULL */
    unsigned branches;                     /* that live; under api_lock, as is: */
    bool released;                         /* by the program: ends with its last branch */
};

struct q_cow {
    struct q_uffd uffd;
    int pid;                /* whose descriptor and handler these are; 0: nobody's */
    bool window_registered; /* with uffd */
    _Atomic bool guarding;  /* from before a cut until all is open again: touching is of use */
    uint32_t epoch;         /* of the newest cut */
    uint32_t cuts;          /* as many have been made: counted when all is protected */
    struct quire_snapshot *live;
    struct quire_snapshot *views; /* snapshots with a view; under q_store.lock */
    _Atomic uint64_t faults, saved, longest_ns;
    _Atomic uint64_t touched;    /* of saved: by quire_snapshot_touch() */
    _Atomic uint64_t own_faults; /* of faults: served by who wrote (sigbus.c) */
    _Atomic uint32_t nr_ready;   /* handlers with a table of descriptors of their own */
    unsigned nr_handlers;        /* started; set before the keeper is */
    _Atomic int
        tid[Q_MAX_HANDLERS];    /* of each handler; 0: not yet, or no more; -1: it was killed */
    _Atomic int serving;        /* the handler that holds q_store.lock; 0: none */
    _Atomic int sweeper;        /* its number; 0: not yet, or no more */
    uint32_t sweeper_as_holder; /* q_lock_self() of it */
    _Atomic bool orphaned;      /* the sweeper was killed */
};

extern struct q_cow q_cow;

Q_INLINE int q_cow_error(const struct quire_snapshot *s)
{
    /* Acquire: pairs with the release in q_cow_lose(): its pages are not protected any more. */
    return atomic_load_explicit(&s->error, memory_order_acquire);
}

/* Below this nothing is shown, protected or kept any more. */
Q_INLINE uintptr_t q_cow_gone(const struct quire_snapshot *s)
{
    /* Relaxed: an older value keeps too much; readers have a fence of their own. */
    return atomic_load_explicit(&s->gone, memory_order_relaxed);
}

/* What it protects, and keeps from being discarded: what it shows, and more where it can be gone back to. */
Q_INLINE const struct q_ranges *q_cow_guarded(const struct quire_snapshot *s)
{
    return s->undo != NULL ? &s->undo->guarded : &s->ranges;
}

/*
 * The sweeper is no more: nothing is moved aside, the keeper brings back what
 * is, and handlers come back to what they could not serve. Set under q_store.lock.
 */
Q_INLINE bool q_cow_orphaned(void)
{
    /* Relaxed: under the lock it is right; elsewhere it is looked at again. */
    return atomic_load_explicit(&q_cow.orphaned, memory_order_relaxed);
}

/* What protects and un-protects: the main descriptor, or, where there is none, SIGBUS memory's. */
const struct q_uffd *q_cow_uffd(void);

/* engine.c: a descriptor of the program's in this thread's own table, or a negative errno. */
long q_cow_borrow(int fd);

/* engine.c: open userfaultfd and start the handler, once. 0 or an errno; *why is set then. */
int q_cow_start(const char **why);

/* engine.c: all snapshots by protection are lost; un-protect everything. q_store.lock held. */
void q_cow_lose(int error);

/* The first half of that: readers are told. Before anything is opened in another way. */
void q_cow_mark_lost(int error);

/* engine.c: pread(2) from a descriptor of the program's, also in a handler, whose table lacks it. */
long q_cow_pread(int fd, void *to, size_t len, uint64_t at);

/*
 * engine.c: a thread that never runs code of the program: all signals blocked,
 * on a stack of ours, which is kept in *stack. 0 or an errno.
 */
int q_cow_thread(char **stack, void *(*run)(void *), void *arg);

/*
 * engine.c: wait while *word is that, but not long: who would change it may
 * have been killed, and where that takes too long (-ETIMEDOUT) one looks.
 */
long q_cow_wait(_Atomic uint32_t *word, uint32_t is);

/* engine.c: a millisecond. */
void q_cow_nap(void);

/* fault.c: the handler's loop. It ends where the descriptor is no good any more. */
void q_cow_serve(int fd, unsigned place);

/*
 * fault.c: save a page where that is needed, and un-protect it. nr: of that many pages from there on,
 * as many as go in one step; or 0: of neighbours, too, as seems good. Pages from `page` on that may
 * be written now; -EAGAIN: it cannot be read. q_store.lock held.
 */
long q_cow_save(uintptr_t page, unsigned nr);

/* fault.c: what was left in the boxes is asked for again by who waits. */
void q_cow_wake_left(void);

/* keeper.c: the thread that looks after the handlers, and ends a program that is gone. */
void *q_cow_keep(void *arg);

/* release.c: whether a snapshot lives that is not lost. q_store.lock, or another of cow.h's. */
bool q_cow_any_live(void);

/* fault.c: the newest live snapshot that guards addr; NULL. q_store.lock held. */
const struct quire_snapshot *q_cow_newest(uintptr_t addr);

/* Block every signal, and go back. */
uint64_t q_signals_block(void);
void q_signals_restore(uint64_t mask);

/* take.c */
void q_cow_unlock_api(void);
void q_cow_lock_api(void);
void q_cow_api_reset(void);
struct quire_snapshot *q_snapshot_new(int method);
void q_snapshot_free(struct quire_snapshot *s);

/*
 * restore.c: drop from a log what has no version, or is in it twice. That is
 * left behind where a newer snapshot was gone back to. q_store.lock held.
 */
void q_cow_compact_log(struct q_undo *u, uint32_t epoch);

/* Whether the stack or the thread's own data lie in these. */
bool q_cow_stack_in(const struct q_ranges *ranges);

/* Frees that signal handlers have put off are done now. Set by src/malloc. */
extern void (*q_cow_settle_hook)(void);
void q_cow_settle(void);

/* 0 where s may be used by this process, else an errno. */
int q_snapshot_check(const struct quire_snapshot *s);

/* read.c: what reading at addr fails with: 0 where it does not. */
int q_snapshot_error_at(const struct quire_snapshot *s, uintptr_t addr);

/*
 * read.c: copy len bytes at addr, all in one of the ranges, as of the cut. 0
 * or an errno. The destination may lie in the heap.
 */
int q_snapshot_copy(const struct quire_snapshot *s, uintptr_t addr, char *to, size_t len);

/* read.c: copy within this process what may be unreadable: false then. */
bool q_copy_carefully(void *to, const void *from, size_t len);

/* holder.c: fork the process that holds memory as it is. 0 or an errno. No lock is asked for. */
int q_holder_start(struct quire_snapshot *s);
/* holder.c: close every descriptor of the calling thread's table but one. */
void q_close_all_but(int fd);

int q_holder_read(const struct quire_snapshot *s, uintptr_t addr, char *to, size_t len);
void q_holder_end(struct quire_snapshot *s);
/* In a forked child: it is the parent's, but the descriptors are there. */
void q_holder_forget(struct quire_snapshot *s);

/* holder.c: note what fd is (or that there is none); whether it still is; close it where it is. */
void q_file_is(struct q_file *f, int fd);
bool q_file_same(const struct q_file *f);
void q_file_close(struct q_file *f);

/* view.c: serve a missing page of a view; false where addr lies in none. q_store.lock held. */
bool q_view_fault(uintptr_t addr);
/* Whether a page that it shows must come back first; who waits asks again then (sweep.h). */
bool q_view_waits(const struct quire_snapshot *s, uintptr_t addr);
/* Nobody serves views any more. q_store.lock held. */
void q_view_close_all(void);
void q_view_end(struct quire_snapshot *s);

/* branch.c: the same of a branch; room for a page is given. In a child: there are none. */
bool q_branch_fault(uintptr_t addr, char *page);
void q_branch_fork_child(void);

/* release.c: free all of it; no branch is left. api_lock held. */
void q_snapshot_end(struct quire_snapshot *s);

/* hold.c: the zones ask from now on, or no more. All locks of src/zone held. */
void q_cow_hold(bool any);
/* Unmap freed mappings that nobody shows any more. */
void q_cow_unmap_kept(void);
/* Of these, which are in use again, nobody may. All locks of src/zone held. */
void q_cow_take_kept_back(const struct q_ranges *blocks);
void q_cow_hold_fork_child(void);

/* drop.c: 0, or the errno with which quire_snapshot_drop() fails; drop what lies below end. */
int q_snapshot_may_drop(const struct quire_snapshot *s);
int q_snapshot_drop(struct quire_snapshot *s, uintptr_t end);

/* image.c: read from a loaded image; close it. */
int q_image_read(const struct quire_snapshot *s, uintptr_t addr, char *to, size_t len);
void q_image_close(struct quire_snapshot *s);
/* Of that, what is also right in a forked child, where its base may be gone. */
void q_image_free(struct quire_snapshot *s);

/* release.c, for src/malloc: fork's child has no handler, and its snapshots are lost. */
void q_cow_fork_child(void);

/* The same, once, in a child that ran no fork handlers (_Fork, clone). */
void q_cow_meet_child(void);

#endif
