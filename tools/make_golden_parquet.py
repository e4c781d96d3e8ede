#!/usr/bin/env python3
"""Make the Parquet files under tests/golden/parquet that src/format/row_source_parquet_test.c reads.

They are written by other engines with many combinations of options; the test knows the values by
formula, so a file must be made by `table` or named in the test as one that fails. Run with
pyarrow 26 and duckdb 1.5 from the root of the repository; the files are committed, so the tests
themselves need neither.
"""

import datetime
import decimal
import pathlib

import duckdb
import pyarrow as pa
import pyarrow.parquet as pq

ROWS = 60
DIMENSION = 4
OUT = pathlib.Path("tests/golden/parquet")
EPOCH_US = 1_700_000_000_000_000


def vectors(kind):
    values = [[float(i) + 0.25 * d for d in range(DIMENSION)] for i in range(ROWS)]
    return pa.array(values, type=kind)


def sparse(values, every, kind):
    return pa.array([None if i % every == 0 else v for i, v in enumerate(values)], type=kind)


def small(vector=pa.list_(pa.float32())):
    """Few columns, for options that do not depend on the column."""
    return {
        "id": pa.array([f"row-{i}" for i in range(ROWS)]),
        "vector": vectors(vector),
        "number": sparse([i * 1000003 - 7 for i in range(ROWS)], 5, pa.int64()),
        "text": sparse([f"text {i % 7}" for i in range(ROWS)], 4, pa.string()),
        "flag": sparse([i % 3 == 0 for i in range(ROWS)], 6, pa.bool_()),
        "real": sparse([i * 0.5 for i in range(ROWS)], 7, pa.float64()),
    }


