"""The command line as a user types it: what it prints, what it refuses, its exit status."""

import json
import os
import pty
import re
import signal
import struct
import subprocess
import time

import numpy
import pyarrow
import pyarrow.parquet
import pytest

from conftest import PROGRAM, ROOT

SAMPLE = ROOT / "examples" / "packages.parquet"


def run(*arguments, status=0, **options):
    result = subprocess.run(
        [PROGRAM, *map(str, arguments)], capture_output=True, text=True, timeout=300, **options
    )
    assert result.returncode == status, f"{arguments}: {result.returncode}\n{result.stdout}{result.stderr}"
    return result


def lines(*arguments):
    return [json.loads(line) for line in run(*arguments, "--json").stdout.splitlines()]


@pytest.fixture(scope="session")
def sample(tmp_path_factory):
    """A lake with the sample; tests only read it."""
    lake = tmp_path_factory.mktemp("cli") / "lake"
    result = run("import", "--lake", lake, "--into", "packages", "--metric", "cosine", SAMPLE)
    assert re.fullmatch(r"imported 3,500 rows into packages in [\d.]+ s \([\d,]+ rows/s\)\n", result.stdout)
    return lake


@pytest.fixture(scope="session")
def rows():
    return {row["id"]: row for row in pyarrow.parquet.read_table(SAMPLE).to_pylist()}


# ---- Help and mistakes ---------------------------------------------------------------------------


def test_help_and_version():
    assert re.fullmatch(r"vexlake \d+\.\d+\.\d+\n", run("version").stdout)
    overview = run("help").stdout
    for command in ("import", "search", "info", "verify", "create", "drop", "flush"):
        assert command in overview
        text = run(command, "--help").stdout
        assert text == run("help", command).stdout
        assert text.startswith(f"Usage: vexlake {command} --lake URI")
    assert "--port" in run("help", "serve").stdout + run("serve", "--help").stdout


@pytest.mark.parametrize("arguments, message", [
    ([], "Usage"),
    (["nonsense"], "nonsense"),
    (["help", "nonsense"], "nonsense"),
    (["info"], "--lake URI is missing"),
    (["info", "--lake", "l", "--lake", "l"], "twice"),
    (["info", "--lake", "l", "extra"], "extra"),
    (["search", "--lake", "l"], "either --vector or --id"),
    (["search", "--lake", "l", "--id", "a", "--vector", "[1]"], "either --vector or --id"),
    (["search", "--lake", "l", "--vector", "1, 2"], "[0.1, 0.2, ...]"),
    (["search", "--lake", "l", "--vector", "[1, x]"], "character 5"),
    (["search", "--lake", "l", "--vector", "[1e99]"], "too large"),
    (["search", "--lake", "l", "--id", "a", "-k", "0"], "from 1 to 10000"),
    (["search", "--lake", "l", "--id", "a", "-k", "10001"], "from 1 to 10000"),
    (["search", "--lake", "l", "--id", "a", "--columns", "a,,b"], "empty name"),
    (["import", "--lake", "l", "--into", "c"], "FILE... is missing"),
    (["import", "--lake", "l", "--into", "c", "--metric", "l3", "f"], "l2|cosine|ip"),
    (["create", "--lake", "l", "--dim", "4097", "c"], "from 1 to 4096"),
    (["create", "--lake", "l", "--dim", "4", "--columns", "a:text", "c"], "'text'"),
    (["create", "--lake", "l", "--dim", "4", "--columns", "a", "c"], "NAME:TYPE"),
])
def test_arguments_that_make_no_sense(arguments, message, tmp_path):
    result = run(*arguments, status=2, cwd=tmp_path)
    assert message in result.stderr and result.stdout == ""
    assert list(tmp_path.iterdir()) == []


def test_a_lake_that_is_not_there(tmp_path):
    for command in (["info"], ["search", "--id", "a"], ["verify"], ["drop", "c"], ["flush"]):
        result = run(command[0], "--lake", tmp_path / "none", *command[1:], status=1)
        assert "none" in result.stderr
    assert list(tmp_path.iterdir()) == []


def test_output_that_cannot_be_written(sample):
    with open("/dev/full", "w") as full:
        result = subprocess.run([PROGRAM, "info", "--lake", sample], stdout=full, stderr=subprocess.PIPE, text=True)
    assert result.returncode == 1 and "standard output" in result.stderr


