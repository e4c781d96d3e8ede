"""A damaged file: the checksum names it, and the others answer only if asked with PARTIAL."""

import time

import pytest

from conftest import as_map, blob, error


def damage(path, part=1 / 2):
    data = bytearray(path.read_bytes())
    at = int(len(data) * part)
    for i in range(at, min(at + 64, len(data))):
        data[i] ^= 0x5A
    path.write_bytes(data)


def test_a_damaged_segment(start):
    server = start()
    call = server.client().execute_command
    for segment in range(2):
        for i in range(200):
            call("VSET", f"{segment}-{i}", blob(*([segment * 1000 + i] * 32)))
        call("VFLUSH")
    assert server.stop() == 0
    segments = sorted(server.lake.rglob("*.parquet"), key=lambda path: path.stat().st_mtime_ns)
    assert len(segments) == 2
    damage(segments[0])
    server = start()
    client = server.client()
    message = error(client, "VSEARCH", blob(*([0] * 32)), 5, "EXACT")
    assert segments[0].name in message
    found = client.execute_command("VSEARCH", blob(*([1000] * 32)), 5, "EXACT", "PARTIAL")
    assert [row[0] for row in found] == [b"1-0", b"1-1", b"1-2", b"1-3", b"1-4"]
    # The other segment's rows are still there, and writes go on.
    assert as_map(client.execute_command("VGET", "1-7", "RAW"))["vector"] == blob(*([1007] * 32))
    assert client.execute_command("VSET", "new", blob(*([5] * 32))) == b"OK"
    found = client.execute_command("VSEARCH", blob(*([5] * 32)), 1, "EXACT", "PARTIAL")
    assert found[0][0] == b"new"


@pytest.mark.parametrize("part", [0.01, 0.1, 0.5, 0.99])
def test_a_damaged_index(start, part):
    """The rows are well: all is found, writing goes on, and the segment is indexed anew by itself."""
    server = start()
    call = server.client().execute_command
    for i in range(200):
        call("VSET", f"k{i}", blob(*([i] * 32)))
    call("VFLUSH")
    assert server.stop() == 0
    [index] = server.lake.rglob("index/*.bin")
    damage(index, part)
    server = start()
    call = server.client().execute_command
    for i in (7, 150):
        assert call("VSEARCH", blob(*([i] * 32)), 1)[0][0] == b"k%d" % i
    assert as_map(call("VGET", "k9", "RAW"))["vector"] == blob(*([9] * 32))
    assert call("VDEL", "k8", "absent") == 1
    call("VSET", "k9", blob(*([1000] * 32)))
    assert call("VFLUSH") == b"OK"
    assert call("VSEARCH", blob(*([8] * 32)), 2, "EXACT")[0][0] in (b"k7", b"k10")
    assert call("VSEARCH", blob(*([1000] * 32)), 1, "EXACT")[0][0] == b"k9"
    end = time.monotonic() + 60
    while as_map(call("VINFO"))["segments-unindexed"] != 0:
        assert time.monotonic() < end, "it was not indexed again"
        time.sleep(0.1)
    assert as_map(call("VINFO"))["size"] == 199
    assert call("VSEARCH", blob(*([150] * 32)), 1)[0][0] == b"k150"
    assert server.stop() == 0
