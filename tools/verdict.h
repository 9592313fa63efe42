/*
 * Does quire serve a process, and if not, why?
 */
#ifndef QUIRE_TOOLS_VERDICT_H
#define QUIRE_TOOLS_VERDICT_H

#include <stdbool.h>
#include <stdint.h>
#include <sys/types.h>

enum verdict_state {
    VERDICT_SERVED,   /* yes: quire is at work and is the process's malloc */
    VERDICT_IDLE,     /* quire is there but has served nothing (yet) */
    VERDICT_BYPASSED, /* quire is there but another malloc comes first */
    VERDICT_ABSENT,   /* quire is not in the process */
    VERDICT_UNKNOWN,  /* no such process, or no right to look */
};

struct verdict {
    enum verdict_state state;
    bool loading;     /* libc is not there yet: an absent quire may still come */
    bool bound;       /* the process's malloc is known to be quire's */
    char version[16]; /* of the quire in the process; "" where there is none */
    char why[512];    /* the reason, for people; "" for VERDICT_SERVED */
};

void verdict_of(pid_t pid, struct verdict *v);

#endif
