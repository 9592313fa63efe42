/*
 * snapshot.h - the heap as it was at one instant, while the program goes on.
 *
 *   quire_snapshot_t *s = quire_snapshot_take(NULL, 0);     a pause of microseconds to milliseconds
 *   ... the program goes on, and changes what it likes ...
 *   quire_snapshot_save(s, fd, NULL, NULL);                 what the heap held when it was taken
 *   quire_snapshot_release(s);
 *
 * What is in it: every byte that malloc and its relatives had handed out when
 * the snapshot was taken, by whole pages (so also the free objects between
 * live ones). What is not: stacks, registers, static data, memory from
 * mmap or other allocators, and what a signal handler allocated while it
 * interrupted malloc.
 *
 * The cut. A write that was complete before quire_snapshot_take() returns
 * from protecting memory is in; a write that began later is out. If a thread
 * writes A and then B, no snapshot has the new B and the old A. It is not a
 * transaction: a thread that is in the middle of a change is cut in the
 * middle of it, as by fork(2). A system call that writes into several pages
 * may be cut between two of them.
 *
 * Not seen by any of this: memory that the kernel or a device writes through
 * pages it pinned before the cut (io_uring's fixed buffers, O_DIRECT reads
 * in flight, RDMA). The same holds for madvise(MADV_DONTNEED), munmap and
 * mremap that the program itself applies to malloc's memory.
 *
 * Threads. All functions may be called by any thread and at the same time,
 * but none from a signal handler. Whoever releases a snapshot must know that
 * no other thread still uses it. A child of fork(2) cannot use its parent's
 * snapshots: functions fail with ESTALE, except quire_snapshot_release().
 * It may take its own.
 *
 * All functions set errno where they fail, and leave it alone otherwise.
 */
#ifndef QUIRE_SNAPSHOT_H
#define QUIRE_SNAPSHOT_H

#include <stddef.h>
#include <stdint.h>
#include <sys/types.h>

