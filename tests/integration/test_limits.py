"""Limits on clients, commands, replies, and clients that do not read."""

import socket
import time

import pytest
import redis
from conftest import as_map, blob, receive, receive_all


def test_clients(start):
    server = start("--maxclients", "3")
    raws = [server.socket() for _ in range(3)]
    for raw in raws:
        raw.sendall(b"PING\r\n")
        assert receive(raw, 7) == b"+PONG\r\n"
    refused = server.socket()
    assert receive_all(refused) == b"-ERR max number of clients reached\r\n"
    refused.close()
    raws.pop().close()
    for _ in range(100):
        try:
            assert server.client().ping()
            break
        except redis.ConnectionError:
            time.sleep(0.05)
    else:
        raise AssertionError("no room although a client left")
    assert "maxclients" in server.log()


def test_size_of_a_command(start):
    server = start("--query-buffer-limit", "1mb")
    client = server.client()
    client.execute_command("VSET", "a", "[1,2]", "PAYLOAD", b"x" * 1000000)
    raw = server.socket()
    raw.sendall(b"*2\r\n$4\r\nECHO\r\n$1048577\r\n")
    assert receive_all(raw) == b"-ERR Protocol error: invalid bulk length\r\n"
    # Each argument fits, all together do not; the whole is sent before the answer is read.
    raw = server.socket()
    raw.sendall(b"*8\r\n$4\r\nVDEL\r\n" + (b"$500000\r\n" + b"x" * 500000 + b"\r\n") * 7)
    assert b"query-buffer-limit" in receive_all(raw)
    assert client.ping()


def test_size_of_replies(start):
    server = start("--output-buffer-limit", "64kb")
    client = server.client()
    client.execute_command("VSET", "a", "[1,2]", "PAYLOAD", b"x" * 40000)
    assert as_map(client.execute_command("VGET", "a"))["payload"] == b"x" * 40000
    with pytest.raises(redis.ResponseError, match="output-buffer-limit"):
        client.execute_command("VGET", "a", "a")
    assert server.client().ping()
    assert "output-buffer-limit" in server.log()


def test_a_client_that_does_not_read(server):
    """It is not served any further, so the server's memory stays bounded; others do not notice."""
    client = server.client()
    client.execute_command("VSET", "a", "[1,2]", "PAYLOAD", b"x" * (1 << 20))
    before = client.info("memory")["used_memory_rss"]
    raw = server.socket()
    raw.setsockopt(socket.SOL_SOCKET, socket.SO_RCVBUF, 65536)
    raw.setblocking(False)
    request = b"VGET a\r\n" * 1000
    sent = 0
    end = time.monotonic() + 3
    while time.monotonic() < end:
        try:
            sent += raw.send(request)
        except BlockingIOError:
            time.sleep(0.01)
        assert client.ping()
    address = "%s:%d" % raw.getsockname()
    [entry] = [entry for entry in client.client_list() if entry["addr"] == address]
    assert int(entry["omem"]) < 32 << 20 and int(entry["qbuf"]) <= 1 << 20, entry
    # A sanitizer keeps freed memory for a while.
    grown = client.info("memory")["used_memory_rss"] - before
    assert grown < 1 << 30, (sent, grown)
    raw.close()
    assert client.ping()


def test_many_arguments(client):
    call = client.execute_command
    call("VSET", "a", "[1,2]")
    found = call("VGET", *(f"x{i}" for i in range(100000)), "a")
    assert len(found) == 100001 and found[:-1] == [None] * 100000 and found[-1] is not None
    assert call("VDEL", *(f"x{i}" for i in range(100000)), "a") == 1


def test_ten_thousand_results(client):
    call = client.execute_command
    pipe = client.pipeline(transaction=False)
    for i in range(12000):
        pipe.execute_command("VSET", f"k{i}", blob(i))
    pipe.execute()
    found = call("VSEARCH", "[0]", 10000, "WITHVECTORS", "RAW")
    assert [row[0] for row in found] == [b"k%d" % i for i in range(10000)]
    assert as_map(found[-1][2])["vector"] == blob(9999)
