"""Pipelines: replies in the order of the commands, whatever is merged or runs side by side."""

import random
import threading

from conftest import as_map, blob, floats


def test_replies_keep_their_order(client):
    pipe = client.pipeline(transaction=False)
    checks = []

    def add(check, *command):
        pipe.execute_command(*command)
        checks.append(check)

    for i in range(300):
        add(lambda r: r == b"OK", "VSET", f"k{i}", blob(i, 0))
        if i % 10 == 0:
            add(lambda r, i=i: r == b"%d" % i, "ECHO", i)
            add(lambda r, i=i: floats(as_map(r)["vector"]) == [i, 0], "VGET", f"k{i}", "RAW")
            add(lambda r, i=i: r[0][0] == b"k%d" % i, "VSEARCH", blob(i, 0), 1)
            add(lambda r, i=i: as_map(r)["size"] == i + 1, "VINFO")
            add(lambda r: r is None, "VGET", "nobody")
            add(lambda r: r in (True, b"PONG"), "PING")
    for check, reply in zip(checks, pipe.execute()):
        assert check(reply), reply


def test_merged_commands_answer_each(client):
    pipe = client.pipeline(transaction=False)
    for i in range(100):
        pipe.execute_command("VSET", f"k{i}", f"[{i}, {i}]")
    for i in range(100):
        pipe.execute_command("VGET", f"k{i}", f"x{i}", "RETURN", 1, "vector", "RAW")
    for i in range(100):
        pipe.execute_command("VSEARCH", "ID", f"k{i}", 1)
    for i in range(100):
        pipe.execute_command("VDEL", f"k{i // 2}", "x")
    replies = pipe.execute()
    assert replies[:100] == [b"OK"] * 100
    for i, (row, missing) in enumerate(replies[100:200]):
        assert floats(as_map(row)["vector"]) == [i, i] and missing is None
    assert [reply[0][0] for reply in replies[200:300]] == [b"k%d" % i for i in range(100)]
    assert replies[300:] == [1, 0] * 50


def test_reads_with_different_options(client):
    client.execute_command("VCREATE", "c", "DIM", 2)
    pipe = client.pipeline(transaction=False)
    for i in range(20):
        pipe.execute_command("VSET", f"k{i}", blob(i, 0))
        pipe.execute_command("VSET", f"k{i}", blob(0, i), "IN", "c")
    pipe.execute()
    for i in range(20):
        pipe.execute_command("VSEARCH", blob(i, 0), 1 + i % 3)
        pipe.execute_command("VSEARCH", blob(0, i), 1, "IN", "c")
        pipe.execute_command("VSEARCH", blob(0, i), 1, "IN", "c", )
        pipe.execute_command("VSEARCH", "[1,2,3]", 1)
        pipe.execute_command("VGET", f"k{i}", "IN", "c", "IN", "default")
    replies = pipe.execute(raise_on_error=False)
    for i in range(20):
        a, b, c, bad, rows = replies[5 * i:5 * i + 5]
        assert len(a) == 1 + i % 3 and a[0][0] == b"k%d" % i
        assert b == c and b[0][0] == b"k%d" % i
        assert isinstance(bad, Exception) and "3" in str(bad)
        assert rows[0] is not None and rows[1:] == [None, None]


def test_a_client_sees_its_own_writes(client):
    rng = random.Random(7)
    pipe = client.pipeline(transaction=False)
    model, wanted = {}, []
    client.execute_command("VSET", "first", "[0]")
    for i in range(2000):
        key = f"k{rng.randrange(20)}"
        kind = rng.randrange(4)
        if kind < 2:
            pipe.execute_command("VSET", key, blob(i))
            model[key] = i
            wanted.append(b"OK")
        elif kind == 2:
            pipe.execute_command("VDEL", key)
            wanted.append(1 if model.pop(key, None) is not None else 0)
        else:
            pipe.execute_command("VGET", key, "RETURN", 1, "vector", "RAW")
            wanted.append(blob(model[key]) if key in model else None)
    for reply, want in zip(pipe.execute(), wanted):
        if isinstance(reply, (list, dict)):
            reply = as_map(reply)["vector"]
        assert reply == want


def test_writes_of_many_clients(server):
    def put(i, results):
        pipe = server.client(2 + i % 2).pipeline(transaction=False)
        for j in range(500):
            bad = j % 50 == i
            pipe.execute_command("VSET", f"{i}-{j}", blob(*([i, j] if not bad else [i])))
        results[i] = pipe.execute(raise_on_error=False)

    server.client().execute_command("VCREATE", "default", "DIM", 2)
    results = {}
    threads = [threading.Thread(target=put, args=(i, results)) for i in range(8)]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join()
    for i in range(8):
        for j, reply in enumerate(results[i]):
            assert isinstance(reply, Exception) if j % 50 == i else reply == b"OK"
    call = server.client().execute_command
    assert as_map(call("VINFO"))["size"] == 8 * 490
    assert floats(as_map(call("VGET", "3-499", "RAW"))["vector"]) == [3, 499]


def test_a_deep_pipeline(server):
    """More commands than a batch holds, sent before any reply is read."""
    raw = server.socket()
    count = 200_000
    sender = threading.Thread(target=raw.sendall, args=(b"*1\r\n$4\r\nPING\r\n" * count,))
    sender.start()
    size = 0
    while size < 7 * count:
        piece = raw.recv(1 << 20)
        assert piece
        size += len(piece)
    sender.join()
    assert size == 7 * count
    raw.close()
