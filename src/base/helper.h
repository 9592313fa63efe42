/*
 * helper.h - the library's own threads, and the end of a program that has no
 * other left.
 *
 * libc ends a process with its last thread, and takes ours for such. So a
 * program whose main thread has ended by pthread_exit(3) would stay when its
 * other threads have ended, too, and no signal would end it, because ours
 * block all of them. One of ours looks now and then (kswapd.c, keeper.c), and
 * does what libc would have done.
 */
#ifndef Q_BASE_HELPER_H
#define Q_BASE_HELPER_H

#include <stdbool.h>

/* In each thread of ours, at its beginning; and at its end, where it has one. */
void q_helper_begin(void);
void q_helper_end(void);

/* Whether a thread of this process is no more: one of ours ends alone where a filter (seccomp) kills it. */
bool q_helper_is_gone(int tid);

/* Threads of the process, ours among them; 0: no /proc. One that just ended may still count. */
unsigned q_count_threads(void);

/* Whether the main thread has ended, and no other than ours is left. False, too, without /proc. */
bool q_program_is_gone(void);

/* exit(0), with whatever signal waits first; in a thread with the program's descriptors. */
void q_program_end(void);

#endif
