"""Generated inputs of the real programs: the same text for the same size, on every machine."""

import os
import subprocess

from .process import ENVIRONMENT


class Draw:
    """Numbers of a fixed sequence, whatever Python's own generator does in the next version."""

    def __init__(self, seed):
        self.state = seed

    def below(self, n):
        self.state = (self.state * 6364136223846793005 + 1442695040888963407) % (1 << 64)
        return (self.state >> 33) % n

    def word(self):
        return "".join(chr(97 + self.below(26)) for _ in range(2 + self.below(9)))

    def words(self, count):
        return " ".join(self.word() for _ in range(count))


def _expression(draw, depth):
    if depth == 0:
        return draw.below(3) and f"v{draw.below(6)}" or str(1 + draw.below(999))
    left, right = _expression(draw, depth - 1), _expression(draw, depth - 1)
    return f"({left} {('+', '-', '*', '^', '&', '|')[draw.below(6)]} {right})"


def c_source(path, functions):
    """A C file for the compiler: structures, loops, switches, calls, initialised tables."""
    draw = Draw(5)
    with open(path, "w") as out:
        out.write("typedef unsigned long word;\n")
        for i in range(0, functions, 4):
            fields = "".join(f"    word f{k}; int g{k}[{1 + draw.below(9)}];\n" for k in range(8))
            out.write(f"struct s{i} {{\n    struct s{i} *next;\n{fields}}};\n")
        for i in range(functions):
            kind = i - i % 4
            values = ", ".join(str(draw.below(1 << 31)) for _ in range(32))
            out.write(f"\nstatic const word table{i}[32] = {{ {values} }};\n")
            out.write(f"word work{i}(struct s{kind} *s, word v0, word v1)\n{{\n")
            for k in range(2, 6):
                out.write(f"    word v{k} = v{draw.below(k)} + table{i}[v{k - 2} % 32];\n")
            out.write("    for (; s; s = s->next) {\n")
            for k in range(8):
                out.write(f"        s->f{k} += {_expression(draw, 3)};\n")
            out.write("        switch (s->f0 % 8) {\n")
            for k in range(8):
                callee = draw.below(i) if i else None
                call = "" if callee is None or callee - callee % 4 != kind else \
                    f" + work{callee}(s->next, v{draw.below(6)}, v{draw.below(6)})"
                out.write(f"        case {k}:\n            v{draw.below(6)} = "
                          f"{_expression(draw, 2)}{call};\n            break;\n")
            out.write("        }\n")
            out.write(f"        if (v{draw.below(6)} > v{draw.below(6)})\n")
            out.write(f"            s->g{draw.below(8)}[0] ^= (int)({_expression(draw, 2)});\n")
            out.write("    }\n")
            out.write(f"    return {_expression(draw, 3)};\n}}\n")


def sql_script(path, rows):
    """Statements for sqlite3: tables, indexes, joins, changes, text functions, a final check."""
    draw = Draw(6)
    with open(path, "w") as out:
        out.write("CREATE TABLE people(id INTEGER PRIMARY KEY, name TEXT, town TEXT, note TEXT);\n"
                  "CREATE TABLE orders(id INTEGER PRIMARY KEY, person INT, item TEXT, "
                  "price REAL);\n"
                  "BEGIN;\n")
        for i in range(rows):
            out.write(f"INSERT INTO people VALUES({i},'{draw.word()} {draw.word()}',"
                      f"'town{draw.below(200)}','{draw.words(draw.below(20))}');\n")
            out.write(f"INSERT INTO orders VALUES({i},{draw.below(rows)},'item{draw.below(500)}',"
                      f"{draw.below(100000)}/100.0);\n")
        out.write("COMMIT;\nCREATE INDEX by_town ON people(town);\n"
                  "CREATE INDEX by_person ON orders(person, item);\n")
        for k in range(6):
            out.write("SELECT town, count(*), round(sum(price),2) FROM people p JOIN orders o "
                      f"ON o.person = p.id WHERE p.id % 6 <> {k} GROUP BY town "
                      "ORDER BY 3 DESC LIMIT 5;\n")
            out.write(f"SELECT count(DISTINCT substr(note,{k + 1},3)), max(length(note)) "
                      "FROM people;\n")
            out.write("SELECT id, group_concat(item,'/') FROM (SELECT p.id AS id, item "
                      "FROM people p JOIN orders o ON o.person = p.id ORDER BY item) GROUP BY id "
                      "ORDER BY length(group_concat(item)) DESC, id LIMIT 3;\n")
        out.write("UPDATE people SET note = note || ' ' || upper(name) WHERE id % 3 = 0;\n"
                  "DELETE FROM orders WHERE price < 200;\n"
                  "WITH RECURSIVE c(n) AS (SELECT 1 UNION ALL SELECT n + 1 FROM c WHERE n < "
                  f"{rows}) SELECT sum(n * length(hex(n))) FROM c;\n"
                  "SELECT town, name FROM (SELECT town, name, row_number() OVER (PARTITION BY town "
                  "ORDER BY name) AS place FROM people) WHERE place = 1 ORDER BY town LIMIT 20;\n"
                  "SELECT count(*), sum(length(note)) FROM people;\nPRAGMA integrity_check;\n")


