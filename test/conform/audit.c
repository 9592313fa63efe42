/*
 * audit.c - the allocator beside an auditing library (LD_AUDIT), which lives in a namespace and
 * with a libc of its own.
 *
 * Two auditors: one that uses its own libc's malloc, and one that was linked with the allocator
 * under test, so that two instances of it serve one process. CONFORM_AUDIT names both, separated
 * by ':'.
 */
#include "conform.h"

#include <pthread.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <unistd.h>

static void run_audited(const char *auditor)
{
    char fd_text[16], answer[64] = "";
    int ends[2];
    ssize_t got;
    pid_t pid;

    REQUIRE(access(auditor, R_OK) == 0, "no auditor at %s", auditor);
    REQUIRE(pipe(ends) == 0);
    fflush(stdout);
    pid = fork();
    if (pid == 0) {
        close(ends[0]);
        snprintf(fd_text, sizeof(fd_text), "%d", ends[1]);
        setenv("CONFORM_AUDIT_FD", fd_text, 1);
        setenv("LD_AUDIT", auditor, 1);
        execl("/proc/self/exe", "audit", "--audited", (char *)NULL);
        _exit(126);
    }
    close(ends[1]);
    CHECK(conform_child_ok(pid, auditor));
    got = read(ends[0], answer, sizeof(answer) - 1);
    close(ends[0]);
    CHECK(got > 0 && strcmp(answer, "auditor's blocks are intact\n") == 0, "the auditor said '%s'",
          answer);
}

static const char *auditor(int which)
{
    static char list[4096];
    const char *all = getenv("CONFORM_AUDIT");
    char *second;

    if (all == NULL) {
        conform_skip("CONFORM_AUDIT does not say where the auditors are");
    }
    snprintf(list, sizeof(list), "%s", all);
    second = strchr(list, ':');
    REQUIRE(second != NULL);
    *second++ = '\0';
    return which == 0 ? list : second;
}

static void case_own_libc(void)
{
    run_audited(auditor(0));
}

static void case_linked(void)
{
    run_audited(auditor(1));
}

static void *thread_body(void *unused)
{
    for (size_t size = 1; size < 3u << 20; size *= 3) {
        free(calloc(1, size));
    }
    return malloc(1000);
}

/* The audited program: allocates from several threads while the auditor watches it bind. */
static int audited(void)
{
    void *block;

    for (int i = 0; i < 8; i++) {
        pthread_t thread;

        if (pthread_create(&thread, NULL, thread_body, NULL) != 0 ||
            pthread_join(thread, &block) != 0 || block == NULL) {
            return 1;
        }
        free(block);
    }
    return 0;
}

static const struct conform_case cases[] = {
    {"an auditor with its own libc", case_own_libc, 0},
    {"an auditor linked with the allocator", case_linked, 0},
};

int main(int argc, char **argv)
{
    if (argc == 2 && strcmp(argv[1], "--audited") == 0) {
        return audited();
    }
    return conform_run(cases, COUNT_OF(cases), argc, argv);
}
