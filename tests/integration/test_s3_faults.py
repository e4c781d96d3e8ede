"""A writer and a reader behind a network that loses, breaks and delays what they ask of the bucket.

Every write that was acknowledged is there in the end, none that was refused is, and one of which nobody knows is there
as a whole or not at all. SEED repeats a run.
"""

import os
import random
import threading
import time

import pytest
import redis
from conftest import as_map, blob
from s3_bucket import bucket, needs_bucket, shared_bucket  # noqa: F401 (fixtures)
from s3_proxy import Proxy
from test_kill import COLLECTION, DIMENSION, IDS, Rows, vector

pytestmark = needs_bucket

SEED = int(os.environ.get("SEED", "20261123"))
SECONDS = 4 * float(os.environ.get("EFFORT", "1"))


class PatientRows(Rows):
    """The rows of a client that goes on after errors."""

    def __init__(self, client):
        super().__init__(client)
        self.refused = self.unknown = 0

    def pipeline(self, connection, rng):
        plan = []
        pipe = connection.pipeline(transaction=False)
        for _ in range(rng.randrange(1, 12)):
            number = rng.randrange(IDS)
            self.version += 1
            if rng.random() < 0.2:
                pipe.execute_command("VDEL", self.name(number), "IN", COLLECTION)
                plan.append((number, None))
            else:
                pipe.execute_command(
                    "VSET", self.name(number), vector(self.client, number, self.version),
                    "ATTRIBUTES", f'{{"v": {self.version}}}', "IN", COLLECTION)
                plan.append((number, self.version))
        for (number, version), reply in zip(plan, pipe.execute(raise_on_error=False), strict=True):
            asked = self.asked.setdefault(number, [])
            if not isinstance(reply, redis.ResponseError):
                asked.clear()
                self.known.pop(number, None)
                if version is not None:
                    self.known[number] = version
                self.answers += 1
            elif "outcome unknown" in str(reply):
                asked.append(version)
                self.unknown += 1
            else:
                self.refused += 1


def mend(proxy):
    proxy.refuses = proxy.hangs = False
    proxy.error = proxy.cut = proxy.flip = proxy.lose = proxy.late = 0.0


@pytest.fixture
def proxies(bucket):
    both = [Proxy(bucket.port, SEED + i) for i in range(2)]
    yield both
    for proxy in both:
        proxy.stop()


FAULTS = {
    "errors": {"error": 0.15},  # 15 % answered 500, and as many of the rest 503
    "broken": {"cut": 0.1, "flip": 0.1},
    "lost": {"lose": 0.15, "late": 0.1},
    "all": {"error": 0.05, "cut": 0.03, "flip": 0.03, "lose": 0.05, "late": 0.05},
}


@pytest.mark.parametrize("fault", FAULTS)
def test_nothing_is_lost(proxies, start, bucket, monkeypatch, fault):
    print("seed", SEED)
    rng = random.Random(SEED)
    lake = bucket.lake()
    servers = []
    for role, proxy in zip(("writer", "reader"), proxies, strict=True):
        monkeypatch.setenv("AWS_ENDPOINT_URL", proxy.endpoint)
        servers.append(start("--role", role, "--group-delay", "2", "--flush-size", "64kb", "--poll-interval", "100",
                             lake=lake))
        if role == "writer":
            servers[0].client().execute_command("VCREATE", COLLECTION, "DIM", DIMENSION)
    rows = [PatientRows(client) for client in range(4)]
    stop = threading.Event()
    for proxy in proxies:
        for name, value in FAULTS[fault].items():
            setattr(proxy, name, value)
    threads = [threading.Thread(target=r.load, args=(servers[0], rng.random(), stop)) for r in rows]
    for thread in threads:
        thread.start()
    end = time.monotonic() + SECONDS
    looks = shown = 0
    call = servers[1].client().execute_command
    while time.monotonic() < end:
        looks += 1
        try:
            more = ["CONSISTENT"] if looks % 2 else []
            found = call("VSEARCH", vector(0, 0, 5), 20, *more, "RETURN", 2, "vector", "attributes", "IN", COLLECTION)
            shown += len(found) > 0
            if looks % 10 == 0:
                servers[0].client().execute_command("VFLUSH", COLLECTION)
        except redis.ResponseError:
            pass
        time.sleep(0.05)
    stop.set()
    for thread in threads:
        thread.join()
    for proxy in proxies:
        mend(proxy)
    time.sleep(proxies[0].late_seconds)  # what is late has landed
    call = servers[0].client().execute_command

    def written():
        try:
            return call("VSET", "marker", vector(9, 0, 0), "IN", COLLECTION)
        except redis.ResponseError:
            return False

    until = time.monotonic() + 120
    while not written():
        assert time.monotonic() < until
        time.sleep(0.1)
    for server in servers:
        call = server.client().execute_command
        found = call("VSEARCH", vector(0, 0, 5), 1000, "EXACT", "CONSISTENT", "IN", COLLECTION)
        live = sum(r.check(call) for r in rows) + 1
        assert len(found) == live
        assert as_map(call("VINFO", COLLECTION))["size"] == live
    print(f"{fault}: {sum(r.answers for r in rows)} acknowledged, {sum(r.refused for r in rows)} refused, "
          f"{sum(r.unknown for r in rows)} unknown; the reader answered {shown} of {looks}; "
          f"{[proxy.requests for proxy in proxies]} requests")
    assert sum(r.answers for r in rows) > 0


@pytest.mark.parametrize("fault", ["refuses", "hangs"])
def test_the_bucket_is_away_for_a_while(proxies, start, bucket, monkeypatch, fault):
    lake = bucket.lake()
    monkeypatch.setenv("AWS_ENDPOINT_URL", proxies[0].endpoint)
    server = start("--group-delay", "1", lake=lake)
    client = server.client(socket_timeout=300)
    client.execute_command("VCREATE", "c", "DIM", 2)
    client.execute_command("VSET", "before", blob(1, 2), "IN", "c")
    setattr(proxies[0], fault, True)
    problems = []
    for i in range(3):
        with pytest.raises(redis.ResponseError) as caught:
            client.execute_command("VSET", f"away{i}", blob(3, 4), "IN", "c")
        problems.append(str(caught.value))
        # What is known is answered all the while.
        assert client.execute_command("VSEARCH", blob(1, 2), 1, "IN", "c")[0][0] == b"before"
        assert client.execute_command("VGET", "before", "IN", "c") is not None
    print(problems)
    assert all("unavailable" in problem or "outcome" in problem for problem in problems)
    mend(proxies[0])
    until = time.monotonic() + 120
    while True:
        try:
            client.execute_command("VSET", "after", blob(5, 6), "IN", "c")
            break
        except redis.ResponseError as problem:
            assert time.monotonic() < until, problem
            time.sleep(0.1)
    there = {row[0].decode() for row in client.execute_command("VSEARCH", blob(1, 2), 9, "CONSISTENT", "IN", "c")}
    assert {"before", "after"} <= there
    for i, problem in enumerate(problems):
        assert f"away{i}" not in there or "outcome unknown" in problem, problem
