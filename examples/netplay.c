/*
 * netplay.c - two players over a network that is slower than the game: rollback netcode.
 *
 *   netplay [FRAMES [LATENCY_MS]]
 *
 * Each player runs the whole game, 250 frames a second, and never waits for the other's input, which
 * takes LATENCY_MS (30) to arrive: it guesses that the other still holds the keys seen last. When the
 * truth arrives and was another, the game goes back to the last frame for which all input is known,
 * and the frames since are simulated again, now right. All that the game knows is in a heap of its
 * own, so that is one call; sockets, the record of inputs and this program's own state are not in
 * it and do not go back.
 *
 * Two processes play over UDP on the loopback device. In the end both worlds must be equal to the
 * last bit. Packets repeat the inputs of the last frames, so a lost one does not matter.
 */
#include <arpa/inet.h>
#include <errno.h>
#include <netinet/in.h>
#include <poll.h>
#include <stdbool.h>
#include <stdint.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/socket.h>
#include <sys/wait.h>
#include <time.h>
#include <unistd.h>

#include "quire/heap.h"
#include "quire/snapshot.h"

enum { FIRE = 1, LEFT = 2, RIGHT = 4, THRUST = 8 };
enum { FRAME_US = 4000, AHEAD = 60, REPEAT = 120, MAX_FRAMES = 100000, QUEUE = 1024 };

static _Noreturn void fail(const char *what)
{
    fprintf(stderr, "netplay: %s: %s\n", what, strerror(errno));
    exit(1);
}

/* --- the game: whole numbers only, so that every machine computes the same -------------------- */

struct shot {
    struct shot *next;
    int32_t x, y, vx, vy, life;
    int owner;
};

struct world {
    uint32_t frame, hits[2];
    struct {
        int32_t x, y, vx, vy, angle;
    } ship[2];
    struct shot *shots;
    uint8_t *trail[64]; /* what the last frames drew: blocks that come and go */
};

static struct quire_heap *heap;
static struct world *world;

static void *need(size_t size)
{
    void *p = quire_heap_calloc(heap, 1, size);

    return p != NULL ? p : (fail("no memory for the world"), NULL);
}

static void new_world(void)
{
    heap = quire_heap_create(NULL);
    if (heap == NULL)
        fail("quire_heap_create");
    world = need(sizeof(*world));
    world->ship[1].x = 1 << 20;
    world->ship[1].angle = 32;
}

static const int8_t sine[16] = {0, 24,  45,  59,  64,  59,  45,  24,
                                0, -24, -45, -59, -64, -59, -45, -24};

static void steer(int who, uint8_t keys)
{
    int angle = world->ship[who].angle += (keys & LEFT ? -1 : 0) + (keys & RIGHT ? 1 : 0);
    int32_t dx = sine[(angle / 4 + 4) & 15], dy = sine[(angle / 4) & 15];

    if (keys & THRUST) {
        world->ship[who].vx += dx;
        world->ship[who].vy += dy;
    }
    world->ship[who].x = (world->ship[who].x + world->ship[who].vx) & 0x1fffff;
    world->ship[who].y = (world->ship[who].y + world->ship[who].vy) & 0x1fffff;
    if (keys & FIRE && world->frame % 3 == 0) {
        struct shot *s = need(sizeof(*s));
        *s = (struct shot){
            world->shots, world->ship[who].x, world->ship[who].y, dx * 40, dy * 40, 90, who};
        world->shots = s;
    }
}

static bool moves_on(struct shot *s)
{
    int other = 1 - s->owner;

    s->x = (s->x + s->vx) & 0x1fffff;
    s->y = (s->y + s->vy) & 0x1fffff;
    if (abs(s->x - world->ship[other].x) < 40000 && abs(s->y - world->ship[other].y) < 40000) {
        world->hits[s->owner]++;
        return false;
    }
    return --s->life > 0;
}

static void simulate(const uint8_t keys[2])
{
    steer(0, keys[0]);
    steer(1, keys[1]);
    for (struct shot **at = &world->shots, *s; (s = *at) != NULL;) {
        if (moves_on(s)) {
            at = &s->next;
        } else {
            *at = s->next;
            quire_heap_free(heap, s);
        }
    }
    uint8_t **trail = &world->trail[world->frame % 64];
    size_t size = 100 + (uint32_t)world->ship[0].x % 9000;
    quire_heap_free(heap, *trail);
    *trail = need(size);
    memset(*trail, (int)world->frame, size);
    world->frame++;
}

static uint64_t hash_bytes(uint64_t h, const void *p, size_t n)
{
    for (size_t i = 0; i < n; i++)
        h = (h ^ ((const uint8_t *)p)[i]) * 0x100000001b3u;
    return h;
}

