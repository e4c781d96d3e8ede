"""A lake in a bucket, opened to read: what it answers is what the writer's server answers.

versitygw serves a folder as a bucket, and the writer's lake is a folder in that folder. The program
is VEXLAKE_VERSITYGW or what tools/setup installs; without it these tests are skipped.
"""

import json
import os
import pathlib
import random
import socket
import struct
import subprocess
import time

import pytest
from conftest import PROGRAM, ROOT, as_map, blob, error, floats
from s3_bucket import GATEWAY, Gateway

pytestmark = pytest.mark.skipif(not GATEWAY.exists(), reason="no versitygw: run tools/setup test")

DIMENSION = 16


@pytest.fixture
def gateway(tmp_path, monkeypatch):
    for name in [name for name in os.environ if name.startswith("AWS_")]:
        monkeypatch.delenv(name)
    gateway = Gateway(tmp_path / "s3")
    monkeypatch.setenv("HOME", str(tmp_path))
    monkeypatch.setenv("AWS_ACCESS_KEY_ID", "test-access")
    monkeypatch.setenv("AWS_SECRET_ACCESS_KEY", "test-secret-key")
    monkeypatch.setenv("AWS_ENDPOINT_URL", gateway.endpoint)
    yield gateway
    gateway.stop()


@pytest.fixture
def writer(start, gateway):
    return start(lake=gateway.bucket / "lake")


LAKE = "s3://vex-test/lake"


def vectors_of(count, seed):
    print("seed", seed)
    rng = random.Random(seed)
    return [blob(*(rng.gauss(0, 1) + (i % 30) / 10 for _ in range(DIMENSION))) for i in range(count)]


