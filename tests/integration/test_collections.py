"""Collections: create, drop, list, describe, and as Redis' keys."""

import threading

import pytest
from conftest import as_map, error


def test_life_of_a_collection(client):
    call = client.execute_command
    assert call("VLIST") == []
    assert call("VCREATE", "c", "DIM", 3, "METRIC", "cosine", "INDEX", "flat", "COLUMNS", "year", "int64") == b"OK"
    assert "exists" in error(client, "VCREATE", "c", "DIM", 3)
    info = as_map(call("VINFO", "c"))
    assert list(info)[:3] == ["quant-type", "vector-dim", "size"]
    assert info["quant-type"] == b"f32" and info["vector-dim"] == 3 and info["size"] == 0
    assert info["metric"] == b"cosine" and info["index"] == b"flat"
    assert as_map(info["columns"]) == {"year": b"int64"}
    assert float(info["recall"]) == 0.95 and info["bits"] == 4
    call("VCREATE", "tuned", "DIM", 3, "INDEX", "hnsw", "RECALL", "0.99", "BITS", 8)
    tuned = as_map(call("VINFO", "tuned"))
    assert (tuned["index"], float(tuned["recall"]), tuned["bits"]) == (b"hnsw", 0.99, 8)
    assert (tuned["graphs"], tuned["graphs-missing"], tuned["graph-bytes"]) == (0, 0, 0)
    call("VDROP", "tuned")
    call("VCREATE", "b", "DIM", 2)
    assert call("VLIST") == [b"b", b"c"]
    assert call("VDROP", "c") == b"OK"
    assert "c" in error(client, "VDROP", "c")
    assert call("VINFO", "c") is None
    assert call("VLIST") == [b"b"]
    call("VCREATE", "c", "DIM", 5)
    assert as_map(call("VINFO", "c"))["vector-dim"] == 5 and as_map(call("VINFO", "c"))["size"] == 0


def test_info_counts(client):
    call = client.execute_command
    assert call("VINFO") is None
    for i in range(10):
        call("VSET", f"k{i}", "[1,2]")
    info = as_map(call("VINFO", "default"))
    assert info == as_map(call("VINFO"))
    assert (info["size"], info["memtable-rows"], info["segments"]) == (10, 10, 0)
    assert call("VFLUSH") == b"OK"
    call("VDEL", "k0")
    call("VFLUSH", "default")
    info = as_map(call("VINFO"))
    assert (info["size"], info["segments"], info["segment-rows"], info["segment-rows-deleted"]) == (9, 1, 10, 1)
    assert info["parquet-bytes"] > 0 and info["index-bytes"] > 0 and info["version"] >= 2


def test_the_first_put_makes_default(client):
    call = client.execute_command
    assert "default" in error(client, "VGET", "a")
    for bad in (["a", "[1,NaN]"], ["", "[1,2]"], ["a", "[1,2]", "ATTRIBUTES", "[]"], ["a", "[1e99]"]):
        error(client, "VSET", *bad)
        assert call("VLIST") == []
    call("VSET", "a", "[1,2]")
    assert call("VLIST") == [b"default"]
    assert as_map(call("VINFO"))["vector-dim"] == 2 and as_map(call("VINFO"))["metric"] == b"l2"
    assert "other" in error(client, "VSET", "a", "[1,2]", "IN", "other")


def test_many_clients_make_default_at_once(server):
    barrier = threading.Barrier(8)
    failures = []

    def put(i):
        call = server.client(3).execute_command
        barrier.wait()
        try:
            for j in range(20):
                assert call("VSET", f"{i}-{j}", "[1,2,3]") == b"OK"
        except Exception as problem:
            failures.append(problem)

    threads = [threading.Thread(target=put, args=(i,)) for i in range(8)]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join()
    assert not failures
    assert as_map(server.client().execute_command("VINFO"))["size"] == 160


def test_collections_as_keys(client):
    call = client.execute_command
    names = [f"key:{i}" for i in range(25)] + ["other", "käse"]
    for name in names:
        call("VCREATE", name, "DIM", 2)
    assert client.dbsize() == 27
    assert sorted(client.keys("key:1?")) == [f"key:1{i}".encode() for i in range(10)]
    assert client.keys("[o]*") == [b"other"]
    assert sorted(key.decode() for key in client.scan_iter()) == sorted(names)
    assert sorted(client.scan_iter(match="*:2*", count=3)) == sorted(n.encode() for n in names if ":2" in n)
    assert list(client.scan_iter(_type="hash")) == []
    assert len(list(client.scan_iter(_type="vectorset"))) == 27
    assert client.type("other") == b"vectorset" and client.type("nobody") == b"none"
    assert client.exists("other", "käse", "nobody", "other") == 3
    assert client.delete("other", "nobody", "käse") == 2
    assert client.dbsize() == 25 and client.type("other") == b"none"


def test_scan_finds_what_stays(client):
    call = client.execute_command
    stay = {f"stay{i}".encode() for i in range(40)}
    for name in stay:
        call("VCREATE", name, "DIM", 2)
    seen, cursor, turn = set(), 0, 0
    while True:
        cursor, part = client.scan(cursor, count=3)
        seen.update(part)
        call("VCREATE", f"new{turn}", "DIM", 2)
        if turn % 2:
            call("VDROP", f"new{turn - 1}")
        turn += 1
        if cursor == 0:
            break
    assert stay <= seen


@pytest.mark.parametrize("name", ["", "x" * 129, "a\nb", b"\xff\xfe"])
def test_names_that_are_none(client, name):
    error(client, "VCREATE", name, "DIM", 2)
    assert client.execute_command("VLIST") == []
    longest = "x" * 128
    assert client.execute_command("VCREATE", longest, "DIM", 2) == b"OK"
    client.execute_command("VSET", "a", "[1,2]", "IN", longest)
    assert client.execute_command("VLIST") == [longest.encode()]
