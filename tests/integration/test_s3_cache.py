"""A reader of a bucket and its two levels of cache: what is answered when the bucket is away.

The bucket is test_s3_lake's: versitygw over a folder, in which a writer's lake lies.
"""

import os
import pathlib
import random
import shutil
import signal
import struct
import subprocess
import urllib.request

import pytest
from conftest import as_map, blob, error
from test_s3_lake import GATEWAY, LAKE, COLLECTIONS, fill, gateway, run, wait_until, writer  # noqa: F401 (fixtures)

# A disk of its own: a tmpfs in a mount namespace that ends with the server.
SMALL_DISK = ["unshare", "--user", "--map-root-user", "--mount", "sh", "-c",
              'mount -t tmpfs -o size=12m tmpfs "$1" && shift && exec "$@"', "sh"]

pytestmark = pytest.mark.skipif(not GATEWAY.exists(), reason="no versitygw: run tools/setup test")


def search(client, query, *options):
    return client.execute_command("VSEARCH", query, 10, *options, "RETURN", 2, "n", "s", "IN", "c")


def http_port(server):
    return next(line.split("port=")[1].split()[0] for line in server.log().splitlines() if " http address=" in line)


def metric(server, name):
    """A number of /metrics by its name with its labels."""
    with urllib.request.urlopen(f"http://127.0.0.1:{http_port(server)}/metrics", timeout=30) as reply:
        for line in reply.read().decode().splitlines():
            if line.startswith(name + " "):
                return float(line.split()[1])
    raise AssertionError(f"no {name}")


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
    remote = reader.client(socket_timeout=120)
    assert len(remote.execute_command("VGET", "k7", "IN", "c")) > 0  # it has seen the log's end once
    gateway.stop()
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


def test_the_folders_disk_is_full(start, gateway, tmp_path):
    """A folder on a disk with less room than --cache-size says: searches go on, the failures are counted."""
    disk = tmp_path / "disk"
    disk.mkdir()
    wrapper = [*SMALL_DISK, str(disk)]
    if subprocess.run([*wrapper, "true"], capture_output=True).returncode:
        pytest.skip("no mount namespaces here")
    vectors = import_rows(gateway.bucket / "lake", tmp_path, "c", 20000, "--index", "ivf", dimension=256)
    server = start("--read-only", "--http-port", "0", "--prefetch", "no", "--cache-dir", str(disk / "l2"),
                   "--cache-size", "1gb", "--cache-memory", "1mb", lake=LAKE, wrapper=wrapper)
    client = server.client()
    local = start(lake=gateway.bucket / "lake").client()
    assert as_map(client.execute_command("VWARM", "c", "VECTORS"))["data-bytes"] > 20_000_000
    assert metric(server, "vexlake_cache_disk_errors_total") > 0
    for query in vectors[:3000:300]:
        for options in ((), ("EXACT",), ("RETURN", 1, "vector")):
            command = ("VSEARCH", query, 10, *options, "IN", "c")
            assert client.execute_command(*command) == local.execute_command(*command)
    assert "l2" in server.log()  # one warning names the folder


def test_metrics_tell_the_levels(start, writer, tmp_path):
    """Hits by level, as Prometheus sees them, over a first run, a second search and a restart."""
    local = writer.client()
    vectors = fill(local, "c", 2000, *COLLECTIONS["flat"])
    flags = ("--read-only", "--http-port", "0", "--cache-dir", str(tmp_path / "l2"), "--cache-size", "1gb",
             "--cache-memory", "64mb")

    def reads(server):
        return {level: metric(server, f'vexlake_cache_reads_total{{level="{level}"}}') for level in ("l1", "l2", "store")}

    server = start(*flags, lake=LAKE)
    client = server.client()
    wanted = search(client, vectors[3], "EXACT")
    first = reads(server)
    assert first["store"] > 0 and first["l2"] == 0
    assert search(client, vectors[3], "EXACT") == wanted
    second = reads(server)
    assert second["l1"] > first["l1"] and second["store"] == first["store"] and second["l2"] == 0
    assert metric(server, 'vexlake_s3_requests_total{kind="get"}') > 0
    assert metric(server, 'vexlake_s3_received_bytes_total{kind="get"}') > 100000
    assert metric(server, 'vexlake_s3_request_duration_seconds_count{kind="get"}') > 0
    assert metric(server, 'vexlake_cache_used_bytes{level="l1"}') > 100000
    assert metric(server, 'vexlake_cache_limit_bytes{level="l1"}') == 64 << 20
    assert metric(server, 'vexlake_cache_limit_bytes{level="l2"}') == 1 << 30
    assert metric(server, "vexlake_s3_away") == 0
    server.stop()
    server = start(*flags, lake=LAKE)
    assert search(server.client(), vectors[3], "EXACT") == wanted
    third = reads(server)
    assert third["l2"] > 0 and third["store"] == 0
    local_metrics = metric(start("--http-port", "0"), "vexlake_cache_used_bytes{level=\"l1\"}")
    assert local_metrics == 0


