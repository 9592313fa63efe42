"""nginx: static files, gzip, ranges, a proxy to itself and a reload, over Unix sockets."""
import os
import re
import signal
import socket

from box import Failed

SECONDS = 60
CONF = """
daemon off; master_process on; worker_processes 2; pid nginx.pid; error_log error.log;
%(user)s
events { worker_connections 256; }
http {
    access_log off; client_body_temp_path tmp; proxy_temp_path tmp; fastcgi_temp_path tmp;
    uwsgi_temp_path tmp; scgi_temp_path tmp;
    gzip on; gzip_types *; gzip_min_length 100; gzip_comp_level 6;
    server {
        listen unix:%(work)s/nginx.sock;
        location / { root %(work)s/files; autoindex on; etag off; add_header Last-Modified ""; }
        location /proxy/ { proxy_pass http://unix:%(work)s/nginx.sock:/; proxy_buffers 4 4k; }
        location /echo { return 200 "$request_uri $http_user_agent"; }
    }
}
"""


def fetch(path, request, headers=()):
    with socket.socket(socket.AF_UNIX) as connection:
        connection.settimeout(20)
        connection.connect(path)
        lines = [f"GET {request} HTTP/1.1", "Host: test", "Connection: close", *headers, "", ""]
        connection.sendall("\r\n".join(lines).encode())
        chunks = []
        while chunk := connection.recv(65536):
            chunks.append(chunk)
    answer = b"".join(chunks)
    return re.sub(rb"\r\n(Date|Last-Modified): [^\r]*", b"", answer)


def check_workers(box, master):
    """Both new ones are served; an old one, of before the reload, may end meanwhile, but not crash."""
    serving = 0
    with open(f"/proc/{master}/task/{master}/children", encoding="ascii") as file:
        workers = [int(pid) for pid in file.read().split()]
    for worker in workers:
        try:
            box.expect_serving(worker)
            serving += 1
        except Failed:
            if os.path.exists(f"/proc/{worker}"):
                raise
    if serving < 2:
        raise Failed(f"{serving} of nginx's workers {workers} are served")
    with open(box.path("error.log"), encoding="utf-8") as file:
        if "exited on signal" in (log := file.read()):
            raise Failed(f"a worker crashed:\n{log}")


def check(box):
    nginx = box.need("nginx", "nginx")

    def story(preload):
        for i in range(20):
            box.write(f"files/d{i % 3}/f{i}.txt",
                      "".join(f"{k * i} text\n" for k in range(i * 300)))
        os.makedirs(box.path("tmp"))
        for folder, _, names in os.walk(box.path("files")):
            for name in [*names, "."]:
                os.utime(os.path.join(folder, name), (1700000000, 1700000000))
        user = "user root;" if os.getuid() == 0 else ""
        box.write("nginx.conf", CONF % {"work": box.work, "user": user})
        path = box.path("nginx.sock")
        command = [nginx, "-p", box.work, "-e", "error.log", "-c", "nginx.conf"]
        seen = {}

        def ready():
            return b"200 OK" in fetch(path, "/echo")

        with box.server(command, preload, ready, stop=signal.SIGQUIT) as child:
            for turn in range(2):
                for i in range(60):
                    name = f"/d{i % 20 % 3}/f{i % 20}.txt"
                    seen[f"plain {turn} {i}"] = fetch(path, name)
                    seen[f"gzip {turn} {i}"] = fetch(path, name, ["Accept-Encoding: gzip"])
                    ranges = fetch(path, name, ["Range: bytes=10-500"])
                    seen[f"range {turn} {i}"] = ranges
                    seen[f"proxy {turn} {i}"] = fetch(path, "/proxy" + name)
                    seen[f"index {turn} {i}"] = fetch(path, f"/d{i % 3}/")
                    seen[f"echo {turn} {i}"] = fetch(path, f"/echo?{'a' * (i * 100)}")
                child.send_signal(signal.SIGHUP)
                box.wait_for(ready, child, command)
            if preload:
                with open(box.path("nginx.pid"), encoding="ascii") as file:
                    box.expect_serving(int(file.read()))
                check_workers(box, child.pid)
        return seen

    box.both(story)
    box.expect_served("nginx")
