"""VSEARCH: replies of both protocols against a plain computation."""

import math
import random

import pytest
from conftest import as_map, blob, error, floats, number


def fill(call, collection, metric, count, dimension, seed):
    """A collection of random rows, half of them flushed; the rows by id."""
    print("seed", seed)
    rng = random.Random(seed)
    call("VCREATE", collection, "DIM", dimension, "METRIC", metric, "COLUMNS", "n", "int64")
    rows = {}
    for i in range(count):
        vector = floats(blob(*(rng.gauss(0, 1) for _ in range(dimension))))
        rows[f"k{i}"] = vector
        call("VSET", f"k{i}", blob(*vector), "ATTRIBUTES", '{"n": %d}' % i, "IN", collection)
        if i == count // 2:
            call("VFLUSH", collection)
    return rows


def distance(metric, a, b):
    if metric == "l2":
        return sum((x - y) ** 2 for x, y in zip(a, b))
    dot = sum(x * y for x, y in zip(a, b))
    return -dot if metric == "ip" else 1 - dot / math.sqrt(sum(x * x for x in a) * sum(y * y for y in b))


@pytest.mark.parametrize("metric", ["l2", "cosine", "ip"])
def test_nearest_rows(client, metric):
    call = client.execute_command
    rows = fill(call, "c", metric, 200, 8, 1)
    query = floats(blob(*(0.1 * i - 0.3 for i in range(8))))
    wanted = sorted((distance(metric, query, vector), name) for name, vector in rows.items())
    for vector in (blob(*query), "[" + ", ".join(map(repr, query)) + "]"):
        found = call("VSEARCH", vector, 10, "EXACT", "IN", "c")
        assert [row[0].decode() for row in found] == [name for _, name in wanted[:10]]
        for row, (far, _) in zip(found, wanted):
            assert len(row) == 2 and number(row[1]) == pytest.approx(far, rel=1e-5, abs=1e-6)
    assert len(call("VSEARCH", blob(*query), 1000, "IN", "c")) == 200


def test_forms_of_replies(client, protocol):
    call = client.execute_command
    fill(call, "c", "l2", 20, 2, 2)
    query = call("VGET", "k3", "RAW", "RETURN", 1, "vector", "IN", "c")
    vector = as_map(query)["vector"]
    [[name, far]] = call("VSEARCH", vector, 1, "IN", "c")
    assert name == b"k3" and far == (b"0" if protocol == 2 else 0.0)
    assert isinstance(far, bytes if protocol == 2 else float)
    [[name, far, columns]] = call("VSEARCH", vector, 1, "RETURN", 2, "n", "payload", "IN", "c")
    assert isinstance(columns, list if protocol == 2 else dict)
    assert as_map(columns) == {"n": 3, "payload": None}
    [[_, _, columns]] = call("VSEARCH", vector, 1, "WITHVECTORS", "IN", "c")
    assert [number(x) for x in as_map(columns)["vector"]] == pytest.approx(floats(vector))
    [[_, _, columns]] = call("VSEARCH", vector, 1, "RETURN", 1, "n", "WITHVECTORS", "RAW", "IN", "c")
    assert as_map(columns) == {"n": 3, "vector": vector}
    [[_, _, columns]] = call("VSEARCH", vector, 1, "RETURN", 2, "vector", "n", "WITHVECTORS", "RAW", "IN", "c")
    assert list(as_map(columns)) == ["vector", "n"]


def test_neighbours_of_a_row(client):
    call = client.execute_command
    rows = fill(call, "c", "l2", 50, 4, 3)
    for name in ("k3", "k40"):
        found = call("VSEARCH", "ID", name, 5, "IN", "c")
        wanted = sorted((distance("l2", rows[name], vector), other) for other, vector in rows.items())
        assert [row[0].decode() for row in found] == [other for _, other in wanted[:5]]
        assert found[0][0] == name.encode() and number(found[0][1]) == 0
    assert "nobody" in error(client, "VSEARCH", "ID", "nobody", 5, "IN", "c")


def test_options_are_accepted(client):
    call = client.execute_command
    fill(call, "c", "l2", 20, 2, 4)
    plain = call("VSEARCH", "[0, 0]", 5, "IN", "c")
    assert call("VSEARCH", "[0,0]", 5, "NPROBE", 1000, "IN", "c") == plain
    assert call("VSEARCH", "[0,0]", 5, "exact", "partial", "in", "c") == plain
    assert call("VSEARCH", "[0,0]", 5, "IN", "c", "EXACT") == plain


def test_an_empty_collection(client):
    client.execute_command("VCREATE", "c", "DIM", 2)
    assert client.execute_command("VSEARCH", "[1,2]", 5, "IN", "c") == []


def test_deleted_and_replaced_rows_are_not_found(client):
    call = client.execute_command
    fill(call, "c", "l2", 20, 2, 5)
    call("VSET", "k0", "[100,100]", "IN", "c")
    call("VDEL", "k1", "IN", "c")
    names = [row[0] for row in call("VSEARCH", "[100,100]", 100, "IN", "c")]
    assert names[0] == b"k0" and names.count(b"k0") == 1 and b"k1" not in names and len(names) == 19
