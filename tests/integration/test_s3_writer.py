"""Several servers over one bucket: who writes, what the others show, and what a kill -9 leaves.

A collection has one writer at a time, proven by what is in the bucket; a node may lose its disk and nothing that was
acknowledged is lost. EFFORT multiplies kills and races (7 makes more than a hundred); SEED repeats a run.
"""

import os
import random
import shutil
import signal
import threading
import time

import pytest
import redis
from conftest import as_map, blob, error
from s3_bucket import bucket, needs_bucket, shared_bucket  # noqa: F401 (fixtures)
from s3_proxy import Proxy
from test_kill import COLLECTION, DIMENSION, Rows, vector

pytestmark = needs_bucket

EFFORT = float(os.environ.get("EFFORT", "1"))
KILLS = max(3, round(15 * EFFORT))
RACES = max(3, round(20 * EFFORT))
SEED = int(os.environ.get("SEED", "20261123"))
SOON = ["--group-delay", "1", "--poll-interval", "100"]


def wait_until(what, seconds=90):
    end = time.monotonic() + seconds
    while not what():
        assert time.monotonic() < end
        time.sleep(0.02)


def is_refusal(problem):
    return any(text in str(problem) for text in ("is written by", "another node writes", "others write"))


def accepts(client, *command):
    try:
        client.execute_command(*command)
        return True
    except redis.ResponseError as problem:
        assert is_refusal(problem), problem
        return False


def test_one_writer_at_a_time(start, bucket):
    lake = bucket.lake()
    first, second = start(*SOON, lake=lake), start(*SOON, lake=lake)
    a, b = first.client(), second.client()
    a.execute_command("VCREATE", "c", "DIM", 2)
    a.execute_command("VSET", "x", "[1,2]", "IN", "c")
    for command in (["VSET", "y", "[3,4]", "IN", "c"], ["VDEL", "x", "IN", "c"], ["VDROP", "c"]):
        problem = error(b, *command)
        assert "'c' is written by" in problem and "--takeover" in problem
    b.execute_command("VCREATE", "other", "DIM", 2)
    b.execute_command("VSET", "y", "[3,4]", "IN", "other")  # another collection is another writer's
    assert not accepts(a, "VSET", "z", "[3,4]", "IN", "other")
    assert b.execute_command("VSEARCH", "[1,2]", 1, "CONSISTENT", "IN", "c")[0][0] == b"x"
    assert first.stop() == 0  # it lets go at once
    b.execute_command("VSET", "y", "[3,4]", "IN", "c")
    assert as_map(b.execute_command("VINFO", "c"))["size"] == 2
    third = start("--role", "reader", *SOON, lake=lake).client()
    assert "read-only" in error(third, "VSET", "y", "[3,4]", "IN", "c")
    fourth = start("--takeover", *SOON, lake=lake).client()
    fourth.execute_command("VSET", "z", "[5,6]", "IN", "c")
    assert not accepts(b, "VSET", "w", "[7,8]", "IN", "c")
    assert not accepts(b, "VSET", "w", "[7,8]", "IN", "c")
    for client in (b, third, fourth):
        assert [row[0] for row in client.execute_command("VSEARCH", "[5,6]", 9, "CONSISTENT", "IN", "c")] == \
            [b"z", b"y", b"x"]


def test_a_writer_that_slept(start, bucket):
    """Stopped, not ended: after 30 seconds of silence another node writes; when it goes on it is refused."""
    lake = bucket.lake()
    first, second = start(*SOON, lake=lake), start(*SOON, lake=lake)
    a, b = first.client(), second.client()
    a.execute_command("VCREATE", "c", "DIM", 2)
    a.execute_command("VSET", "x", "[1,2]", "IN", "c")
    assert not accepts(b, "VSET", "y", "[3,4]", "IN", "c")
    first.process.send_signal(signal.SIGSTOP)
    try:
        wait_until(lambda: accepts(b, "VSET", "y", "[3,4]", "IN", "c"), 300)
    finally:
        first.process.send_signal(signal.SIGCONT)
    assert "has been silent" in second.log()
    assert not accepts(a, "VSET", "z", "[5,6]", "IN", "c")
    wait_until(lambda: a.execute_command("VGET", "y", "IN", "c") is not None)  # it follows from now on
    assert not accepts(a, "VFLUSH", "c")
    assert [row[0] for row in b.execute_command("VSEARCH", "[1,2]", 9, "IN", "c")] == [b"x", b"y"]


class Racer:
    def __init__(self, server, name):
        self.client = server.client()
        self.name = name

    def run(self, collection, count, gate):
        self.answers = []
        self.problem = None
        try:
            self.race(collection, count, gate)
        except Exception as problem:
            self.problem = problem

    def race(self, collection, count, gate):
        gate.wait()
        for i in range(count):
            begin = time.monotonic()
            try:
                self.client.execute_command("VSET", f"{self.name}{i}", blob(i, 1), "IN", collection)
                self.answers.append((i, "OK", begin, time.monotonic()))
            except redis.ResponseError as problem:
                assert is_refusal(problem) or "outcome" in str(problem), problem
                self.answers.append((i, "refused" if is_refusal(problem) else "unknown", begin, 0))

    def acknowledged(self):
        return [(begin, end) for _, status, begin, end in self.answers if status == "OK"]


