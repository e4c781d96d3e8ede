"""Bytes that rot and files that are cut: everything is noticed, nothing crashes.

Unlike test_damage.py, which damages files grossly, one bit is flipped here, anywhere in a file: an
answer is right or an error that names the file, and `vexlake verify` finds every one. A flipped bit in an
index file costs no answer at all, and neither does cutting it while the server has it mapped; a data file that
is cut becomes errors.
"""

import os
import random
import subprocess

import pytest
import redis

from conftest import PROGRAM, as_map, blob, error

FLIPS = max(3, round(12 * float(os.environ.get("EFFORT", "1"))))
SEED = int(os.environ.get("SEED", "7"))
ROWS = 300
DIMENSION = 16


def vector(i):
    return blob(*([i] * (DIMENSION - 1)), 1)


def fill(server, segment):
    pipe = server.client().pipeline(transaction=False)
    for i in range(ROWS):
        pipe.execute_command("VSET", f"{segment}-{i}", vector(segment * 1000 + i), "ATTRIBUTES", f'{{"n": {i}}}',
                             "PAYLOAD", bytes([i % 251]) * 40)
    pipe.execute_command("VFLUSH")
    pipe.execute()


def uuid(path):
    """What the names of a segment's files have in common."""
    return path.name.split(".")[0]


def flip(path, rng):
    data = bytearray(path.read_bytes())
    at = rng.randrange(len(data))
    data[at] ^= 1 << rng.randrange(8)
    path.write_bytes(data)
    return at


def verify(lake):
    done = subprocess.run([PROGRAM, "verify", "--lake", str(lake)], capture_output=True, text=True, timeout=60)
    assert "Sanitizer" not in done.stderr, done.stderr
    return done.returncode, done.stdout + done.stderr


@pytest.mark.parametrize("kind", ["segment", "index"])
def test_one_flipped_bit(start, kind):
    rng = random.Random(SEED)
    print("seed", SEED)
    server = start()
    fill(server, 0)
    fill(server, 1)
    assert server.stop() == 0
    assert verify(server.lake)[0] == 0
    files = sorted(server.lake.rglob("*.parquet" if kind == "segment" else "index/*.bin"),
                   key=lambda path: path.stat().st_mtime_ns)
    assert len(files) == 2
    whole = files[0].read_bytes()
    noticed = 0
    for _ in range(FLIPS):
        at = flip(files[0], rng)
        code, report = verify(server.lake)
        assert code == 1 and files[0].name in report, (at, report)
        running = start(lake=server.lake)
        client = running.client()
        for command in (("VSEARCH", vector(7), 3, "EXACT", "RETURN", 2, "attributes", "payload"),
                        ("VGET", "0-7", "0-299"), ("VSEARCH", vector(120), 3, "WITHVECTORS")):
            try:
                reply = client.execute_command(*command)
            except redis.ResponseError as problem:
                noticed += 1
                assert uuid(files[0]) in str(problem), (at, problem)
                assert kind == "segment", (at, problem)  # without their index the rows are found all the same
            else:  # the flip lies where nobody looked
                if command[0] == "VGET":
                    assert [as_map(row)["attributes"] for row in reply] == [b'{"n": 7}', b'{"n": 299}']
                else:
                    assert reply[0][0] == (b"0-7" if command[1] == vector(7) else b"0-120")
        found = client.execute_command("VSEARCH", vector(1000), 2, "EXACT", "PARTIAL")
        assert [row[0] for row in found][:2] == [b"1-0", b"1-1"]
        assert running.stop() == 0
        files[0].write_bytes(whole)
    print(f"{FLIPS} flips, {noticed} of {3 * FLIPS} commands noticed, verify all")
    assert verify(server.lake)[0] == 0


