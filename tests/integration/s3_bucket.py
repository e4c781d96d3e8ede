"""A bucket for tests: versitygw over a folder, or any S3 server that the environment names.

VEXLAKE_TEST_S3_ENDPOINT names a server that runs already; then VEXLAKE_TEST_S3_BUCKET (vex-test) must be there, and
AWS_ACCESS_KEY_ID and so on must open it. Else the program is VEXLAKE_VERSITYGW or what tools/setup installs.
"""

import os
import pathlib
import socket
import subprocess
import time
import uuid

import pytest

ROOT = pathlib.Path(__file__).resolve().parents[2]
GATEWAY = pathlib.Path(os.environ.get("VEXLAKE_VERSITYGW") or ROOT / "build/go/bin/versitygw")
ENDPOINT = os.environ.get("VEXLAKE_TEST_S3_ENDPOINT")
IS_THERE = ENDPOINT is not None or GATEWAY.exists()
needs_bucket = pytest.mark.skipif(not IS_THERE, reason="no versitygw: run tools/setup test")


def free_port():
    with socket.socket() as probe:
        probe.bind(("127.0.0.1", 0))
        return probe.getsockname()[1]


class Gateway:
    def __init__(self, folder):
        self.folder = folder
        self.bucket = folder / "root" / "vex-test"
        self.bucket.mkdir(parents=True)
        (folder / "sidecar").mkdir()
        self.port = free_port()
        self.endpoint = f"http://127.0.0.1:{self.port}"
        self.start()

    def start(self):
        self.process = subprocess.Popen(
            [GATEWAY, "--port", f"127.0.0.1:{self.port}", "--access", "test-access", "--secret", "test-secret-key",
             "--quiet", "--keep-alive", "posix", "--sidecar", self.folder / "sidecar", self.folder / "root"],
            stdin=subprocess.DEVNULL, stdout=subprocess.DEVNULL, stderr=subprocess.DEVNULL)
        end = time.monotonic() + 60
        while True:
            assert self.process.poll() is None and time.monotonic() < end
            try:
                socket.create_connection(("127.0.0.1", self.port), timeout=5).close()
                return
            except OSError:
                time.sleep(0.05)

    def stop(self):
        self.process.kill()
        self.process.wait()


class Bucket:
    """Where lakes can be: lake() gives the URI of an empty one, environment what opens it."""

    def __init__(self, folder):
        self.gateway = None
        if ENDPOINT is None:
            self.gateway = Gateway(folder)
            self.name = "vex-test"
            self.endpoint = self.gateway.endpoint
            self.environment = {"AWS_ACCESS_KEY_ID": "test-access", "AWS_SECRET_ACCESS_KEY": "test-secret-key"}
        else:
            self.name = os.environ.get("VEXLAKE_TEST_S3_BUCKET", "vex-test")
            self.endpoint = ENDPOINT
            self.environment = {name: value for name, value in os.environ.items() if name.startswith("AWS_")}
        self.environment["AWS_ENDPOINT_URL"] = self.endpoint

    @property
    def port(self):
        return int(self.endpoint.rsplit(":", 1)[1].rstrip("/"))

    def lake(self):
        return f"s3://{self.name}/test-{uuid.uuid4()}"

    def apply(self, monkeypatch):
        for name in [name for name in os.environ if name.startswith("AWS_")]:
            monkeypatch.delenv(name)
        for name, value in self.environment.items():
            monkeypatch.setenv(name, value)

    def stop(self):
        if self.gateway is not None:
            self.gateway.stop()


@pytest.fixture(scope="session")
def shared_bucket(tmp_path_factory):
    bucket = Bucket(tmp_path_factory.mktemp("s3"))
    yield bucket
    bucket.stop()


@pytest.fixture
def bucket(shared_bucket, monkeypatch):
    shared_bucket.apply(monkeypatch)
    return shared_bucket
