"""Bytes on the wire: inline commands, pieces, protocol errors, and forms of both protocols."""

import time

import pytest
from conftest import blob, receive, receive_all


def test_inline_commands(server):
    raw = server.socket()
    raw.sendall(b'PING\r\nPING "a b"\n\r\n\nVSET a "[1, 2]"\r\nVGET a RETURN 1 vector\r\n')
    wanted = b"+PONG\r\n$3\r\na b\r\n+OK\r\n*2\r\n$6\r\nvector\r\n*2\r\n$1\r\n1\r\n$1\r\n2\r\n"
    assert receive(raw, len(wanted)) == wanted
    raw.close()


def test_byte_by_byte(server):
    raw = server.socket()
    request = b"*3\r\n$4\r\nVSET\r\n$1\r\na\r\n$8\r\n" + blob(1, 2) + b"\r\n"
    for i in range(len(request)):
        raw.sendall(request[i:i + 1])
        if i % 8 == 0:
            time.sleep(0.001)
    assert receive(raw, 5) == b"+OK\r\n"
    raw.close()


def test_shapes_of_both_protocols(server):
    raw = server.socket()
    raw.sendall(b"VSET a [1.5,0.1] ATTRIBUTES {}\r\n")
    assert receive(raw, 5) == b"+OK\r\n"
    resp2 = {
        b"VGET a\r\n": b"*6\r\n$6\r\nvector\r\n*2\r\n$3\r\n1.5\r\n$3\r\n0.1\r\n$10\r\nattributes\r\n$2\r\n{}\r\n$7\r\npayload\r\n$-1\r\n",
        b"VGET a x\r\n": b"*2\r\n*6\r\n$6\r\nvector\r\n*2\r\n$3\r\n1.5\r\n$3\r\n0.1\r\n$10\r\nattributes\r\n$2\r\n{}\r\n$7\r\npayload\r\n$-1\r\n$-1\r\n",
        b"VGET x\r\n": b"$-1\r\n",
        b"VSEARCH [1.5,0.1] 3\r\n": b"*1\r\n*2\r\n$1\r\na\r\n$1\r\n0\r\n",
        b"VSEARCH [1.5,0.1] 3 RETURN 1 payload\r\n": b"*1\r\n*3\r\n$1\r\na\r\n$1\r\n0\r\n*2\r\n$7\r\npayload\r\n$-1\r\n",
        b"VDEL a x\r\n": b":1\r\n",
        b"VINFO nobody\r\n": b"$-1\r\n",
        b"VLIST\r\n": b"*1\r\n$7\r\ndefault\r\n",
        b"VSET a [1.5,0.1] ATTRIBUTES {}\r\n": b"+OK\r\n",
    }
    for request, reply in resp2.items():
        raw.sendall(request)
        assert receive(raw, len(reply)) == reply
    raw.sendall(b"HELLO 3\r\n")
    hello = b""
    while not hello.endswith(b"modules\r\n*0\r\n"):
        hello += raw.recv(4096)
    assert hello.startswith(b"%7\r\n")
    resp3 = {
        b"VGET a\r\n": b"%3\r\n$6\r\nvector\r\n*2\r\n,1.5\r\n,0.1\r\n$10\r\nattributes\r\n$2\r\n{}\r\n$7\r\npayload\r\n_\r\n",
        b"VGET a RAW RETURN 1 vector\r\n": b"%1\r\n$6\r\nvector\r\n$8\r\n" + blob(1.5, 0.1) + b"\r\n",
        b"VGET x\r\n": b"_\r\n",
        b"VSEARCH [1.5,0.1] 3\r\n": b"*1\r\n*2\r\n$1\r\na\r\n,0\r\n",
        b"VSEARCH [1.5,0.1] 3 RETURN 1 payload\r\n": b"*1\r\n*3\r\n$1\r\na\r\n,0\r\n%1\r\n$7\r\npayload\r\n_\r\n",
        b"VINFO nobody\r\n": b"_\r\n",
    }
    for request, reply in resp3.items():
        raw.sendall(request)
        assert receive(raw, len(reply)) == reply
    raw.close()


