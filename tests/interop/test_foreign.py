"""Another engine writes to a collection: deltalake appends, deletes and rewrites; VexLake follows."""

import contextlib
import subprocess
import time

import deltalake
import numpy
import pyarrow
import pytest

import lake

DIMENSION = 8
NAME = "shared"


def vectors(seed, count):
    return numpy.random.default_rng(seed).normal(size=(count, DIMENSION)).astype("<f4")


def arrow_rows(ids, values, counts):
    return pyarrow.table({
        "id": pyarrow.array(ids, pyarrow.string()),
        "vector": pyarrow.array(list(values), pyarrow.list_(pyarrow.float32())),
        "attributes": pyarrow.array([None] * len(ids), pyarrow.string()),
        "payload": pyarrow.array([None] * len(ids), pyarrow.binary()),
        "label": pyarrow.array([f"foreign {i}" for i in ids], pyarrow.string()),
        "count": pyarrow.array(counts, pyarrow.int64()),
    })


@contextlib.contextmanager
def collection(tmp_path, rows=200, status=0):
    """A served collection of rows own-0, own-1, ... with count = number; the vectors come out too."""
    with lake.server(tmp_path, status=status) as client:
        client.execute_command("VCREATE", NAME, "DIM", DIMENSION, "COLUMNS", "label", "string", "count", "int64")
        values = vectors(1, rows)
        put(client, {f"own-{i}": (values[i], i) for i in range(rows)})
        flush(client)
        yield client, lake.table_folder(tmp_path, NAME), values


def put(client, rows):
    pipe = client.pipeline(transaction=False)
    for identifier, (vector, count) in rows.items():
        pipe.execute_command("VSET", identifier, vector.tobytes(), "ATTRIBUTES", f'{{"count": {count}}}', "IN", NAME)
    pipe.execute()


def flush(client):
    assert client.execute_command("VFLUSH", NAME) == b"OK"


def nearest(client, vector, k=1):
    """[(id, distance, label, count)]"""
    rows = client.execute_command("VSEARCH", vector.tobytes(), k, "EXACT", "RETURN", 2, "label", "count", "IN", NAME)
    return [(row[0].decode(), row[1], row[2][b"label"], row[2][b"count"]) for row in rows]


def info(client, field):
    return client.execute_command("VINFO", NAME)[field.encode()]


def size(client):
    return info(client, "size")


def eventually(condition, seconds=30):
    end = time.monotonic() + seconds
    while not condition():
        assert time.monotonic() < end, "it did not happen"
        time.sleep(0.2)


def verify(tmp_path):
    result = subprocess.run([lake.PROGRAM, "verify", "--lake", str(tmp_path)], capture_output=True, text=True)
    assert result.returncode == 0, result.stdout + result.stderr


def test_appended_rows_are_found_and_can_be_deleted(tmp_path):
    with collection(tmp_path) as (client, table, values):
        foreign = vectors(2, 60)
        deltalake.write_deltalake(table, arrow_rows([f"new-{i}" for i in range(60)], foreign, range(60)), mode="append")
        # Without a flush: the server looks for foreign commits by itself.
        eventually(lambda: size(client) == 260)
        for i in (0, 31, 59):
            assert nearest(client, foreign[i]) == [(f"new-{i}", 0.0, b"foreign new-%d" % i, i)]
            row = client.execute_command("VGET", f"new-{i}", "RAW", "IN", NAME)
            assert row[b"vector"] == foreign[i].tobytes() and row[b"count"] == i
        # Delete some of them, and own ones in the same breath; overwrite one.
        gone = [f"new-{i}" for i in range(10, 20)] + ["own-5"]
        assert client.execute_command("VDEL", *gone, "absent", "IN", NAME) == 11
        put(client, {"new-30": (values[0] * 3, 99)})
        for _ in range(2):
            assert size(client) == 249
            assert nearest(client, foreign[15])[0][0] != "new-15"
            assert nearest(client, foreign[9])[0][0] == "new-9"
            assert nearest(client, values[0] * 3) == [("new-30", 0.0, None, 99)]
            assert nearest(client, foreign[30])[0][0] != "new-30"
            flush(client)
        physical = {add["path"]: lake.deleted_rows(table, add) for add in lake.active_files(table)}
        assert sum(len(rows) for rows in physical.values()) == 12
    with lake.server(tmp_path) as client:
        assert size(client) == 249
        assert nearest(client, foreign[15])[0][0] != "new-15"
        assert nearest(client, foreign[16 + 5])[0][0] == "new-21"
        assert client.execute_command("VGET", "new-15", "IN", NAME) is None
    verify(tmp_path)


