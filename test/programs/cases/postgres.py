"""PostgreSQL: initdb, a schema, pgbench with several clients, queries, a restart; not as root."""
import glob
import os
import pwd
import shutil
import signal

SECONDS = 150
SQL = """
CREATE TABLE t AS SELECT i, md5(i::text) AS h, repeat('x', i % 200) AS pad
  FROM generate_series(1, 60000) i;
CREATE INDEX ON t (h);
CREATE INDEX ON t USING gin (string_to_array(h, '0'));
ANALYZE t;
SELECT count(*), sum(length(pad)), min(h), max(h) FROM t;
SELECT substr(h, 1, 2) k, count(*), string_agg(i::text, ',' ORDER BY i) FROM t
  WHERE i < 3000 GROUP BY 1 ORDER BY 1;
SELECT a.i, b.i FROM t a JOIN t b ON a.h = md5((b.i + 1)::text) WHERE a.i % 800 = 0 ORDER BY 1;
SELECT jsonb_pretty(jsonb_agg(to_jsonb(t) ORDER BY i)) FROM t WHERE i < 60;
SET max_parallel_workers_per_gather = 2; SET min_parallel_table_scan_size = 0;
SELECT length(string_agg(h, '' ORDER BY h)) FROM t;
DO $$ DECLARE n int := 0; BEGIN FOR k IN 1..20000 LOOP n := n + length(md5(k::text)); END LOOP;
  RAISE NOTICE 'n is %', n; END $$;
SELECT regexp_replace(h, '([0-9]+)', '<\\1>', 'g') FROM t WHERE i % 5000 = 0 ORDER BY i;
VACUUM FULL t;
"""


def programs(box):
    """Debian keeps the servers out of PATH, in a folder by version."""
    folders = sorted(glob.glob("/usr/lib/postgresql/*/bin"))
    path = os.pathsep.join(folders[-1:] + [os.environ["PATH"]])
    found = {name: shutil.which(name, path=path) for name in
             ("initdb", "postgres", "psql", "pgbench")}
    for name, where in found.items():
        if where is None:
            box.need(f"{name} (no such program)", "postgresql")
    return found


def user_command(box):
    """What makes a command run as an ordinary user, which PostgreSQL insists on."""
    if os.getuid() != 0:
        return []
    setpriv = box.need("setpriv", "util-linux")
    name = next((entry.pw_name for entry in pwd.getpwall() if entry.pw_name == "postgres"),
                "nobody")
    entry = pwd.getpwnam(name)
    return [setpriv, f"--reuid={entry.pw_uid}", f"--regid={entry.pw_gid}", "--clear-groups", "--"]


def check(box):
    found = programs(box)
    as_user = user_command(box)

    def story(preload):
        data = box.path("data")
        # The change of user is made without the library: only what follows is under test.
        extra = [f"{name}={value}" for name, value in box.environment(preload).items()
                 if name in ("LD_PRELOAD", "QUIRE_CONF")]

        def command(program, *words):
            return [*as_user, "/usr/bin/env", *extra, found[program], *words]

        def run(program, *words, **options):
            return box.run(command(program, *words), False, **options)

        def psql(*words, **options):
            return run("psql", "-h", box.work, "-U", "tester", "-XAt", *words, "postgres",
                       **options)

        os.makedirs(data)
        if as_user:
            shutil.chown(data, int(as_user[1].split("=")[1]), int(as_user[2].split("=")[1]))
            os.chmod(data, 0o700)
        run("initdb", "-D", data, "-U", "tester", "--no-sync", "-E", "UTF8", "--locale=C")
        server = command("postgres", "-D", data, "-k", box.work, "-c", "listen_addresses=",
                         "-c", "fsync=off", "-c", "max_connections=20", "-c", "shared_buffers=16MB")

        def ready():
            return psql("-c", "SELECT 1", ok=(0, 1, 2)).out == b"1\n"

        seen = {}
        with box.server(server, False, ready, stop=signal.SIGINT) as child:
            result = psql("-v", "ON_ERROR_STOP=1", stdin=SQL.encode())
            seen["answers"], seen["notices"] = result.out, result.err
            if preload:
                box.expect_serving(child.pid)
                backend = psql("-c", "SELECT pg_backend_pid(), pg_sleep(0.01)").text.split("|")[0]
                assert backend.isdigit()
            bench = ["-h", box.work, "-U", "tester", "-n"]
            run("pgbench", *bench, "-i", "-q", "-s", "1", "postgres")
            run("pgbench", *bench, "-c", "4", "-j", "2", "-t", "200", "postgres")
            seen["transactions"] = psql("-c", "SELECT count(*) FROM pgbench_history").out
        with box.server(server, False, ready, stop=signal.SIGINT):
            seen["after restart"] = psql("-c", "SELECT count(*), max(h) FROM t").out
        return seen

    box.both(story)
    box.expect_served("psql", "initdb")
