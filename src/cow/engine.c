/*
 * engine.c - the descriptor and its threads: made once, kept.
 *
 * There is one on each CPU, up to Q_MAX_HANDLERS. A first write wakes all of
 * them; the one on the writer's own CPU mostly comes first, because waking
 * another, idle CPU takes several times as long (6 to 10 us against 70,
 * measured). They serve one after the other, under q_store.lock.
 *
 * The threads are libc's (pthread_create), so that setuid() and its like
 * reach them, but live on stacks of ours, have all signals blocked, and never
 * run code of the program. Each handler has a table of descriptors of its own
 * with nothing in it but userfaultfd: the program may close what is open
 * (closefrom(3)) without stopping it, and a number that the program then uses
 * anew is not read from. keeper.c looks after them.
 */
#include <fcntl.h>
#include <pthread.h>
#include <sched.h>
#include <signal.h>
#include <sys/prctl.h>
#include <sys/resource.h>
#include <time.h>

#include "base/helper.h"
#include "base/msg.h"
#include "cow/cow.h"
#include "cow/share.h"
#include "cow/sigbus.h"
#include "numa/topology.h"
#include "zone/memmap.h"

#define NICE (-10)
#define WAIT_NS 100000000
#define STACK_BYTES ((size_t)256 << 10)
/* Places among the stacks, after the handlers. */
#define KEEPER Q_MAX_HANDLERS
#define SWEEPER (Q_MAX_HANDLERS + 1)
#define NR_PLACES (Q_MAX_HANDLERS + 2)

#ifndef SYS_pidfd_open
#define SYS_pidfd_open 434
#endif
#ifndef SYS_pidfd_getfd
#define SYS_pidfd_getfd 438
#endif

struct q_cow q_cow = {.uffd = {.fd = -1}};

/* The kernel's own mask, whole: libc keeps two signals for itself. */
uint64_t q_signals_block(void)
{
    uint64_t all = ~0ull, old = 0;

    q_arch_syscall6(SYS_rt_sigprocmask, SIG_SETMASK, (long)&all, (long)&old, sizeof(all), 0, 0);
    return old;
}

void q_signals_restore(uint64_t mask)
{
    q_arch_syscall6(SYS_rt_sigprocmask, SIG_SETMASK, (long)&mask, 0, sizeof(mask), 0, 0);
}

/* Where that is not allowed, the kernel chooses. */
static void stay_on(unsigned cpu)
{
    unsigned long mask[Q_MAX_HANDLERS / (8 * sizeof(unsigned long)) + 1] = {1ul << cpu};

    q_arch_syscall6(SYS_sched_setaffinity, 0, sizeof(mask), (long)mask, 0, 0, 0);
}

/* Where that is refused (a seccomp filter) the program's own table must do. */
static bool have_own_table(void)
{
    if (q_arch_syscall6(SYS_unshare, CLONE_FILES, 0, 0, 0, 0, 0) != 0)
        return false;
    q_close_all_but(q_cow.uffd.fd);
    return true;
}

/* Others wait while it is preempted. Without the right to ask it stays as they are. */
static void hurry(void)
{
    q_arch_syscall6(SYS_setpriority, PRIO_PROCESS, 0, NICE, 0, 0, 0);
}

/* What those that are ready wait for: to begin, or, where there are too few of them, to leave. */
enum { STAY, BEGIN, LEAVE };
static _Atomic uint32_t order;
static _Atomic uint32_t nr_left;

/* False: too few threads could be made, and this one is to end. *tid is its number. */
static bool ready(bool own_table, _Atomic int *tid)
{
    /* Relaxed, all: see wait_for(). */
    atomic_fetch_add_explicit(&q_cow.nr_ready, 1, memory_order_relaxed);
    q_futex(&q_cow.nr_ready, FUTEX_WAKE | FUTEX_PRIVATE_FLAG, 1);
    while (atomic_load_explicit(&order, memory_order_relaxed) == STAY)
        q_futex(&order, FUTEX_WAIT | FUTEX_PRIVATE_FLAG, STAY);
    if (atomic_load_explicit(&order, memory_order_relaxed) == BEGIN)
        return true;
    if (own_table)
        q_arch_syscall6(SYS_close, q_cow.uffd.fd, 0, 0, 0, 0, 0);
    atomic_store_explicit(tid, 0, memory_order_relaxed); /* it was not killed */
    atomic_fetch_add_explicit(&nr_left, 1, memory_order_relaxed);
    q_futex(&nr_left, FUTEX_WAKE | FUTEX_PRIVATE_FLAG, 1);
    return false;
}

/* Before what may kill it, for who waits for it; the keeper begins after that. */
static void say_number(_Atomic int *tid)
{
    atomic_store_explicit(tid, (int)q_arch_syscall6(SYS_gettid, 0, 0, 0, 0, 0, 0),
                          memory_order_relaxed);
}

