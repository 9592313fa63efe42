"""nginx: pages put together from parts (SSI) and compressed, over connections that stay open."""

import hashlib
import os
import re
import time

from .inputs import Draw
from .process import RunError, find_program
from .server import Server

PARTS = 12
PIPE = 20
CONNECTIONS = 8

CONFIGURATION = """\
daemon off;
master_process off;
pid {folder}/pid;
error_log {folder}/errors crit;
events {{ worker_connections 64; }}
http {{
    access_log off;
    types {{ text/html html; }}
    client_body_temp_path {folder}/t1;
    proxy_temp_path {folder}/t2;
    fastcgi_temp_path {folder}/t3;
    uwsgi_temp_path {folder}/t4;
    scgi_temp_path {folder}/t5;
    keepalive_requests 1000000;
    gzip on;
    gzip_comp_level 1;
    ssi on;
    server {{
        listen unix:{socket};
        root {folder};
        rewrite ^/old/(.*)$ /$1;
    }}
}}
"""


class Nginx(Server):
    def __init__(self):
        super().__init__("nginx", "nginx: pages from parts, compressed, 8 open connections",
                         (2400, 600), needs="nginx", package="nginx-light", version=["nginx", "-v"])

    def setup(self, place):
        draw = Draw(12)
        for i in range(PARTS):
            with open(os.path.join(self.folder, f"part{i}.html"), "w") as file:
                file.write(draw.words(40 + draw.below(400)))
            with open(os.path.join(self.folder, f"page{i}.html"), "w") as file:
                for _ in range(1 + i % 4):
                    file.write(f"{draw.words(60)}"
                               f"<!--# include virtual=\"/part{draw.below(PARTS)}.html\" -->\n")
        with open(os.path.join(self.folder, "conf"), "w") as file:
            file.write(CONFIGURATION.format(folder=self.folder, socket=self.socket))

    def command(self, place):
        return [find_program("nginx"), "-p", self.folder, "-e",
                os.path.join(self.folder, "errors"), "-c", os.path.join(self.folder, "conf")]

    def _ask(self, stream, numbers):
        requests = [b"GET %s/page%d.html HTTP/1.1\r\nHost: here\r\n%sX-Long: %s\r\n\r\n"
                    % (b"/old" if n % 3 else b"", n % PARTS,
                       b"Accept-Encoding: gzip\r\n" if n % 2 else b"", b"y" * (n * 37 % 900))
                    for n in numbers]
        stream.sendall(b"".join(requests))

    def work(self, place, connection):
        streams = [self.connect() for _ in range(CONNECTIONS)]
        try:
            start = time.monotonic()
            answer = hashlib.sha256()
            for first in range(0, self.size, PIPE * CONNECTIONS):
                for i, stream in enumerate(streams):
                    self._ask(stream, range(first + i * PIPE, first + (i + 1) * PIPE))
                for stream in streams:
                    answer.update(b"".join(_answers(stream, PIPE)))
            return time.monotonic() - start, answer.hexdigest()
        finally:
            for stream in streams:
                stream.close()

    def stop(self, connection):
        self.signal_by_file("pid")


def _answers(stream, count):
    """The bodies of so many answers, each in chunks."""
    with stream.makefile("rb") as file:
        for _ in range(count):
            status = file.readline()
            if b" 200 " not in status:
                raise RunError(f"nginx said {status[:80]!r}")
            chunked = length = None
            while (line := file.readline().lower()) not in (b"\r\n", b""):
                chunked = chunked or line.startswith(b"transfer-encoding: chunked")
                found = re.match(rb"content-length: (\d+)", line)
                length = int(found[1]) if found else length
            if not chunked:
                yield file.read(length or 0)
            while chunked and (size := int(file.readline(), 16)):
                yield file.read(size)
                file.readline()
            if chunked:
                file.readline()
