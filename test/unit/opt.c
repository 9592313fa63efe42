/* opt.c - QUIRE_CONF: every option, units, complaints; each case in a child of its own. */
#include "base/opt.h"

#include <stdio.h>
#include <string.h>
#include <sys/wait.h>
#include <unistd.h>

#include "base/msg.h"
#include "base/sys.h"
#include "unit.h"

/* What q_opt_print() says and what came on stderr, for one value of QUIRE_CONF. */
static char said[4096], printed[4096];

static void slurp(int fd, char *text, size_t size)
{
    size_t got = 0;
    ssize_t n;

    while ((n = read(fd, text + got, size - 1 - got)) > 0)
        got += (size_t)n;
    text[got] = '\0';
    close(fd);
}

static void run_with(const char *conf)
{
    int err[2], out[2], status;

    must(pipe(err) == 0 && pipe(out) == 0);
    pid_t pid = fork();
    must(pid >= 0);
    if (pid == 0) {
        char text[4096];
        struct q_buf b = {.at = text, .size = sizeof(text)};

        dup2(err[1], 2);
        if (conf != NULL)
            setenv("QUIRE_CONF", conf, 1);
        else
            unsetenv("QUIRE_CONF");
        q_opt_init();
        q_opt_print(&b);
        q_write_all(out[1], b.at, b.len);
        _exit(0);
    }
    close(err[1]);
    close(out[1]);
    slurp(out[0], printed, sizeof(printed));
    slurp(err[0], said, sizeof(said));
    must(waitpid(pid, &status, 0) == pid && status == 0);
}

/* Is "name:value" one of the comma-separated parts of what was printed? */
static bool in_force(const char *part)
{
    size_t len = strlen(part);

    for (const char *p = printed; p != NULL; p = strchr(p, ',')) {
        p += *p == ',';
        if (strncmp(p, part, len) == 0 && (p[len] == ',' || p[len] == '\0'))
            return true;
    }
    return false;
}

static unsigned lines_said(void)
{
    unsigned n = 0;

    for (const char *p = said; *p != '\0'; p++)
        n += *p == '\n';
    return n;
}

Test(opt, defaults_are_silent)
{
    run_with(NULL);
    must_eq(said[0], 0);
    must(in_force("misuse:abort") && in_force("huge:auto") && in_force("numa:auto") &&
         in_force("model:auto") && in_force("limit:0") && in_force("populate:1") &&
         in_force("stats:0"));
    run_with("");
    must_eq(said[0], 0);
}

Test(opt, every_option_takes_its_values)
{
    static const char *const good[] = {
        "stats:1",          "stats:0",       "stats_file:/tmp/a b",
        "misuse:abort",     "misuse:report", "huge:auto",
        "huge:off",         "huge:on",       "decay_ms:0",
        "decay_ms:3600000", "limit:1048576", "numa:off",
        "numa:auto",        "numa_fake:64",  "model:auto",
        "model:flat",       "model:sparse",  "window:1048576",
        "spare:0",          "populate:0",    "populate:1",
        "fork:copy",        "fork:shared",   "verbose:1",
    };

    for (size_t i = 0; i < sizeof(good) / sizeof(good[0]); i++) {
        run_with(good[i]);
        cr_assert(said[0] == '\0', "'%s' gave: %s", good[i], said);
        cr_assert(in_force(good[i]), "'%s' gave: %s", good[i], printed);
    }
}

Test(opt, what_is_printed_can_be_read_back)
{
    char first[4096];

    run_with("stats:1,misuse:report,huge:on,decay_ms:7,limit:3G,numa_fake:2,model:sparse,spare:5K");
    must_eq(said[0], 0);
    strcpy(first, printed);
    run_with(first);
    must_eq(said[0], 0);
    must(strcmp(first, printed) == 0);
}

Test(opt, units)
{
    run_with("limit:1K");
    must(in_force("limit:1024"));
    run_with("limit:3m");
    must(in_force("limit:3145728"));
    run_with("limit:2G");
    must(in_force("limit:2147483648"));
    run_with("limit:1T");
    must(in_force("limit:1099511627776"));
}

