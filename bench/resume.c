/* resume.c - increments, and an image mapped back. See snapshot.h. */
#include <errno.h>
#include <fcntl.h>
#include <stdint.h>
#include <stdio.h>
#include <stdlib.h>
#include <sys/wait.h>
#include <unistd.h>

#include "snapshot.h"

#define TAKEN 42 /* exit status: the addresses are in use here */
#define TOUCHED 1000u

static int new_file(char *path, size_t size)
{
    const char *folder = getenv("TMPDIR");

    snprintf(path, size, "%s/quire-bench-XXXXXX", folder != NULL ? folder : "/tmp");
    return mkstemp(path);
}

/* In a process of its own: the image as memory, and the first use of some of its pages. */
int map_back(const char *fd)
{
    double t = now_us();
    quire_snapshot_t *s = quire_snapshot_load(atoi(fd));

    if (s == NULL || quire_snapshot_map(s) != 0)
        return s != NULL && errno == EEXIST ? TAKEN : 1;
    double mapped = now_us() - t;
    uint64_t rng = 88172645463325252u, sum = 0;
    struct quire_snapshot_range r;
    quire_snapshot_range(s, 0, &r);
    t = now_us();
    for (unsigned i = 0; i < TOUCHED; i++) {
        rng = rng * 6364136223846793005u + 1442695040888963407u;
        sum += ++((char *)r.start)[(rng >> 16) % r.size];
    }
    say("map", mapped);
    say("map_touch", (now_us() - t) / TOUCHED);
    return sum == 0;
}

void load_and_resume(void)
{
    char path[200], number[16];
    int fd = new_file(path, sizeof(path)), status = TAKEN << 8;
    quire_snapshot_t *s = quire_snapshot_take(NULL, QUIRE_SNAPSHOT_SIZES), *more;

    if (fd < 0 || s == NULL)
        return;
    unlink(path);
    if (quire_snapshot_save(s, fd, NULL, NULL) != 0)
        perror("quire_snapshot_save");
    write_pages(nr / 100, 100);
    more = take();
    int null = open("/dev/null", O_WRONLY);
    double t = now_us();
    if (quire_snapshot_save_since(more, s, null, NULL, NULL) != 0)
        perror("quire_snapshot_save_since");
    say("increment_ms", (now_us() - t) / 1000);
    close(null);
    quire_snapshot_release(more);
    quire_snapshot_release(s);
    snprintf(number, sizeof(number), "%d", fd);
    for (int i = 0; i < 20 && status == TAKEN << 8; i++) {
        lseek(fd, 0, SEEK_SET);
        pid_t pid = fork();
        if (pid == 0) {
            execl("/proc/self/exe", "snapshot", "--map", number, NULL);
            _exit(1);
        }
        waitpid(pid, &status, 0);
    }
    close(fd);
}
