/*
 * flows - turns a list of packets into a list of flows, and can be watched while it does.
 *
 *   tcpdump ... | awk ... | flows [-t SECONDS] [-i MILLISECONDS]
 *
 * Input: a line for each packet, "TIME FROM TO BYTES", by time. Output: a line
 * for each pair of FROM and TO, "FROM TO PACKETS BYTES FIRST LAST", once it
 * was idle for SECONDS (default 60), the rest at the end. With -i a second
 * thread writes to standard error, every so often, how many flows there are
 * and which is the heaviest.
 *
 * The watcher takes no lock and makes the main thread wait for nothing: flows
 * are objects of a typesafe cache. One that it looks at may be freed and be
 * another flow the next moment, even in another chain, but never anything
 * else than a flow:
 *
 *   generation   odd: free. The same before and after: what was read is of one flow
 *   end mark     a chain ends in the number of its bucket. Another number:
 *                we were led into another chain, so start again
 */
#include <pthread.h>
#include <stdatomic.h>
#include <stdbool.h>
#include <stdint.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <time.h>
#include <unistd.h>

#include <quire/slab.h>

#define BUCKETS 4096u
#define NAME 48

struct flow {
    _Atomic unsigned generation;
    _Atomic uintptr_t next;              /* a flow, or 2 * bucket + 1 */
    _Atomic uint64_t name[2 * NAME / 8]; /* FROM, TO: the words of two strings */
    _Atomic uint64_t packets, bytes;
    double first, last;
    struct flow *older, *newer; /* by last; for the main thread */
};

struct names {
    char from[NAME], to[NAME];
};

static struct quire_cache *cache;
static _Atomic uintptr_t bucket[BUCKETS];
static struct flow *oldest, *newest;
static _Atomic bool over;
static long interval_ms;

/* Once in the life of each object; what it sets is kept while the object is free. */
static void flow_init(void *object)
{
    atomic_init(&((struct flow *)object)->generation, 1);
}

static unsigned hash(const struct names *n)
{
    uint64_t h = 14695981039346656037u;

    for (size_t i = 0; i < sizeof(*n); i++)
        h = (h ^ ((const unsigned char *)n)[i]) * 1099511628211u;
    return (unsigned)(h >> 40) % BUCKETS;
}

static void get_names(const struct flow *f, struct names *n)
{
    for (size_t i = 0; i < sizeof(*n) / 8; i++) {
        uint64_t word = atomic_load_explicit(&f->name[i], memory_order_relaxed);
        memcpy((char *)n + 8 * i, &word, 8);
    }
}

/* --- the main thread ------------------------------------------------------------------------- */

static void link_newest(struct flow *f)
{
    f->older = newest;
    f->newer = NULL;
    *(newest != NULL ? &newest->newer : &oldest) = f;
    newest = f;
}

static void unlink_age(struct flow *f)
{
    *(f->older != NULL ? &f->older->newer : &oldest) = f->newer;
    *(f->newer != NULL ? &f->newer->older : &newest) = f->older;
}

static struct flow *find(const struct names *n, unsigned b)
{
    uintptr_t at = bucket[b];

    for (; (at & 1) == 0; at = ((struct flow *)at)->next) {
        struct names is;

        get_names((struct flow *)at, &is);
        if (memcmp(&is, n, sizeof(is)) == 0)
            return (struct flow *)at;
    }
    return NULL;
}

static struct flow *add(const struct names *n, unsigned b, double time)
{
    struct flow *f = quire_cache_alloc(cache);

    if (f == NULL)
        return NULL;
    for (size_t i = 0; i < sizeof(*n) / 8; i++) {
        uint64_t word;
        memcpy(&word, (const char *)n + 8 * i, 8);
        atomic_store_explicit(&f->name[i], word, memory_order_relaxed);
    }
    f->packets = f->bytes = 0;
    f->first = time;
    f->next = bucket[b];
    atomic_fetch_add(&f->generation, 1); /* even: from here on it counts */
    bucket[b] = (uintptr_t)f;
    return f;
}

