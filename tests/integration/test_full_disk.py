"""A full disk: writes are refused with the reason, what was acknowledged stays, reads go on."""

import os
import subprocess

import pytest
import redis
from conftest import as_map

# A small disk of its own: a tmpfs in a mount namespace that ends with the server.
MOUNT = 'mount -t tmpfs -o size=12m tmpfs "$1" && shift && exec "$@"'
WRAPPER = ["unshare", "--user", "--map-root-user", "--mount", "sh", "-c", MOUNT, "sh"]


def test_a_full_disk(start, tmp_path):
    disk = tmp_path / "disk"
    disk.mkdir()
    if subprocess.run([*WRAPPER, str(disk), "true"], capture_output=True).returncode:
        pytest.skip("no mount namespaces here")
    server = start(lake=disk / "lake", wrapper=[*WRAPPER, str(disk)])
    client = server.client()
    call = client.execute_command
    payload = os.urandom(100_000)
    kept = 0
    message = None
    for i in range(1000):
        try:
            call("VSET", f"k{i}", f"[{i}, 0]", "PAYLOAD", payload)
            kept += 1
        except redis.ResponseError as problem:
            message = str(problem)
            break
    assert message is not None and kept > 10
    assert "space" in message or "full" in message, message
    for _ in range(3):
        with pytest.raises(redis.ResponseError):
            call("VSET", "more", "[1, 1]", "PAYLOAD", payload)
    # Reads go on, and tell exactly what was acknowledged.
    assert as_map(call("VINFO"))["size"] == kept
    assert call("VSEARCH", f"[{kept}, 0]", 1)[0][0] == b"k%d" % (kept - 1)
    for i in (0, kept // 2, kept - 1):
        assert as_map(call("VGET", f"k{i}"))["payload"] == payload
    assert call("VGET", f"k{kept}", "more") == [None, None]
    # What cannot be flushed is told at the end; the log has it.
    assert server.stop() in (0, 1)
