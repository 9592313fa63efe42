"""gcc, g++ and clang: object files of generated sources, byte for byte."""
import box as boxes

SECONDS = 120


def c_source():
    lines = ["#include <stdio.h>", "#include <stdlib.h>", "#include <string.h>"]
    for i in range(150):
        lines.append(f"struct s{i} {{ int a[{i + 1}]; char *name; struct s{max(0, i - 1)} *next; }};")
        lines.append(f"static int f{i}(struct s{i} *s, int n) {{ int sum = {i}; for (int k = 0; "
                     f"k < n; k++) {{ sum += s->a[k % {i + 1}] * k; if (sum > {i * 77}) sum ^= k; }}"
                     f" return sum + (s->name ? (int)strlen(s->name) : 0); }}")
    lines.append("int main(int argc, char **argv) { int total = 0;")
    for i in range(150):
        lines.append(f"{{ static struct s{i} s; s.a[0] = argc; total += f{i}(&s, {i}); }}")
    lines.append('printf("%d\\n", total); return 0; }')
    return "\n".join(lines)


CXX_SOURCE = r"""
#include <algorithm>
#include <iostream>
#include <map>
#include <memory>
#include <regex>
#include <string>
#include <variant>
#include <vector>
template <int N> struct chain { chain<N - 1> rest; std::map<int, std::string> own; };
template <> struct chain<0> {};
template <typename... T> auto sum(T... t) { return (t + ... + 0); }
int main()
{
    chain<60> c;
    c.own[1] = "one";
    std::vector<std::variant<int, std::string, double>> v{1, "two", 3.0};
    std::sort(v.begin(), v.end());
    std::regex r("([a-z]+)([0-9]*)");
    std::cout << std::regex_match("abc123", r) << sum(1, 2, 3) << c.own.size() << v.size() << "\n";
}
"""


def check(box):
    compilers = []
    for driver, package, source, served in (
            ("gcc", "gcc", "a.c", ["cc1", "as", "ld"]), ("g++", "g++", "b.cc", ["cc1plus"]),
            ("clang", "clang", "a.c", [])):
        try:
            compilers.append((box.need(driver, package), source, served))
        except boxes.Missing:
            if driver == "gcc":
                raise
    text = c_source()

    for path, source, served in compilers:
        def setup(preload, source=source):
            box.write(source, text if source == "a.c" else CXX_SOURCE)

        commands = [[path, "-O1", "-g", "-c", source, "-o", "out.o"],
                    [path, "out.o", "-lstdc++", "-o", "program"], ["./program"]]
        files = ["out.o", "program"]
        if box.whole:
            # without a seed, symbols of link-time optimisation have random names
            commands.append([path, "-O3", "-flto", "-frandom-seed=1", "-c", source, "-o",
                             "out3.o"])
            files.append("out3.o")
        box.both_commands(commands, files=files, setup=setup)
        for name in served:
            if not any(seen.split(".")[-1] == name or seen.endswith(name)
                       for seen in box.served()):
                box.expect_served(name)