static void *handler(void *arg)
{
    unsigned place = (unsigned)(uintptr_t)arg;

    say_number(&q_cow.tid[place]);
    if (q_topology.nr_cpus <= Q_MAX_HANDLERS)
        stay_on(place % q_topology.nr_cpus);
    q_arch_syscall6(SYS_prctl, PR_SET_NAME, (long)"quire-snapshot", 0, 0, 0, 0);
    hurry();
    q_helper_begin();
    if (ready(have_own_table(), &q_cow.tid[place]))
        q_cow_serve(q_cow.uffd.fd, place);
    q_helper_end();
    return arg;
}

static void *sweeper(void *arg)
{
    say_number(&q_cow.sweeper);
    q_arch_syscall6(SYS_prctl, PR_SET_NAME, (long)"quire-sweeper", 0, 0, 0, 0);
    hurry();
    q_helper_begin();
    q_cow.sweeper_as_holder = q_lock_self();
    if (ready(have_own_table(), &q_cow.sweeper))
        q_sweep_loop();
    atomic_store_explicit(&q_cow.sweeper, 0, memory_order_relaxed);
    q_helper_end();
    return arg;
}

long q_cow_borrow(int fd)
{
    char path[40];
    struct q_buf b = {.at = path, .size = sizeof(path)};
    long self = q_arch_syscall6(SYS_pidfd_open, q_getpid(), 0, 0, 0, 0, 0);
    long here = self;

    if (self >= 0) {
        here = q_arch_syscall6(SYS_pidfd_getfd, self, fd, 0, 0, 0, 0);
        q_arch_syscall6(SYS_close, self, 0, 0, 0, 0, 0);
    }
    if (here >= 0 || here == -EBADF)
        return here;
    /* A filter that knows only older calls; this one asks again for the right to read the file. */
    q_buf_printf(&b, "/proc/self/fd/%d", fd);
    return q_arch_syscall6(SYS_openat, AT_FDCWD, (long)path, O_RDONLY | O_CLOEXEC, 0, 0, 0);
}

long q_cow_pread(int fd, void *to, size_t len, uint64_t at)
{
    long n = q_pread(fd, to, len, at);

    if (n != -EBADF && n != -ESPIPE) /* userfaultfd's own number, used anew by the program */
        return n;
    long here = q_cow_borrow(fd);
    if (here < 0)
        return here;
    n = q_pread(here, to, len, at);
    q_arch_syscall6(SYS_close, here, 0, 0, 0, 0, 0);
    return n;
}

static bool have_stack(char **stack)
{
    if (*stack == NULL)
        *stack = q_mmap(NULL, STACK_BYTES, PROT_READ | PROT_WRITE, MAP_NORESERVE);
    return *stack != NULL;
}

int q_cow_thread(char **stack, void *(*run)(void *), void *arg)
{
    pthread_attr_t attr;
    pthread_t thread;
    sigset_t all, old;

    if (!have_stack(stack))
        return ENOMEM;
    pthread_attr_init(&attr);
    pthread_attr_setdetachstate(&attr, PTHREAD_CREATE_DETACHED);
    int error = pthread_attr_setstack(&attr, *stack, STACK_BYTES);
    sigfillset(&all);
    pthread_sigmask(SIG_SETMASK, &all, &old);
    if (error == 0)
        error = pthread_create(&thread, &attr, run, arg);
    pthread_sigmask(SIG_SETMASK, &old, NULL);
    pthread_attr_destroy(&attr);
    return error;
}

static char *stacks[NR_PLACES]; /* of a parent's threads, in a child: used again */

static int start_thread(unsigned place)
{
    void *(*run)(void *) = place == KEEPER ? q_cow_keep : place == SWEEPER ? sweeper : handler;

    return q_cow_thread(&stacks[place], run, (void *)(uintptr_t)place);
}

long q_cow_wait(_Atomic uint32_t *word, uint32_t is)
{
    struct timespec most = {.tv_nsec = WAIT_NS};

    return q_arch_syscall6(SYS_futex, (long)word, FUTEX_WAIT | FUTEX_PRIVATE_FLAG, (long)is,
                           (long)&most, 0, 0);
}

void q_cow_nap(void)
{
    struct timespec ms = {.tv_nsec = 1000000};

    q_arch_syscall6(SYS_nanosleep, (long)&ms, 0, 0, 0, 0, 0);
}

/* Relaxed: the number of a thread, which counts only where it is gone. */
static bool was_killed(_Atomic int *tid)
{
    int nr = atomic_load_explicit(tid, memory_order_relaxed);

    return nr > 0 && q_helper_is_gone(nr);
}

/* Of the sweeper and nr handlers. */
static unsigned count_killed(unsigned nr)
{
    unsigned killed = was_killed(&q_cow.sweeper);

    for (unsigned place = 0; place < nr; place++)
        killed += was_killed(&q_cow.tid[place]);
    return killed;
}

/* Until the sweeper and nr handlers have counted. False: some were killed (a seccomp filter), the others have. */
static bool wait_for(_Atomic uint32_t *count, unsigned nr)
{
    uint32_t now;

    /* Relaxed: what they did before are system calls. */
    while ((now = atomic_load_explicit(count, memory_order_relaxed)) < nr + 1)
        if (q_cow_wait(count, now) == -ETIMEDOUT && now + count_killed(nr) >= nr + 1)
            return false;
    return true;
}

