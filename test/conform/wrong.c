/* wrong.c - see wrong.h. */
#include "wrong.h"

#include <signal.h>
#include <string.h>
#include <sys/wait.h>
#include <unistd.h>

void wrong_is_named(const struct wrong *w, bool (*unharmed)(void))
{
    char text[2000];
    int fd[2], status;
    ssize_t n = 0, got;

    REQUIRE(pipe(fd) == 0);
    int pid = fork();
    if (pid == 0) {
        dup2(fd[1], 2);
        w->run();
        _exit(unharmed() ? 0 : 9);
    }
    close(fd[1]);
    while ((got = read(fd[0], text + n, sizeof(text) - 1 - (size_t)n)) > 0) {
        n += got;
    }
    close(fd[0]);
    text[n] = '\0';
    REQUIRE(waitpid(pid, &status, 0) == pid);
    if (conform_has_option("misuse:report")) {
        CHECK(WIFEXITED(status) && WEXITSTATUS(status) == 0, "%s: status %#x", w->name, status);
    } else {
        CHECK(WIFSIGNALED(status) && WTERMSIG(status) == SIGABRT, "%s: status %#x", w->name,
              status);
    }
    CHECK(strncmp(text, "quire: ", 7) == 0 && strstr(text, w->function) == text + 7 &&
              strstr(text, w->says) != NULL,
          "%s: said '%s'", w->name, text);
    CHECK(n > 0 && strchr(text, '\n') == text + n - 1, "%s: not one line: '%s'", w->name, text);
}

void wrongs_are_named(const struct wrong *wrongs, size_t nr, bool (*unharmed)(void))
{
    for (size_t i = 0; i < nr; i++) {
        wrong_is_named(&wrongs[i], unharmed);
    }
    CHECK(unharmed());
}