static uint64_t hash_world(void)
{
    uint64_t h = hash_bytes(0xcbf29ce484222325u, world->ship, sizeof(world->ship));

    h = hash_bytes(h, &world->frame, sizeof(world->frame) + sizeof(world->hits));
    for (struct shot *s = world->shots; s != NULL; s = s->next)
        h = hash_bytes(h, &s->x, sizeof(*s) - offsetof(struct shot, x));
    for (int i = 0; i < 64 && world->trail[i] != NULL; i++)
        h = hash_bytes(h, world->trail[i], 100);
    return h;
}

/* --- the network: what is sent leaves LATENCY_MS later ---------------------------------------- */

struct packet {
    uint32_t first, nr; /* inputs of frames [first, first + nr) */
    uint32_t have;      /* inputs of the receiver that the sender has */
    uint8_t keys[REPEAT];
};

static int sock;
static uint64_t latency_us;

static struct {
    uint64_t due;
    struct packet packet;
} queue[QUEUE];
static unsigned queued, gone;

static uint64_t now_us(void)
{
    struct timespec t;

    clock_gettime(CLOCK_MONOTONIC, &t);
    return (uint64_t)t.tv_sec * 1000000 + (uint64_t)t.tv_nsec / 1000;
}

/* A full queue drops a packet, as networks do. What the other cannot take any more is no error. */
static void put_off(const struct packet *p)
{
    if (queued - gone == QUEUE)
        return;
    queue[queued % QUEUE].packet = *p;
    queue[queued++ % QUEUE].due = now_us() + latency_us;
}

static void send_due(void)
{
    for (; gone != queued && queue[gone % QUEUE].due <= now_us(); gone++)
        send(sock, &queue[gone % QUEUE].packet, sizeof(struct packet), 0);
}

static int open_socket(struct sockaddr_in *at)
{
    int s = socket(AF_INET, SOCK_DGRAM | SOCK_CLOEXEC, 0);
    socklen_t len = sizeof(*at);

    *at = (struct sockaddr_in){.sin_family = AF_INET, .sin_addr.s_addr = htonl(INADDR_LOOPBACK)};
    if (s < 0 || bind(s, (struct sockaddr *)at, len) != 0 ||
        getsockname(s, (struct sockaddr *)at, &len) != 0)
        fail("a socket on the loopback device");
    return s;
}

/* --- a player --------------------------------------------------------------------------------- */

static uint8_t input[2][MAX_FRAMES];
static uint32_t known[2];           /* inputs of frames below are known */
static uint8_t guessed[MAX_FRAMES]; /* what the other was taken to do */
static uint32_t acked;              /* of mine, that the other has */
static uint32_t nr_frames;

/* Holds some keys for a while, then others. */
static void press_keys(int me, uint32_t frame)
{
    static uint32_t rng, until;
    static uint8_t keys;

    if (frame >= until) {
        rng = (rng ^ (uint32_t)me) * 1664525 + 1013904223;
        until = frame + 5 + (rng >> 20) % 40;
        keys = (uint8_t)(rng >> 28);
    }
    input[me][frame] = keys;
    known[me] = frame + 1;
}

static void tell(int me)
{
    struct packet p = {.first = known[me] > REPEAT ? known[me] - REPEAT : 0, .have = known[1 - me]};

    p.nr = known[me] - p.first;
    memcpy(p.keys, &input[me][p.first], p.nr);
    put_off(&p);
}

static void hear(int me, int wait_ms)
{
    struct pollfd in = {sock, POLLIN, 0};
    struct packet p;

    send_due();
    if (poll(&in, 1, wait_ms) <= 0)
        return;
    while (recv(sock, &p, sizeof(p), MSG_DONTWAIT) == (ssize_t)sizeof(p)) {
        if (p.have > acked)
            acked = p.have;
        for (uint32_t i = 0; i < p.nr && i < REPEAT; i++)
            if (p.first + i == known[1 - me] && p.first + i < nr_frames)
                input[1 - me][known[1 - me]++] = p.keys[i];
    }
}

struct tally {
    uint32_t rollbacks, again, hits[2];
    uint64_t hash, restore_us, worst_us;
};

static quire_snapshot_t *base; /* of the world at the start of frame base_frame */
static uint32_t base_frame;

static void take_base(void)
{
    if (base != NULL)
        quire_snapshot_release(base);
    base = quire_snapshot_take(heap, QUIRE_SNAPSHOT_ROLLBACK);
    if (base == NULL && errno == ENOTSUP) {
        fputs("netplay: no write protection here: see `quire doctor`\n", stderr);
        exit(77);
    }
    if (base == NULL)
        fail("quire_snapshot_take");
    base_frame = world->frame;
}