static void give_order(uint32_t what)
{
    atomic_store_explicit(&order, what, memory_order_relaxed);
    q_futex(&order, FUTEX_WAKE | FUTEX_PRIVATE_FLAG, INT32_MAX);
}

/*
 * The sweeper and nr handlers are too few. Their stacks are theirs until they
 * are quite gone, which nobody is told: they are not used again.
 */
static void dismiss(unsigned nr)
{
    give_order(LEAVE);
    wait_for(&nr_left, nr);
    stacks[SWEEPER] = NULL;
    for (unsigned place = 0; place < nr; place++)
        stacks[place] = NULL;
}

/*
 * 0 where there are as many as it needs: two handlers, of which one reads while the other serves.
 * EPERM: what they do at their beginning kills them.
 */
static int start_threads(void)
{
    unsigned nr = 0, want = (unsigned)q_min(q_max(q_topology.nr_cpus, 2), Q_MAX_HANDLERS);

    for (unsigned i = 0; i < Q_MAX_HANDLERS; i++)
        atomic_store_explicit(&q_cow.tid[i], 0, memory_order_relaxed);
    atomic_store_explicit(&q_cow.serving, 0, memory_order_relaxed);
    atomic_store_explicit(&q_cow.sweeper, 0, memory_order_relaxed);
    atomic_store_explicit(&q_cow.orphaned, false, memory_order_relaxed);
    atomic_store_explicit(&q_cow.nr_ready, 0, memory_order_relaxed);
    atomic_store_explicit(&nr_left, 0, memory_order_relaxed);
    atomic_store_explicit(&order, STAY, memory_order_relaxed);
    int error = start_thread(SWEEPER);
    if (error != 0)
        return error;
    while (nr < want && (error = start_thread(nr)) == 0)
        nr++;
    /*
     * Until each has a table of its own: a program that closed the descriptor
     * before would take the protection away without anybody noticing.
     */
    bool all = wait_for(&q_cow.nr_ready, nr);
    if (!all || nr < 2) {
        dismiss(nr);
        return all ? error : EPERM;
    }
    give_order(BEGIN);
    q_cow.nr_handlers = nr;
    start_thread(KEEPER); /* a comfort: it goes without */
    return 0;
}

/* Everything of the window at once: what comes online later is registered already. */
static uintptr_t register_window(uintptr_t start, uintptr_t end)
{
    q_cow.window_registered = q_bus_register_rest(start, end);
    return q_cow.window_registered;
}

static int refuse(int error, const char *reason, const char **why)
{
    q_uffd_close(&q_cow.uffd);
    *why = q_cow.uffd.refuse = reason;
    return error;
}

int q_cow_start(const char **why)
{
    if (q_cow.pid == q_getpid() && q_cow.uffd.fd >= 0) {
        if (q_uffd_ours(&q_cow.uffd))
            return q_store_init() ? 0 : ENOMEM;
        *why = "the program closed the descriptor of userfaultfd";
        return EPERM;
    }
    q_cow_meet_child();
    q_bus_start_again();
    if (q_share_mode() != Q_SHARE_NONE) {
        *why = "the heap is shared with children (option fork:shared)";
        return EPERM;
    }
    if (q_cow.pid == q_getpid()) {
        *why = q_cow.uffd.refuse;
        return EPERM;
    }
    if (!q_uffd_open(&q_cow.uffd)) {
        q_cow.pid = q_getpid(); /* refused once, refused for ever */
        *why = q_cow.uffd.refuse;
        return EPERM;
    }
    if (!q_store_init())
        return refuse(ENOMEM, "no address space for saved pages", why);
    if (q_bus_run(register_window, q_mem.base, q_mem.base + q_mem.size) == 0)
        return refuse(EPERM, "the heap is registered with another userfaultfd", why);
    q_cow.pid = q_getpid(); /* the handler reads it */
    int error = start_threads();
    if (error == EPERM) /* once, and for ever */
        return refuse(error, "the threads that serve first writes are killed (a seccomp filter)",
                      why);
    if (error != 0) {
        q_cow.pid = 0;
        return refuse(error, "no thread can be made to serve first writes", why);
    }
    return 0;
}

void q_cow_mark_lost(int error)
{
    /* Whatever stood in the way: to who reads, a page could not be kept. */
    error = error == ENOBUFS ? ENOBUFS : EIO;
    for (struct quire_snapshot *s = q_cow.live; s != NULL; s = s->older) {
        int none = 0;

        /* Release: seen by whoever sees a page of it changed. */
        atomic_compare_exchange_strong_explicit(&s->error, &none, error, memory_order_seq_cst,
                                                memory_order_relaxed);
    }
}

void q_cow_lose(int error)
{
    q_cow_mark_lost(error);
    for (const struct quire_snapshot *s = q_cow.live; s != NULL; s = s->older) {
        const struct q_ranges *r = q_cow_guarded(s);

        for (size_t i = 0; i < r->nr; i++)
            q_uffd_open_up(q_cow_uffd(), r->at[i].start, r->at[i].end - r->at[i].start);
    }
    /* Who is reading a saved page just now finds the error afterwards. */
    q_store_reset();
}
