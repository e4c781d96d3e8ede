"""VSET, VGET and VDEL: what goes in comes out, in both protocols."""

import pytest
from conftest import as_map, blob, error, floats


def test_a_row_comes_back(client, protocol):
    call = client.execute_command
    assert call("VSET", "a", "[1, 2.5, -3e-2]", "ATTRIBUTES", ' {"x" : [1,2]} ', "PAYLOAD", b"\x00\xff\r\n") == b"OK"
    row = as_map(call("VGET", "a"))
    assert list(row) == ["vector", "attributes", "payload"]
    if protocol == 2:
        assert row["vector"] == [b"1", b"2.5", b"-0.03"]
    else:
        assert row["vector"] == [1.0, 2.5, -0.03]
    assert row["attributes"] == b' {"x" : [1,2]} '
    assert row["payload"] == b"\x00\xff\r\n"
    assert floats(as_map(call("VGET", "a", "RAW"))["vector"]) == floats(blob(1, 2.5, -3e-2))


def test_a_put_replaces_the_whole_row(client):
    call = client.execute_command
    call("VSET", "a", "[1,2]", "ATTRIBUTES", "{}", "PAYLOAD", "p")
    call("VSET", "a", blob(3, 4))
    row = as_map(call("VGET", "a", "RAW"))
    assert floats(row["vector"]) == [3, 4] and row["attributes"] is None and row["payload"] is None


def test_asked_columns(client):
    call = client.execute_command
    call("VSET", "a", "[1,2]", "PAYLOAD", "")
    assert as_map(call("VGET", "a", "RETURN", 1, "payload")) == {"payload": b""}
    assert list(as_map(call("VGET", "a", "RETURN", 2, "payload", "vector"))) == ["payload", "vector"]
    assert "nothing" in error(client, "VGET", "a", "RETURN", 1, "nothing")


def test_several_ids_and_missing_ones(client):
    call = client.execute_command
    call("VSET", "a", "[1,2]")
    call("VSET", "b", "[3,4]")
    assert call("VGET", "x") is None
    found = call("VGET", "b", "x", "a", "b", "RETURN", 1, "vector", "RAW")
    assert [row and floats(as_map(row)["vector"]) for row in found] == [[3, 4], None, [1, 2], [3, 4]]
    assert call("VGET", "x", "y") == [None, None]


def test_deletes(client):
    call = client.execute_command
    for name in "abc":
        call("VSET", name, "[1,2]")
    assert call("VDEL", "a", "x", "b", "a") == 2
    assert call("VDEL", "a") == 0
    assert call("VGET", "a") is None
    assert as_map(call("VINFO"))["size"] == 1
    call("VSET", "a", "[5,6]")
    assert floats(as_map(call("VGET", "a", "RAW"))["vector"]) == [5, 6]


@pytest.mark.parametrize("flush", [False, True], ids=["memtable", "segment"])
def test_typed_columns(client, protocol, flush):
    call = client.execute_command
    call("VCREATE", "t", "DIM", 1, "COLUMNS", "n", "int64", "d", "double", "s", "string", "b", "bool", "at", "timestamp")
    call("VSET", "full", "[1]", "ATTRIBUTES",
         '{"n": -9007199254740993, "d": 0.1, "s": "text", "b": true, "at": "2026-01-31T12:00:00.5Z", "other": 1}',
         "IN", "t")
    call("VSET", "empty", "[2]", "IN", "t")
    if flush:
        call("VFLUSH", "t")
    row = as_map(call("VGET", "full", "IN", "t"))
    assert list(row) == ["vector", "attributes", "payload", "n", "d", "s", "b", "at"]
    assert row["n"] == -9007199254740993 and row["s"] == b"text"
    assert row["at"] == b"2026-01-31T12:00:00.500000Z"
    assert row["d"] == (b"0.1" if protocol == 2 else 0.1)
    assert row["b"] == (1 if protocol == 2 else True)
    assert isinstance(row["b"], bool) == (protocol == 3)
    row = as_map(call("VGET", "empty", "RETURN", 5, "n", "d", "s", "b", "at", "IN", "t"))
    assert row == dict.fromkeys(["n", "d", "s", "b", "at"])
    message = error(client, "VSET", "full", "[9]", "ATTRIBUTES", '{"n": "no number"}', "IN", "t")
    assert "n" in message
    assert as_map(call("VGET", "full", "IN", "t"))["n"] == -9007199254740993


