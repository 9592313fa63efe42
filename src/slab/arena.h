/*
 * arena.h - heaps that a program makes: quire_heap_create().
 *
 *   arena                  chunk (out of line)            memory: 64 KiB
 *    bin[class].spans ---> span: cells 2..3, free list <--> |   |   |obj|obj|   | ...
 *    chunks --> chunk      span_of[cell]                    16 cells of 4 KiB
 *    large  --> large      live: a bit for each 16 bytes
 *    huge   --> (in front of its block)
 *
 *   up to 32 KiB               an object of a span: 1, 2, 4, 8 or 16 cells of one class
 *   up to the largest block    a run of pages, at a multiple of 64 KiB
 *   above                      a mapping, behind a page that says whose it is
 *
 * A young class gets a span of one cell, so that a heap of a few objects of
 * many sizes fits into one chunk; each further one is twice as long. A live
 * object has its bit set where it begins: that one bit tells a wrong pointer
 * (interior, freed, never handed out) from a right one. The end of a heap is
 * the end of its chunks, blocks and mappings; objects are not looked at.
 *
 * A heap can be gone back to: what changes then, and what is kept meanwhile, is
 * said in arena_undo.h.
 *
 * Chunks and blocks are found by their first page: it is owned
 * (zone/page_ref.h), `private` says what it is, and lru.next leads to what is
 * known of it. That holds in all zones. Chunks in the linear map are found by
 * their slab descriptor as well (unit.h), which is quicker.
 *
 * A span is on its bin's list exactly while something in it can be handed out;
 * a chunk is on `roomy` exactly while it has a free cell.
 *
 * Locks: arena->lock guards all of an arena. A heap with one owner has none:
 * only its owner calls. q_arenas.lock guards the list of all. Both above
 * everything in src/slab; see doc/locking.md.
 */
#ifndef Q_SLAB_ARENA_H
#define Q_SLAB_ARENA_H

#include "numa/mempolicy.h"
#include "slab/unit.h"

#define Q_ARENA_CELL ((size_t)4096)
#define Q_ARENA_CELLS 16u
#define Q_ARENA_GRAIN 16u

struct q_arena;
struct q_arena_cut;

/*
 * For going back: how many cuts the heap had seen when this came, and for which one it was saved
 * last, or would have been: never less.
 */
struct q_arena_mark {
    uint32_t born, saved;
};

struct q_arena_span {
    struct q_list list;    /* the bin's */
    struct q_object *free; /* freed objects */
    uint16_t objs, carved, used;
    uint8_t cls, first, cells; /* cells is 0: there is no such span */
};

struct q_chunk {
    struct q_arena *arena;
    struct q_page *page;
    char *start;
    struct q_arena_mark mark;
    struct q_list list, roomy;
    uint16_t free_cells;                     /* a bit each */
    uint8_t span_of[Q_ARENA_CELLS];          /* cell -> first cell of its span */
    struct q_arena_span span[Q_ARENA_CELLS]; /* by first cell */
    uint64_t live[Q_SLAB_SIZE / Q_ARENA_GRAIN / 64];
};

/* A run of pages, or what stands before a mapping. */
struct q_arena_block {
    uint64_t magic; /* of a mapping's: ^ its address */
    struct q_arena *arena;
    struct q_arena_mark mark;
    struct q_list list;
    struct q_page *page; /* NULL: a mapping */
    char *base;          /* of the mapping */
    size_t bytes;        /* usable */
    bool kept;           /* freed, but not given back: arena_undo.h */
};

/* A pageblock of a heap with `sigbus`: arena_estate.c. */
struct q_arena_estate {
    struct q_list list; /* the arena's: estates, or full */
    struct q_page *page;
    uint32_t free; /* units, a bit each */
};

struct q_arena_bin {
    struct q_list spans;
    uint32_t nr_spans;
};

struct q_arena {
    struct q_lock lock;
    bool single;     /* one owner, no lock */
    bool sigbus;     /* QUIRE_HEAP_SIGBUS, and it is in force */
    bool lost;       /* a fork copied it in the middle of a change: nothing more is done with it */
    uint8_t special; /* 1 + enum q_special; 0: the linear map */
    bool starved;    /* what failed since this was false did so for want of memory */
    uint32_t gfp;
    uint64_t magic;
    uint64_t serial; /* no other heap of the process has it, before or after */
    uintptr_t owner; /* thread pointer */
    struct q_mempolicy policy;
    size_t limit, pages, peak; /* in pages; limit 0: none */
    size_t allocs, failures;
    struct q_list list;          /* q_arenas.list */
    struct q_list estates, full; /* where `sigbus`: with free units, without */
    struct q_arena_cut *cut;     /* the newest; NULL: nobody wants to go back */
    uint32_t cuts;               /* as many were made */
    uint32_t saving;             /* number of the newest cut; 0: none, or it is lost */
    /* From here on it is as it was after going back. */
    size_t live, live_bytes;
    struct q_list chunks, roomy, large, huge;
    struct q_list kept_chunks, kept_large, kept_huge;
    struct q_arena_bin bin[Q_NR_CLASSES];
};

