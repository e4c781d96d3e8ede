"""VIMPORT: only below the named folders, all of a file or nothing."""

import json
import struct

import pytest
from conftest import as_map, blob, error


@pytest.fixture
def folder(tmp_path):
    folder = tmp_path / "data"
    folder.mkdir()
    return folder


@pytest.fixture
def importer(start, folder):
    return start("--import-dir", str(folder))


def test_json_lines(importer, folder, protocol):
    client = importer.client(protocol)
    lines = [{"id": f"k{i}", "vector": [i, 0.5], "n": i, "s": str(i)} for i in range(100)]
    path = folder / "rows.jsonl"
    path.write_text("".join(json.dumps(line) + "\n" for line in lines))
    assert client.execute_command("VIMPORT", str(path), "INTO", "c") == 100
    info = as_map(client.execute_command("VINFO", "c"))
    assert info["size"] == 100 and info["vector-dim"] == 2
    row = as_map(client.execute_command("VGET", "k7", "RAW", "IN", "c"))
    assert row["vector"] == blob(7, 0.5) and row["n"] == 7 and row["s"] == b"7"
    found = client.execute_command("VSEARCH", "[42,0.5]", 1, "RETURN", 1, "n", "IN", "c")
    assert found[0][0] == b"k42" and as_map(found[0][2]) == {"n": 42}
    # Once more: the same rows replace themselves.
    assert client.execute_command("VIMPORT", "file://" + str(path), "INTO", "c") == 100
    assert as_map(client.execute_command("VINFO", "c"))["size"] == 100


def test_fvecs_into_default(importer, folder):
    client = importer.client()
    path = folder / "rows.fvecs"
    path.write_bytes(b"".join(struct.pack("<i2f", 2, i, -i) for i in range(10)))
    assert client.execute_command("VIMPORT", str(path)) == 10
    assert as_map(client.execute_command("VGET", "3", "RAW"))["vector"] == blob(3, -3)


def test_paths_outside(importer, folder, tmp_path):
    client = importer.client()
    outside = tmp_path / "secret.jsonl"
    outside.write_text('{"id":"a","vector":[1,2]}\n')
    (folder / "link.jsonl").symlink_to(outside)
    (tmp_path / "data-not").mkdir()
    beside = tmp_path / "data-not" / "rows.jsonl"
    beside.write_text('{"id":"a","vector":[1,2]}\n')
    for path in (outside, folder / ".." / "secret.jsonl", folder / "link.jsonl", beside, folder / "missing.jsonl", "/etc/passwd"):
        assert "--import-dir" in error(client, "VIMPORT", str(path), "INTO", "c")
    assert client.execute_command("VLIST") == []


@pytest.mark.parametrize("name,content,says", [
    ("ragged.jsonl", '{"id":"a","vector":[1,2]}\n{"id":"b","vector":[1,2,3]}\n', "2"),
    ("novector.jsonl", '{"id":"a","x":1}\n', "vector"),
    ("broken.jsonl", '{"id":"a","vector":[1,2]}\n{"id":', ""),
    ("nan.jsonl", '{"id":"a","vector":[1,null]}\n', ""),
    ("unknown.txt", "hello", ""),
    ("empty.parquet", "", ""),
])
def test_bad_files_import_nothing(importer, folder, name, content, says):
    client = importer.client()
    (folder / name).write_text(content)
    assert says in error(client, "VIMPORT", str(folder / name), "INTO", "c")
    info = client.execute_command("VINFO", "c")
    assert info is None or as_map(info)["size"] == 0
