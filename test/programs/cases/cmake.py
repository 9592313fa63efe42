"""cmake and ninja: a project of 40 files configured and built; objects and program compared."""
SECONDS = 90


def check(box):
    cmake = box.need("cmake", "cmake")
    ninja = box.need("ninja", "ninja-build")
    box.need("gcc", "gcc")

    def setup(preload):
        names = [f"f{i}.c" for i in range(40)]
        for i, name in enumerate(names):
            box.write("src/" + name, f"int f{i}(int x);\nint f{i}(int x) {{ int s = 0; "
                      f"for (int i = 0; i < x; i++) s += i * {i} ^ (s >> 3); return s; }}\n")
        calls = " + ".join(f"f{i}(9)" for i in range(40))
        box.write("src/main.c", "#include <stdio.h>\n" +
                  "".join(f"int f{i}(int x);\n" for i in range(40)) +
                  f'int main(void) {{ printf("%d\\n", {calls}); return 0; }}\n')
        box.write("src/CMakeLists.txt",
                  "cmake_minimum_required(VERSION 3.13)\nproject(small C)\n"
                  "foreach(i RANGE 0 200)\n  list(APPEND numbers ${i})\n"
                  '  string(REGEX REPLACE "1" "one" text "${numbers}")\nendforeach()\n'
                  f"add_library(parts STATIC {' '.join(names)})\nadd_executable(small main.c)\n"
                  "target_link_libraries(small parts)\n")

    # Configuring prints how long it took; what it made is what counts.
    seen = box.both_commands(
        [[cmake, "-S", "src", "-B", "build", "-G", "Ninja", "-DCMAKE_BUILD_TYPE=Release"],
         [ninja, "-C", "build", "-j2"], ["build/small"]],
        files=["build/small", "build/CMakeFiles/parts.dir/f7.c.o",
               "build/CMakeFiles/small.dir/main.c.o"],
        mask=lambda text: "", names=["cmake", "ninja"], setup=setup)
    assert seen["build/small"]