#ifdef __cplusplus
extern "C" {
#endif

typedef struct quire_snapshot quire_snapshot_t;

/*
 * Flags of quire_snapshot_take(). QUIRE_SNAPSHOT_HOLDER: by an idle child
 * process instead of write protection. That is chosen anyhow where
 * userfaultfd(2) is refused; the pause is then that of fork(2).
 */
#define QUIRE_SNAPSHOT_HOLDER 1u

/* And: one that quire_snapshot_restore() can go back to. By write protection only. */
#define QUIRE_SNAPSHOT_ROLLBACK 2u

/*
 * Or: the pause does not grow with a heap in pages of 4 KiB. Its page tables
 * are moved aside, and it is protected and moved back in pieces of 2 MiB, in
 * the background or when somebody touches one; that takes about as long in all
 * as fork(2), and each first touch meanwhile some 100 us. Where the kernel
 * lacks what it takes, as without the flag. Not for heaps in huge pages, whose
 * plain cut is quicker still. fork() and every function here that needs the
 * heap in one piece wait for the end of it. Not for programs that make
 * children by _Fork() or clone() without CLONE_VM meanwhile: those would see
 * zeroes.
 */
#define QUIRE_SNAPSHOT_LAZY 4u

/*
 * Added to any of these but QUIRE_SNAPSHOT_ROLLBACK: note where each block begins and how long it
 * is, so that quire_snapshot_map() can bring an image of it back. Allocating pages waits for that,
 * about 1 ms for each GiB.
 */
#define QUIRE_SNAPSHOT_SIZES 16u

/*
 * Take a snapshot. heap is NULL: all memory of quire's. Or a heap of
 * quire_heap_create()'s, not in a special zone: then it shows the memory of that
 * one only, and is taken in time by that; no flags but QUIRE_SNAPSHOT_HOLDER
 * or QUIRE_SNAPSHOT_ROLLBACK.
 * NULL and errno:
 *   EINVAL    heap is none, is another thread's or in a special zone; or a flag
 *             is unknown or does not go with it
 *   ENOMEM    no memory for its book-keeping, or nothing was ever allocated
 *   EAGAIN    no thread or process can be made for it, or realloc() in other
 *             threads moved large blocks without a pause for ten seconds
 *   EPERM     neither userfaultfd nor reading a child process is allowed
 * and with QUIRE_SNAPSHOT_ROLLBACK:
 *   EBUSY     another thread is inside malloc (not of one heap)
 *   EDEADLK   the calling thread's stack lies in the heap
 *   ENOTSUP   userfaultfd is refused; or it is to be of all memory, in the
 *             sparse memory model
 */
quire_snapshot_t *quire_snapshot_take(void *heap, unsigned flags);

/*
 * Forget it; frees what was kept for it. 0, or -1 and errno:
 *   EBUSY     an increment that was loaded onto it is not released yet; or it is
 *             for going back with one heap, and a newer one of all memory is too
 *   EINVAL    it is not a snapshot, or was released; or it is for going back with
 *             a heap that has an owner, and that is another thread
 */
int quire_snapshot_release(quire_snapshot_t *snap);

/*
 * [p, p + len) is about to be written: save now what snapshots need of it. Writing then costs no
 * fault, and system calls may write there in any heap (QUIRE_HEAP_SIGBUS), until the next snapshot
 * is taken. Any memory will do that the caller may read; what no snapshot needs is left alone. A page
 * costs about as much as the kernel's copy after fork(2), less where `len` is many pages or pages
 * are touched one after the other; one that was saved before some 20 to 50 ns, and all of it a load
 * and a compare while no snapshot is alive. Any thread, also in a signal handler.
 */
void quire_snapshot_touch(const void *p, size_t len);

/*
 * Go back: the heap's memory, and what of it is allocated, are as when the
 * snapshot was taken. Blocks allocated since are gone, freed and resized ones
 * are back where they were, with their content. The snapshot lives on, and
 * can be gone back to as often as one likes; rounds that change little cost
 * little.
 *
 * Rules, of which only some can be checked:
 *  - At the cut and while this runs, no other thread is inside malloc, reads
 *    or writes the heap, or uses another function of this header.
 *  - No thread starts or ends between the cut and this.
 *  - It is the newest snapshot: those taken later are released first.
 *  - Pointers to the heap that lie elsewhere (stack, registers, static data)
 *    stay as they are, and dangle where they point to what was allocated
 *    since. libc has such, too: the buffer that stdio gets at a stream's
 *    first use, FILE and DIR objects, locales, loaded objects. Have them
 *    made before the cut, or gone before this. And what lies in the heap
 *    is as it was even if it stands for something outside, such as an open
 *    file, which is not put back. The snapshot's own handle is best kept outside.
 *  - The stack of the calling thread does not lie in the heap.
 *  - What a signal handler allocated or freed while it interrupted malloc
 *    is left as it is.
 *
 * A snapshot of one heap takes back that heap, and nothing else: malloc, other
 * heaps and other threads go on meanwhile, and threads may come and go. Then
 * the rules are:
 *  - While this runs nobody else uses the heap or what lies in it. Of one with
 *    an owner, only the owner calls this.
 *  - Newer snapshots of it, or of all memory, are released first.
 *  - Pointers into it from outside, and what lies in it and points out, stay
 *    what they are.
 * What the heap frees between the cut and the snapshot's release stays its own
 * and counts against its limit, since it may come back; so quire_heap_reset()
 * gives none of that back, and blocks above 32 KiB that were there at the cut
 * are copied where they are resized. In a child of fork that lasts until the
 * child releases its handle.
 *
 * 0, or -1 with errno and nothing changed:
 *   EINVAL    not a snapshot taken with QUIRE_SNAPSHOT_ROLLBACK; or its heap was
 *             destroyed, or is another thread's
 *   EBUSY     a newer snapshot is alive; threads came or went since the cut;
 *             or another thread is inside malloc
 *   EDEADLK   the calling thread's stack lies in the heap, and did at the cut
 *   ENOBUFS   as of quire_snapshot_read(); or what changed in the heap could not
 *             be noted for want of memory
 *   ESTALE, EIO   as of quire_snapshot_read()
 */
int quire_snapshot_restore(quire_snapshot_t *snap);

/*
 * Copy size bytes from addr, as they were, to buf. Returns the bytes copied:
 * fewer where the snapshot ends before addr + size. -1 and errno:
 *   EFAULT    addr is not in the snapshot (any more), or the program made it unreadable
 *   ENOBUFS   the budget for copied pages was used up: the snapshot is lost
 *   ESTALE    taken by another process, before fork
 *   EIO       its page could not be kept, or its image or child process is gone
 */
ssize_t quire_snapshot_read(const quire_snapshot_t *snap, const void *addr, void *buf, size_t size);

/*
 * Drop what lies below `end` (by whole pages) from the snapshot: reading there fails with EFAULT
 * from now on, what was copied of it is freed, and where no other snapshot needs it, writing there
 * costs nothing any more. For who goes through a snapshot once, by ascending address. 0, or -1 and
 * errno:
 *   EINVAL    an image that was loaded, or taken with QUIRE_SNAPSHOT_ROLLBACK
 *   EBUSY     there is a view of it, or a branch
 *   ENOBUFS, ESTALE, EIO   as of quire_snapshot_read()
 */
int quire_snapshot_drop(quire_snapshot_t *snap, const void *end);

/* A stretch of memory in the snapshot: whole pages that were in use. */
struct quire_snapshot_range {
    void *start;
    size_t size;
};

/*
 * The index-th stretch, by ascending address, from 0 on. 0, or -1 with
 * ENOENT past the last one.
 */
int quire_snapshot_range(const quire_snapshot_t *snap, size_t index,
                         struct quire_snapshot_range *range);

/*
 * Call fn for each object of a cache (quire/slab.h) that was live at the cut, by ascending address:
 * with the address that it had, whose content quire_snapshot_read() has. For the process that took
 * the snapshot, of all memory. An object that another thread was allocating or freeing at that
 * instant may be among them, or not. Where fn returns other than 0 it ends with ECANCELED. 0, or -1
 * and errno:
 *   EINVAL    the cache did not exist at the cut; or this is a loaded image
 *   EFAULT    a snapshot of one heap; or it was dropped so far that what says which objects there
 *             were is gone
 *   ENOMEM, ENOBUFS, ESTALE, EIO   as of quire_snapshot_read()
 */
struct quire_cache;
int quire_snapshot_objects(const quire_snapshot_t *snap, const struct quire_cache *cache,
                           int (*fn)(void *arg, const void *object), void *arg);

/*
 * Make the whole snapshot readable in memory, at a constant distance from
 * where it was: *distance is what to add to an old address. Pages come on
 * first touch. Reading only; ends with the snapshot. A second call gives the
 * same view. 0, or -1 with errno:
 *   ENOTSUP   there is no userfaultfd: use quire_snapshot_read()
 *   ENOMEM    not enough address space
 *   EFAULT    some of the snapshot was dropped
 * Touching a page of a view whose snapshot was lost since (ENOBUFS) raises
 * SIGBUS: quire_snapshot_stat() tells before.
 */
int quire_snapshot_view(quire_snapshot_t *snap, ptrdiff_t *distance);

/* Where the view shows what was at p; NULL and EFAULT where p was not in the heap. Makes the view. */
const void *quire_snapshot_ptr(quire_snapshot_t *snap, const void *p);

/*
 * Write an image of the snapshot to fd, from its present position on; a pipe
 * will do. Pages of zeroes are left out; all else is checked by CRC-32C.
 * progress, where it is not NULL, is called now and then with the bytes of
 * memory seen so far and in all; where it returns other than 0, saving ends
 * with ECANCELED. 0, or -1 with errno as of quire_snapshot_read() or write(2).
 */
int quire_snapshot_save(quire_snapshot_t *snap, int fd,
                        int (*progress)(void *arg, size_t done, size_t total), void *arg);

/*
 * The same for a snapshot that is of no use afterwards: what has been written is dropped
 * (quire_snapshot_drop()) as it goes, so that saving takes the memory of what the program changes
 * before it has been saved, not of all that it changes meanwhile. The snapshot is then empty, or
 * what is left of it where saving failed; it is released as any other. Also EINVAL and EBUSY, as
 * of quire_snapshot_drop(), with nothing written.
 */
int quire_snapshot_drain(quire_snapshot_t *snap, int fd,
                         int (*progress)(void *arg, size_t done, size_t total), void *arg);

/*
 * Write an increment: what differs from `older`, an earlier snapshot that was saved or one that
 * was loaded. Pages that nobody wrote between two snapshots by protection are not looked at. It
 * names older's images by an id that all of them have, and no others. The rest is as of
 * quire_snapshot_save(); also
 *   EINVAL    older was never saved, or was dropped from, or is snap itself
 */
int quire_snapshot_save_since(quire_snapshot_t *snap, quire_snapshot_t *older, int fd,
                              int (*progress)(void *arg, size_t done, size_t total), void *arg);

/*
 * An address that goes into the images saved from then on, such as that of the structure by which
 * a program finds all others; and what a loaded image has there: NULL where nothing was set.
 * Setting: 0, or -1 and ESTALE or EINVAL.
 */
int quire_snapshot_set_root(quire_snapshot_t *snap, const void *root);
void *quire_snapshot_root(const quire_snapshot_t *snap);

/*
 * Open the image that begins at fd's present position, a regular file or
 * block device. The result is read, viewed and released like a snapshot that
 * was just taken; addresses are those of the program that saved it. Pages
 * are read when they are wanted: the file must stay as it is; fd may be
 * closed. NULL and errno:
 *   EBADMSG   not an image, or damaged, or cut short
 *   ENOTSUP   an image of another version or page size
 *   ENODATA   an increment: quire_snapshot_load_onto() its base
 *   ENOMEM, EMFILE, or as of pread(2)
 */
quire_snapshot_t *quire_snapshot_load(int fd);

/*
 * The same for an increment, onto its base, which was loaded before and may be an increment
 * itself. The base is released after it. Also
 *   EXDEV     the increment of another base
 *   EINVAL    not an increment, or base is not a loaded image
 */
quire_snapshot_t *quire_snapshot_load_onto(quire_snapshot_t *base, int fd);

/*
 * Map a loaded image, that was taken with QUIRE_SNAPSHOT_SIZES, back as memory: at the addresses
 * where it was, readable and writable, a page at a time as it is touched first. What is written
 * stays in this process. All pointers within are good again, and quire_snapshot_root() is where to
 * begin; pointers to functions, static data and what libc keeps are those of another process.
 *
 * The memory stays until the process ends, also after quire_snapshot_release(). It is in later
 * snapshots. Where the file is not in memory (tmpfs, memfd), userfaultfd does not serve it, so
 * those are made by a holder process.
 *
 * Its blocks may be given to free() and realloc(). Freed memory is not used again, and what was
 * freed before the image was saved, or twice, is not noticed; realloc() moves a block that grows
 * into the heap. malloc_usable_size() is right.
 *
 * The file must not change while it is mapped: pages are not checked as they are touched, so
 * quire_snapshot_verify() it first where it may be damaged. 0, or -1 with errno and nothing mapped:
 *   EEXIST    some of the addresses are in use here. That is so in one of some thirty starts, as
 *             address space is laid out at random: start anew
 *   ENOTSUP   the image was taken without QUIRE_SNAPSHOT_SIZES
 *   EINVAL    not a loaded image, or it begins in its file at no multiple of a page
 *   ENOMEM    no memory, or more mappings than vm.max_map_count
 *   EIO       a page could not be read, or is damaged
 */
int quire_snapshot_map(quire_snapshot_t *snap);

/*
 * Read all of a loaded image and compare its checksums. (Reading single
 * pages compares theirs, too, and fails with EIO.) 0, or -1 with EBADMSG.
 */
int quire_snapshot_verify(quire_snapshot_t *snap);

enum quire_snapshot_method {
    QUIRE_SNAPSHOT_BY_PROTECTION = 1, /* userfaultfd write protection */
    QUIRE_SNAPSHOT_BY_HOLDER = 2,     /* an idle child process */
    QUIRE_SNAPSHOT_BY_IMAGE = 3,      /* quire_snapshot_load() */
};

struct quire_snapshot_stat {
    int method;                /* enum quire_snapshot_method */
    int error;                 /* 0, or the errno of whoever reads it from now on */
    uint64_t pause_ns;         /* how long writers were held up by the cut */
    uint64_t take_ns;          /* how long quire_snapshot_take() took */
    uint64_t bytes;            /* memory in it */
    uint64_t ranges;           /* in so many stretches */
    uint64_t faults;           /* first writes since it was taken; all snapshots together */
    uint64_t saved_bytes;      /* copied because of them; all snapshots together */
    uint64_t held_bytes;       /* copies held now; all snapshots together */
    uint64_t longest_stall_ns; /* longest time it took to serve one of them */
    uint64_t restores;         /* times it was gone back to */
    uint64_t restored_pages;   /* and pages that had to be put back then */
    uint64_t moved_bytes;      /* moved aside at the cut, with QUIRE_SNAPSHOT_LAZY */
    uint64_t touched_bytes;    /* of saved_bytes, by quire_snapshot_touch() */
    uint64_t sigbus_faults; /* of faults, served by the writing thread itself (QUIRE_HEAP_SIGBUS) */
    const char *why_not;    /* why not by protection; NULL where it is */
};

/* Fill *stat. 0, or -1 and ESTALE. */
int quire_snapshot_stat(const quire_snapshot_t *snap, struct quire_snapshot_stat *stat);

/*
 * Bytes of copied pages that all snapshots together may hold, at most; the
 * default is half of physical memory. A write that would need more makes all
 * snapshots fail with ENOBUFS and lets the program go on. Takes effect while
 * there are no snapshots: else -1 and EBUSY.
 */
int quire_snapshot_budget(size_t bytes);

#ifdef __cplusplus
}
#endif

#endif