def all_types():
    columns = small()
    columns["attributes"] = sparse(['{"i": %d}' % i for i in range(ROWS)], 3, pa.string())
    columns["payload"] = sparse([bytes([i, 0, 255]) * (i % 5) for i in range(ROWS)], 9, pa.binary())
    for name, kind in [("i8", pa.int8()), ("i16", pa.int16()), ("i32", pa.int32())]:
        columns[name] = sparse([i - 30 for i in range(ROWS)], 5, kind)
    for name, kind in [("u8", pa.uint8()), ("u16", pa.uint16()), ("u64", pa.uint64())]:
        columns[name] = sparse([i * 3 for i in range(ROWS)], 5, kind)
    columns["u32"] = sparse([4294967295 - i for i in range(ROWS)], 5, pa.uint32())
    columns["f32"] = sparse([i * 0.5 for i in range(ROWS)], 7, pa.float32())
    columns["f16"] = sparse([i * 0.5 for i in range(ROWS)], 7, pa.float16())
    columns["large"] = sparse([f"text {i % 7}" for i in range(ROWS)], 4, pa.large_string())
    columns["words"] = columns["text"].dictionary_encode()
    times = [EPOCH_US + i * 1_000_000 for i in range(ROWS)]
    columns["time_us"] = sparse(times, 8, pa.timestamp("us", "UTC"))
    columns["time_ms"] = sparse([t // 1000 for t in times], 8, pa.timestamp("ms"))
    columns["time_ns"] = sparse([t * 1000 + 999 for t in times], 8, pa.timestamp("ns", "UTC"))
    day = datetime.date(2020, 1, 1)
    columns["skip_date"] = pa.array([day] * ROWS)
    columns["skip_time"] = pa.array([1] * ROWS, type=pa.time64("us"))
    columns["skip_decimal"] = pa.array([decimal.Decimal("1.5")] * ROWS)
    columns["skip_blob"] = pa.array([b"x"] * ROWS)
    columns["skip_struct"] = pa.array([{"a": 1, "b": 2}] * ROWS)
    columns["skip_map"] = pa.array([[("k", 1)]] * ROWS, type=pa.map_(pa.string(), pa.int32()))
    columns["skip_lists"] = pa.array([[[1.0]]] * ROWS, type=pa.list_(pa.list_(pa.float32())))
    columns["skip_ints"] = pa.array([[1]] * ROWS, type=pa.list_(pa.int32()))
    return columns


def write(name, columns, **options):
    options.setdefault("compression", "NONE")
    options.setdefault("write_statistics", False)
    table = columns if isinstance(columns, pa.Table) else pa.table(columns)
    pq.write_table(table, OUT / f"{name}.parquet", **options)


def required(columns):
    """The same with nothing nullable, nulls left out of the way."""
    columns = {k: columns[k] for k in ("id", "vector")}
    kind = pa.list_(pa.field("element", pa.float32(), nullable=False))
    schema = pa.schema(
        [pa.field("id", pa.string(), nullable=False), pa.field("vector", kind, nullable=False)]
    )
    return pa.table([columns["id"], columns["vector"].cast(kind)], schema=schema)


def replaced(name, values, kind):
    columns = small()
    columns[name] = pa.array(values, type=kind)
    return columns


def good():
    write("all-types", all_types())
    write("all-types-v2-zstd", all_types(), data_page_version="2.0", compression="ZSTD")
    old = all_types()
    del old["time_ns"]  # format 1 has no nanoseconds
    write("all-types-format-1", old, version="1.0", store_schema=False, compression="GZIP")
    for codec in ("SNAPPY", "GZIP", "BROTLI", "LZ4", "ZSTD"):
        write(f"codec-{codec.lower()}", small(), compression=codec)
        write(f"codec-{codec.lower()}-v2", small(), compression=codec, data_page_version="2.0")
    write("plain", small(), use_dictionary=False)
    write("plain-v2", small(), use_dictionary=False, data_page_version="2.0")
    write("large-list", small(pa.large_list(pa.float32())))
    write("fixed-list", small(pa.list_(pa.float32(), DIMENSION)), compression="SNAPPY")
    write("double", small(pa.list_(pa.float64())))
    write("double-fixed", small(pa.list_(pa.float64(), DIMENSION)), use_dictionary=False)
    write("half", small(pa.list_(pa.float16())), use_dictionary=False)
    write("half-fixed", small(pa.list_(pa.float16(), DIMENSION)), compression="ZSTD")
    write("groups", small(), row_group_size=7)
    write("small-pages", small(), data_page_size=64, write_batch_size=16, compression="SNAPPY")
    write("small-pages-plain", small(), data_page_size=64, write_batch_size=16, use_dictionary=False)
    write("old-names", small(), use_compliant_nested_type=False)
    write("required", required(small()))
    write("checksums", small(), write_page_checksum=True, compression="ZSTD")
    write("page-index", small(), write_page_index=True, write_statistics=True)
    write(
        "delta",
        small(),
        use_dictionary=False,
        column_encoding={
            "id": "DELTA_BYTE_ARRAY",
            "text": "DELTA_LENGTH_BYTE_ARRAY",
            "number": "DELTA_BINARY_PACKED",
            "real": "BYTE_STREAM_SPLIT",
            "vector.list.element": "BYTE_STREAM_SPLIT",
        },
    )
    times = {k: v for k, v in all_types().items() if k in ("id", "vector", "time_us")}
    write("int96", times, use_deprecated_int96_timestamps=True)
    integers = small()
    integers["id"] = pa.array(range(ROWS), type=pa.int32())
    write("integer-id", integers)
    renamed = small()
    renamed["embedding"] = renamed.pop("vector")
    renamed["name"] = renamed.pop("id")
    write("other-names", renamed)
    write("no-rows", pa.table(small()).slice(0, 0))
    con = duckdb.connect()
    con.register("t", pa.table(small()))
    con.execute(f"copy t to '{OUT}/duckdb.parquet' (format parquet, compression snappy)")
    con.register("u", pa.table(small(pa.list_(pa.float32(), DIMENSION))))
    con.execute(
        f"copy u to '{OUT}/duckdb-v2.parquet' (format parquet, compression zstd, parquet_version v2)"
    )


def bad():
    """Files that the test expects to fail, by row and status."""
    vector = pa.list_(pa.float32())
    values = vectors(vector).to_pylist()

    def with_row(row, value):
        return replaced("vector", values[:row] + [value] + values[row + 1 :], vector)

    write("bad-short", with_row(41, [1.0, 2.0, 3.0]))
    write("bad-long", with_row(41, [1.0, 2.0, 3.0, 4.0, 5.0]))
    write("bad-long-last", with_row(59, [1.0] * 5))
    write("bad-short-groups", with_row(41, [1.0]), row_group_size=7)
    write("bad-null-vector", with_row(41, None))
    write("bad-empty-vector", with_row(41, []))
    write("bad-null-value", with_row(41, [1.0, None, 3.0, 4.0]))
    write("bad-nan", with_row(41, [1.0, float("nan"), 3.0, 4.0]))
    big = small(pa.list_(pa.float64()))
    rows = big["vector"].to_pylist()
    rows[41][2] = 1e300
    big["vector"] = pa.array(rows, type=pa.list_(pa.float64()))
    write("bad-double", big)
    ids = [f"row-{i}" for i in range(ROWS)]
    write("bad-null-id", replaced("id", ids[:41] + [None] + ids[42:], pa.string()))
    write("bad-empty-id", replaced("id", ids[:41] + [""] + ids[42:], pa.string()))
    write("bad-long-id", replaced("id", ids[:41] + ["x" * 513] + ids[42:], pa.string()))
    u64 = [0] * 41 + [2**63] + [0] * 18
    write("bad-uint64", replaced("number", u64, pa.uint64()))
    times = [0] * 41 + [2**62] + [0] * 18
    write("bad-time", replaced("number", times, pa.timestamp("ms")))
    json = ["{}"] * 41 + ["[1]"] + ["{}"] * 18
    write("bad-attributes", replaced("attributes", json, pa.string()))
    # pyarrow ends this column with an empty page, which carquet does not read
    write("bad-empty-page", small(), data_page_size=64, write_batch_size=4, compression="SNAPPY")
    write("bad-no-vector", {"id": small()["id"], "number": small()["number"]})
    two = small()
    two["a"], two["b"] = two["vector"], two.pop("vector")
    write("bad-two-vectors", two)
    write("bad-id-type", replaced("id", [0.5] * ROWS, pa.float64()))


if __name__ == "__main__":
    OUT.mkdir(parents=True, exist_ok=True)
    for old in OUT.glob("*.parquet"):
        old.unlink()
    good()
    bad()
