"""A bucket that is away, or answers badly, under a running reader.

Cached queries go on, others fail at once and say so, /ready tells it, and all recovers by itself.
"""

import time
import urllib.error
import urllib.request

import pytest
import redis
from conftest import as_map, error
from s3_proxy import Proxy
from test_s3_cache import http_port, metric, search
from test_s3_lake import GATEWAY, LAKE, COLLECTIONS, fill, gateway, wait_until, writer  # noqa: F401 (fixtures)

pytestmark = pytest.mark.skipif(not GATEWAY.exists(), reason="no versitygw: run tools/setup test")


@pytest.fixture
def proxy(gateway, monkeypatch):
    proxy = Proxy(gateway.port)
    monkeypatch.setenv("AWS_ENDPOINT_URL", proxy.endpoint)
    yield proxy
    proxy.stop()


def http_status(server, path):
    try:
        with urllib.request.urlopen(f"http://127.0.0.1:{http_port(server)}{path}", timeout=30) as reply:
            return reply.status, reply.read().decode()
    except urllib.error.HTTPError as problem:
        return problem.code, problem.read().decode()


FAULTS = {
    "refused": {"refuses": True},
    "hanging": {"hangs": True},
    "500": {"error": 1.0},
}


def tell(proxy, fault):
    for name, value in fault.items():
        setattr(proxy, name, value)


def mend(proxy):
    tell(proxy, {"refuses": False, "hangs": False, "error": 0.0, "cut": 0.0, "flip": 0.0})


@pytest.mark.parametrize("fault", FAULTS)
def test_the_bucket_is_away(start, writer, proxy, fault):
    local = writer.client()
    vectors = fill(local, "c", 2000, *COLLECTIONS["ivf"])
    fill(local, "other", 1000, *COLLECTIONS["flat"], seed=2)
    known = vectors[5:1000:100]
    server = start("--read-only", "--http-port", "0", lake=LAKE)
    client = server.client(socket_timeout=120)
    wanted = [search(client, query) for query in known]
    assert wanted == [search(local, query) for query in known]
    assert http_status(server, "/ready")[0] == 200

    def uncached():
        return error(client, "VSEARCH", vectors[7], 10, "EXACT", "IN", "other")

    tell(proxy, FAULTS[fault])
    assert [search(client, query) for query in known] == wanted
    assert uncached().startswith("store unavailable")  # waits until it is certain that nothing answers
    wait_until(lambda: http_status(server, "/ready")[0] == 503 and "unavailable" in http_status(server, "/ready")[1])
    assert metric(server, "vexlake_s3_away") == 1
    assert http_status(server, "/health")[0] == 200
    before = proxy.requests
    begun = time.monotonic()
    for _ in range(200):
        assert uncached().startswith("store unavailable")
        assert search(client, known[3]) == wanted[3]
    probes = 2 + 2 * (time.monotonic() - begun)  # at most one a second, and those in between
    assert proxy.requests - before <= probes
    with pytest.raises(redis.ResponseError, match="^store unavailable"):
        client.execute_command("VGET", "k5", "RAW", "RETURN", 1, "vector", "IN", "other")
    assert [search(client, query) for query in known] == wanted
    mend(proxy)
    wait_until(lambda: http_status(server, "/ready")[0] == 200)
    assert (metric(server, "vexlake_s3_away"), metric(server, "vexlake_s3_outages_total")) == (0, 1)
    assert client.execute_command("VSEARCH", vectors[7], 10, "EXACT", "IN", "other") == \
        local.execute_command("VSEARCH", vectors[7], 10, "EXACT", "IN", "other")
    assert "store unavailable" in server.log() and "store available" in server.log()


def test_flipped_bits(start, writer, proxy, tmp_path):
    """Answers with a wrong bit: no wrong answer, nothing counts as damaged, and nothing wrong stays in the cache."""
    local = writer.client()
    for seed, name in enumerate(COLLECTIONS):
        vectors = fill(local, name, 2000, *COLLECTIONS[name], seed=seed)
    queries = vectors[3:1500:50]
    flags = ("--read-only", "--cache-dir", str(tmp_path / "l2"))
    server = start(*flags, lake=LAKE)

    def same(client, name, query):
        for options in (("EXACT",), ("RETURN", 2, "n", "s", "EXACT"), ("NPROBE", 100000)):
            command = ("VSEARCH", query, 10, *options, "IN", name)
            got, wanted = client.execute_command(*command), local.execute_command(*command)
            if "EXACT" in options:
                assert got == wanted
            else:  # bounds of codes hold for nearly all rows, and the two ways ask them in another order
                ids = [{row[0] for row in rows} for rows in (got, wanted)]
                assert len(got) == 10 and len(ids[0] & ids[1]) >= 7, (got, wanted)

    client = server.client(socket_timeout=120)
    proxy.flip = 0.3
    failed = 0
    for name in COLLECTIONS:
        for query in queries:
            try:
                same(client, name, query)
            except redis.ResponseError as problem:  # the second attempt met another flip
                assert "checksum" in str(problem) or "damaged" in str(problem), problem
                failed += 1
    print(failed, "of", len(COLLECTIONS) * len(queries), "failed")
    assert "read anew" in server.log()
    mend(proxy)
    time.sleep(1.1)  # a second attempt is made once in a second
    for name in COLLECTIONS:
        for query in queries:
            same(client, name, query)
        assert as_map(client.execute_command("VINFO", name))["segments-damaged"] == 0
    server.stop()
    client = start(*flags, lake=LAKE).client(socket_timeout=120)
    for name in COLLECTIONS:
        for query in queries:
            same(client, name, query)


def test_a_bad_network(start, writer, proxy, tmp_path):
    """A third of the answers are errors or end early, all are late: slower, and right."""
    local = writer.client()
    vectors = fill(local, "c", 1000, *COLLECTIONS["ivf"])
    tell(proxy, {"error": 0.15, "cut": 0.1, "delay": 0.005})
    server = start("--read-only", "--cache-dir", str(tmp_path / "l2"), "--cache-memory", "1mb", lake=LAKE)
    client = server.client(socket_timeout=120)
    for query in vectors[3:500:20]:
        assert search(client, query, "EXACT") == search(local, query, "EXACT")
        assert search(client, query) == search(local, query)
    mend(proxy)
    assert "store unavailable" not in server.log()