def test_two_writers_race(start, bucket):
    print(f"{RACES} races, seed {SEED}")
    rng = random.Random(SEED)
    lake = bucket.lake()
    racers = [Racer(start("--takeover", *SOON, lake=lake), name) for name in "ab"]
    reader = start("--role", "reader", *SOON, lake=lake).client()
    total = {"OK": 0, "refused": 0, "unknown": 0}
    changes = 0
    for race in range(RACES):
        collection = f"race-{race}"
        racers[0].client.execute_command("VCREATE", collection, "DIM", 2)
        gate = threading.Barrier(2)
        threads = [threading.Thread(target=racer.run, args=(collection, rng.randrange(4, 20), gate))
                   for racer in racers]
        for thread in threads:
            thread.start()
        if rng.random() < 0.5:
            try:
                racers[rng.randrange(2)].client.execute_command("VFLUSH", collection)
            except redis.ResponseError:
                pass
        for thread in threads:
            thread.join()
        assert [racer.problem for racer in racers] == [None, None]
        there = {row[0].decode() for row in
                 reader.execute_command("VSEARCH", blob(0, 1), 100, "EXACT", "CONSISTENT", "IN", collection)}
        for racer in racers:
            for i, status, _, _ in racer.answers:
                total[status] += 1
                assert status == "unknown" or (f"{racer.name}{i}" in there) == (status == "OK"), (collection, i, status)
        # Each takes over at most once, so nobody acknowledges, is overtaken, and acknowledges again.
        for one, other in (racers, racers[::-1]):
            for begin, end in other.acknowledged():
                before = any(e < begin for _, e in one.acknowledged())
                behind = any(b > end for b, _ in one.acknowledged())
                assert not (before and behind), collection
        changes += all(racer.acknowledged() for racer in racers)
    print(f"{total}, {changes} times both wrote, one after the other")
    assert changes > 0


def test_kills_with_the_disk_gone(start, bucket, tmp_path):
    print(f"{KILLS} kills, seed {SEED}")
    rng = random.Random(SEED)
    lake = bucket.lake()
    rows = [Rows(client) for client in range(4)]

    def begin(number, **options):
        shutil.rmtree(tmp_path / "disk", ignore_errors=True)
        (tmp_path / "disk").mkdir()
        return start("--takeover", "--flush-size", "64kb", "--group-delay", str(rng.choice([1, 5, 20])),
                     "--cache-dir", tmp_path / "disk" / f"cache-{number}", lake=lake, **options)

    server = begin(0)
    server.client().execute_command("VCREATE", COLLECTION, "DIM", DIMENSION)
    reader = start("--role", "reader", *SOON, lake=lake).client()
    flushes = again = 0
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
        while rng.random() < 0.2:  # killed again while it starts, or claims
            again += 1
            beginning = begin(f"{kill}-{again}", ready=False)
            time.sleep(rng.uniform(0.0, 0.5))
            beginning.kill()
        server = begin(kill + 1)
        call = server.client().execute_command
        # What the killed one had sent may still land; behind the next claim it cannot.
        call("VSET", "marker", vector(9, kill, 0), "IN", COLLECTION)
        live = sum(r.check(call) for r in rows) + 1
        assert as_map(call("VINFO", COLLECTION))["size"] == live, f"after kill {kill + 1}"
        for query in (call, reader.execute_command):
            found = query("VSEARCH", vector(0, 0, 5), live + 10, "EXACT", "CONSISTENT", "IN", COLLECTION)
            assert len(found) == live, f"after kill {kill + 1}"
    answers = sum(r.answers for r in rows)
    print(f"{KILLS} kills and {again} more while starting, {answers} acknowledged writes, {live} rows at the end, "
          f"{flushes} flushes asked for")
    assert answers > 0


FIRST_ANSWER_REQUESTS = 24


def test_one_writer_and_two_readers(start, bucket, monkeypatch):
    lake = bucket.lake()
    writer = start("--group-delay", "1", lake=lake).client()
    writer.execute_command("VCREATE", "c", "DIM", 8)
    readers = [start("--role", "reader", lake=lake).client() for _ in range(2)]

    def there(client, name):
        return client.execute_command("VGET", name, "IN", "c") is not None

    for i in range(5):
        writer.execute_command("VSET", f"k{i}", blob(*[i] * 8), "IN", "c")
        # Asked to be consistent it is there already; the other one shows it within its polling interval.
        assert readers[0].execute_command("VSEARCH", blob(*[i] * 8), 1, "CONSISTENT", "IN", "c")[0][0] == b"k%d" % i
        wait_until(lambda i=i: there(readers[1], f"k{i}"))
        if i == 2:
            writer.execute_command("VFLUSH", "c")
    writer.execute_command("VDEL", "k1", "IN", "c")
    assert len(readers[1].execute_command("VSEARCH", blob(*[0] * 8), 9, "CONSISTENT", "IN", "c")) == 4
    wait_until(lambda: not there(readers[0], "k1"))
    pipe = writer.pipeline(transaction=False)
    for i in range(2000):
        pipe.execute_command("VSET", f"m{i}", blob(*[i % 100] * 8), "IN", "c")
    pipe.execute()
    writer.execute_command("VFLUSH", "c")
    wanted = writer.execute_command("VSEARCH", blob(*[7] * 8), 5, "EXACT", "IN", "c")
    proxy = Proxy(bucket.port)
    try:
        monkeypatch.setenv("AWS_ENDPOINT_URL", proxy.endpoint)
        late = start("--role", "reader", "--prefetch", "no", lake=lake)
        ready = proxy.requests
        assert late.client().execute_command("VSEARCH", blob(*[7] * 8), 5, "EXACT", "IN", "c") == wanted
        requests = proxy.requests
        print(f"a reader on an empty disk: {ready} requests until it is ready, {requests} to its first answer")
        assert requests <= FIRST_ANSWER_REQUESTS
        assert late.stop() == 0
    finally:
        proxy.stop()
