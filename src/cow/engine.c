/*
 * engine.c - the descriptor and the handler threads: made once, kept.
 *
 * There is one on each CPU, up to MAX_HANDLERS. A first write wakes all of
 * them; the one on the writer's own CPU mostly comes first, because waking
 * another, idle CPU takes several times as long (6 to 10 us against 70,
 * measured). They serve one after the other, under q_store.lock.
 *
 * The threads are libc's (pthread_create), so that setuid() and its like
 * reach them, but live on stacks of ours, have all signals blocked, and never
 * run code of the program.
 */
#include <pthread.h>
#include <signal.h>
#include <sys/prctl.h>
#include <sys/resource.h>

#include "cow/cow.h"
#include "cow/share.h"
#include "numa/topology.h"
#include "zone/memmap.h"

#define NICE (-10)
#define MAX_HANDLERS 8u
#define STACK_BYTES ((size_t)256 << 10)

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
    unsigned long mask[MAX_HANDLERS / (8 * sizeof(unsigned long)) + 1] = {1ul << cpu};

    q_arch_syscall6(SYS_sched_setaffinity, 0, sizeof(mask), (long)mask, 0, 0, 0);
}

static void *handler(void *arg)
{
    if (q_topology.nr_cpus <= MAX_HANDLERS)
        stay_on((unsigned)(uintptr_t)arg);
    q_arch_syscall6(SYS_prctl, PR_SET_NAME, (long)"quire-snapshot", 0, 0, 0, 0);
    /* Writers wait while it is preempted. Without the right to ask it stays as the others are. */
    q_arch_syscall6(SYS_setpriority, PRIO_PROCESS, 0, NICE, 0, 0, 0);
    q_cow_serve();
    return arg;
}

int q_cow_thread(char **stack, void *(*run)(void *), void *arg)
{
    pthread_attr_t attr;
    pthread_t thread;
    sigset_t all, old;

    if (*stack == NULL)
        *stack = q_mmap(NULL, STACK_BYTES, PROT_READ | PROT_WRITE, MAP_NORESERVE);
    if (*stack == NULL)
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

static int start_thread(unsigned cpu)
{
    static char *stacks[MAX_HANDLERS]; /* of a parent's handlers, in a child: used again */

    return q_cow_thread(&stacks[cpu], handler, (void *)(uintptr_t)cpu);
}

/* Everything of the window at once: what comes online later is registered already. */
static bool register_window(void)
{
    if (q_mem.size == 0)
        return true;
    return q_uffd_register(&q_cow.uffd, q_mem.base, q_mem.size, UFFDIO_REGISTER_MODE_WP) == 0;
}

static int refuse(int error, const char *reason, const char **why)
{
    q_uffd_close(&q_cow.uffd);
    *why = q_cow.uffd.refuse = reason;
    return error;
}

int q_cow_start(const char **why)
{
    if (q_cow.pid == q_getpid() && q_cow.uffd.fd >= 0)
        return q_store_init() ? 0 : ENOMEM;
    q_cow_meet_child();
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
    if (!register_window())
        return refuse(EPERM, "the heap is registered with another userfaultfd", why);
    q_cow.pid = q_getpid(); /* the handler reads it */
    int error = start_thread(0);
    for (unsigned cpu = 1; error == 0 && cpu < q_min(q_topology.nr_cpus, MAX_HANDLERS); cpu++)
        if (start_thread(cpu) != 0)
            break; /* one is enough */
    if (error != 0) {
        q_cow.pid = 0;
        return refuse(error, "no thread can be made to serve first writes", why);
    }
    return 0;
}

void q_cow_lose(int error)
{
    for (struct quire_snapshot *s = q_cow.live; s != NULL; s = s->older) {
        int none = 0;

        /* Release: seen by whoever sees a page of it changed. */
        atomic_compare_exchange_strong_explicit(&s->error, &none, error, memory_order_seq_cst,
                                                memory_order_relaxed);
    }
    for (const struct quire_snapshot *s = q_cow.live; s != NULL; s = s->older) {
        const struct q_ranges *r = q_cow_guarded(s);

        for (size_t i = 0; i < r->nr; i++)
            q_uffd_open_up(&q_cow.uffd, r->at[i].start, r->at[i].end - r->at[i].start);
    }
    /* Who is reading a saved page just now finds the error afterwards. */
    q_store_reset();
}