Test(opt, several_and_the_last_one_wins)
{
    run_with("decay_ms:1,,spare:64K,decay_ms:2,");
    must_eq(said[0], 0);
    must(in_force("decay_ms:2") && in_force("spare:65536"));
}

Test(opt, bad_ones_give_one_line_and_change_nothing)
{
    static const struct {
        const char *conf, *word;
    } bad[] = {
        {"colour:red", "colour"},
        {"stats", "stats"},
        {"stats:", "stats"},
        {"stats:2", "stats"},
        {"stats:yes", "yes"},
        {"decay_ms:-1", "-1"},
        {"decay_ms:3600001", "3600001"},
        {"decay_ms:1K", "1K"},
        {"limit:K", "K"},
        {"limit:12X", "12X"},
        {"limit:99999999999999999999", "9999"},
        {"limit:18446744073709551615", "1844"},
        {"limit:99999999T", "99999999T"},
        {"huge:", "huge"},
        {"huge:sometimes", "sometimes"},
        {"huge:o", "o"},
        {"numa_fake:65", "65"},
        {"Stats:1", "Stats"},
        {"statsx:1", "statsx"},
        {"stat:1", "stat"},
        {":1", "''"},
        {"stats_file:", "stats_file"},
    };
    char defaults[4096];

    run_with(NULL);
    strcpy(defaults, printed);
    for (size_t i = 0; i < sizeof(bad) / sizeof(bad[0]); i++) {
        run_with(bad[i].conf);
        cr_assert(lines_said() == 1 && strncmp(said, "quire: QUIRE_CONF: ", 19) == 0 &&
                      strstr(said, bad[i].word) != NULL && strstr(said, "ignored") != NULL,
                  "'%s' gave: '%s'", bad[i].conf, said);
        cr_assert(strcmp(printed, defaults) == 0, "'%s' changed: %s", bad[i].conf, printed);
    }
}

Test(opt, a_bad_one_does_not_spoil_its_neighbours)
{
    run_with("decay_ms:5,nonsense,spare:64K");
    must_eq(lines_said(), 1);
    must(in_force("decay_ms:5") && in_force("spare:65536"));
}

Test(opt, endless_values_are_cut_in_the_complaint)
{
    char conf[3000] = "huge:";

    memset(conf + 5, 'z', sizeof(conf) - 6);
    run_with(conf);
    must_eq(lines_said(), 1);
    must(strlen(said) < 300);
    memcpy(conf, "stats_file:", 11);
    run_with(conf);
    must_eq(lines_said(), 1);
}

/* What the program says of itself where libc does not know its environment: see the next case. */
__attribute__((constructor)) static void without_environ(void)
{
    extern char **environ;
    char text[4096];
    struct q_buf b = {.at = text, .size = sizeof(text)};

    if (getenv("OPT_WITHOUT_ENVIRON") == NULL)
        return;
    environ = NULL;
    q_opt_init();
    q_opt_print(&b);
    q_write_all(1, b.at, b.len);
    _exit(0);
}

/* The kernel's copy of the environment serves then, however long it is. */
Test(opt, before_libc_knows_its_environment)
{
    static char filler[1000], mark[] = "OPT_WITHOUT_ENVIRON=1", name[] = "opt";
    static char conf[] = "QUIRE_CONF=decay_ms:77,huge:off", *env[1003];

    memset(filler, 'x', sizeof(filler) - 1);
    for (size_t more = 0; more <= 1000; more += 500) {
        int out[2], status;

        for (size_t i = 0; i < more; i++)
            env[i] = filler;
        env[more] = mark;
        env[more + 1] = conf;
        env[more + 2] = NULL;
        must(pipe(out) == 0);
        pid_t pid = fork();
        must(pid >= 0);
        if (pid == 0) {
            dup2(out[1], 1);
            execve("/proc/self/exe", (char *[]){name, NULL}, env);
            _exit(1);
        }
        close(out[1]);
        slurp(out[0], printed, sizeof(printed));
        must(waitpid(pid, &status, 0) == pid && status == 0);
        must(in_force("decay_ms:77") && in_force("huge:off"));
    }
}
