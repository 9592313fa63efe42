/* cxx.cc - operator new and delete in all forms, new_handler and bad_alloc included. */
#include "conform.h"

#include <dlfcn.h>
#include <malloc.h>

#include <cstdlib>
#include <cstring>
#include <map>
#include <memory>
#include <memory_resource>
#include <new>
#include <string>
#include <thread>
#include <vector>

static const size_t sizes[] = {0, 1, 16, 100, 4096, 70000, 1 << 20, 20 << 20};
static const size_t alignments[] = {8, 16, 32, 64, 128, 4096, 65536, 1 << 21};

static void check_block(void *p, size_t size, size_t alignment)
{
    REQUIRE(p != nullptr, "(size %zu)", size);
    CHECK(reinterpret_cast<uintptr_t>(p) % alignment == 0, "(size %zu, alignment %zu)", size,
          alignment);
    CHECK(malloc_usable_size(p) >= size, "(size %zu)", size);
    std::memset(p, 0x5a, size);
}

static void case_plain_forms()
{
    for (size_t size : sizes) {
        void *p = ::operator new(size), *q = ::operator new[](size);
        void *r = ::operator new(size, std::nothrow), *s = ::operator new[](size, std::nothrow);

        CHECK(p != q && q != r && r != s);
        check_block(p, size, 16);
        check_block(q, size, 16);
        check_block(r, size, 16);
        check_block(s, size, 16);
        ::operator delete(p);
        ::operator delete[](q);
        ::operator delete(r, std::nothrow);
        ::operator delete[](s, std::nothrow);
        ::operator delete(::operator new(size), size);
        ::operator delete[](::operator new[](size), size);
    }
    ::operator delete(nullptr);
    ::operator delete[](nullptr);
    ::operator delete(nullptr, size_t(8));
    ::operator delete(nullptr, std::nothrow);
}

static void case_aligned_forms()
{
    for (size_t number : alignments) {
        std::align_val_t alignment{number};

        for (size_t size : sizes) {
            void *p = ::operator new(size, alignment), *q = ::operator new[](size, alignment);
            void *r = ::operator new(size, alignment, std::nothrow);
            void *s = ::operator new[](size, alignment, std::nothrow);

            check_block(p, size, number);
            check_block(q, size, number);
            check_block(r, size, number);
            check_block(s, size, number);
            ::operator delete(p, alignment);
            ::operator delete[](q, alignment);
            ::operator delete(r, alignment, std::nothrow);
            ::operator delete[](s, alignment, std::nothrow);
            ::operator delete(::operator new(size, alignment), size, alignment);
            ::operator delete[](::operator new[](size, alignment), size, alignment);
        }
    }
    ::operator delete(nullptr, std::align_val_t(64));
    ::operator delete(nullptr, size_t(64), std::align_val_t(64));
}

struct alignas(256) Wide {
    char bytes[300];
};

static void case_expressions()
{
    Wide *one = new Wide, *many = new Wide[7];
    std::string *text = new std::string(10000, 'x'), *texts = new std::string[100];

    CHECK(reinterpret_cast<uintptr_t>(one) % 256 == 0);
    CHECK(reinterpret_cast<uintptr_t>(many) % 256 == 0);
    CHECK(text->size() == 10000);
    delete one;
    delete[] many;
    delete text;
    delete[] texts;
    {
        std::map<int, std::vector<std::string>> tree;
        std::pmr::vector<int> numbers{std::pmr::new_delete_resource()};

        for (int i = 0; i < 20000; i++) {
            tree[i * 7919 % 1000].push_back(std::to_string(i));
            numbers.push_back(i);
        }
        CHECK(tree.size() == 1000 && numbers[19999] == 19999);
    }
    auto shared = std::make_shared<std::vector<int>>(1000, 3);
    std::thread([shared] { CHECK((*shared)[999] == 3); }).join();
}

static const size_t impossible[] = {SIZE_MAX, SIZE_MAX - 4096, size_t(PTRDIFF_MAX) + 1,
                                    SIZE_MAX / 2 + 1 + SIZE_MAX / 16};

/* libstdc++'s aligned forms round the size up before they call aligned_alloc, and it wraps to 0. */
static bool known_libstdcxx_fault(size_t size)
{
    return !conform_expects_quire() && size > SIZE_MAX - 4096;
}

