"""Passwords: AUTH and HELLO AUTH; nothing else works before."""

import subprocess

import pytest
import redis
from conftest import PROGRAM, receive, receive_all


@pytest.fixture
def guarded(start):
    return start("--requirepass", "secret word")


def test_nothing_without_the_password(guarded):
    raw = guarded.socket()
    for request in (b"PING\r\n", b"VLIST\r\n", b"VSET a [1]\r\n", b"VGET a\r\n", b"VSEARCH [1] 1\r\n",
                    b"CONFIG GET *\r\n", b"INFO\r\n", b"CLIENT LIST\r\n", b"COMMAND\r\n"):
        raw.sendall(request)
        wanted = b"-NOAUTH Authentication required.\r\n"
        assert receive(raw, len(wanted)) == wanted
    raw.sendall(b"HELLO 3\r\n")
    assert receive(raw, 13) == b"-NOAUTH HELLO"
    raw.close()


def test_auth(guarded, protocol):
    client = guarded.client(protocol, password="secret word")
    assert client.ping()
    assert client.execute_command("VSET", "a", "[1,2]") == b"OK"
    assert guarded.client(protocol, username="default", password="secret word").ping()
    for options in ({"password": "secret"}, {"password": "secret word2"}, {"username": "root", "password": "secret word"}):
        with pytest.raises(redis.AuthenticationError):
            guarded.client(protocol, **options).ping()
    assert "authentication failed" in guarded.log()
    assert "secret" not in guarded.log()
    assert "secret word" not in str(client.config_get("*"))


def test_auth_in_a_pipeline(guarded):
    raw = guarded.socket()
    blob = b"x" * 20000
    raw.sendall(b'AUTH "secret word"\r\n*2\r\n$4\r\nECHO\r\n$20000\r\n' + blob + b"\r\nPING\r\n")
    wanted = b"+OK\r\n$20000\r\n" + blob + b"\r\n+PONG\r\n"
    assert receive(raw, len(wanted)) == wanted
    raw.sendall(b"RESET\r\nPING\r\n")
    assert receive(raw, 15) == b"+RESET\r\n-NOAUTH"
    raw.close()


def test_strangers_have_small_limits(guarded):
    raw = guarded.socket()
    raw.sendall(b"*2\r\n$4\r\nECHO\r\n$20000\r\n")
    assert receive_all(raw) == b"-ERR Protocol error: unauthenticated bulk length\r\n"
    raw = guarded.socket()
    raw.sendall(b"*11\r\n")
    assert receive_all(raw) == b"-ERR Protocol error: unauthenticated multibulk length\r\n"


def test_auth_without_a_password(server):
    with pytest.raises(redis.AuthenticationError, match="without any password"):
        server.client().execute_command("AUTH", "x")
    assert server.client(username="default", password="anything").ping()


def test_open_addresses_need_a_password(tmp_path):
    for address in ("0.0.0.0", "::"):
        done = subprocess.run([PROGRAM, "serve", "--lake", str(tmp_path / "lake"), "--port", "0", "--bind", address],
                              capture_output=True, timeout=60)
        assert done.returncode == 1 and b"--requirepass" in done.stderr
    assert not (tmp_path / "lake").exists()
