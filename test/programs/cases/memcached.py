"""memcached: sets, gets, deletes and evictions over a Unix socket, two clients."""
import os
import socket

SECONDS = 60


class Client:
    def __init__(self, path):
        self.connection = socket.socket(socket.AF_UNIX)
        self.connection.settimeout(20)
        self.connection.connect(path)
        self.file = self.connection.makefile("rb")

    def set(self, key, value):
        self.connection.sendall(b"set %s 0 0 %d\r\n%s\r\n" % (key, len(value), value))
        return self.file.readline()

    def get(self, keys):
        self.connection.sendall(b"get " + b" ".join(keys) + b"\r\n")
        found = []
        while True:
            line = self.file.readline()
            found.append(line)
            if line in (b"END\r\n", b""):
                return b"".join(found)
            found.append(self.file.read(int(line.split()[3]) + 2))

    def say(self, words):
        self.connection.sendall(words + b"\r\n")
        return self.file.readline()


def check(box):
    memcached = box.need("memcached", "memcached")

    def story(preload):
        path = box.path("memcached.sock")
        command = [memcached, "-s", path, "-m", "64", "-t", "2", "-u", "nobody", "-I", "2m"]
        answers = []
        with box.server(command, preload, lambda: os.path.exists(path)) as child:
            one, two = Client(path), Client(path)
            for i in range(20000):
                client = one if i % 2 else two
                key = b"key%d" % (i * 7919 % 5000)
                answers.append(client.set(key, b"%d" % i * (1 + i % 500)))
                if i % 3 == 0:
                    answers.append(client.get([b"key%d" % (i % 5000), b"key%d" % (i * 3 % 5000)]))
                if i % 50 == 0:
                    answers.append(client.say(b"delete key%d" % (i % 5000)))
                    answers.append(client.set(b"large", b"x" * (i * 50 + 1)))
            answers.append(one.say(b"flush_all"))
            if preload:
                box.expect_serving(child.pid)
        return {"answers": b"".join(answers)}

    box.both(story)