def test_a_flipped_bit_in_acknowledged_log_records(start):
    rng = random.Random(SEED)
    server = start()
    call = server.client().execute_command
    for i in range(50):
        call("VSET", f"k{i}", vector(i))
    server.kill()
    [log] = [path for path in (server.lake / ".vexlake/wal").iterdir() if path.stat().st_size > 64]
    whole = log.read_bytes()
    for _ in range(FLIPS):
        at = rng.randrange(64, len(whole) * 9 // 10)  # the last group may be an append that was never synced
        data = bytearray(whole)
        data[at] ^= 1 << rng.randrange(8)
        log.write_bytes(data)
        broken = start(lake=server.lake, ready=False)
        assert broken.process.wait(60) == 1, at
        assert log.name in broken.log(), (at, broken.log())
    log.write_bytes(whole)
    again = start(lake=server.lake)
    assert as_map(again.client().execute_command("VINFO"))["size"] == 50


def cut(start, pattern, left):
    server = start()
    fill(server, 0)
    fill(server, 1)
    client = server.client()
    assert client.execute_command("VSEARCH", vector(7), 1, "EXACT")[0][0] == b"0-7"
    files = sorted(server.lake.rglob(pattern), key=lambda path: path.stat().st_mtime_ns)
    assert files[0].stat().st_size > 2 * 4096
    os.truncate(files[0], left)
    return server, client, files[0]


@pytest.mark.parametrize("left", [0, 4096])
def test_a_mapped_index_file_is_cut(start, left):
    """It is done without: every row of its segment is still there."""
    server, client, _ = cut(start, "index/*.bin", left)
    found = client.execute_command("VSEARCH", vector(7), 2 * ROWS, "EXACT", "RETURN", 2, "attributes", "payload")
    assert {row[0].decode(): as_map(row[2]) for row in found} == {
        f"{segment}-{i}": {"attributes": f'{{"n": {i}}}'.encode(), "payload": bytes([i % 251]) * 40}
        for segment in range(2) for i in range(ROWS)}
    assert client.execute_command("VGET", "0-1") is not None
    assert client.execute_command("VSEARCH", vector(9), 1)[0][0] == b"0-9"
    assert client.execute_command("VDEL", "0-3") == 1
    assert client.execute_command("VSET", "0-4", vector(4)) == b"OK"
    client.execute_command("VFLUSH")
    ids = [row[0] for row in client.execute_command("VSEARCH", vector(3), 2 * ROWS, "EXACT")]
    assert len(ids) == len(set(ids)) == 2 * ROWS - 1 and b"0-3" not in ids
    assert server.stop() == 0
    assert "Sanitizer" not in server.log(), server.log()


@pytest.mark.parametrize("left", [0, 4096])
def test_a_mapped_segment_is_cut(start, left):
    """At a page's border, so that what is missing faults. (Inside a page it reads as zeros, and what was
    compared with its checksum before the cut is believed: once per mapping, as the design says.)"""
    server, client, file = cut(start, "*.parquet", left)
    message = error(client, "VSEARCH", vector(7), 2 * ROWS, "EXACT", "RETURN", 2, "attributes", "payload")
    assert uuid(file) in message
    for command in (("VGET", "0-1"), ("VGET", "0-298", "WITHVECTORS"), ("VSEARCH", vector(9), 5),
                    ("VSEARCH", "ID", "0-5", 5), ("VDEL", "0-3"), ("VSET", "0-4", vector(4)), ("VINFO",),
                    ("VFLUSH",), ("VSET", "new", vector(5))):
        try:
            client.execute_command(*command)
        except redis.ResponseError as problem:
            assert uuid(file) in str(problem) or command[1:2] == ("0-298",), (command, problem)
        assert client.ping()
    found = client.execute_command("VSEARCH", vector(1000), 2, "EXACT", "PARTIAL")
    assert [row[0] for row in found] == [b"1-0", b"1-1"]
    server.stop()  # its flush fails, and says so: the exit status may tell
    assert "Sanitizer" not in server.log(), server.log()