def test_names_of_options_as_ids(client):
    call = client.execute_command
    for name in ("IN", "RAW", "RETURN", "ID"):
        call("VSET", name, "[1,2]", "IN", "default")
    assert call("VDEL", "IN", "IN", "default") == 1
    assert call("VDEL", "RAW", "IN", "default") == 1
    call("VSET", "IN", "[1,2]", "IN", "default")
    call("VSET", "raw", "[3,4]")
    assert as_map(call("VGET", "IN", "IN", "default"))["payload"] is None
    assert floats(as_map(call("VGET", "raw", "RAW", "IN", "default"))["vector"]) == [3, 4]
    assert len(as_map(call("VGET", "raw", "IN", "default"))["vector"]) == 2
    assert len(as_map(call("VGET", "RETURN"))["vector"]) == 2
    call("VSET", "IN", "[7,8]", "IN", "default")
    assert call("VSEARCH", "ID", "IN", 1, "IN", "default")[0][0] == b"IN"
    assert call("VSEARCH", "ID", "raw", 1)[0][0] == b"raw"
    assert len(call("VSEARCH", "ID", "ID", 9)) == 4
    # The last argument but one is IN: it is the option.
    assert "wrong number of arguments" in error(client, "VGET", "IN", "default")


def test_blobs_that_begin_like_text(client):
    call = client.execute_command
    vectors = {
        "bracket": b"[" + blob(1, 2)[1:],
        "both": b"[\x00\x00\x80\x3f\x00\x00]",
        "text-like": b"[1,2]\x00\x00\x00",
        "letters": b"[a,b,c]]",
    }
    for name, vector in vectors.items():
        assert len(vector) == 8
        call("VSET", name, vector)
    for name, vector in vectors.items():
        assert as_map(call("VGET", name, "RAW"))["vector"] == vector
        assert call("VSEARCH", vector, 1)[0][0] == name.encode()
    # Eight bytes that are text by the rule are text.
    call("VSET", "text", "[1.5, 2]")
    assert floats(as_map(call("VGET", "text", "RAW"))["vector"]) == [1.5, 2]


def test_rows_survive_flush_and_restart(start, protocol):
    server = start()
    call = server.client(protocol).execute_command
    call("VCREATE", "names ünï/..", "DIM", 2)
    for i in range(100):
        call("VSET", f"k{i}", blob(i, -i), "PAYLOAD", bytes([i]), "IN", "names ünï/..")
    call("VFLUSH", "names ünï/..")
    call("VSET", "k5", blob(55, 55), "IN", "names ünï/..")
    call("VDEL", "k6", "IN", "names ünï/..")
    server.kill()
    server = start()
    call = server.client(protocol).execute_command
    assert as_map(call("VINFO", "names ünï/.."))["size"] == 99
    assert floats(as_map(call("VGET", "k5", "RAW", "IN", "names ünï/.."))["vector"]) == [55, 55]
    assert call("VGET", "k6", "IN", "names ünï/..") is None
    assert as_map(call("VGET", "k7", "IN", "names ünï/.."))["payload"] == b"\x07"


def test_large_payloads(client):
    call = client.execute_command
    payload = bytes(range(256)) * (4 << 12)
    call("VSET", "big", "[1,2]", "PAYLOAD", payload)
    assert as_map(call("VGET", "big"))["payload"] == payload
    full = b"x" * (64 << 20)
    call("VSET", "full", "[1,2]", "PAYLOAD", full)
    assert as_map(call("VGET", "full", "RETURN", 1, "payload"))["payload"] == full
    message = error(client, "VSET", "over", "[1,2]", "PAYLOAD", full + b"x")
    assert "payload" in message and str(64 << 20) in message
    call("VFLUSH")
    assert as_map(call("VGET", "big"))["payload"] == payload
