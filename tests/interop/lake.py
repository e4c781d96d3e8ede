"""What the interop tests share: a server over a lake, and a plain reading of a Delta log."""

import base64
import contextlib
import json
import os
import pathlib
import re
import socket
import subprocess
import time
import uuid
import zlib

import pyroaring
import redis

ROOT = pathlib.Path(__file__).resolve().parents[2]
PROGRAM = os.environ.get("VEXLAKE", str(ROOT / "build" / "vexlake"))


def free_port():
    with socket.socket() as sock:
        sock.bind(("127.0.0.1", 0))
        return sock.getsockname()[1]


@contextlib.contextmanager
def server(lake, *flags, status=0):
    """Serve a lake; a client comes out. The end asks for a clean shutdown, which has this status."""
    port = free_port()
    process = subprocess.Popen([PROGRAM, "serve", "--lake", str(lake), "--port", str(port), *flags])
    client = redis.Redis(port=port, protocol=3, socket_timeout=60)
    try:
        for _ in range(600):
            with contextlib.suppress(redis.ConnectionError):
                client.ping()
                break
            assert process.poll() is None, "the server ended"
            time.sleep(0.1)
        yield client
        client.close()
        process.terminate()
        assert process.wait(60) == status
    finally:
        if process.poll() is None:
            process.kill()
            process.wait()


def table_folder(lake, collection):
    """The Delta table of a collection: every byte outside [a-z0-9_-] of the name is ~hh."""
    folder = re.sub(rb"[^a-z0-9_-]", lambda m: b"~%02x" % m.group()[0], collection.encode())
    return pathlib.Path(lake, folder.decode(), "data")


def active_files(table, version=None):
    """The `add` actions in force, read from the log's JSON as the protocol describes it."""
    files = {}
    for path in sorted((table / "_delta_log").glob("*.json")):
        if version is not None and int(path.stem) > version:
            break
        for line in path.read_text().splitlines():
            action = json.loads(line)
            for kind in ("remove", "add"):
                if kind in action:
                    vector = action[kind].get("deletionVector") or {}
                    key = (action[kind]["path"], vector.get("storageType"),
                           vector.get("pathOrInlineDv"), vector.get("offset"))
                    if kind == "add":
                        files[key] = action["add"]
                    else:
                        files.pop(key, None)
    return list(files.values())


def newest_version(table):
    return max(int(path.stem) for path in (table / "_delta_log").glob("*.json"))


Z85 = b"0123456789abcdefghijklmnopqrstuvwxyzABCDEFGHIJKLMNOPQRSTUVWXYZ.-:+=^!/*?&<>()[]{}@%$#"
RFC1924 = b"0123456789ABCDEFGHIJKLMNOPQRSTUVWXYZabcdefghijklmnopqrstuvwxyz!#$%&()*+-;<=>?@^_`{|}~"


def z85(text):
    return base64.b85decode(text.encode().translate(bytes.maketrans(Z85, RFC1924)))


def deleted_rows(table, add):
    """The positions that a file's deletion vector hides, decoded as the protocol describes it."""
    vector = add.get("deletionVector")
    if vector is None:
        return []
    if vector["storageType"] == "u":
        name = vector["pathOrInlineDv"]
        identifier = uuid.UUID(bytes=z85(name[-20:]))
        content = (table / name[:-20] / f"deletion_vector_{identifier}.bin").read_bytes()
        begin = vector["offset"]
        assert content[0] == 1 and int.from_bytes(content[begin:begin + 4], "big") == vector["sizeInBytes"]
        data = content[begin + 4:begin + 4 + vector["sizeInBytes"]]
        end = begin + 4 + len(data)
        assert int.from_bytes(content[end:end + 4], "big") == zlib.crc32(data)
    else:
        assert vector["storageType"] == "i"
        data = z85(vector["pathOrInlineDv"])[:vector["sizeInBytes"]]
    assert int.from_bytes(data[:4], "little") == 1681511377
    rows = list(pyroaring.BitMap64.deserialize(data[4:]))
    assert len(rows) == vector["cardinality"]
    return rows
