"""A damaged file: the checksum names it, and the others answer only if asked with PARTIAL."""

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


def test_a_damaged_index(start):
    server = start()
    call = server.client().execute_command
    for i in range(200):
        call("VSET", f"k{i}", blob(*([i] * 32)))
    call("VFLUSH")
    assert server.stop() == 0
    [index] = server.lake.rglob("index/*.bin")
    damage(index, 0.1)
    server = start(ready=False)
    # Whether it is found at the start or at the first use, it is named and nothing crashes.
    try:
        server.port = server.wait_until_ready()
    except AssertionError:
        assert server.process.wait(60) == 1 and index.name in server.log()
        return
    client = server.client()
    try:
        found = client.execute_command("VSEARCH", blob(*([7] * 32)), 1)
        assert found[0][0] == b"k7"
    except Exception as problem:
        assert index.name in str(problem) or "checksum" in str(problem)
    assert client.ping()
