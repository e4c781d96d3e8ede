"""A reader of a bucket and its two levels of cache: what is answered when the bucket is away.

The bucket is test_s3_lake's: versitygw over a folder, in which a writer's lake lies.
"""

import os
import pathlib
import shutil
import signal

import pytest
from conftest import error
from test_s3_lake import GATEWAY, LAKE, COLLECTIONS, fill, gateway, run, writer  # noqa: F401 (fixtures)

pytestmark = pytest.mark.skipif(not GATEWAY.exists(), reason="no versitygw: run tools/setup test")


def search(client, query, *options):
    return client.execute_command("VSEARCH", query, 10, *options, "RETURN", 2, "n", "s", "IN", "c")


def cache_bytes(folder):
    return sum(path.stat().st_size for path in pathlib.Path(folder).iterdir())


@pytest.mark.parametrize("kind", ["flat", "ivf"])
def test_answers_without_the_bucket(start, writer, gateway, tmp_path, kind):
    """What was searched once is answered again from memory; after a restart, from the folder on disk."""
    local = writer.client()
    vectors = fill(local, "c", 2000, *COLLECTIONS[kind])
    known = vectors[5:1000:100]
    folder = tmp_path / "cache" / "l2"
    reader = start("--read-only", "--cache-dir", str(folder), "--cache-size", "64mb", lake=LAKE)
    remote = reader.client(socket_timeout=120)
    wanted = [search(local, query) for query in known]
    assert [search(remote, query) for query in known] == wanted
    gateway.stop()
    assert [search(remote, query) for query in known] == wanted
    gateway.start()
    reader.stop()
    assert cache_bytes(folder) > 0
    reader = start("--read-only", "--cache-dir", str(folder), "--cache-size", "64mb", lake=LAKE)
    gateway.stop()
    remote = reader.client(socket_timeout=120)
    assert [search(remote, query) for query in known] == wanted
    gateway.start()


def test_one_process_a_folder(start, writer, tmp_path):
    writer.client().execute_command("VSET", "a", "[1,2]")
    start("--read-only", "--cache-dir", str(tmp_path / "l2"), lake=LAKE)
    code, _, err = run("serve", "--port", 0, "--read-only", "--cache-dir", tmp_path / "l2", "--lake", LAKE)
    assert code == 1 and "cache folder" in err and str(tmp_path / "l2") in err and err.count("\n") == 1, err


@pytest.mark.parametrize("arguments, says", [
    (["--cache-dir", "/proc/nothing/here"], "/proc/nothing"),
    (["--cache-dir", "{tmp}/l2", "--cache-size", "1mb"], "cache-size"),
    (["--cache-dir", "{tmp}/file/l2"], "file"),
])
def test_wrong_cache_settings_are_told(writer, tmp_path, arguments, says):
    (tmp_path / "file").write_text("")
    arguments = [argument.format(tmp=tmp_path) for argument in arguments]
    code, _, err = run("serve", "--port", 0, "--read-only", "--lake", LAKE, *arguments)
    assert code in (1, 2) and says in err and err.count("\n") == 1, err


@pytest.mark.parametrize("harm", ["flip", "cut", "garbage", "none"])
def test_a_killed_reader_with_a_damaged_folder(start, writer, tmp_path, harm):
    """kill -9, then damage what lies on disk: the same answers, by asking the bucket again."""
    local = writer.client()
    vectors = fill(local, "c", 2000, *COLLECTIONS["ivf"])
    known = vectors[5:1000:100]
    folder = tmp_path / "l2"
    flags = ("--read-only", "--cache-dir", str(folder), "--cache-size", "64mb")
    reader = start(*flags, lake=LAKE)
    wanted = [search(reader.client(), query) for query in known]
    reader.process.send_signal(signal.SIGKILL)
    reader.process.wait()
    files = [path for path in folder.iterdir() if path.stat().st_size > 1000]
    assert files
    for path in files:
        data = bytearray(path.read_bytes())
        if harm == "flip":
            for i in range(0, len(data), 4999):
                data[i] ^= 0x10
        elif harm == "cut":
            del data[len(data) * 2 // 3:]
        elif harm == "garbage":
            data[:] = os.urandom(len(data))
        path.write_bytes(data)
    remote = start(*flags, lake=LAKE).client()
    assert [search(remote, query) for query in known] == wanted == [search(local, query) for query in known]
    assert remote.execute_command("VGET", "k7", "RAW", "RETURN", 1, "vector", "IN", "c") == \
        local.execute_command("VGET", "k7", "RAW", "RETURN", 1, "vector", "IN", "c")


def test_the_folder_vanishes(start, writer, tmp_path):
    local = writer.client()
    vectors = fill(local, "c", 1000, *COLLECTIONS["flat"])
    folder = tmp_path / "l2"
    remote = start("--read-only", "--cache-dir", str(folder), "--cache-memory", "1mb", lake=LAKE).client()
    assert search(remote, vectors[3]) == search(local, vectors[3])
    shutil.rmtree(folder)
    for query in vectors[5:500:50]:
        assert search(remote, query, "EXACT") == search(local, query, "EXACT")