def test_a_foreign_file_is_indexed_by_and_by(tmp_path):
    """Its rows move to files of ours with an index, and stay the same to everybody."""
    with collection(tmp_path) as (client, table, values):
        foreign = vectors(2, 60)
        deltalake.write_deltalake(table, arrow_rows([f"new-{i}" for i in range(60)], foreign, range(60)), mode="append")
        eventually(lambda: size(client) == 260 and info(client, "segments-unindexed") == 0)
        seen = deltalake.DeltaTable(table)
        assert seen.history(1)[0]["operation"] == "OPTIMIZE"
        rows = {row["id"]: row for row in seen.to_pyarrow_table().to_pylist()}
        assert len(rows) == 260
        for i in (0, 31, 59):
            assert nearest(client, foreign[i]) == [(f"new-{i}", 0.0, b"foreign new-%d" % i, i)]
            assert numpy.array_equal(numpy.float32(rows[f"new-{i}"]["vector"]), foreign[i])
            assert rows[f"new-{i}"]["count"] == i
        assert nearest(client, values[5])[0][:2] == ("own-5", 0.0)
    verify(tmp_path)


def test_an_append_between_writes_and_their_flush(tmp_path):
    """The commit of a flush finds that the log moved, and is built anew on top."""
    with collection(tmp_path) as (client, table, values):
        later = vectors(3, 30)
        put(client, {f"late-{i}": (later[i], i) for i in range(30)})
        client.execute_command("VDEL", "own-0", "IN", NAME)
        put(client, {"own-1": (later[0] * 5, 1)})
        foreign = vectors(4, 20)
        deltalake.write_deltalake(table, arrow_rows([f"new-{i}" for i in range(20)], foreign, range(20)), mode="append")
        flush(client)
        assert size(client) == 200 - 1 + 30 + 20
        for i in range(20):
            assert nearest(client, foreign[i])[0][:2] == (f"new-{i}", 0.0)
        for i in range(1, 30):
            assert nearest(client, later[i])[0][:2] == (f"late-{i}", 0.0)
        assert nearest(client, values[0])[0][0] != "own-0"
        assert nearest(client, later[0] * 5)[0][:2] == ("own-1", 0.0)
    verify(tmp_path)


def test_the_newest_row_of_an_id_wins(tmp_path):
    """A foreign append of ids that exist replaces them; a later VSET replaces that again."""
    with collection(tmp_path) as (client, table, values):
        foreign = vectors(5, 10) * 7
        deltalake.write_deltalake(table, arrow_rows([f"own-{i}" for i in range(10)], foreign, range(1000, 1010)), mode="append")
        flush(client)
        assert size(client) == 200
        for i in range(10):
            assert nearest(client, foreign[i]) == [(f"own-{i}", 0.0, b"foreign own-%d" % i, 1000 + i)]
            assert nearest(client, values[i])[0][0] != f"own-{i}"
        put(client, {"own-3": (values[3] * 9, 5)})
        flush(client)
        assert nearest(client, values[3] * 9) == [("own-3", 0.0, None, 5)]
        assert nearest(client, foreign[3])[0][0] != "own-3"
        assert size(client) == 200
    with lake.server(tmp_path) as client:
        assert size(client) == 200
        assert nearest(client, foreign[4])[0] == ("own-4", 0.0, b"foreign own-4", 1004)


