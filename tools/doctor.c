/*
 * quire doctor: which of quire's ways work on this machine, and what to change for a better one.
 *
 * It tries things rather than trusting version numbers, as the user who runs it: containers and
 * seccomp filters differ from process to process.
 */
#include "tool.h"

#include <errno.h>
#include <fcntl.h>
#include <linux/userfaultfd.h>
#include <signal.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/ioctl.h>
#include <sys/syscall.h>
#include <sys/wait.h>
#include <unistd.h>

#define WP_UNPOPULATED (1ull << 13)
#define USER_MODE_ONLY 1
#define FORK_SHARED                                                                                \
    (WP_UNPOPULATED | 1ull << 12 | 1ull << 10) /* protection and minor faults of shmem */

static int problems;

static void good(const char *what, const char *how)
{
    printf("  ok    %-24s %s\n", what, how);
}

static void advise(const char *what, const char *how, const char *advice)
{
    printf("  note  %-24s %s\n        -> %s\n", what, how, advice);
    problems++;
}

/* One line of a small file, without its end; empty where there is none. */
static void read_line(const char *path, char *line, size_t size)
{
    int fd = open(path, O_RDONLY | O_CLOEXEC);
    ssize_t n = fd >= 0 ? read(fd, line, size - 1) : 0;

    if (fd >= 0)
        close(fd);
    line[n > 0 ? n : 0] = '\0';
    line[strcspn(line, "\n")] = '\0';
}

/* As the library opens it: the device, then the system call. */
static int open_userfaultfd(const char **how)
{
    int dev = open("/dev/userfaultfd", O_RDWR | O_CLOEXEC), fd = -1;

    if (dev >= 0) {
        fd = ioctl(dev, _IO(0xAA, 0), O_CLOEXEC);
        close(dev);
        *how = "by /dev/userfaultfd";
    }
    if (fd < 0) {
        fd = (int)syscall(SYS_userfaultfd, O_CLOEXEC);
        *how = "by system call";
    }
    return fd;
}

static const char *why_no_userfaultfd(int error)
{
    char value[16], mode[16] = "";
    char status[4096];
    const char *seccomp;

    if (error == ENOSYS)
        return "a kernel with CONFIG_USERFAULTFD is needed";
    read_line("/proc/sys/vm/unprivileged_userfaultfd", value, sizeof(value));
    int fd = open("/proc/self/status", O_RDONLY | O_CLOEXEC);
    ssize_t n = fd >= 0 ? read(fd, status, sizeof(status) - 1) : 0;
    if (fd >= 0)
        close(fd);
    status[n > 0 ? n : 0] = '\0';
    seccomp = strstr(status, "\nSeccomp:");
    if (seccomp != NULL && sscanf(seccomp, "\nSeccomp: %15s", mode) == 1 && strcmp(mode, "0") != 0)
        return "a seccomp filter is in force (a container?): allow userfaultfd in it, or for Docker "
               "--security-opt seccomp=PROFILE; and --device /dev/userfaultfd";
    if (strcmp(value, "0") == 0)
        return "as root: sysctl vm.unprivileged_userfaultfd=1, or chmod 0666 /dev/userfaultfd";
    return "run as root, or with CAP_SYS_PTRACE";
}

/* True where snapshots work by write protection. */
static bool check_protection(void)
{
    struct uffdio_api api = {.api = UFFD_API};
    const char *how = "";
    int fd = open_userfaultfd(&how);

    if (fd < 0) {
        advise("userfaultfd", strerror(errno), why_no_userfaultfd(errno));
        return false;
    }
    int failed = ioctl(fd, UFFDIO_API, &api);
    close(fd);
    if (failed != 0 || (api.features & UFFD_FEATURE_PAGEFAULT_FLAG_WP) == 0) {
        advise("write protection", "not by this kernel", "Linux 5.7 on x86-64, 6.10 on arm64");
        return false;
    }
    good("userfaultfd", how);
    if ((api.features & WP_UNPOPULATED) != 0)
        good("untouched pages", "can be protected");
    else
        advise("untouched pages", "must be touched before each cut", "Linux 6.4 needs no touching");
    return true;
}