@pytest.mark.parametrize("request_bytes,message", [
    (b"*x\r\n", b"-ERR Protocol error: invalid multibulk length\r\n"),
    (b"*99999999\r\n", b"-ERR Protocol error: invalid multibulk length\r\n"),
    (b"*1\r\n+PING\r\n", b"-ERR Protocol error: expected '$', got '+'\r\n"),
    (b"*1\r\n*1\r\n", b"-ERR Protocol error: expected '$', got '*'\r\n"),
    (b"*1\r\n$-5\r\n", b"-ERR Protocol error: invalid bulk length\r\n"),
    (b"*1\r\n$99999999999\r\n", b"-ERR Protocol error: invalid bulk length\r\n"),
    (b'ECHO "abc\r\n', b"-ERR Protocol error: unbalanced quotes in request\r\n"),
    (b"x" * 70000, b"-ERR Protocol error: too big inline request\r\n"),
    (b"*" + b"1" * 70000, b"-ERR Protocol error: too big mbulk count string\r\n"),
])
def test_protocol_errors_end_the_connection(server, request_bytes, message):
    raw = server.socket()
    raw.sendall(b"PING\r\n" + request_bytes)
    assert receive_all(raw) == b"+PONG\r\n" + message
    raw.close()
    assert server.client().ping()


def test_commands_before_a_protocol_error_are_answered(server):
    raw = server.socket()
    raw.sendall(b"VSET a [1,2]\r\nVSEARCH [1,2] 1\r\nVGET a RETURN 1 payload\r\n*1\r\n:1\r\nPING\r\n")
    assert receive_all(raw) == (b"+OK\r\n*1\r\n*2\r\n$1\r\na\r\n$1\r\n0\r\n*2\r\n$7\r\npayload\r\n$-1\r\n"
                                b"-ERR Protocol error: expected '$', got ':'\r\n")
    raw.close()


def test_a_half_command_and_a_closed_socket(server):
    for request in (b"*3\r\n$4\r\nVS", b"*3\r\n$4\r\nVSET\r\n$1\r\na\r\n$100\r\nabc", b"PIN"):
        raw = server.socket()
        raw.sendall(request)
        raw.close()
    raw = server.socket()
    raw.sendall(b"VSET a [1,2]\r\nPING\r\n")
    raw.shutdown(1)  # sends no more, still reads
    assert receive_all(raw) == b"+OK\r\n+PONG\r\n"
    raw.close()
    assert server.client().ping()


def test_a_browser_gets_nowhere(server):
    raw = server.socket()
    raw.sendall(b"POST / HTTP/1.1\r\nHost: localhost\r\n\r\nVCREATE c DIM 2\r\n")
    assert receive_all(raw) == b""
    raw.close()
    assert server.client().execute_command("VLIST") == []


def test_quit_and_reset(server):
    raw = server.socket()
    raw.sendall(b"HELLO 3\r\nRESET\r\nVGET x IN nobody\r\nQUIT\r\nPING\r\n")
    data = receive_all(raw)
    assert b"+RESET\r\n-ERR" in data and data.endswith(b"+OK\r\n")
    raw.close()


def test_numbers_are_the_shortest_that_read_back(server):
    import struct

    raw = server.socket()
    numbers = [0.1, 1 / 3, 16777216.0, 1e-7, 3.4028234663852886e38, 1.401298464324817e-45, -0.0, 123456.789]
    request = blob(*numbers)
    raw.sendall(b"*3\r\n$4\r\nVSET\r\n$1\r\na\r\n$%d\r\n" % len(request) + request + b"\r\n")
    assert receive(raw, 5) == b"+OK\r\n"
    raw.sendall(b"VGET a RETURN 1 vector\r\n")
    texts = [b"0.1", b"0.33333334", b"16777216", b"1e-7", b"3.4028235e38", b"1e-45", b"-0", b"123456.79"]
    wanted = b"*2\r\n$6\r\nvector\r\n*8\r\n" + b"".join(b"$%d\r\n%s\r\n" % (len(t), t) for t in texts)
    assert receive(raw, len(wanted)) == wanted
    for value, text in zip(numbers, texts):
        assert struct.pack("<f", float(text)) == struct.pack("<f", value)
    raw.close()
