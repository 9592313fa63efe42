"""redis-server under redis-benchmark: the server is measured, the client only makes work for it."""

import os
import socket
import subprocess
import time

from .process import ENVIRONMENT, RunError, Running, find_program

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


def _connect(server, path, deadline):
    while True:
        try:
            return Connection(path)
        except OSError:
            if server.process.poll() is not None or time.monotonic() > deadline:
                server.kill()
                raise RunError("redis-server did not start") from None
            time.sleep(0.005)


def _load(place, path, requests, timeout):
    """Many kinds of keys with small values, then strings that get larger: the old ones go."""
    client = [find_program("redis-benchmark"), "-s", path, "-P", "16", "-c", "20", "-q"]
    parts = [
        ["-n", str(requests), "-r", "100000", "-d", "64", "-t",
         "set,get,incr,lpush,rpop,sadd,hset,zadd"],
        ["-n", str(requests * 2), "-r", "100000", "-d", "700", "-t", "set,get"],
    ]
    wall = 0.0
    for part in parts:
        start = time.monotonic()
        try:
            done = subprocess.run(client + part, capture_output=True, text=True, timeout=timeout,
                                  env={**ENVIRONMENT, "HOME": place.work}, cwd=place.work)
        except subprocess.TimeoutExpired:
            raise RunError(f"redis-benchmark did not end within {timeout:.0f} s") from None
        wall += time.monotonic() - start
        if done.returncode or "Error" in done.stdout + done.stderr:
            raise RunError(f"redis-benchmark failed: {(done.stderr or done.stdout).strip()[-200:]}")
    return wall


def run(place, variables, requests, timeout):
    """One server's life; wall is the time of the load, the rest is the server's own."""
    path = place.scratch("redis.sock")
    if len(path) > 100:
        raise RunError(f"{path} is too long for a unix socket: set TMPDIR to a shorter folder")
    if os.path.exists(path):
        os.unlink(path)
    server = Running(place, [find_program("redis-server"), "--port", "0", "--unixsocket", path,
                             "--save", "", "--appendonly", "no", "--daemonize", "no",
                             "--dir", place.work], variables)
    connection = None
    try:
        connection = _connect(server, path, time.monotonic() + timeout)
        for i in range(CANARIES):
            connection.ask("SET", f"canary{i}", _canary(i))
        wall = _load(place, path, requests, timeout)
        for i in range(CANARIES):
            if connection.ask("GET", f"canary{i}") != _canary(i):
                raise RunError(f"redis-server lost the value of canary{i}")
        keys = int(connection.ask("DBSIZE"))
        if keys < requests // 4:
            raise RunError(f"redis-server has only {keys} keys after the load")
        connection.send("SHUTDOWN", "NOSAVE")
        cost, _ = server.finish(timeout)
    except BaseException:
        server.kill()
        raise
    finally:
        if connection:
            connection.close()
    cost["wall"] = round(wall, 6)
    return cost