static void end_flow(struct flow *f)
{
    struct names n;

    get_names(f, &n);
    _Atomic uintptr_t *link = &bucket[hash(&n)];
    while (*link != (uintptr_t)f)
        link = &((struct flow *)*link)->next;
    *link = f->next; /* who is looking at f still finds the way on */
    unlink_age(f);
    printf("%s %s %lu %lu %.3f %.3f\n", n.from, n.to, (unsigned long)f->packets,
           (unsigned long)f->bytes, f->first, f->last);
    atomic_fetch_add(&f->generation, 1);
    quire_cache_free(cache, f);
}

static bool packet(const struct names *n, double time, unsigned long bytes)
{
    unsigned b = hash(n);
    struct flow *f = find(n, b);

    if (f != NULL)
        unlink_age(f);
    else if ((f = add(n, b, time)) == NULL)
        return false;
    f->packets++;
    f->bytes += bytes;
    f->last = time;
    link_newest(f);
    return true;
}

/* --- the watcher ----------------------------------------------------------------------------- */

struct sight {
    size_t flows;
    uint64_t bytes;
    struct names heaviest;
};

/* Add one chain to what was seen; false: led astray, and what it added does not count. */
static bool look_at(unsigned b, struct sight *seen)
{
    struct sight now = *seen;
    uintptr_t at = atomic_load(&bucket[b]);

    while ((at & 1) == 0) {
        const struct flow *f = (const struct flow *)at;
        unsigned generation = atomic_load(&f->generation);
        uint64_t bytes = atomic_load(&f->bytes);
        struct names n;

        get_names(f, &n);
        at = atomic_load(&f->next);
        atomic_thread_fence(memory_order_acquire);
        if (generation % 2 != 0 || atomic_load(&f->generation) != generation)
            return false;
        now.flows++;
        if (bytes > now.bytes) {
            now.bytes = bytes;
            now.heaviest = n;
        }
    }
    if (at != 2 * (uintptr_t)b + 1)
        return false;
    *seen = now;
    return true;
}

static void *watch(void *unused)
{
    struct timespec pause = {interval_ms / 1000, interval_ms % 1000 * 1000000};

    (void)unused;
    while (!atomic_load(&over)) {
        struct sight seen = {0};

        nanosleep(&pause, NULL);
        for (unsigned b = 0; b < BUCKETS; b++)
            while (!look_at(b, &seen))
                ;
        if (seen.flows > 0)
            fprintf(stderr, "%zu flows, heaviest %.*s %.*s %lu\n", seen.flows, NAME,
                    seen.heaviest.from, NAME, seen.heaviest.to, (unsigned long)seen.bytes);
    }
    return NULL;
}

static int serve(double idle)
{
    char line[256];

    while (fgets(line, sizeof(line), stdin) != NULL) {
        struct names n = {{0}, {0}};
        unsigned long bytes;
        double time;

        if (sscanf(line, "%lf %47s %47s %lu", &time, n.from, n.to, &bytes) != 4) {
            fprintf(stderr, "flows: not 'TIME FROM TO BYTES': %s", line);
            return 1;
        }
        while (oldest != NULL && time - oldest->last > idle)
            end_flow(oldest);
        if (!packet(&n, time, bytes)) {
            perror("flows");
            return 1;
        }
    }
    while (oldest != NULL)
        end_flow(oldest);
    return 0;
}

int main(int argc, char **argv)
{
    double idle = 60;
    pthread_t watcher;
    int option, status;

    while ((option = getopt(argc, argv, "t:i:")) != -1) {
        if (option == 't')
            idle = atof(optarg);
        else if (option == 'i' && atol(optarg) > 0)
            interval_ms = atol(optarg);
        else
            return fprintf(stderr, "usage: flows [-t SECONDS] [-i MILLISECONDS]\n"), 2;
    }
    cache = quire_cache_create("flow", sizeof(struct flow), 0,
                               QUIRE_CACHE_TYPESAFE | QUIRE_CACHE_HWALIGN, flow_init);
    if (cache == NULL)
        return perror("flows"), 1;
    for (unsigned b = 0; b < BUCKETS; b++)
        bucket[b] = 2 * (uintptr_t)b + 1;
    if (interval_ms > 0 && pthread_create(&watcher, NULL, watch, NULL) != 0)
        return perror("flows"), 1;
    status = serve(idle);
    atomic_store(&over, true);
    if (interval_ms > 0)
        pthread_join(watcher, NULL);
    if (status == 0 && quire_cache_destroy(cache) != 0) /* nobody looks any more */
        return perror("flows"), 1;
    return status;
}
