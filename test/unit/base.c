/* base.c - lists, bit tricks, alignment, files, and the lock under contention. */
#include <pthread.h>
#include <signal.h>
#include <string.h>
#include <sys/auxv.h>
#include <sys/wait.h>
#include <unistd.h>

#include "base/list.h"
#include "base/lock.h"
#include "base/sys.h"
#include "unit.h"

struct node {
    int value;
    struct q_list link;
};

static void check_order(struct q_list *head, const int *want, size_t nr)
{
    struct q_list *l = head->next;

    for (size_t i = 0; i < nr; i++, l = l->next) {
        must(l != NULL && l != head);
        must_eq(q_container_of(l, struct node, link)->value, want[i]);
        must(l->next->prev == l && l->prev->next == l);
    }
    must(l == head || nr == 0);
}

Test(list, zeroed_heads_are_empty_lists)
{
    struct q_list head = {NULL, NULL};
    struct node n[4] = {{.value = 0}, {.value = 1}, {.value = 2}, {.value = 3}};

    must(q_list_empty(&head));
    q_list_add(&head, &n[0].link);
    q_list_add_tail(&head, &n[1].link);
    q_list_add(&head, &n[2].link);
    q_list_add_tail(&head, &n[3].link);
    check_order(&head, (const int[]){2, 0, 1, 3}, 4);
    must(q_list_linked(&n[0].link));
    q_list_del(&n[0].link);
    must(!q_list_linked(&n[0].link));
    check_order(&head, (const int[]){2, 1, 3}, 3);
    q_list_del(&n[2].link);
    q_list_del(&n[3].link);
    check_order(&head, (const int[]){1}, 1);
    q_list_del(&n[1].link);
    must(q_list_empty(&head));
    q_list_add_tail(&head, &n[1].link);
    check_order(&head, (const int[]){1}, 1);
}

Test(list, zeroed_heads_take_a_tail_first)
{
    struct q_list head = {NULL, NULL};
    struct node n = {.value = 5};

    q_list_add_tail(&head, &n.link);
    check_order(&head, (const int[]){5}, 1);
}

Test(types, bit_tricks)
{
    for (unsigned k = 0; k < 64; k++) {
        must_eq(q_fls((size_t)1 << k), k);
        must_eq(q_ceil_log2((size_t)1 << k), k);
        if (k > 1) {
            must_eq(q_fls(((size_t)1 << k) - 1), k - 1);
            must_eq(q_ceil_log2(((size_t)1 << k) - 1), k);
            must_eq(q_ceil_log2(((size_t)1 << (k - 1)) + 1), k);
        }
    }
    for (size_t n = 0; n < 300; n++) {
        must(q_align_up(n, 16) >= n && q_align_up(n, 16) < n + 16 && q_align_up(n, 16) % 16 == 0);
        must(q_align_down(n, 16) <= n && q_align_down(n, 16) + 16 > n);
    }
}

/* As 32-bit machines multiply, and as these do. */
Test(types, products)
{
    static const uint64_t edge[] = {0, 1, 2, 3, UINT32_MAX - 1, UINT32_MAX, 1ull << 32, UINT64_MAX};
    uint64_t a = 1, b = 0x9e3779b97f4a7c15u;

    for (size_t i = 0; i < 64 + 100000; i++) {
        if (i < 64) {
            a = edge[i / 8];
            b = edge[i % 8];
        } else {
            a = (a + 7) * 0x5851f42d4c957f2du >> i % 50;
            b = (b ^ a) * 0x14057b7ef767814fu >> i % 37;
        }
        struct q_product is = q_multiply_halves(a, b), should = q_multiply(a, b);
        must_eq(is.low, should.low);
        must_eq(is.high, should.high);
        must_eq(is.low, a * b);
    }
}

Test(sys, page_size_is_the_kernels)
{
    q_base_init();
    must_eq(q_page_size(), getauxval(AT_PAGESZ));
    must_eq(q_page_size() << q_slab_order(), Q_SLAB_SIZE);
    must_eq(q_page_size() << q_pageblock_order(), Q_PAGEBLOCK_SIZE);
}

Test(sys, files)
{
    char text[64], small[5];

    must_eq(q_read_file("/nowhere/at/all", text, sizeof(text)), -2);
    must_eq(text[0], 0);
    must(q_read_file("/proc/self/comm", text, sizeof(text)) > 0);
    must_eq(q_read_file("/proc/self/comm", small, sizeof(small)), 4);
    must(strlen(small) == 4 && strncmp(small, text, 4) == 0);
}

Test(sys, clocks_go_forward)
{
    uint64_t coarse = q_clock_coarse(), fine = q_clock_fine();

    usleep(20000);
    must(q_clock_fine() >= fine + 20000000u);
    must(q_clock_coarse() > coarse);
}

/* A counter that only the lock protects, with a second word that must always match. */
static struct q_lock lock;
static volatile uint64_t counter, mirror;

#define ROUNDS 100000

static void *count(void *arg)
{
    for (int i = 0; i < ROUNDS; i++) {
        q_lock(&lock);
        must(counter == mirror);
        counter++;
        if ((i & 1023) == 0)
            usleep(1); /* so that others must sleep, too */
        mirror++;
        q_unlock(&lock);
    }
    return NULL;
}