/* The lock comes first: snapshots put the rest back. */
struct q_arenas {
    struct q_lock lock;
    uint32_t nr;
    uint64_t serial; /* of the newest */
    struct q_list list;
};

extern struct q_arenas q_arenas;

/* How an arena gets its memory. */
struct q_arena_how {
    bool single, sigbus;
    uint8_t special;
    uint32_t gfp;
    size_t limit; /* bytes */
    struct q_mempolicy policy;
};

/* All of these inside q_enter(). NULL: no memory. */
struct q_arena *q_arena_create(const struct q_arena_how *how);
void q_arena_destroy(struct q_arena *a);

/* Free everything in it. */
void q_arena_reset(struct q_arena *a);

#define Q_ARENA_MAGIC 0x7161726e6168656full

Q_INLINE bool q_arena_valid(const struct q_arena *a)
{
    return a != NULL && ((uintptr_t)a & 15) == 0 && a->magic == (Q_ARENA_MAGIC ^ (uintptr_t)a);
}

Q_INLINE void q_arena_enter(struct q_arena *a)
{
    if (!a->single)
        q_lock(&a->lock);
}

Q_INLINE void q_arena_leave(struct q_arena *a)
{
    if (!a->single)
        q_unlock(&a->lock);
}

/* Enter the heap `serial`, which was at a. 0; ESRCH: it is no more; EPERM: another thread's own. */
int q_arena_enter_again(struct q_arena *a, uint64_t serial);

/* The rest: between these two. NULL: no memory (`starved` is true then), or the limit. */
void *q_arena_alloc(struct q_arena *a, size_t n, size_t align, bool zero);

/*
 * Move its pages to node nid, as far as they have memory, and take what comes
 * from there. How many lie there, or a negative errno: then some have moved.
 * Not for the special zones.
 */
long q_arena_move(struct q_arena *a, unsigned nid);

/* What an address is in arenas. */
enum q_arena_what { Q_ARENA_LIVE, Q_ARENA_FREE, Q_ARENA_INTERIOR, Q_ARENA_NONE };

struct q_arena_spot {
    enum q_arena_what what;
    struct q_arena *arena; /* NULL where it is NONE */
    struct q_chunk *chunk; /* NULL: a block */
    struct q_arena_block *block;
    struct q_arena_span *span;
    size_t bytes; /* LIVE: usable */
};

/*
 * Find out about any address. Whose arena is not the caller's may be changing;
 * then the answer is good enough for a complaint.
 */
void q_arena_look(const void *p, struct q_arena_spot *spot);

/* Free p where it is a live object in a chunk of a in the linear map; false, and nothing done, else. */
bool q_arena_free_quickly(struct q_arena *a, void *p);

/* Free what q_arena_look() found live in a. */
void q_arena_free(struct q_arena *a, void *p, const struct q_arena_spot *spot);

/* The same block, n bytes long; NULL where it would have to move. */
bool q_arena_resize(struct q_arena *a, void **p, size_t n, const struct q_arena_spot *spot);

/* fork */
void q_arena_fork_prepare(bool patient);
void q_arena_fork_parent(void);
void q_arena_fork_child(void);

/*
 * Set by src/cow before there is a heap with `sigbus`: this memory becomes such a heap's, or ceases
 * to be; nobody writes to it just then. Called with the arena locked.
 */
extern void (*q_arena_hook)(void *at, size_t bytes, bool ours);

/* Inside, arena_estate.c: pages for those; nr rounded as they are given. */
size_t q_estate_round(size_t nr);
struct q_page *q_estate_get(struct q_arena *a, size_t nr, unsigned order, bool zero);
void q_estate_put(struct q_arena *a, struct q_page *page);

/* Inside, arena_block.c: runs and mappings; pages for a chunk. */
struct q_page *q_arena_get_pages(struct q_arena *a, size_t nr, unsigned order, bool zero,
                                 enum q_owner_kind kind, void *info);
void q_arena_put_pages(struct q_arena *a, struct q_page *page);
struct q_page *q_arena_alloc_run(struct q_arena *a, size_t nr, unsigned order, bool zero);
void *q_arena_alloc_block(struct q_arena *a, size_t n, size_t align, bool zero);
void q_arena_free_block(struct q_arena *a, struct q_arena_block *b);
bool q_arena_resize_block(struct q_arena *a, struct q_arena_block *b, void **p, size_t n);
void q_arena_free_blocks(struct q_arena *a);

/* Inside, for going back: give the memory back that q_arena_free_block() would keep. */
void q_arena_end_chunk(struct q_arena *a, struct q_chunk *c);
void q_arena_end_block(struct q_arena *a, struct q_arena_block *b);

/* The block that begins at p; NULL. */
struct q_arena_block *q_arena_block_at(const void *p);

/* The address of a page, and the page of an address in any zone, NULL where there is none. */
char *q_arena_address_of(const struct q_page *page);
struct q_page *q_arena_page_of(const void *p);

#endif
