/*
 * share.h - a heap that child processes share until one side writes (fork:shared).
 *
 * The window of the linear map is then backed by a file in memory. The first
 * process maps it shared; its children map it private, at the same addresses:
 * what they write is their own at once, by the kernel's copy-on-write. What
 * the first process writes would show in them, so before it can write to a
 * page, a thread of it, cowd, makes the page private in each child.
 *
 *     file in memory   [ page | page | page | page ]
 *                         |      |      |
 *     first process       |      |      | missing, or write-protected: a
 *     (MAP_SHARED)        w      .      . first touch goes to cowd
 *     child (PRIVATE)   own copy .      . sees the file
 *
 * The cut takes constant time: page tables are moved aside whole, and the
 * fresh mapping is filled as it is touched (fork.c).
 *
 * cowd has a table of descriptors of its own (unshare(CLONE_FILES)), so
 * that the program neither sees nor closes them, and no child inherits them.
 * It keeps all state, and does one thing after another: no lock is needed to
 * serve. Others ask it by touching its doorbell, a page that is always
 * missing: the fault is the request, and the answer is there when it ends.
 *
 *     mode      PRIVATE in a child; in the first process, too, once it cannot
 *               keep its promise by breaking sharing (a child it may not
 *               touch): it then maps the file private itself and leaves it as
 *               it is for ever. Children are right, later forks are slow.
 *
 * Locks: call_lock (share.c) is held for one request, with signals blocked;
 * it comes below all locks of src/zone. fork_lock (fork.c) is held from
 * before the cut to its end; it comes above all locks of the heap. cowd
 * takes no lock and touches no memory of the heap.
 */
#ifndef Q_COW_SHARE_H
#define Q_COW_SHARE_H

#include <errno.h>
#include <stdatomic.h>

#include "base/lock.h"
#include "cow/uffd.h"

#define Q_MAX_SPANS 8
#define Q_MAX_SHARERS 1024u

enum q_share_mode {
    Q_SHARE_NONE,    /* anonymous memory */
    Q_SHARE_FIRST,   /* the file, shared; can be cut */
    Q_SHARE_PRIVATE, /* the file, private */
};

/* A part of the window with the file behind it: byte a of it is byte a - window of the file. */
struct q_span {
    uintptr_t start, end;
    uintptr_t watched; /* cowd hears of first touches up to here: the end at the last cut */
};

/*
 * Who shares: a table in memory that the first process and all its descendants
 * have in common. A child of a child sees the file, too, and enters itself.
 */
enum q_sharer_state {
    Q_SHARER_FREE,
    Q_SHARER_TAKEN,    /* and being filled in */
    Q_SHARER_UNBORN,   /* its parent is about to fork */
    Q_SHARER_LIVE,     /* pid is set */
    Q_SHARER_STRANGER, /* alive, and its pid is not known here (another pid namespace) */
};

struct q_sharer {
    _Atomic uint64_t state; /* and the cookie above it, so that it is never twice the same */
    _Atomic int pid;
    uint32_t cookie;            /* what q_share.cookie.own is in its memory, or .next still */
    int creator;                /* pid of its parent */
    unsigned parent;            /* its parent's entry, + 1; 0: the first process */
    uint32_t parent_cookie;     /* what that entry's is as long as the parent is there */
    uintptr_t end[Q_MAX_SPANS]; /* where the file ends in it; what lies behind is its own */
};

Q_INLINE uint64_t q_sharer_word(uint32_t cookie, enum q_sharer_state state)
{
    return (uint64_t)cookie << 32 | state;
}

Q_INLINE enum q_sharer_state q_sharer_state(const struct q_sharer *s)
{
    /* Acquire: pairs with the release in q_sharer_born(), and in q_sharer_new(). */
    return (enum q_sharer_state)(uint32_t)atomic_load_explicit(&s->state, memory_order_acquire);
}

struct q_sharers {
    _Atomic uint32_t next_cookie;
    _Atomic uint32_t high; /* no entry from here on was ever used */
    struct q_sharer at[Q_MAX_SHARERS];
};

/* A span during a fork. */
struct q_cut {
    uintptr_t start, end;
    uintptr_t next_private, next_shared; /* mappings of the file that will take the place */
    uintptr_t written;                   /* what was in its place meanwhile */
    uintptr_t aside;                     /* where the page tables go */
    char *aside_map;                     /* what was reserved for that */
    size_t aside_bytes;
};

struct q_share {
    _Atomic int mode;    /* enum q_share_mode */
    _Atomic bool frozen; /* nobody writes to the file any more */
    struct q_cookie {
        uint32_t own;                     /* of this process's entry; 0 in the first process */
        uint32_t next;                    /* during a fork, of the child's */
    } __attribute__((aligned(8))) cookie; /* cowd reads both at once */
    const char *why_not;                  /* why the mode is not FIRST, for people; NULL */
    struct q_sharers *sharers;
    unsigned first_entry; /* the children of this process come from here on: behind its own */
    unsigned nr_spans, nr_cuts;
    struct q_span span[Q_MAX_SPANS]; /* changed by cowd alone */
    struct q_cut cut[Q_MAX_SPANS];   /* the forking thread's, from Q_CALL_CUT to Q_CALL_OPEN */
    _Atomic uint64_t faults, broken, longest_ns, forks;
};