# ---- Reading -------------------------------------------------------------------------------------


def test_search_by_id(sample, rows):
    found = lines("search", "--lake", sample, "--in", "packages", "--id", "redis-server",
                  "--columns", "section,installed_size_kib,vector")
    assert len(found) == 10 and found[0]["id"] == "redis-server"
    assert [list(row) for row in found] == [["id", "distance", "section", "installed_size_kib", "vector"]] * 10
    query = numpy.array(rows["redis-server"]["vector"])
    for row in found:
        wanted = rows[row["id"]]
        assert row["section"] == wanted["section"]
        assert row["installed_size_kib"] == wanted["installed_size_kib"]
        vector = numpy.array(row["vector"])
        assert vector.astype("f4").tolist() == wanted["vector"]
        cosine = query @ vector / numpy.linalg.norm(query) / numpy.linalg.norm(vector)
        assert row["distance"] == pytest.approx(1 - cosine, abs=1e-5)
    distances = [row["distance"] for row in found]
    assert distances == sorted(distances)


def test_search_by_vector_is_exact(sample, rows):
    query = numpy.random.default_rng(7).normal(size=384).astype("f4")
    text = "[" + ", ".join(str(value) for value in query) + "]"
    names = list(rows)
    matrix = numpy.array([rows[name]["vector"] for name in names])
    scores = 1 - matrix @ query / numpy.linalg.norm(matrix, axis=1) / numpy.linalg.norm(query)
    wanted = [names[i] for i in numpy.argsort(scores)[:25]]
    found = lines("search", "--lake", sample, "--in", "packages", "--vector", text, "--exact", "-k25")
    assert [row["id"] for row in found] == wanted


def test_search_prints_tabs_or_a_table(sample):
    arguments = ["search", "--lake", sample, "--in", "packages", "--id", "redis-server", "-k", "3", "--columns", "section"]
    plain = run(*arguments).stdout.splitlines()
    assert plain[0] == "id\tdistance\tsection"
    assert plain[1].split("\t")[0] == "redis-server" and len(plain) == 4
    master, slave = pty.openpty()
    with os.fdopen(master, "rb", 0) as terminal:
        subprocess.run([PROGRAM, *map(str, arguments)], stdout=slave, check=True)
        os.close(slave)
        table = b""
        try:
            while chunk := terminal.read(4096):
                table += chunk
        except OSError:
            pass
    found = table.decode().splitlines()
    assert len(found) == 4 and "\t" not in table.decode()
    assert re.match(r"id +distance  section$", found[0])
    assert found[1].startswith("redis-server ")
    assert len({line.index(word) for line, word in zip(found, ["section", *[row.split("\t")[2] for row in plain[1:]]])}) == 1


def test_search_statistics(sample):
    result = run("search", "--lake", sample, "--in", "packages", "--id", "redis-server", "--exact", "--stats")
    assert re.search(r"vectors 3500, pages 0 \(0 bytes\)", result.stderr)


def test_search_refusals(sample):
    for arguments, message in [
        (["--in", "nowhere", "--id", "a"], "nowhere"),
        (["--in", "packages", "--id", "no-such-package"], "no-such-package"),
        (["--in", "packages", "--vector", "[1, 2]"], "384"),
        (["--in", "packages", "--id", "redis-server", "--columns", "colour"], "colour"),
    ]:
        result = run("search", "--lake", sample, *arguments, status=1)
        assert message in result.stderr and result.stdout == ""


def test_info(sample):
    (info,) = lines("info", "--lake", sample)
    assert info["name"] == "packages" and info["rows"] == 3500 and info["dimension"] == 384
    assert info["metric"] == "cosine" and info["damaged_segments"] == 0
    assert info["columns"] == {"section": "string", "priority": "string", "installed_size_kib": "int64"}
    assert lines("info", "--lake", sample, "--in", "packages") == [info]
    text = run("info", "--lake", sample).stdout
    assert re.search(r"^rows +3500$", text, re.M) and re.search(r"^  int64 +installed_size_kib$", text, re.M)
    assert "nowhere" in run("info", "--lake", sample, "--in", "nowhere", status=1).stderr