/* True where a child process can be read. */
static bool check_holder(void)
{
    char path[64], scope[16], c = 0;
    static char mark = 'q';
    pid_t pid = fork();

    if (pid == 0) {
        for (;;)
            pause();
    }
    if (pid < 0) {
        advise("holder process", strerror(errno), "raise the limit on processes (ulimit -u)");
        return false;
    }
    snprintf(path, sizeof(path), "/proc/%d/mem", (int)pid);
    int fd = open(path, O_RDONLY | O_CLOEXEC);
    bool ok = fd >= 0 && pread(fd, &c, 1, (off_t)(uintptr_t)&mark) == 1 && c == mark;
    if (fd >= 0)
        close(fd);
    kill(pid, SIGKILL);
    waitpid(pid, NULL, 0);
    if (ok) {
        good("holder process", "can be read: serves where protection does not");
        return true;
    }
    read_line("/proc/sys/kernel/yama/ptrace_scope", scope, sizeof(scope));
    advise("holder process", "cannot be read",
           strcmp(scope, "2") >= 0 ? "as root: sysctl kernel.yama.ptrace_scope=1"
                                   : "mount /proc, and allow reading /proc/PID/mem");
    return false;
}

static void check_huge(void)
{
    char mode[128];

    read_line("/sys/kernel/mm/transparent_hugepage/enabled", mode, sizeof(mode));
    if (strstr(mode, "[madvise]") != NULL || strstr(mode, "[always]") != NULL)
        good("huge pages", mode);
    else
        advise("huge pages", mode[0] != '\0' ? mode : "none",
               "as root: echo madvise >/sys/kernel/mm/transparent_hugepage/enabled; snapshots and "
               "forks of large heaps then pause a thirtieth as long");
}

static void check_maps(void)
{
    char count[32];

    read_line("/proc/sys/vm/max_map_count", count, sizeof(count));
    if (atol(count) >= 65530)
        good("vm.max_map_count", count);
    else
        advise("vm.max_map_count", count, "as root: sysctl vm.max_map_count=65530");
}

/* What fork:shared takes beyond write protection; see src/cow/share.c. */
static void check_fork(bool protection)
{
    struct uffdio_api api = {.api = UFFD_API};
    const char *how;
    int fd = protection ? open_userfaultfd(&how) : -1;
    bool ok =
        fd >= 0 && ioctl(fd, UFFDIO_API, &api) == 0 && (api.features & FORK_SHARED) == FORK_SHARED;

    if (fd >= 0)
        close(fd);
    if (ok && access("/proc/self/pagemap", R_OK) == 0)
        good("quire_fork", "in constant time, with QUIRE_CONF=fork:shared");
    else
        advise("quire_fork", "as fork(2)",
               "userfaultfd, Linux 6.4 and /proc/PID/pagemap are needed");
}

/* What heaps with QUIRE_HEAP_SIGBUS take; no privilege. See src/cow/sigbus.c. */
static void check_sigbus(void)
{
    struct uffdio_api api = {.api = UFFD_API};
    int fd = (int)syscall(SYS_userfaultfd, O_CLOEXEC | USER_MODE_ONLY);
    bool ok = fd >= 0 && ioctl(fd, UFFDIO_API, &api) == 0 &&
              (api.features & (WP_UNPOPULATED | UFFD_FEATURE_SIGBUS)) ==
                  (WP_UNPOPULATED | UFFD_FEATURE_SIGBUS);

    if (ok)
        good("QUIRE_HEAP_SIGBUS", "its writers save pages themselves");
    else
        advise("QUIRE_HEAP_SIGBUS", "as without it",
               fd < 0 ? why_no_userfaultfd(errno) : "Linux 6.4 is needed");
    if (fd >= 0)
        close(fd);
}

int cmd_doctor(int argc, char **argv)
{
    if (argc > 1) {
        bool help = strcmp(argv[1], "--help") == 0 || strcmp(argv[1], "-h") == 0;

        fputs(help ? "Usage: quire doctor\n"
                     "Say how snapshots will be made here, and what to change for a better way.\n"
                     "Exit status: 0 by write protection, 1 by a holder process, 3 not at all.\n"
                   : "quire doctor takes no arguments\n",
              help ? stdout : stderr);
        return help ? 0 : EXIT_USAGE;
    }
    puts("snapshots (quire_snapshot_take):");
    fflush(stdout);
    bool protection = check_protection(), holder = check_holder();
    check_sigbus();
    check_huge();
    check_maps();
    check_fork(protection);
    if (protection)
        puts("in force: write protection");
    else if (holder)
        puts("in force: a holder process, whose pause is that of fork");
    else
        puts("in force: nothing; quire_snapshot_take() will fail with EPERM");
    if (problems > 0)
        printf("%d thing%s could be better\n", problems, problems > 1 ? "s" : "");
    return protection ? 0 : (holder ? 1 : 3);
}
