/* family.c - see family.h. */
#include "family.h"

#include <signal.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/prctl.h>
#include <unistd.h>

static int method_at_start;

static int fork_method(const char **why_not)
{
    struct quire_fork_stat st;

    REQUIRE(quire_fork_stat(&st) == 0);
    *why_not = st.why_not;
    return st.method;
}

void begin_afresh(const char *name)
{
    const char *why_not;

    method_at_start = fork_method(&why_not);
    if (getenv("FAMILY_AFRESH") != NULL)
        return;
    setenv("FAMILY_AFRESH", "1", 1);
    execl("/proc/self/exe", "afresh", name, (char *)NULL);
    conform_skip("cannot exec itself: %s", strerror(errno));
}

void need_sharing(void)
{
    const char *why_not;

    if (fork_method(&why_not) != QUIRE_FORK_SHARED)
        conform_skip("%s", why_not);
}

void end_sharing(void)
{
    const char *why_not;

    CHECK(fork_method(&why_not) == method_at_start, "%s", why_not);
    conform_end();
}

static uint64_t mix(uint64_t index, uint64_t version)
{
    return (index * 0x9e3779b97f4a7c15u) ^ (version * 0xbf58476d1ce4e5b9u);
}

void table_make(struct table *t, size_t nr, size_t size)
{
    *t = (struct table){.nr = nr, .size = size, .at = calloc(nr, sizeof(*t->at))};
    REQUIRE(t->at != NULL);
    for (size_t i = 0; i < nr; i++) {
        t->at[i] = malloc(size);
        REQUIRE(t->at[i] != NULL);
        memset(t->at[i], (int)i, size);
        t->at[i]->index = i;
        table_set(t, i, 0);
    }
}

void table_set(const struct table *t, size_t i, uint64_t version)
{
    t->at[i]->version = version;
    t->at[i]->check = mix(i, version);
}

size_t table_check(const struct table *t, uint64_t *sum)
{
    size_t bad = 0;

    *sum = 0;
    for (size_t i = 0; i < t->nr; i++) {
        const struct record *r = t->at[i];
        const unsigned char *last = (const unsigned char *)r + t->size - 1;

        *sum += r->version;
        /* A thread may have been in the middle of a record: one of its two words is then older. */
        bad += r->index != i || *last != (unsigned char)i ||
               (r->check != mix(i, r->version) && r->check != mix(i, r->version - 1));
    }
    return bad;
}

size_t table_not(const struct table *t, uint64_t version)
{
    size_t bad = 0;

    for (size_t i = 0; i < t->nr; i++)
        bad += t->at[i]->index != i || t->at[i]->version != version ||
               t->at[i]->check != mix(i, version);
    return bad;
}

pid_t child(void)
{
    pid_t pid = quire_fork();

    if (pid == 0) {
        prctl(PR_SET_PDEATHSIG, SIGKILL, 0, 0, 0);
        conform_alarm(120);
    }
    return pid;
}

void child_end(int ok)
{
    _exit(ok ? 0 : 1);
}

int tell(int fd)
{
    return write(fd, "x", 1) == 1;
}

int hear(int fd)
{
    char c;

    return read(fd, &c, 1) == 1;
}

pid_t waiting_child(const struct table *t, int go[2], uint64_t version)
{
    REQUIRE(pipe(go) == 0);
    pid_t pid = child();
    if (pid == 0) {
        close(go[1]);
        hear(go[0]);
        child_end(table_not(t, version) == 0);
    }
    REQUIRE(pid > 0, "errno %d", errno);
    close(go[0]);
    return pid;
}
