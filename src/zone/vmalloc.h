/*
 * vmalloc.h - blocks with a mapping of their own.
 *
 * What is larger than the largest buddy block comes from mmap, grows and
 * shrinks by mremap and goes back by munmap. A table finds the block of a
 * start address; it is a hash with linear probing, keyed by address >> 12.
 *
 * Freed blocks rest in a small cache for the decay time, because a program
 * that frees 10 MiB often wants 10 MiB again, and because faulting pages in
 * costs more than anything else here. A request takes a cached block of
 * about its size (half to twice) and has it remapped to length. What rests
 * is at most an eighth of what is in use, so it adds little to the peak.
 *
 * Lock: vm_lock guards table and cache; system calls that may take long
 * (munmap of large blocks) run outside it. Nothing is taken while it is held.
 */
#ifndef Q_ZONE_VMALLOC_H
#define Q_ZONE_VMALLOC_H

#include "zone/memmap.h"

/*
 * At least `bytes` at a multiple of align (a power of two; at least a page
 * is kept in any case). All but the first *dirty bytes are known to be zero.
 * NULL: no memory, no address space, or the limit.
 */
void *q_vmalloc(size_t bytes, size_t align, size_t *dirty);

/* Bytes of the block that begins at p; 0 where none does. */
size_t q_vsize(const void *p);

/* Free the block at p; false where none begins there. */
bool q_vfree(void *p);

/*
 * In a forked child: nobody is moving a block any more. One that another
 * thread was moving is lost. `torn`: the fork copied the table and the cache
 * in the middle of a change.
 */
void q_vmalloc_fork_child(bool torn);

/* Make the block at p `bytes` long, moving it if need be. NULL: no memory, the block stays as it is. */
void *q_vrealloc(void *p, size_t bytes);

/* Some block that holds p, for messages: slow. */
bool q_vfind(const void *p, void **start, size_t *size);

/* Whether p lies in a block that was freed and rests in the cache. */
bool q_vresting(const void *p);

/* Unmap cached blocks that have rested long enough; all of them where force is set. Returns bytes. */
size_t q_vtrim(bool force);

/* Bytes that rest there: a hint, read without the lock. */
size_t q_vcached(void);

struct q_vstat {
    size_t blocks, bytes;               /* in use */
    size_t cached_blocks, cached_bytes; /* resting */
};
void q_vstat(struct q_vstat *st);

/* The same with q_vm_lock held. */
struct q_vstat q_vstat_locked(void);

/* Call fn for every block in use; q_vm_lock held. */
void q_veach(void (*fn)(void *arg, void *addr, size_t bytes), void *arg);

/*
 * The first block in use at or after a slot of the table: its slot, address
 * and length; Q_VEND where there is none. From slot 0 on, slot + 1 after each,
 * all that stay where they are come by.
 */
#define Q_VEND (~(size_t)0)
size_t q_vnext(size_t slot, void **addr, size_t *bytes);

/* No block is on its way from one address to another, and so in no table; q_vm_lock held. */
bool q_vsettled(void);

/*
 * Going back to an earlier state; q_vm_lock held. q_vchanges() differs
 * whenever the table may. q_vforget() empties the table and the cache, and
 * unmaps all blocks but those that `spare` says yes to; q_vadopt() enters one.
 */
size_t q_vchanges(void);
void q_vforget(bool (*spare)(void *arg, const void *addr), void *arg);
void q_vadopt(void *addr, size_t bytes);

extern struct q_lock q_vm_lock;

#endif