def git_repository(path, commits):
    """A repository whose files change a little from commit to commit: work for delta search."""
    draw = Draw(8)
    files = [[draw.words(10) for _ in range(40 + draw.below(120))] for _ in range(60)]
    stream = []
    for commit in range(commits):
        stream.append("commit refs/heads/main\n"
                      f"committer A <a@b> {1600000000 + commit * 60} +0000\n"
                      f"data 9\nchange{commit % 1000:03d}\n")
        for _ in range(3):
            number = draw.below(len(files))
            lines = files[number]
            for _ in range(1 + draw.below(4)):
                lines[draw.below(len(lines))] = draw.words(10)
            if draw.below(2):
                lines.insert(draw.below(len(lines)), draw.words(10))
            content = "\n".join(lines) + "\n"
            stream.append(f"M 100644 inline dir{number % 7}/file{number}\n"
                          f"data {len(content)}\n{content}\n")
    environment = {**ENVIRONMENT, "HOME": os.path.dirname(path)}
    subprocess.run(["git", "init", "--quiet", "--bare", "--initial-branch=main", path], check=True,
                   env=environment, stdout=subprocess.DEVNULL)
    subprocess.run(["git", "-C", path, "fast-import", "--quiet"], check=True, env=environment,
                   input="".join(stream).encode(), stdout=subprocess.DEVNULL)


def _linear_problem(draw, out, number):
    """Integers under random inequalities: the simplex, with cuts."""
    names = [f"x{number}_{i}" for i in range(24)]
    for name in names:
        out.write(f"(declare-const {name} Int)(assert (<= 0 {name} 60))\n")
    for _ in range(40):
        terms = " ".join(f"(* {1 + draw.below(9)} {names[draw.below(24)]})" for _ in range(5))
        out.write(f"(assert (<= (+ {terms}) {300 + draw.below(600)}))\n")
    out.write(f"(assert (= (+ {' '.join(names[:8])}) 97))\n")


def _bit_problem(draw, out, number):
    """Factors of a product, bit by bit: a search in the SAT solver."""
    a, b = f"a{number}", f"b{number}"
    product = (1000 + draw.below(2000)) * (3001 + draw.below(2000))
    out.write(f"(declare-const {a} (_ BitVec 28))(declare-const {b} (_ BitVec 28))\n"
              f"(assert (= (bvmul {a} {b}) (_ bv{product} 28)))\n"
              f"(assert (and (bvugt {a} (_ bv1 28)) (bvult {a} {b}) (bvult {b} (_ bv8192 28))))\n")


def _array_problem(draw, out, number):
    """Arrays and functions: many terms, congruence closure."""
    out.write(f"(declare-const m{number} (Array Int Int))(declare-fun f{number} (Int) Int)\n")
    term = f"m{number}"
    for i in range(60):
        term = f"(store {term} {draw.below(500)} (f{number} {i}))"
        if i % 6 == 5:
            out.write(f"(assert (= (select {term} {1000 + i}) (f{number} {i + 1})))\n")
    for i in range(40):
        out.write(f"(assert (< (f{number} {i}) (f{number} {i + 1})))\n")


def smt_script(path, problems):
    """Problems for z3, each solved by itself and forgotten."""
    draw = Draw(9)
    with open(path, "w") as out:
        for number in range(problems):
            for problem in (_linear_problem, _bit_problem, _array_problem):
                out.write("(push)\n")
                problem(draw, out, f"{number}_{problem.__name__[1:4]}")
                out.write("(check-sat)\n(pop)\n")


def postscript(path, pages):
    """Pages of text in several fonts, filled curves, and pictures."""
    draw = Draw(10)
    with open(path, "w") as out:
        out.write("%!PS\n")
        for _ in range(pages):
            for line in range(60):
                font = ("Times-Roman", "Helvetica-Bold", "Courier")[draw.below(3)]
                out.write(f"/{font} findfont {6 + draw.below(8)} scalefont setfont\n"
                          f"40 {40 + line * 12} moveto ({draw.words(12)}) show\n")
            for _ in range(150):
                numbers = " ".join(str(draw.below(600)) for _ in range(6))
                out.write(f"0.{draw.below(9)} 0.{draw.below(9)} 0.{draw.below(9)} setrgbcolor "
                          f"newpath {draw.below(600)} {draw.below(700)} moveto {numbers} curveto "
                          f"{('fill', 'stroke')[draw.below(2)]}\n")
            rows = "".join(f"{draw.below(1 << 31):08x}" for _ in range(32 * 32 // 4))
            out.write("gsave 100 100 translate 200 200 scale 32 32 8 [32 0 0 32 0 0] "
                      f"{{<{rows}>}} image grestore\nshowpage\n")