static void play_frame(int me, uint32_t frame)
{
    int other = 1 - me;
    uint8_t keys[2];

    guessed[frame] = frame < known[other] ? input[other][frame]
                     : known[other] == 0  ? 0
                                          : input[other][known[other] - 1];
    keys[me] = input[me][frame];
    keys[other] = guessed[frame];
    simulate(keys);
}

/* Input has come for frames that were guessed: go back if a guess was wrong. */
static void correct(int me, struct tally *t)
{
    int other = 1 - me;
    uint32_t now = world->frame, sure = known[other] < now ? known[other] : now;
    bool wrong = false;

    for (uint32_t f = base_frame; f < sure && !wrong; f++)
        wrong = guessed[f] != input[other][f];
    if (!wrong && now - base_frame < AHEAD)
        return;
    uint64_t start = now_us();
    if (quire_snapshot_restore(base) != 0)
        fail("quire_snapshot_restore");
    uint64_t took = now_us() - start;
    t->restore_us += took;
    t->worst_us = took > t->worst_us ? took : t->worst_us;
    t->rollbacks++;
    t->again += now - base_frame;
    for (uint32_t f = base_frame; f < now; f++) {
        if (f == sure)
            take_base();
        play_frame(me, f);
    }
    if (sure == now)
        take_base();
}

static struct tally play(int me)
{
    struct tally t = {0};
    uint64_t start = now_us(), give_up = 0;

    new_world();
    take_base();
    while (world->frame < nr_frames || known[1 - me] < nr_frames || acked < nr_frames) {
        bool may = world->frame < nr_frames && world->frame - base_frame < 2 * AHEAD;

        if (may && now_us() - start >= (uint64_t)world->frame * FRAME_US) {
            press_keys(me, world->frame);
            play_frame(me, world->frame);
            tell(me);
        } else if (world->frame == nr_frames) {
            tell(me);
            give_up = give_up != 0 ? give_up : now_us() + 5000000 + 10 * latency_us;
            if (now_us() > give_up)
                break;
        }
        hear(me, 1);
        correct(me, &t);
    }
    for (int i = 0; i < 20; i++) { /* the other may still wait to hear that all has come */
        tell(me);
        usleep(2000);
        send_due();
    }
    usleep((useconds_t)latency_us);
    send_due();
    t.hash = hash_world();
    memcpy(t.hits, world->hits, sizeof(t.hits));
    return t;
}

static void report(int me, const struct tally *t)
{
    printf("player %d: %u rollbacks, %u frames again; going back took %.1f us, %lu at most\n", me,
           t->rollbacks, t->again, t->rollbacks != 0 ? (double)t->restore_us / t->rollbacks : 0,
           (unsigned long)t->worst_us);
}

int main(int argc, char **argv)
{
    unsigned long frames = argc > 1 ? strtoul(argv[1], NULL, 10) : 1000;
    struct sockaddr_in at[2];
    struct tally t[2];
    int s[2], out[2];

    latency_us = (argc > 2 ? strtoul(argv[2], NULL, 10) : 30) * 1000;
    if (frames < 1 || frames > MAX_FRAMES || latency_us > 1000000) {
        fputs("usage: netplay [FRAMES [LATENCY_MS]]\n", stderr);
        return 2;
    }
    nr_frames = (uint32_t)frames;
    for (int i = 0; i < 2; i++)
        s[i] = open_socket(&at[i]);
    if (pipe(out) != 0)
        fail("pipe");
    pid_t other = fork();
    if (other < 0)
        fail("fork");
    int me = other == 0;
    sock = s[me];
    close(s[1 - me]);
    if (connect(sock, (struct sockaddr *)&at[1 - me], sizeof(at[0])) != 0)
        fail("connect");
    t[me] = play(me);
    if (me == 1)
        return write(out[1], &t[1], sizeof(t[1])) != (ssize_t)sizeof(t[1]);

    int status;
    close(out[1]);
    ssize_t got = read(out[0], &t[1], sizeof(t[1]));
    waitpid(other, &status, 0);
    if (got != (ssize_t)sizeof(t[1]))
        return WIFEXITED(status) ? WEXITSTATUS(status) : 1;
    report(0, &t[0]);
    report(1, &t[1]);
    printf("%lu frames, %u to %u hits: the worlds are %s (%016lx, %016lx)\n", frames, t[0].hits[0],
           t[0].hits[1], t[0].hash == t[1].hash ? "equal" : "DIFFERENT", (unsigned long)t[0].hash,
           (unsigned long)t[1].hash);
    return t[0].hash != t[1].hash;
}
