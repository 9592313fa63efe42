"""redis-server under redis-benchmark: the server is measured, the client only makes work for it."""

import socket
import subprocess
import time

from .process import ENVIRONMENT, RunError, find_program
from .server import Server

# values put in before the load and read back after it: a server that loses bytes fails
CANARIES = 400


def _canary(i):
    return (f"{i}:" * (1 + (i * 37) % 2000)).encode()


class Connection:
    """Just enough of the Redis protocol."""

    def __init__(self, path):
        self.socket = socket.socket(socket.AF_UNIX, socket.SOCK_STREAM)
        self.socket.settimeout(30)
        try:
            self.socket.connect(path)
        except OSError:
            self.socket.close()
            raise
        self.file = self.socket.makefile("rb")

    def send(self, *parts):
        parts = [part if isinstance(part, bytes) else str(part).encode() for part in parts]
        self.socket.sendall(b"*%d\r\n" % len(parts) +
                            b"".join(b"$%d\r\n%s\r\n" % (len(part), part) for part in parts))

    def ask(self, *parts):
        self.send(*parts)
        line = self.file.readline()
        if not line:
            raise RunError("redis-server closed the connection")
        if line[:1] == b"$":
            length = int(line[1:])
            return None if length < 0 else self.file.read(length + 2)[:-2]
        if line[:1] == b"-":
            raise RunError(f"redis-server said {line.decode().strip()}")
        return line[1:].strip()

    def close(self):
        self.file.close()
        self.socket.close()


class Redis(Server):
    """load(row, connection, client, requests) makes the work; the server must still have its values
    after it."""

    program = "redis-server"

    def __init__(self, name, about, load, sizes=(80000, 16000), **known):
        super().__init__(name, about, sizes, needs="redis-server", package="redis-server",
                         version=["redis-server", "--version"], **known)
        self.make_load = load

    def missing(self, place):
        if not find_program("redis-benchmark"):
            return "redis-benchmark is not installed (Debian package redis-tools)"
        return super().missing(place)

    def command(self, place):
        return [find_program("redis-server"), "--port", "0", "--unixsocket", self.socket,
                "--save", "", "--appendonly", "no", "--daemonize", "no", "--dir", self.folder,
                "--rdbcompression", "no", "--hz", "50"]

    def connect(self):
        return Connection(self.socket)

    def work(self, place, connection):
        for i in range(CANARIES):
            connection.ask("SET", f"canary{i}", _canary(i))
        wall = self.make_load(self, place, connection)
        for i in range(CANARIES):
            if connection.ask("GET", f"canary{i}") != _canary(i):
                raise RunError(f"redis-server lost the value of canary{i}")
        return wall, "canaries"

    def stop(self, connection):
        connection.send("SHUTDOWN", "NOSAVE")

    def client(self, place, *arguments):
        """Seconds that one redis-benchmark took."""
        command = [find_program("redis-benchmark"), "-s", self.socket, "-P", "16", "-c", "20", "-q",
                   *(str(argument) for argument in arguments)]
        start = time.monotonic()
        try:
            done = subprocess.run(command, capture_output=True, text=True, timeout=self.timeout,
                                  env={**ENVIRONMENT, "HOME": place.work}, cwd=place.work)
        except subprocess.TimeoutExpired:
            raise RunError(f"redis-benchmark did not end within {self.timeout:.0f} s") from None
        wall = time.monotonic() - start
        if done.returncode or "Error" in done.stdout + done.stderr:
            raise RunError(f"redis-benchmark failed: {(done.stderr or done.stdout).strip()[-200:]}")
        return wall


def _many_kinds(row, place, connection):
    """Many kinds of keys with small values, then strings that get larger: the old ones go."""
    wall = row.client(place, "-n", row.size, "-r", 100000, "-d", 64, "-t",
                      "set,get,incr,lpush,rpop,sadd,hset,zadd")
    wall += row.client(place, "-n", row.size * 2, "-r", 100000, "-d", 700, "-t", "set,get")
    keys = int(connection.ask("DBSIZE"))
    if keys < row.size // 4:
        raise RunError(f"redis-server has only {keys} keys after the load")
    return wall


def _expiring(row, place, connection):
    """Values of three sizes that live for a fifth of a second; in the end hardly any is left."""
    wall = 0.0
    for length in (40, 300, 1200):
        wall += row.client(place, "-n", row.size, "-r", 100000, "SET", "key:__rand_int__",
                           "v" * length, "PX", 200)
    time.sleep(0.4)
    keys = int(connection.ask("DBSIZE"))
    if keys > CANARIES + row.size // 4:
        raise RunError(f"redis-server still has {keys} keys after they have expired")
    return wall


def _saving(row, place, connection):
    """A child writes everything to a file while the parent goes on changing it: what the parent
    touches is copied."""
    wall = row.client(place, "-n", row.size, "-r", 100000, "-d", 400, "-t", "set,lpush,hset")
    for _ in range(2):
        connection.ask("BGSAVE")
        wall += row.client(place, "-n", row.size, "-r", 100000, "-d", 500, "-t", "set")
        deadline = time.monotonic() + row.timeout
        while b"rdb_bgsave_in_progress:1" in connection.ask("INFO", "persistence"):
            if time.monotonic() > deadline:
                raise RunError("redis-server did not finish BGSAVE")
            time.sleep(0.005)
    if b"rdb_last_bgsave_status:ok" not in connection.ask("INFO", "persistence"):
        raise RunError("redis-server failed to save")
    return wall


def everything():
    return [
        Redis("redis", "redis-server under redis-benchmark, unix socket, 16 in a pipe",
              _many_kinds, quick=True),
        Redis("redis-expiry", "the same with values that expire", _expiring),
        Redis("redis-save", "the same with BGSAVE under load", _saving),
    ]
