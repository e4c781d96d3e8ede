"""A lake written through RESP is equal, row for row, to what was put in, when read by pyarrow, by
DuckDB and by deltalake: the current version and an earlier one, with deletion vectors and without.

pyarrow and DuckDB read the Parquet files that the log names (their own reading of the protocol is
not asked for here), and leave out the positions of the deletion vectors; deltalake reads the table.
"""

import datetime
import json

import deltalake
import duckdb
import numpy
import pyarrow
import pyarrow.parquet
import pytest

import lake

DIMENSION = 12
COLUMNS = ["count", "int64", "score", "double", "label", "string", "ok", "bool", "at", "timestamp"]
START = datetime.datetime(2024, 2, 29, 23, 59, 59, 123456, tzinfo=datetime.timezone.utc)


def make_row(random, number, generation):
    """A row as it is put (attributes, payload) and as it is expected back."""
    typed = {
        "count": int(random.integers(-(2**53), 2**53)) if number % 7 else None,
        "score": float(random.normal()) * 10.0 ** int(random.integers(-300, 300)) if number % 5 else None,
        "label": f"läbel\t{number} of {generation} ☃" * (1 + number % 3) if number % 4 else None,
        "ok": bool(number % 2) if number % 6 else None,
        "at": START + datetime.timedelta(seconds=number, microseconds=generation) if number % 9 else None,
    }
    attributes = {key: value for key, value in typed.items() if value is not None}
    if "at" in attributes:
        attributes["at"] = attributes["at"].isoformat()
    attributes["extra"] = [number, {"nested": generation}]
    text = json.dumps(attributes, indent=number % 3 or None, ensure_ascii=number % 2 == 0)
    return {
        "vector": random.normal(size=DIMENSION).astype("<f4"),
        "attributes": text if number % 8 else None,
        "payload": random.bytes(int(random.integers(0, 3000))) if number % 3 else None,
        **(typed if number % 8 else dict.fromkeys(typed)),
    }


def row_id(number):
    return f"row {number} ü/☃" if number % 10 == 0 else f"row-{number}"


def put(client, model, numbers, generation, random):
    pipe = client.pipeline(transaction=False)
    for number in numbers:
        row = make_row(random, number, generation)
        arguments = [row_id(number), row["vector"].tobytes()]
        if row["attributes"] is not None:
            arguments += ["ATTRIBUTES", row["attributes"]]
        if row["payload"] is not None:
            arguments += ["PAYLOAD", row["payload"]]
        pipe.execute_command("VSET", *arguments, "IN", "Things & more")
        model[row_id(number)] = row
    assert all(reply == b"OK" for reply in pipe.execute())


@pytest.fixture(scope="module")
def table(tmp_path_factory):
    """The table's folder, and for each version that a flush made the rows that it must hold."""
    folder = tmp_path_factory.mktemp("lake")
    seed = 20240229
    print("seed", seed)
    random = numpy.random.default_rng(seed)
    model, versions = {}, {}
    path = lake.table_folder(folder, "Things & more")

    def flush(client):
        assert client.execute_command("VFLUSH", "Things & more") == b"OK"
        versions[lake.newest_version(path)] = dict(model)

    with lake.server(folder) as client:
        client.execute_command("VCREATE", "Things & more", "DIM", DIMENSION, "COLUMNS", *COLUMNS)
        put(client, model, range(1500), 0, random)
        flush(client)
        put(client, model, range(1500, 1600), 0, random)
        flush(client)
    plain = len(versions)
    with lake.server(folder) as client:
        # Overwrite some, delete some of both files, bring one deleted row back.
        put(client, model, range(100, 1550, 29), 1, random)
        gone = [row_id(number) for number in range(3, 1600, 7)]
        assert client.execute_command("VDEL", *gone, "IN", "Things & more") == len(gone)
        for identifier in gone:
            del model[identifier]
        put(client, model, [3], 2, random)
        flush(client)
        gone = [row_id(number) for number in range(0, 60, 2) if row_id(number) in model]
        assert client.execute_command("VDEL", *gone, "IN", "Things & more") == len(gone)
        for identifier in gone:
            del model[identifier]
        flush(client)
    assert len(versions) == 4
    return path, versions, sorted(versions)[:plain], sorted(versions)[plain:]


def check_equal(found, wanted):
    """An Arrow table against the model."""
    rows = {row["id"]: row for row in found.to_pylist()}
    assert len(rows) == found.num_rows, "an id stands twice"
    assert rows.keys() == wanted.keys()
    for identifier, row in wanted.items():
        given = rows[identifier]
        assert set(given) == {"id"} | row.keys()
        assert numpy.array(given["vector"], "<f4").tobytes() == row["vector"].tobytes(), identifier
        for name in row.keys() - {"vector"}:
            assert given[name] == row[name], (identifier, name)


def pyarrow_rows(path, version):
    parts = []
    for add in lake.active_files(path, version):
        part = pyarrow.parquet.read_table(path / add["path"])
        assert part.num_rows == json.loads(add["stats"])["numRecords"]
        keep = numpy.ones(part.num_rows, bool)
        keep[lake.deleted_rows(path, add)] = False
        parts.append(part.filter(pyarrow.array(keep)))
    return pyarrow.concat_tables(parts)


def duckdb_rows(path, version):
    connection = duckdb.connect()
    connection.execute("SET TimeZone = 'UTC'")
    files = [(str(path / add["path"]), lake.deleted_rows(path, add)) for add in lake.active_files(path, version)]
    hidden = pyarrow.table({
        "file": pyarrow.array([file for file, rows in files for _ in rows], pyarrow.string()),
        "position": pyarrow.array([row for _, rows in files for row in rows], pyarrow.int64()),
    })
    connection.register("hidden", hidden)
    return connection.execute(
        "SELECT * EXCLUDE (filename, file_row_number)"
        " FROM read_parquet($files, filename = true, file_row_number = true)"
        " WHERE (filename, file_row_number) NOT IN (SELECT (file, position) FROM hidden)",
        {"files": [file for file, _ in files]},
    ).to_arrow_table()


def test_versions_have_what_they_should(table):
    path, versions, plain, with_vectors = table
    for version in plain:
        assert not any("deletionVector" in add for add in lake.active_files(path, version))
    for version in with_vectors:
        assert any("deletionVector" in add for add in lake.active_files(path, version))


def test_pyarrow(table):
    path, versions, _, _ = table
    for version, wanted in versions.items():
        check_equal(pyarrow_rows(path, version), wanted)


def test_duckdb(table):
    path, versions, _, _ = table
    for version, wanted in versions.items():
        check_equal(duckdb_rows(path, version), wanted)


def test_deltalake_without_deletion_vectors(table):
    path, versions, plain, _ = table
    for version in plain:
        opened = deltalake.DeltaTable(path, version=version)
        assert opened.version() == version
        check_equal(opened.to_pyarrow_table(), versions[version])


def test_deltalake_with_deletion_vectors(table):
    """Its query engine applies deletion vectors; its way through pyarrow does not, and says so."""
    path, versions, _, with_vectors = table
    for version in with_vectors:
        opened = deltalake.DeltaTable(path, version=version)
        found = deltalake.QueryBuilder().register("t", opened).execute("SELECT * FROM t")
        check_equal(pyarrow.table(found), versions[version])
        with pytest.raises(deltalake.exceptions.DeltaProtocolError, match="deletionVectors"):
            opened.to_pyarrow_table()
    assert deltalake.DeltaTable(path).version() == max(versions)
