/* high.c - see high.h. */
#include "high.h"

#include <signal.h>
#include <sys/wait.h>
#include <unistd.h>

size_t page_bytes(void)
{
    return (size_t)sysconf(_SC_PAGESIZE);
}

struct quire_page *high(unsigned order)
{
    struct quire_page *page = quire_alloc_pages(QUIRE_GFP_HIGHMEM, order);

    if (page == NULL && errno == ENOSYS)
        conform_skip("no memfd here");
    REQUIRE(page != NULL, "errno %d", errno);
    return page;
}

bool faults(const void *p)
{
    int status, pid = fork();

    if (pid == 0) {
        signal(SIGSEGV, SIG_DFL);
        _exit(*(const volatile char *)p & 0);
    }
    REQUIRE(waitpid(pid, &status, 0) == pid);
    return WIFSIGNALED(status) && (WTERMSIG(status) == SIGSEGV || WTERMSIG(status) == SIGBUS);
}
