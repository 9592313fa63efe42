"""postgres under pgbench: bank transactions, then reports that sort and join."""

import glob
import os
import signal
import subprocess
import time

from .process import ENVIRONMENT, RunError
from .server import Server

REPORT = """
\\set k random(1, 50)
SELECT bid, count(*), sum(abalance), string_agg(substr(filler, 1, 4), ',' ORDER BY aid)
  FROM pgbench_accounts WHERE aid % 50 = :k % 50 GROUP BY bid;
SELECT count(*) FROM pgbench_accounts a JOIN pgbench_accounts b ON a.abalance = b.aid
  WHERE a.aid < 5000;
"""


def _folder():
    """Debian keeps the server's programs off the path, by version: the newest."""
    found = glob.glob("/usr/lib/postgresql/*/bin/initdb")
    found.sort(key=lambda path: float(path.split("/")[4]))
    return os.path.dirname(found[-1]) if found else None


class Postgres(Server):
    user = "postgres"

    def __init__(self):
        super().__init__("postgres", "postgres under pgbench: transactions and reports",
                         (1500, 300), most_runs=5)
        self.programs = _folder()
        self.template = None
        if self.programs:
            self.version = [os.path.join(self.programs, "postgres"), "--version"]

    def missing(self, place):
        if not self.programs:
            return "postgres is not installed (Debian package postgresql)"
        if not os.access(os.path.join(self.programs, "pgbench"), os.X_OK):
            return "pgbench is not installed (Debian package postgresql-contrib)"
        if os.geteuid() == 0 and not self.account():
            return "postgres does not run as root, and there is no user named postgres"
        return None

    def _call(self, place, name, *arguments, wanted=True):
        account = self.account()
        done = subprocess.run([os.path.join(self.programs, name), *arguments], text=True,
                              stdin=subprocess.DEVNULL, capture_output=True, timeout=self.timeout,
                              env={**ENVIRONMENT, "HOME": place.work}, cwd="/",
                              user=account.pw_uid if account else None,
                              group=account.pw_gid if account else None,
                              extra_groups=[] if account else None)
        if done.returncode and wanted:
            raise RunError(f"{name} failed: {(done.stderr or done.stdout).strip()[-200:]}")
        return done.stdout

    def prepare(self, place, quick):
        """The database as it is before each run; with the C library's allocator."""
        super().prepare(place, quick)
        self.template = place.scratch("postgres-template")
        os.mkdir(self.template, 0o700)
        self.give_away(self.template)
        self._call(place, "initdb", "-D", self.template, "-U", "postgres", "-A", "trust",
                   "--no-sync", "--locale=C", "--encoding=UTF8")
        with open(os.path.join(self.template, "postgresql.conf"), "a") as file:
            file.write("listen_addresses = ''\nunix_socket_permissions = 0777\nfsync = off\n"
                       "shared_buffers = 16MB\nautovacuum = off\nmax_wal_size = 64MB\n"
                       "jit = off\nmax_parallel_workers_per_gather = 0\n")

    def setup(self, place):
        self.data = os.path.join(self.folder, "data")
        # its owners and modes must stay
        subprocess.run(["cp", "-a", self.template, self.data], check=True)
        self.socket = os.path.join(self.folder, ".s.PGSQL.5432")
        self.script = os.path.join(self.folder, "report.sql")
        with open(self.script, "w") as file:
            file.write(REPORT)
        os.chmod(self.script, 0o644)

    def command(self, place):
        return [os.path.join(self.programs, "postgres"), "-D", self.data, "-k", self.folder]

    def connect(self):
        super().connect().close()
        return None

    def _bench(self, place, *arguments, wanted=True):
        return self._call(place, "pgbench", "-h", self.folder, "-U", "postgres", *arguments,
                          "postgres", wanted=wanted)

    def _wait_for_queries(self, place):
        deadline = time.monotonic() + 30
        while "1" not in self._ask(place, "SELECT 1", wanted=False):
            if time.monotonic() > deadline:
                raise RunError("postgres does not answer")
            time.sleep(0.05)

    def _ask(self, place, query, wanted=True):
        return self._call(place, "psql", "-h", self.folder, "-U", "postgres", "-XAtc", query,
                          "postgres", wanted=wanted).strip()

    def work(self, place, connection):
        self._wait_for_queries(place)
        self._bench(place, "-i", "-q", "--no-vacuum")
        start = time.monotonic()
        self._bench(place, "-n", "-c", "2", "-t", str(self.size))
        self._bench(place, "-n", "-c", "2", "-t", str(self.size // 30), "-f", self.script)
        wall = time.monotonic() - start
        # a bank that has neither lost nor made money
        sums = self._ask(place, "SELECT (SELECT sum(abalance) FROM pgbench_accounts) = sum(delta), "
                         "(SELECT sum(tbalance) FROM pgbench_tellers) = sum(delta), count(*) "
                         "FROM pgbench_history")
        if not sums.startswith("t|t|"):
            raise RunError(f"postgres has lost money: {sums}")
        return wall, sums

    def stop(self, connection):
        self.signal_by_file("data/postmaster.pid", signal.SIGINT)