static void case_bad_alloc()
{
    for (size_t size : impossible) {
        size = conform_opaque(size);
        int caught = 0;

        try {
            ::operator delete(::operator new(size));
        } catch (const std::bad_alloc &e) {
            caught += e.what() != nullptr;
        }
        try {
            ::operator delete[](::operator new[](size));
        } catch (const std::bad_alloc &) {
            caught++;
        }
        try {
            ::operator delete(::operator new(size, std::align_val_t(64)), std::align_val_t(64));
        } catch (const std::bad_alloc &) {
            caught++;
        }
        try {
            ::operator delete[](::operator new[](size, std::align_val_t(4096)),
                                std::align_val_t(4096));
        } catch (const std::bad_alloc &) {
            caught++;
        }
        CHECK(caught == 4 || known_libstdcxx_fault(size), "%d of 4 forms threw bad_alloc for %#zx",
              caught, size);
        CHECK(::operator new(size, std::nothrow) == nullptr);
        CHECK(::operator new[](size, std::nothrow) == nullptr);
        if (!known_libstdcxx_fault(size)) {
            CHECK(::operator new(size, std::align_val_t(64), std::nothrow) == nullptr);
            CHECK(::operator new[](size, std::align_val_t(64), std::nothrow) == nullptr);
        }
    }
}

static int handler_calls;

static void counting_handler()
{
    if (++handler_calls == 3) {
        std::set_new_handler(nullptr);
    }
}

struct Own : std::bad_alloc {
};

static void throwing_handler()
{
    handler_calls++;
    throw Own();
}

static void case_new_handler()
{
    size_t size = conform_opaque(SIZE_MAX / 2);
    int caught = 0;

    handler_calls = 0;
    std::set_new_handler(counting_handler);
    try {
        ::operator delete(::operator new(size));
    } catch (const std::bad_alloc &) {
        caught++;
    }
    CHECK(caught == 1 && handler_calls == 3, "caught %d, handler called %d times", caught,
          handler_calls);

    handler_calls = 0;
    std::set_new_handler(counting_handler);
    CHECK(::operator new(size, std::nothrow) == nullptr);
    CHECK(handler_calls == 3, "nothrow new called the handler %d times", handler_calls);

    /* An exception from the handler passes through new, and becomes NULL in nothrow new. */
    handler_calls = caught = 0;
    std::set_new_handler(throwing_handler);
    try {
        ::operator delete(::operator new(size));
    } catch (const Own &) {
        caught++;
    }
    try {
        ::operator delete(::operator new(size, std::align_val_t(128)), std::align_val_t(128));
    } catch (const Own &) {
        caught++;
    }
    CHECK(caught == 2 && handler_calls == 2, "caught %d, handler called %d times", caught,
          handler_calls);
    CHECK(::operator new(size, std::nothrow) == nullptr);
    CHECK(::operator new[](size, std::nothrow) == nullptr);
    CHECK(::operator new(size, std::align_val_t(64), std::nothrow) == nullptr);
    std::set_new_handler(nullptr);
}

static void case_memory_is_the_allocators()
{
    /* What new gives out is malloc's kind of block in every common library: realloc takes it. */
    void *p = std::realloc(::operator new(100), 5000);

    REQUIRE(p != nullptr);
    ::operator delete(p);
    if (conform_expects_quire()) {
        Dl_info of_new, of_malloc;

        REQUIRE(dladdr(dlsym(RTLD_DEFAULT, SIZE_MAX > UINT32_MAX ? "_Znwm" : "_Znwj"), &of_new) !=
                0);
        REQUIRE(dladdr(dlsym(RTLD_DEFAULT, "malloc"), &of_malloc) != 0);
        CHECK(std::strcmp(of_new.dli_fname, of_malloc.dli_fname) == 0,
              "operator new is %s's, malloc is %s's", of_new.dli_fname, of_malloc.dli_fname);
    }
}

static const struct conform_case cases[] = {
    {"new and delete, nothrow and sized", case_plain_forms, 0},
    {"aligned new and delete", case_aligned_forms, 0},
    {"new expressions and containers", case_expressions, 0},
    {"bad_alloc is thrown and caught", case_bad_alloc, 0},
    {"new_handler is called", case_new_handler, 0},
    {"new and malloc share their memory", case_memory_is_the_allocators, 0},
};

int main(int argc, char **argv)
{
    return conform_run(cases, COUNT_OF(cases), argc, argv);
}
