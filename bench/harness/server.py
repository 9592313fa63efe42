"""Servers as rows: started under measure, given work by a client that is not measured, ended.

    harness ---- starts ----> measure ---- starts ----> server      costs: the server's own
       |                                                  ^
       +---- work, over a unix socket --------------------+         wall: how long the work took

Everything lies in a folder of its own that is removed afterwards; nothing listens on the network.
"""

import os
import pwd
import shutil
import signal
import socket
import time

from .process import RunError, Running
from .rows import Row

# seconds for a server to start
START_TIMEOUT = 30


class Server(Row):
    # as whom it runs where we are root; None: as we are
    user = None

    def __init__(self, name, about, sizes, **known):
        super().__init__(name, about, **known)
        self.sizes = sizes
        self.size = None
        self.folder = None
        self.socket = None

    def prepare(self, place, quick):
        self.size = self.sizes[quick]

    def setup(self, place):
        """Files that a run needs; self.folder is new and empty."""

    def command(self, place):
        raise NotImplementedError

    def connect(self):
        """A connection, or OSError while there is none yet."""
        stream = socket.socket(socket.AF_UNIX, socket.SOCK_STREAM)
        stream.settimeout(30)
        try:
            stream.connect(self.socket)
        except OSError:
            stream.close()
            raise
        return stream

    def work(self, place, connection):
        """Do it; (seconds, answer)."""
        raise NotImplementedError

    def stop(self, connection):
        """Ask it to end."""
        raise NotImplementedError

    def signal_by_file(self, name, number=signal.SIGTERM):
        """Ask it to end by a signal to the process whose number it has written into a file."""
        with open(os.path.join(self.folder, name)) as file:
            os.kill(int(file.readline()), number)

    def account(self):
        """Who it runs as, where that is somebody else."""
        try:
            return pwd.getpwnam(self.user) if self.user and os.geteuid() == 0 else None
        except KeyError:
            return None

    def give_away(self, *paths):
        """To whom the server runs as."""
        account = self.account()
        for path in paths if account else ():
            os.chown(path, account.pw_uid, account.pw_gid)

    def _wait_until_up(self, server):
        deadline = time.monotonic() + START_TIMEOUT
        while True:
            try:
                return self.connect()
            except OSError:
                if server.process.poll() is not None or time.monotonic() > deadline:
                    raise RunError(f"{server.name} did not start: {server.last_words()}") from None
                time.sleep(0.005)

    def run(self, place, variables):
        self.folder = place.scratch(self.name)
        self.socket = os.path.join(self.folder, "socket")
        if len(self.socket) > 100:
            raise RunError(f"{self.socket} is too long for a unix socket: set TMPDIR to a shorter "
                           "folder")
        shutil.rmtree(self.folder, ignore_errors=True)
        os.mkdir(self.folder)
        self.give_away(self.folder)
        self.setup(place)
        server = Running(place, self.command(place), variables, user=self.account())
        connection = None
        try:
            connection = self._wait_until_up(server)
            wall, answer = self.work(place, connection)
            self.stop(connection)
            cost, _ = server.finish(self.timeout)
        except OSError as reason:
            server.kill()
            raise RunError(f"{server.name}: {reason}: {server.last_words()}") from None
        except BaseException:
            server.kill()
            raise
        finally:
            if connection:
                connection.close()
            shutil.rmtree(self.folder, ignore_errors=True)
        cost["wall"] = round(wall, 6)
        return cost, answer
