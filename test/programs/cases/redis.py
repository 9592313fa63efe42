"""redis-server: commands of every type, a snapshot by fork, a restart from it, redis-benchmark."""
import os
import signal

SECONDS = 90


def commands():
    """A script for redis-cli whose answers are the same every time."""
    lines = []
    for i in range(6000):
        key = i * 7919 % 1500
        lines += [f"SET key{key} {'v' * (i % 400)}{i}", f"APPEND key{key} more{i}",
                  f"LPUSH list{i % 50} item{i}", f"HSET hash{i % 70} field{key} {i}",
                  f"ZADD zset{i % 30} {i % 997} member{key}", f"SADD set{i % 40} {key}"]
        if i % 5 == 0:
            lines += [f"DEL key{(key + 3) % 1500}", f"RPOP list{(i + 7) % 50}",
                      f"HDEL hash{i % 70} field{(key + 1) % 1500}", f"SETRANGE big{i % 9} {i} x"]
        if i % 100 == 0:
            lines += [f"ZRANGE zset{i % 30} 0 -1 WITHSCORES", f"LRANGE list{i % 50} 0 30",
                      f"GETRANGE big{i % 9} 0 100", f"STRLEN key{key}"]
    lines += ["DBSIZE", 'EVAL "local t = {} for i = 1, 20000 do t[i] = tostring(i) end '
              'return #table.concat(t)" 0', "SORT set3", "DEBUG DIGEST"]
    return "\n".join(lines).encode() + b"\n"


def check(box):
    server = box.need("redis-server", "redis-server")
    client = box.need("redis-cli", "redis-tools")
    benchmark = box.need("redis-benchmark", "redis-tools")
    script = commands()

    def story(preload):
        socket = box.path("redis.sock")
        command = [server, "--port", "0", "--unixsocket", socket, "--dir", box.work, "--save", "",
                   "--hash-max-listpack-entries", "8", "--activedefrag", "no",
                   "--enable-debug-command", "yes", "--rdb-del-sync-files", "no"]

        def cli(*words, stdin=None):
            return box.run([client, "-s", socket, *words], False, stdin=stdin).out

        def ready():
            return os.path.exists(socket) and cli("PING") == b"PONG\n"

        seen = {}
        with box.server(command, preload, ready, stop=signal.SIGTERM) as child:
            seen["answers"] = cli(stdin=script)
            if preload:
                box.expect_serving(child.pid)
            box.run([benchmark, "-s", socket, "-q", "-n", "3000", "-c", "20", "-d", "1000", "-t",
                     "set,get,lpush,lrange_300,mset"], preload)
            cli("BGSAVE")
            box.wait_for(lambda: b"rdb_bgsave_in_progress:0" in cli("INFO", "persistence"), child,
                         command)
            info = cli("INFO", "persistence")
            seen["snapshot"] = b"ok" if b"rdb_last_bgsave_status:ok" in info else info
            cli("FLUSHALL")
            cli("MEMORY", "PURGE")
            cli(stdin=script)
            seen["second digest"] = cli("DEBUG", "DIGEST")
            cli("SAVE")
        with box.server(command, preload, ready, stop=signal.SIGTERM):
            seen["digest after restart"] = cli("DEBUG", "DIGEST")
        return seen

    box.both(story)
    box.expect_served("redis-server")
