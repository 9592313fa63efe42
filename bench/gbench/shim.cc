// shim: see shim.h. All C++ of this project's benchmarks is in this file.
#include "shim.h"

#include <benchmark/benchmark.h>

#include <cstdio>

// about this many operations lie between two looks at the clock's counter
static const size_t batch = 512;

struct shim {
    benchmark::State &state;
    size_t operations;
};

extern "C" size_t shim_next(struct shim *shim)
{
    auto count = static_cast<benchmark::IterationCount>(shim->operations);

    return shim->state.KeepRunningBatch(count) ? shim->operations : 0;
}

extern "C" int shim_thread(const struct shim *shim)
{
    return shim->state.thread_index();
}

extern "C" void shim_register(const char *name, shim_function *function, size_t argument,
                              size_t unit, int threads)
{
    size_t operations = batch < unit ? unit : batch / unit * unit;
    auto run = [=](benchmark::State &state) {
        struct shim shim = {state, operations};

        function(&shim, argument);
    };
    auto *made = benchmark::RegisterBenchmark(name, run);

    if (threads > 0)
        made->Threads(threads)->UseRealTime();
}

extern "C" int shim_main(int argc, char **argv)
{
    benchmark::Initialize(&argc, argv);
    if (benchmark::ReportUnrecognizedArguments(argc, argv))
        return 2;
    if (benchmark::RunSpecifiedBenchmarks() == 0) {
        std::fprintf(stderr, "no benchmark has such a name\n");
        return 1;
    }
    benchmark::Shutdown();
    return 0;
}