def fill(client, name, count, *options, seed=1):
    """Three segments: of the first, rows are deleted and overwritten by the others."""
    client.execute_command("VCREATE", name, "DIM", DIMENSION, *options, "COLUMNS", "n", "int64", "s", "string")
    vectors = vectors_of(count, seed)

    def put(rows):
        pipe = client.pipeline(transaction=False)
        for i in rows:
            pipe.execute_command("VSET", f"k{i}", vectors[i], "ATTRIBUTES", json.dumps({"n": i, "s": f"text {i}"}),
                                 "PAYLOAD", bytes([i % 256]) * 40, "IN", name)
        pipe.execute()
        client.execute_command("VFLUSH", name)

    put(range(count // 2))
    put(range(count // 2, count))
    client.execute_command("VDEL", *(f"k{i}" for i in range(0, count, 40)), "IN", name)
    put(range(1, count, 40))
    return vectors


def wait_until(what, seconds=60):
    end = time.monotonic() + seconds
    while not what():
        assert time.monotonic() < end
        time.sleep(0.05)


def graphs_are_there(client):
    info = as_map(client.execute_command("VINFO", "c"))
    return info["graphs"] > 0 and info["graphs-missing"] == 0


COLLECTIONS = {
    "flat": ["METRIC", "l2", "INDEX", "flat"],
    "ivf": ["METRIC", "l2", "INDEX", "ivf"],
    "cosine": ["METRIC", "cosine", "INDEX", "ivf", "BITS", 8],
    "ip": ["METRIC", "ip", "INDEX", "ivf", "BITS", 1],
    "hnsw": ["METRIC", "cosine", "INDEX", "hnsw"],
}


@pytest.mark.parametrize("name", COLLECTIONS)
def test_answers_are_the_writers(start, writer, name):
    local = writer.client()
    vectors = fill(local, name, 2000, *COLLECTIONS[name])
    remote = start("--read-only", lake=LAKE).client()
    assert remote.execute_command("VLIST") == [name.encode()]

    def same(*command):
        got, wanted = remote.execute_command(*command, "IN", name), local.execute_command(*command, "IN", name)
        assert got == wanted, command
        return got

    def ids(client, query, *options):
        return {row[0] for row in client.execute_command("VSEARCH", query, 10, *options, "IN", name)}

    shared = compared = lost = 0
    for query in vectors[5:1000:50]:
        assert len(same("VSEARCH", query, 10, "EXACT")) == 10
        lost += len(ids(remote, query, "NPROBE", 100000) ^ ids(local, query, "NPROBE", 100000))
        same("VSEARCH", query, 3, "EXACT", "RETURN", 4, "n", "s", "attributes", "payload")
        same("VSEARCH", query, 5, "EXACT", "WITHVECTORS", "RAW")
        got, wanted = ids(remote, query), ids(local, query)
        shared, compared = shared + len(got & wanted), compared + len(wanted)
    assert lost <= 4  # the bounds of codes hold for nearly all rows
    assert shared >= 0.9 * compared  # a graph may be there for one of them alone
    assert len(same("VSEARCH", "ID", "k7", 10, "EXACT")) == 10
    same("VGET", "k0")  # deleted
    same("VGET", *(f"k{i}" for i in range(0, 2100, 13)), "RAW")
    same("VGET", "k1", "k1999", "RETURN", 2, "s", "vector")
    assert error(remote, "VSEARCH", "ID", "k0", 5, "IN", name) == error(local, "VSEARCH", "ID", "k0", 5, "IN", name)
    infos = [as_map(client.execute_command("VINFO", name)) for client in (remote, local)]
    for key in infos[0]:
        if "graph" not in key and "flush" not in key and key != "written-here":
            assert infos[0][key] == infos[1][key], key
    assert remote.execute_command("DBSIZE") == local.execute_command("DBSIZE")
    assert remote.info()["searches_on_loop"] == 0  # a server that hangs must not hang other clients
    assert "opened read-only" in error(remote, "VSET", "new", vectors[0], "IN", name)
    assert "opened read-only" in error(remote, "VDEL", "k1", "IN", name)


@pytest.mark.parametrize("name", ["flat", "ivf", "cosine"])
def test_a_search_takes_few_steps(start, writer, name):
    vectors = fill(writer.client(), name, 2000, *COLLECTIONS[name])
    server = start("--read-only", lake=LAKE)
    remote = server.client()

    def profiled(query, *options):
        rows, profile = remote.execute_command("VSEARCH", query, 5, *options, "PROFILE", "IN", name)
        assert rows == remote.execute_command("VSEARCH", query, 5, *options, "IN", name)
        return as_map(profile)

    cold = profiled(vectors[5], "RETURN", 2, "n", "payload")
    assert cold["segments"] == 3 and cold["rows"] > 0
    assert 1 <= cold["steps"] <= 3  # heads, lists, vectors and columns
    assert cold["steps"] <= cold["requests"] <= 12 * cold["steps"]
    assert cold["request-bytes"] > 0 and cold["total-us"] >= cold["scan-us"] >= cold["read-us"] - cold["columns-us"]
    assert profiled(vectors[1500])["steps"] <= 2
    assert profiled(vectors[5], "EXACT")["steps"] <= 3
    local = as_map(writer.client().execute_command("VSEARCH", vectors[5], 5, "PROFILE", "IN", name)[1])
    assert (local["steps"], local["requests"], local["read-us"]) == (0, 0, 0) and local["segments"] == 3


def test_graphs_are_used(start, gateway, tmp_path):
    rng = random.Random(3)
    vectors = [[rng.gauss(0, 1) + i % 30 / 10 for _ in range(DIMENSION)] for i in range(4100)]
    (tmp_path / "rows.fvecs").write_bytes(b"".join(struct.pack("<i", DIMENSION) + blob(*row) for row in vectors))
    lake = gateway.bucket / "lake"
    code, _, err = run("import", "--lake", lake, "--into", "c", "--index", "hnsw", tmp_path / "rows.fvecs")
    assert code == 0, err
    local = start(lake=lake).client()
    wait_until(lambda: graphs_are_there(local), 300)
    remote = start("--read-only", lake=LAKE).client()
    wait_until(lambda: graphs_are_there(remote))
    for row in vectors[:400:20]:
        for options in ((), ("EF", 100), ("NPROBE", 20)):
            assert remote.execute_command("VSEARCH", blob(*row), 10, *options, "IN", "c") == \
                local.execute_command("VSEARCH", blob(*row), 10, *options, "IN", "c")
    small = start("--read-only", "--graph-memory", "1k", lake=LAKE).client()
    info = as_map(small.execute_command("VINFO", "c"))
    assert (info["graphs"], info["graph-bytes"]) == (0, 0)
    assert len(small.execute_command("VSEARCH", blob(*vectors[7]), 10, "IN", "c")) == 10


def test_commits_and_logged_rows_appear(start, writer):
    local = writer.client()
    vectors = fill(local, "c", 200)
    local.execute_command("VSET", "logged", vectors[0], "IN", "c")
    reader = start("--read-only", lake=LAKE)
    remote = reader.client()
    assert remote.execute_command("VGET", "logged", "RAW", "RETURN", 1, "vector", "IN", "c")[b"vector"] == vectors[0]
    local.execute_command("VSET", "later", vectors[1], "IN", "c")
    local.execute_command("VDEL", "k3", "IN", "c")
    local.execute_command("VFLUSH", "c")
    wait_until(lambda: remote.execute_command("VGET", "later", "IN", "c") is not None)
    assert remote.execute_command("VGET", "k3", "IN", "c") is None
    assert remote.execute_command("VSEARCH", vectors[1], 20, "EXACT", "IN", "c") == \
        local.execute_command("VSEARCH", vectors[1], 20, "EXACT", "IN", "c")
    local.execute_command("VDROP", "c")
    wait_until(lambda: "c" not in [name.decode() for name in remote.execute_command("VLIST")])


def test_readers_go_on_when_the_server_is_back(start, writer, gateway):
    """While the bucket is away a search fails with one line; nothing counts as damaged then."""
    vectors = fill(writer.client(), "c", 400)
    reader = start("--read-only", lake=LAKE)
    remote = reader.client(socket_timeout=120)
    gateway.stop()
    assert "store unavailable" in error(remote, "VSEARCH", vectors[9], 5, "EXACT", "IN", "c")
    gateway.start()
    wait_until(lambda: "store unavailable" not in reader.log() or "store available" in reader.log())
    assert len(remote.execute_command("VSEARCH", vectors[9], 5, "EXACT", "IN", "c")) == 5
    info = as_map(remote.execute_command("VINFO", "c"))
    assert info["segments-damaged"] == 0 and info["segments-unindexed"] == 0


def run(*arguments, **environment):
    done = subprocess.run([PROGRAM, *map(str, arguments)], capture_output=True, timeout=120, text=True,
                          env={**os.environ, **environment})
    return done.returncode, done.stdout, done.stderr


def test_the_command_line(writer):
    local = writer.client()
    vectors = fill(local, "c", 500, "INDEX", "ivf")
    query = "[" + ",".join(map(repr, floats(vectors[3]))) + "]"
    for arguments in (["search", "--in", "c", "--vector", query, "-k", 7, "--exact", "--columns", "n,s", "--json"],
                      ["search", "--in", "c", "--id", "k9", "-k", 3, "--nprobe", 1000],
                      ["info", "--json"], ["verify"]):
        answers = [run(arguments[0], "--lake", lake, *arguments[1:]) for lake in (LAKE, writer.lake)]
        if arguments == ["info", "--json"]:
            answers = [(code, {key: value for key, value in json.loads(out).items() if "flush" not in key}, err)
                       for code, out, err in answers]
        assert answers[0] == answers[1], arguments
        assert answers[0][0] == 0


@pytest.mark.parametrize("arguments, environment, says", [
    (["s3://vex-nothing/lake"], {}, "vex-nothing"),
    (["s3://vex-test/nothing"], {}, "there is no lake"),
    (["s3://vex-test/lake"], {"AWS_SECRET_ACCESS_KEY": "wrong"}, "secret"),
    (["s3://vex-test/lake"], {"AWS_ACCESS_KEY_ID": "wrong"}, "access key"),
    (["s3://vex-test/lake"], {"AWS_ACCESS_KEY_ID": "", "AWS_SECRET_ACCESS_KEY": ""}, "no S3 keys"),
    (["s3://vex-test/lake", "--profile", "nobody"], {}, "no profile 'nobody'"),
    (["s3://vex-test/lake", "--endpoint", "http://127.0.0.1:1"], {}, "127.0.0.1"),
    (["s3://vex-test/lake", "--endpoint", "nonsense"], {}, "the endpoint is no address"),
    (["s3://vex-test/la ke"], {}, "prefix"),
])
def test_wrong_settings_are_told(writer, arguments, environment, says):
    writer.client().execute_command("VSET", "a", "[1,2]")
    code, _, err = run("info", "--lake", *arguments, **environment)
    assert code in (1, 2) and says in err and err.count("\n") == 1, err
    code, _, err = run("serve", "--port", 0, "--read-only", "--lake", *arguments, **environment)
    assert code == 1 and says in err and err.count("\n") == 1, err


def test_a_lake_that_a_local_server_writes_is_not_written_here(writer):
    writer.client().execute_command("VSET", "a", "[1,2]")
    for arguments in (["serve", "--port", 0], ["create", "c", "--dim", 2], ["drop", "c"], ["flush"],
                      ["import", "--into", "c", ROOT / "examples/packages.parquet"]):
        code, _, err = run(arguments[0], "--lake", LAKE, *arguments[1:])
        assert code == 1 and ".vexlake/wal" in err and "read-only" in err and err.count("\n") == 1, err
    assert writer.client().execute_command("VLIST") == [b"default"]


def test_keys_from_a_profile(writer, gateway, tmp_path):
    writer.client().execute_command("VSET", "a", "[1,2]")
    (tmp_path / ".aws").mkdir()
    (tmp_path / ".aws" / "credentials").write_text(
        f"[lake]\naws_access_key_id = test-access\naws_secret_access_key = test-secret-key\n"
        f"endpoint_url = {gateway.endpoint}\nregion = us-east-1\n")
    code, out, err = run("info", "--lake", LAKE, "--profile", "lake", "--json",
                         AWS_ACCESS_KEY_ID="", AWS_SECRET_ACCESS_KEY="", AWS_ENDPOINT_URL="")
    assert code == 0 and json.loads(out)["name"] == "default", err