Test(lock, excludes_under_contention, .timeout = 300)
{
    pthread_t t[6];

    for (size_t i = 0; i < 6; i++)
        must(pthread_create(&t[i], NULL, count, NULL) == 0);
    for (size_t i = 0; i < 6; i++)
        pthread_join(t[i], NULL);
    must_eq(counter, 6 * ROUNDS);
    must_eq(lock.word, 0);
}

Test(lock, trylock_fails_while_held)
{
    must(q_trylock(&lock));
    must(!q_trylock(&lock));
    q_unlock(&lock);
    must(q_trylock(&lock));
    q_unlock(&lock);
}

static void *hold(void *arg)
{
    q_lock(&lock);
    *(_Atomic int *)arg = 1;
    usleep(50000);
    q_unlock(&lock);
    return NULL;
}

Test(lock, sleeper_is_woken, .timeout = 300)
{
    _Atomic int held = 0;
    pthread_t t;

    must(pthread_create(&t, NULL, hold, &held) == 0);
    while (!held)
        usleep(100);
    q_lock(&lock); /* goes through the futex: the holder sleeps for longer than anyone spins */
    q_unlock(&lock);
    pthread_join(t, NULL);
}

/* As seen: the first thread's, and that of one whose stack of 16 KiB lies just below it. */
Test(lock, neighbours_are_told_apart)
{
    must(q_lock_holder(0x7ff893f5f740) != q_lock_holder(0x7ff893f5e6c0));
    must(q_lock_holder(0x7ff893f5f740) != q_lock_holder(0x7ff893f5f740 - 2304));
    must_eq(q_lock_holder(0x7ff893f5f740) & (Q_LOCK_HELD | Q_LOCK_WAITERS), Q_LOCK_HELD);
}

/* A lock that this very thread holds: it stays so, through the fork and in the child. */
Test(lock, fork_leaves_what_is_its_own, .timeout = 300)
{
    struct q_lock other = {0};

    q_lock(&lock);
    q_fork_begin(false);
    q_lock_for_fork(&lock, false);
    q_lock_for_fork(&other, false);
    must(q_lock_is_mine(&other));
    q_unlock_for_fork(&lock);
    must(q_lock_is_mine(&lock));
    must(!q_lock_after_fork(&lock));
    must(q_lock_is_mine(&lock));
    q_unlock_for_fork(&other);
    must_eq(other.word, 0);
    q_fork_end();
    q_unlock(&lock);
}

/* A fork in a handler that interrupted a fork of the same thread lets go of its own locks alone. */
Test(lock, fork_inside_a_fork, .timeout = 300)
{
    struct q_lock first = {0}, second = {0};

    q_fork_begin(true);
    q_lock_for_fork(&first, true);
    q_fork_begin(false);
    q_lock_for_fork(&first, false);
    q_lock_for_fork(&second, false);
    q_unlock_for_fork(&second);
    q_unlock_for_fork(&first);
    q_fork_end();
    must(q_lock_is_mine(&first));
    must_eq(second.word, 0);
    q_lock_for_fork(&second, true);
    must(!q_lock_after_fork(&first) && !q_lock_after_fork(&second));
    must(first.word == 0 && second.word == 0);
    q_fork_end_child();
    q_fork_begin(true);
    q_fork_end();
}

/* As a handler does that interrupted the holder of a lock, and forks. */
static void *fork_while_holding(void *held)
{
    q_lock(&lock);
    *(_Atomic int *)held = 1;
    q_fork_begin(false);
    q_fork_end();
    q_unlock(&lock);
    return NULL;
}

/* Then the fork that is under way gives up, and its child learns that the lock's holder is gone. */
Test(lock, fork_gives_up_on_a_lock_whose_holder_waits_for_it, .timeout = 300)
{
    _Atomic int held = 0;
    pthread_t t;

    q_fork_begin(true);
    must(pthread_create(&t, NULL, fork_while_holding, &held) == 0);
    while (!held)
        usleep(100);
    q_lock_for_fork(&lock, true);
    must(lock.word != 0 && !q_lock_is_mine(&lock));
    struct q_lock copy = lock; /* as the child has it */
    must(q_lock_after_fork(&copy));
    must_eq(copy.word, 0);
    q_unlock_for_fork(&lock);
    must(lock.word != 0);
    q_fork_end();
    pthread_join(t, NULL);
    must_eq(lock.word, 0);
}

static struct q_lock left_held;

static void reset_left_held(void)
{
    q_lock_reset(&left_held);
}

/* A child that skipped every fork handler finds a lock held by nobody: it takes it all the same. */
Test(lock, strange_child_does_not_hang, .timeout = 300)
{
    int status;

    q_lock_init(reset_left_held);
    q_lock(&left_held);
    long pid = q_arch_syscall6(SYS_clone, SIGCHLD, 0, 0, 0, 0, 0);
    must(pid >= 0);
    if (pid == 0) {
        alarm(60);
        q_lock(&left_held);
        q_unlock(&left_held);
        _exit(left_held.word == 0 ? 0 : 1);
    }
    must(waitpid((pid_t)pid, &status, 0) == pid);
    must_eq(status, 0);
}