def test_verify(sample, tmp_path):
    result = run("verify", "--lake", sample)
    assert result.stdout == "" and re.search(r"checked [1-9]\d* objects, found 0 problems", result.stderr)
    assert "nowhere" in run("verify", "--lake", sample, "--in", "nowhere", status=1).stderr
    # One flipped bit in any kind of file is found, and the file named.
    subprocess.run(["cp", "-r", str(sample), str(tmp_path / "lake")], check=True)
    files = sorted((tmp_path / "lake" / "packages").rglob("*.parquet")) + sorted((tmp_path / "lake" / "packages").rglob("*.bin"))
    assert len(files) >= 2
    for path in files:
        content = path.read_bytes()
        for place in (len(content) // 3, len(content) * 9 // 10):
            path.write_bytes(content[:place] + bytes([content[place] ^ 1]) + content[place + 1:])
            result = run("verify", "--lake", tmp_path / "lake", status=1)
            assert path.name in result.stdout, (path, place, result.stderr)
        path.write_bytes(content)
    run("verify", "--lake", tmp_path / "lake")


# ---- Writing -------------------------------------------------------------------------------------


def test_create_drop_flush(tmp_path):
    lake = tmp_path / "lake"
    run("create", "--lake", lake, "--dim", 3, "--metric", "ip", "--index", "flat", "--columns", "a:int64,b:timestamp", "one")
    run("create", "--lake", lake, "--dim", 4, "two")
    assert "one" in run("create", "--lake", lake, "--dim", 3, "one", status=1).stderr
    assert [row["name"] for row in lines("info", "--lake", lake)] == ["one", "two"]
    run("create", "--lake", lake, "--dim", 3, "--index", "hnsw", "--recall", "0.9", "--bits", 1, "tuned")
    (tuned,) = lines("info", "--lake", lake, "--in", "tuned")
    assert (tuned["index"], tuned["recall"], tuned["bits"], tuned["graphs"]) == ("hnsw", 0.9, 1, 0)
    run("drop", "--lake", lake, "tuned")
    (one,) = lines("info", "--lake", lake, "--in", "one")
    assert (one["recall"], one["bits"]) == (0.95, 4)
    assert (one["metric"], one["index"], one["dimension"]) == ("ip", "flat", 3)
    assert one["columns"] == {"a": "int64", "b": "timestamp"}
    run("flush", "--lake", lake)
    run("flush", "--lake", lake, "one")
    run("drop", "--lake", lake, "one")
    assert "one" in run("drop", "--lake", lake, "one", status=1).stderr
    assert [row["name"] for row in lines("info", "--lake", lake)] == ["two"]


def test_bench_recall(sample):
    settings = lines("bench", "recall", "--lake", sample, "--in", "packages", "--queries", 40)
    assert [row["setting"] for row in settings][:2] == ["default", "recall 0.8"]
    exact = settings[-1]
    assert exact["setting"] == "exact" and exact["recall"] == 1 and exact["vectors"] == 3500
    for row in settings:
        assert 0 < row["p50_ms"] <= row["p90_ms"] <= row["p99_ms"] and row["queries"] == 40 and row["k"] == 10
        assert row["recall"] > 0.75
    one = lines("bench", "recall", "--lake", sample, "--in", "packages", "--queries", 10, "--recall", "0.9", "-k", 3)
    assert [row["setting"] for row in one] == ["recall 0.9", "exact"] and one[0]["k"] == 3
    table = run("bench", "recall", "--lake", sample, "--in", "packages", "--queries", 10, "--nprobe", 2).stdout
    assert table.splitlines()[0].startswith("3500 rows of dimension 384 in 1 segment")
    assert "recall" in run("bench", "speed", "--lake", sample, status=2).stderr
    assert "nowhere" in run("bench", "recall", "--lake", sample, "--in", "nowhere", status=1).stderr


def check_vectors(lake, name, wanted):
    """Every row is its own nearest, and there are no others."""
    (info,) = lines("info", "--lake", lake, "--in", name)
    assert info["rows"] == len(wanted)
    for identifier in list(wanted)[:3] + list(wanted)[-2:]:
        text = "[" + " ".join(str(float(value)) for value in wanted[identifier]) + "]"
        (row,) = lines("search", "--lake", lake, "--in", name, "--vector", text, "-k", 1, "--exact", "--columns", "vector")
        assert row["id"] == identifier and row["distance"] == 0
        assert numpy.array(row["vector"], "f4").tolist() == numpy.array(wanted[identifier], "f4").tolist()


def test_import_of_vector_files(tmp_path):
    lake = tmp_path / "lake"
    random = numpy.random.default_rng(3)
    floats = random.normal(size=(300, 16)).astype("<f4")
    octets = random.integers(0, 255, size=(200, 16)).astype("u1")
    numpy.save(tmp_path / "a.npy", floats)
    (tmp_path / "a.fvecs").write_bytes(b"".join(struct.pack("<i", 16) + row.tobytes() for row in floats))
    (tmp_path / "a.bvecs").write_bytes(b"".join(struct.pack("<i", 16) + row.tobytes() for row in octets))
    (tmp_path / "ids.txt").write_text("".join(f"name {i}\n" for i in range(300)))
    with open(tmp_path / "a.jsonl", "w") as out:
        for i, row in enumerate(floats[:50]):
            out.write(json.dumps({"key": f"k{i}", "embedding": row.tolist(), "n": i}) + "\n")
    run("import", "--lake", lake, "--into", "npy", "--ids", tmp_path / "ids.txt", tmp_path / "a.npy")
    check_vectors(lake, "npy", {f"name {i}": row for i, row in enumerate(floats)})
    run("import", "--lake", lake, "--into", "fvecs", tmp_path / "a.fvecs")
    check_vectors(lake, "fvecs", {str(i): row for i, row in enumerate(floats)})
    run("import", "--lake", lake, "--into", "bvecs", tmp_path / "a.bvecs")
    check_vectors(lake, "bvecs", {str(i): row for i, row in enumerate(octets)})
    run("import", "--lake", lake, "--into", "jsonl", "--id", "key", "--vector", "embedding", tmp_path / "a.jsonl")
    check_vectors(lake, "jsonl", {f"k{i}": row for i, row in enumerate(floats[:50])})
    run("verify", "--lake", lake)


@pytest.mark.parametrize("kind", ["list32", "list64", "list16", "fixed32", "large32"])
def test_import_of_parquet_types(tmp_path, kind):
    values = numpy.random.default_rng(4).normal(size=(80, 6)).astype("f2")
    item = {"32": pyarrow.float32(), "64": pyarrow.float64(), "16": pyarrow.float16()}[kind[-2:]]
    of = {"list": pyarrow.list_, "fixe": lambda t: pyarrow.list_(t, 6), "larg": pyarrow.large_list}[kind[:4]]
    table = pyarrow.table({
        "number": pyarrow.array(range(1000, 1080), pyarrow.int32()),
        "v": pyarrow.array([list(row.astype("f2" if kind == "list16" else "f8")) for row in values], of(item)),
        "word": pyarrow.array([None if i % 3 == 0 else f"w{i}" for i in range(80)]),
        "flag": pyarrow.array([i % 2 == 0 for i in range(80)]),
    })
    pyarrow.parquet.write_table(table, tmp_path / "t.parquet")
    run("import", "--lake", tmp_path / "lake", "--into", "t", "--id", "number", tmp_path / "t.parquet")
    check_vectors(tmp_path / "lake", "t", {str(1000 + i): row for i, row in enumerate(values)})
    (info,) = lines("info", "--lake", tmp_path / "lake")
    assert info["columns"] == {"number": "int64", "word": "string", "flag": "bool"}
    (row,) = lines("search", "--lake", tmp_path / "lake", "--in", "t", "--id", "1004", "-k1", "--columns", "number,word,flag")
    assert (row["number"], row["word"], row["flag"]) == (1004, "w4", True)


def test_import_again_replaces(sample, tmp_path, rows):
    lake = tmp_path / "lake"
    subprocess.run(["cp", "-r", str(sample), str(lake)], check=True)
    table = pyarrow.table({"id": ["redis-server", "brand-new"], "vector": [rows["git"]["vector"]] * 2, "section": ["a", "b"]})
    pyarrow.parquet.write_table(table, tmp_path / "t.parquet")
    assert "imported 2 rows" in run("import", "--lake", lake, "--into", "packages", tmp_path / "t.parquet").stdout
    (info,) = lines("info", "--lake", lake)
    assert info["rows"] == 3501
    found = lines("search", "--lake", lake, "--in", "packages", "--id", "git", "-k3", "--columns", "section,priority")
    assert {row["id"] for row in found} == {"git", "redis-server", "brand-new"}
    replaced = next(row for row in found if row["id"] == "redis-server")
    assert (replaced["section"], replaced["priority"]) == ("a", None)
    run("verify", "--lake", lake)


def test_import_refusals_import_nothing(tmp_path):
    lake = tmp_path / "lake"
    good = pyarrow.table({"id": ["x", "y"], "vector": [[1.0, 2.0], [3.0, 4.0]]})
    tables = {
        "ragged": (pyarrow.table({"id": ["a", "b", "c"], "vector": [[1.0, 2.0], [1.0, 2.0], [1.0]]}), "2"),
        "none": (pyarrow.table({"id": ["a"], "word": ["b"]}), "vector"),
        "nan": (pyarrow.table({"id": ["a", "b"], "vector": [[1.0, 2.0], [float("nan"), 2.0]]}), "1"),
        "empty id": (pyarrow.table({"id": [""], "vector": [[1.0, 2.0]]}), "id"),
        "null": (pyarrow.table({"id": ["a", "b"], "vector": [[1.0, 2.0], None]}), "1"),
    }
    pyarrow.parquet.write_table(good, tmp_path / "good.parquet")
    for name, (table, word) in tables.items():
        path = tmp_path / f"{name}.parquet"
        pyarrow.parquet.write_table(table, path)
        result = run("import", "--lake", lake, "--into", "c", tmp_path / "good.parquet", path, status=1)
        assert word in result.stderr, (name, result.stderr)
        assert [row["rows"] for row in lines("info", "--lake", lake) if row["name"] == "c"] in ([], [0])
    (tmp_path / "torn.parquet").write_bytes((tmp_path / "good.parquet").read_bytes()[:-20])
    (tmp_path / "text.xyz").write_text("hello")
    for name in ("torn.parquet", "text.xyz", "absent.parquet"):
        assert name in run("import", "--lake", lake, "--into", "c", tmp_path / name, status=1).stderr


def big_file(path, rows):
    with open(path, "wb") as out:
        values = numpy.random.default_rng(5).normal(size=(10000, 128)).astype("<f4")
        block = numpy.zeros((10000, 129), "<f4")
        block[:, 0] = numpy.frombuffer(struct.pack("<i", 128), "<f4")
        block[:, 1:] = values
        for _ in range(rows // 10000):
            out.write(block.tobytes())


def test_interrupted_import_imports_nothing(tmp_path):
    big_file(tmp_path / "big.fvecs", 400000)
    lake = tmp_path / "lake"
    process = subprocess.Popen(
        [PROGRAM, "import", "--lake", lake, "--into", "c", tmp_path / "big.fvecs"],
        stdout=subprocess.PIPE, stderr=subprocess.PIPE, text=True)
    time.sleep(1.0)
    process.send_signal(signal.SIGINT)
    out, err = process.communicate(timeout=120)
    assert process.returncode == 1 and out == ""
    assert "nothing will be imported" in err
    assert [row["rows"] for row in lines("info", "--lake", lake) if row["name"] == "c"] in ([], [0])
    run("verify", "--lake", lake)


def test_a_server_has_the_lake(start, tmp_path):
    """Reading goes on beside a server and sees what it has not flushed; writing is refused."""
    lake = tmp_path / "lake"
    server = start(lake=lake)
    client = server.client()
    client.execute_command("VSET", "first", "[1,2,3]")
    client.execute_command("VSET", "second", "[3,2,1]")
    found = lines("search", "--lake", lake, "--vector", "[1,2,3]")
    assert [row["id"] for row in found] == ["first", "second"] and found[1]["distance"] == 8
    run("verify", "--lake", lake)
    for command in (["import", "--into", "c", SAMPLE], ["flush"], ["create", "--dim", 3, "c"], ["drop", "default"]):
        refused = run(command[0], "--lake", lake, *command[1:], status=1)
        assert f"held by process {server.process.pid}" in refused.stderr
    assert server.stop() == 0
    assert [row["rows"] for row in lines("info", "--lake", lake)] == [2]
