"""memcached: values of changing sizes are set, read back and compared, in pipes of 100."""

import os
import time
import zlib

from .process import RunError, find_program
from .server import Server

PIPE = 100


def _value(key, turn):
    """Different in each turn, of sizes that shift from turn to turn."""
    length = 20 + (key * 7919 + turn * 104729) % (200 << (turn % 4))
    return (b"%d.%d." % (key, turn) * (length // 6 + 1))[:length]


class Stream:
    """Reads of known length from a connection."""

    def __init__(self, stream):
        self.stream = stream
        self.file = stream.makefile("rb")

    def send(self, data):
        self.stream.sendall(data)

    def value_of(self, key):
        """The answer to one get: None where the key is gone."""
        line = self.file.readline()
        if line == b"END\r\n":
            return None
        words = line.split()
        if len(words) != 4 or words[:2] != [b"VALUE", b"k%d" % key]:
            raise RunError(f"memcached said {line[:80]!r}")
        value = self.file.read(int(words[3]) + 2)[:-2]
        if self.file.readline() != b"END\r\n":
            raise RunError("memcached did not end a value")
        return value

    def close(self):
        self.file.close()
        self.stream.close()


class Memcached(Server):
    def __init__(self):
        super().__init__("memcached", "memcached: values whose sizes shift, in pipes of 100",
                         (40000, 10000), needs="memcached", package="memcached",
                         version=["memcached", "--version"])

    def command(self, place):
        return [find_program("memcached"), "-s", self.socket, "-m", "256", "-t", "2", "-P",
                os.path.join(self.folder, "pid"), *(["-u", "root"] if os.geteuid() == 0 else [])]

    def connect(self):
        return Stream(super().connect())

    def _set(self, connection, keys, turn):
        parts = []
        for key in keys:
            value = _value(key, turn)
            parts.append(b"set k%d 0 0 %d noreply\r\n%s\r\n" % (key, len(value), value))
        connection.send(b"".join(parts))

    def _get(self, connection, keys, turn):
        connection.send(b"".join(b"get k%d\r\n" % key for key in keys))
        lost = 0
        for key in keys:
            value = connection.value_of(key)
            if value is None:
                lost += 1
            elif value != _value(key, turn):
                raise RunError(f"memcached returned another value for k{key}")
        return lost

    def work(self, place, connection):
        start = time.monotonic()
        for turn in range(4):
            for first in range(0, self.size, PIPE):
                keys = range(first, first + PIPE)
                self._set(connection, keys, turn)
                if self._get(connection, keys, turn):
                    raise RunError("memcached has already lost a value")
        return time.monotonic() - start, f"{zlib.crc32(_value(self.size - 1, 3)):08x}"

    def stop(self, connection):
        self.signal_by_file("pid")