def import_rows(lake, folder, name, count, *options, dimension=32, seed=5):
    """A collection with one indexed segment, written into the bucket's folder; its vectors."""
    print("seed", seed)
    rng = random.Random(seed)
    vectors = [[rng.gauss(0, 1) + i % 30 / 10 for _ in range(dimension)] for i in range(count)]
    path = folder / f"{name}.fvecs"
    path.write_bytes(b"".join(struct.pack("<i", dimension) + blob(*row) for row in vectors))
    code, _, err = run("import", "--lake", lake, "--into", name, *options, path)
    assert code == 0, err
    return [blob(*row) for row in vectors]


def gets(server):
    """Blocks that the bucket was asked for; logs, which are polled, are not among them."""
    return metric(server, 'vexlake_cache_reads_total{level="store"}')


def test_warming(start, gateway, tmp_path):
    """After VWARM with VECTORS no search asks the bucket; without, index files are there."""
    vectors = import_rows(gateway.bucket / "lake", tmp_path, "c", 6000, "--index", "ivf")
    server = start("--read-only", "--http-port", "0", "--prefetch", "no", lake=LAKE)
    client = server.client()
    files = {kind: sum(path.stat().st_size for path in (gateway.bucket / "lake" / "c" / kind).rglob("*")
                       if path.suffix in (".parquet", ".bin")) for kind in ("data", "index")}
    before = gets(server)
    reply = as_map(client.execute_command("VWARM", "c"))
    assert reply["segments"] == 1 and 0.5 * files["index"] < reply["index-bytes"] <= files["index"]
    assert (reply["data-bytes"], reply["left-out-bytes"]) == (0, 0)
    assert gets(server) > before
    before = gets(server)
    assert as_map(client.execute_command("VWARM", "c"))["index-bytes"] == reply["index-bytes"]
    assert gets(server) == before  # all of it is there
    reply = as_map(client.execute_command("VWARM", "c", "vectors"))
    assert reply["data-bytes"] == files["data"]
    assert gets(server) > before
    before = gets(server)
    local = start(lake=gateway.bucket / "lake").client()
    for query in vectors[:3000:100]:
        command = ("VSEARCH", query, 10, "RETURN", 1, "vector", "IN", "c")
        assert client.execute_command(*command) == local.execute_command(*command)
    assert gets(server) == before
    assert as_map(local.execute_command("VWARM", "c"))["index-bytes"] == 0
    for command in (["VWARM"], ["VWARM", "c", "all"], ["VWARM", "c", "VECTORS", "more"]):
        assert "syntax" in error(client, *command) or "number of arguments" in error(client, *command)
    assert "no collection" in error(client, "VWARM", "nothing")


def test_warming_within_the_budget(start, gateway, tmp_path):
    import_rows(gateway.bucket / "lake", tmp_path, "c", 6000, "--index", "ivf", dimension=256)
    server = start("--read-only", "--http-port", "0", "--cache-memory", "1mb", lake=LAKE)
    reply = as_map(server.client().execute_command("VWARM", "c", "VECTORS"))
    assert reply["left-out-bytes"] > 1 << 20 and reply["data-bytes"] <= 1 << 20
    assert metric(server, 'vexlake_cache_used_bytes{level="l1"}') <= 1 << 20


def test_codes_are_prefetched(start, gateway, tmp_path):
    """In the background of opening; a search then needs vectors alone."""
    vectors = import_rows(gateway.bucket / "lake", tmp_path, "c", 6000, "--index", "ivf")
    told = {}
    for flag in ("yes", "no"):
        server = start("--read-only", "--http-port", "0", "--log-level", "debug", "--prefetch", flag,
                       "--cache-memory", "256mb", lake=LAKE)
        if flag == "yes":
            wait_until(lambda: "prefetched" in server.log())
        before = metric(server, 'vexlake_s3_received_bytes_total{kind="get"}')
        server.client().execute_command("VSEARCH", vectors[77], 10, "IN", "c")
        told[flag] = metric(server, 'vexlake_s3_received_bytes_total{kind="get"}') - before
        assert ("prefetched" in server.log()) == (flag == "yes")
    assert told["yes"] < told["no"]


def test_a_folder_is_filled_before_the_start(start, gateway, tmp_path):
    """vexlake warm, then a server that needs the bucket for logs alone."""
    vectors = import_rows(gateway.bucket / "lake", tmp_path, "c", 6000, "--index", "ivf")
    code, out, err = run("warm", "--lake", LAKE, "--in", "c", "--cache-dir", tmp_path / "l2", "--cache-size", 100)
    assert code == 0 and "segments 1\n" in out and "left_out_bytes 0\n" in out, err
    server = start("--read-only", "--http-port", "0", "--cache-dir", str(tmp_path / "l2"), "--cache-size", "100mb",
                   lake=LAKE)
    for query in vectors[:3000:100]:
        assert len(server.client().execute_command("VSEARCH", query, 10, "IN", "c")) == 10
    assert metric(server, 'vexlake_cache_reads_total{level="store"}') == 0
    assert metric(server, 'vexlake_cache_reads_total{level="l2"}') > 0
