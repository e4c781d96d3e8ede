"""A real server over a lake in a temporary folder, and clients of both protocols.

VEXLAKE (or VEXLAKE_BINARY) names the program; build/vexlake is the default. A server that a test
leaves running is stopped by SIGTERM and must exit with 0, so that a sanitizer's findings fail the
test that caused them. With VEXLAKE_TEST_LAKE=s3 a test that names no lake gets one of its own in a
bucket (s3_bucket.py) instead of a folder.
"""

import os
import pathlib
import re
import signal
import socket
import struct
import subprocess
import time

import pytest
import redis
import s3_bucket
from redis.backoff import NoBackoff
from redis.retry import Retry

ROOT = pathlib.Path(__file__).resolve().parents[2]
PROGRAM = os.environ.get("VEXLAKE") or os.environ.get("VEXLAKE_BINARY") or str(ROOT / "build/vexlake")
START_SECONDS = 60


def blob(*values):
    return struct.pack(f"<{len(values)}f", *values)


def floats(data):
    return list(struct.unpack(f"<{len(data) // 4}f", data))


def as_map(reply):
    """A map reply of either protocol as a dict with text keys."""
    if isinstance(reply, dict):
        return {key.decode(): value for key, value in reply.items()}
    assert len(reply) % 2 == 0
    return {reply[i].decode(): reply[i + 1] for i in range(0, len(reply), 2)}


def number(value):
    """A double of RESP3, or its text in RESP2."""
    return float(value)


class Server:
    def __init__(self, lake, log, *flags, ready=True, wrapper=()):
        self.lake = lake if str(lake).startswith("s3://") else pathlib.Path(lake)
        self.log_path = pathlib.Path(log)
        self.log_start = self.log_path.stat().st_size if self.log_path.exists() else 0
        self.clients = []
        with open(log, "ab") as stderr:
            self.process = subprocess.Popen(
                [*wrapper, PROGRAM, "serve", "--lake", str(lake), "--port", "0", *flags],
                stdin=subprocess.DEVNULL, stdout=subprocess.DEVNULL, stderr=stderr)
        self.port = self.wait_until_ready() if ready else None

    def log(self):
        with open(self.log_path, "rb") as file:
            file.seek(self.log_start)
            return file.read().decode(errors="replace")

    def wait_until_ready(self):
        end = time.monotonic() + START_SECONDS
        while time.monotonic() < end:
            found = re.search(r"ready address=\S+ port=(\d+)", self.log())
            if found:
                return int(found.group(1))
            assert self.process.poll() is None, self.log()
            time.sleep(0.01)
        raise AssertionError("the server does not start: " + self.log())

    def client(self, protocol=3, **options):
        options.setdefault("socket_timeout", 60)
        options.setdefault("retry", Retry(NoBackoff(), 0))
        client = redis.Redis(port=self.port, protocol=protocol, **options)
        self.clients.append(client)
        return client

    def socket(self):
        """A plain socket, for bytes that no client library sends."""
        raw = socket.create_connection(("127.0.0.1", self.port), timeout=60)
        raw.setsockopt(socket.IPPROTO_TCP, socket.TCP_NODELAY, 1)
        return raw

    def stop(self, number=signal.SIGTERM):
        for client in self.clients:
            client.close()
        self.clients = []
        if self.process.poll() is None:
            self.process.send_signal(number)
        return self.process.wait(60)

    def kill(self):
        self.process.kill()
        self.process.wait()


ON_S3 = os.environ.get("VEXLAKE_TEST_LAKE") == "s3"
shared_bucket = s3_bucket.shared_bucket


@pytest.fixture
def own_lake(request, tmp_path, monkeypatch):
    if not ON_S3:
        return tmp_path / "lake"
    if not s3_bucket.IS_THERE:
        pytest.skip("no versitygw: run tools/setup test")
    bucket = request.getfixturevalue("shared_bucket")
    bucket.apply(monkeypatch)
    return bucket.lake()


@pytest.fixture
def start(tmp_path, own_lake):
    """start(*flags, lake=...) gives a Server; all are stopped, and must end well."""
    servers = []

    def begin(*flags, lake=None, **options):
        if lake is None and ON_S3:  # one that was killed before is succeeded at once
            flags = ("--group-delay", "1", "--takeover", *flags)
        server = Server(lake or own_lake, tmp_path / "server.log", *flags, **options)
        servers.append(server)
        return server

    yield begin
    # All of them end before any of them fails the test.
    codes = [server.stop() if server.process.poll() is None else 0 for server in servers]
    for server, code in zip(servers, codes, strict=True):
        assert code == 0, server.log()
        assert "Sanitizer" not in server.log(), server.log()


@pytest.fixture
def server(start):
    return start()


@pytest.fixture(params=[2, 3], ids=["RESP2", "RESP3"])
def protocol(request):
    return request.param


@pytest.fixture
def client(server, protocol):
    """A client of each protocol in turn; call(...) is execute_command."""
    return server.client(protocol)


def receive(raw, count):
    """Exactly count bytes of a socket."""
    data = b""
    while len(data) < count:
        piece = raw.recv(count - len(data))
        assert piece, f"closed after {data!r}"
        data += piece
    return data


def receive_all(raw):
    """All bytes until the other side closes."""
    data = b""
    while piece := raw.recv(65536):
        data += piece
    return data


def error(client, *command):
    """The message of the error that a command must give; the connection stays usable."""
    with pytest.raises(redis.ResponseError) as caught:
        client.execute_command(*command)
    assert client.ping()
    return str(caught.value)