def test_rows_deleted_elsewhere_are_gone(tmp_path):
    """deltalake deletes by rewriting the file, without our tags and index."""
    with collection(tmp_path) as (client, table, values):
        deltalake.DeltaTable(table).delete("count >= 50 AND count < 60")
        flush(client)
        assert size(client) == 190
        for i in (49, 60):
            assert nearest(client, values[i])[0][:2] == (f"own-{i}", 0.0)
        assert nearest(client, values[55])[0][0] != "own-55"
        assert client.execute_command("VGET", "own-55", "IN", NAME) is None
        # The row may come again.
        put(client, {"own-55": (values[55], 55)})
        flush(client)
        assert nearest(client, values[55])[0][0] == "own-55"
        assert size(client) == 191


def test_writes_elsewhere_beside_our_deletion_vectors(tmp_path):
    with collection(tmp_path) as (client, table, values):
        assert client.execute_command("VDEL", "own-1", "own-2", "IN", NAME) == 2
        flush(client)
        assert lake.deleted_rows(table, lake.active_files(table)[0]) != []
        foreign = vectors(7, 3)
        deltalake.write_deltalake(table, arrow_rows(["x", "y", "z"], foreign, [1, 2, 3]), mode="append")
        assert deltalake.DeltaTable(table).delete("count = 7")["num_deleted_rows"] == 1
        flush(client)
        assert size(client) == 200 - 2 + 3 - 1
        assert nearest(client, foreign[1]) == [("y", 0.0, b"foreign y", 2)]
        for gone in (1, 2, 7):
            assert nearest(client, values[gone])[0][0] != f"own-{gone}"
        assert nearest(client, values[8])[0][0] == "own-8"
    verify(tmp_path)


def test_files_compacted_elsewhere(tmp_path):
    with collection(tmp_path) as (client, table, values):
        more = vectors(6, 40)
        put(client, {f"more-{i}": (more[i], i) for i in range(40)})
        flush(client)
        assert len(lake.active_files(table)) == 2
        assert deltalake.DeltaTable(table).optimize.compact()["numFilesAdded"] == 1
        flush(client)
        assert len(lake.active_files(table)) == 1
        assert size(client) == 240
        for i in range(0, 40, 7):
            assert nearest(client, more[i])[0][:2] == (f"more-{i}", 0.0)
            assert nearest(client, values[i])[0][:2] == (f"own-{i}", 0.0)
    verify(tmp_path)


@pytest.mark.parametrize("table", [
    pyarrow.table({"id": ["bad"], "vector": pyarrow.array([[1.0, 2.0]], pyarrow.list_(pyarrow.float32()))}),
    pyarrow.table({"id": pyarrow.array([None], pyarrow.string()),
                   "vector": pyarrow.array([[1.0] * DIMENSION], pyarrow.list_(pyarrow.float32()))}),
], ids=["another dimension", "no id"])
def test_rows_that_do_not_fit_do_no_harm(tmp_path, table):
    """A foreign file that breaks the collection's rules is named by whoever needs it. Nobody can say
    which rows it would hide, so nothing is flushed beside it; writes stay safe in the log."""
    with collection(tmp_path, status=1) as (client, folder, values):
        deltalake.write_deltalake(folder, table, mode="append", schema_mode="merge")
        put(client, {"late": (values[0] * 2, 7)})
        with pytest.raises(lake.redis.ResponseError, match="part-.*parquet"):
            flush(client)
        eventually(lambda: info(client, "segments-damaged") == 1)
        with pytest.raises(lake.redis.ResponseError, match="part-.*parquet"):
            nearest(client, values[7])
        row = client.execute_command("VSEARCH", values[7].tobytes(), 1, "EXACT", "PARTIAL", "IN", NAME)
        assert row[0][0] == b"own-7"
    result = subprocess.run([lake.PROGRAM, "verify", "--lake", str(tmp_path)], capture_output=True, text=True)
    assert result.returncode == 1 and "part-" in result.stdout
    # Taken out again by the engine that brought it.
    deltalake.DeltaTable(folder).delete("id = 'bad' OR id IS NULL")
    with lake.server(tmp_path) as client:
        assert nearest(client, values[0] * 2) == [("late", 0.0, None, 7)]
        flush(client)
        assert size(client) == 201
