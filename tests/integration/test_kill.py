"""kill -9 at random moments under load: every acknowledged write is there, no deleted row is back.

Several clients write their own rows by pipelines while segments are flushed every few hundred rows.
The server is killed, sometimes while it starts, and started again over the same lake. What the
clients were answered must be there; a command without an answer may have been done or not, in the
order of its pipeline. EFFORT multiplies the kills (make torture runs hundreds); SEED repeats a run.
"""

import os
import random
import struct
import threading
import time

import redis

from conftest import as_map

KILLS = max(3, round(40 * float(os.environ.get("EFFORT", "1"))))
SEED = int(os.environ.get("SEED", "20260728"))
CLIENTS = 4
IDS = 50
DIMENSION = 8
COLLECTION = "killed"


def vector(client, number, version):
    return struct.pack("<8f", version, client, number, 1, 2, 3, 4, version % 7)


class Rows:
    """The rows of one client: what is known, and what was asked for since."""

    def __init__(self, client):
        self.client = client
        self.version = 0
        self.known = {}  # id -> version, absent: no row
        self.asked = {}  # id -> states that unanswered commands may have left, in order
        self.answers = 0

    def name(self, number):
        return f"c{self.client}-{number}"

    def load(self, server, seed, stop):
        """Write until the connection breaks."""
        rng = random.Random(seed)
        connection = server.client(socket_timeout=30)
        try:
            while not stop.is_set():
                self.pipeline(connection, rng)
        except (redis.ConnectionError, redis.TimeoutError, OSError):
            pass

    def pipeline(self, connection, rng):
        pipe = connection.pipeline(transaction=False)
        plan = []
        for _ in range(rng.randrange(1, 25)):
            number = rng.randrange(IDS)
            self.version += 1
            if rng.random() < 0.2:
                pipe.execute_command("VDEL", self.name(number), "IN", COLLECTION)
                plan.append((number, None))
            else:
                more = ["PAYLOAD", bytes([self.version % 251]) * rng.randrange(3000)] if rng.random() < 0.2 else []
                pipe.execute_command(
                    "VSET", self.name(number), vector(self.client, number, self.version),
                    "ATTRIBUTES", f'{{"v": {self.version}}}', *more, "IN", COLLECTION)
                plan.append((number, self.version))
        for number, version in plan:
            self.asked.setdefault(number, []).append(version)
        replies = pipe.execute(raise_on_error=True)
        for (number, version), reply in zip(plan, replies, strict=True):
            self.asked[number].pop(0)
            was = self.known.pop(number, None)
            if version is None:
                assert reply == (0 if was is None else 1), (self.name(number), was, reply)
            else:
                assert reply == b"OK"
                self.known[number] = version
            self.answers += 1

    def check(self, call):
        """Compare, and take over what became of unanswered commands."""
        names = [self.name(number) for number in range(IDS)]
        found = call("VGET", *names, "RETURN", 2, "vector", "attributes", "RAW", "IN", COLLECTION)
        live = 0
        for number, row in enumerate(found):
            seen = None
            if row is not None:
                row = as_map(row)
                seen = int(row["attributes"].decode().split(":")[1].rstrip("}"))
                assert row["vector"] == vector(self.client, number, seen), names[number]
                live += 1
            allowed = [self.known.get(number), *self.asked.get(number, [])]
            assert seen in allowed, f"{names[number]}: version {seen} is there, allowed are {allowed}"
            if seen is None:
                self.known.pop(number, None)
            else:
                self.known[number] = seen
        self.asked = {}
        return live


def test_kill_at_random_moments(start, tmp_path):
    print(f"{KILLS} kills, seed {SEED}")
    rng = random.Random(SEED)
    lake = tmp_path / "lake"
    flags = ["--flush-size", "64kb"]
    rows = [Rows(client) for client in range(CLIENTS)]
    server = start(*flags, lake=lake)
    server.client().execute_command("VCREATE", COLLECTION, "DIM", DIMENSION)
    flushes = 0
    for kill in range(KILLS):
        stop = threading.Event()
        threads = [threading.Thread(target=r.load, args=(server, rng.random(), stop)) for r in rows]
        for thread in threads:
            thread.start()
        time.sleep(rng.uniform(0.0, 0.7))
        if rng.random() < 0.3:
            try:
                server.client().execute_command("VFLUSH", COLLECTION)
                flushes += 1
            except redis.RedisError:
                pass
        server.kill()
        stop.set()
        for thread in threads:
            thread.join()
        while rng.random() < 0.2:  # killed again while it starts
            beginning = start(*flags, lake=lake, ready=False)
            time.sleep(rng.uniform(0.0, 0.3))
            beginning.kill()
        server = start(*flags, lake=lake)
        call = server.client().execute_command
        live = sum(r.check(call) for r in rows)
        info = as_map(call("VINFO", COLLECTION))
        assert info["size"] == live, f"after kill {kill + 1}"
        found = call("VSEARCH", vector(0, 0, 5), live + 10, "EXACT", "IN", COLLECTION)
        assert len(found) == live
    answers = sum(r.answers for r in rows)
    print(f"{KILLS} kills, {answers} acknowledged writes, {live} rows at the end, {flushes} flushes asked for")
    assert answers > 0