extern struct q_share q_share;

/* Relaxed where only the mode itself counts: it changes under all locks, or for the worse at any time. */
Q_INLINE int q_share_mode(void)
{
    return atomic_load_explicit(&q_share.mode, memory_order_acquire);
}

/* share.c: with fork:shared, in the constructor: put the file behind the window. */
void q_share_start(void);

enum q_call {
    Q_CALL_NONE,
    Q_CALL_ONLINE, /* at, len: put the file behind more of the window */
    Q_CALL_CUT,    /* at: the caller's CPU. Prepare mappings; faults wait from here on */
    Q_CALL_ASIDE,  /* the private mappings are in place: serve faults of theirs */
    Q_CALL_STOP,   /* faults wait again; answers how many pages were touched */
    Q_CALL_SETTLE, /* what was written to the private mappings, now at `written`, goes to the file */
    Q_CALL_OPEN,   /* the shared mappings are back: serve by breaking sharing */
    Q_CALL_PRIVATE, /* leave the file as it is for ever */
    Q_CALL_SWEEP,   /* look who is still alive; answers whether anybody is */
};

/* share.c: ask cowd. Its answer, or a negative errno. */
long q_share_call(enum q_call op, uintptr_t at, size_t len);

/* share.c: in a child, where nobody is asking any more. */
void q_share_reset_lock(void);

/* share.c: whether addr lies in a span. */
bool q_share_has(uintptr_t addr);

/* cowd.c: the thread. */
struct q_request {
    _Atomic int op; /* Q_CALL_NONE: done */
    uintptr_t at;
    size_t len;
    long answer;
};
struct q_cowd {
    struct q_uffd uffd; /* these descriptors are good in cowd alone */
    int file;           /* behind the window */
    int pagemap;        /* of this process */
    char *doorbell;
    struct q_request request;
    _Atomic uint32_t started; /* 0: not yet; 1: yes; 2: refused */
    _Atomic int tid;          /* 0: not yet */
};
extern struct q_cowd q_cowd;
void *q_cowd_thread(void *arg);

/* cowd.c, in cowd: put the file behind a part of the window. 0 or a negative errno. */
long q_cowd_online(uintptr_t at, size_t len);

/* cowd_map.c: map a part of the file that belongs at `start`; fixed there, or anywhere. NULL: no. */
char *q_cowd_map(uintptr_t start, size_t len, int flags);

/* cowd_map.c: the same, private and fixed. Memory may be short for a while only. False: for a second. */
bool q_cowd_map_private(uintptr_t start, size_t len);

/* cowd_map.c: unmap it later, a little at a time. */
void q_cowd_throw_away(char *at, size_t len);
bool q_cowd_any_litter(void);
void q_cowd_unmap_a_little(void);

/* cowd_map.c: a message to people. cowd's own descriptor 2 is nobody's. */
void q_cowd_say(const char *text);

/* share.c, in cowd: open all that it needs, and move in. False: refused. */
bool q_cowd_open(void);

/*
 * sharer.c: an entry for a child that is about to be made; NULL: the table is
 * full. It comes behind that of its parent: cowd goes through the table once,
 * from the beginning, and a child that is made behind its back has a parent
 * that has been seen to already.
 */
struct q_sharer *q_sharer_new(void);

/* The child is there, under this number in its parent's eyes. */
void q_sharer_born(struct q_sharer *s, int pid);

/* In the child: this one is its own. */
void q_sharer_own(const struct q_sharer *s);

/* It was never made. */
void q_sharer_unborn(struct q_sharer *s);

/* In cowd: make [at, at + len) private in all that share it. 0, or an errno: one cannot be reached. */
int q_sharers_break(uintptr_t at, size_t len);

/* In cowd: forget those that are gone (unless in haste). True: somebody is left. */
bool q_sharers_alive(bool hasty);

/* Entries of /proc/PID/pagemap. */
#define Q_PM_PRESENT (1ull << 63)
#define Q_PM_SWAP (1ull << 62)
#define Q_PM_FILE (1ull << 61) /* of a file or shared memory */

Q_INLINE bool q_pm_private(uint64_t entry)
{
    return (entry & (Q_PM_PRESENT | Q_PM_SWAP)) != 0 && (entry & Q_PM_FILE) == 0;
}

/*
 * fork.c: around every fork. The lock comes first, before those of src/zone,
 * which are held in prepare and in parent.
 */
void q_share_fork_lock(void);
bool q_share_fork_trylock(void); /* for others than forks, with those of src/zone held */
void q_share_fork_unlock(void);
void q_share_fork_prepare(void);
void q_share_fork_parent(void);
void q_share_fork_child(void);

#endif
