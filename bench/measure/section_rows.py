"""rows: what fetching the winners' columns touches.

Rows have every kind of column. Figures are vex_search_stats: pages decoded and their bytes, first
for each column alone, then for all together. Vectors and values are random and the index is flat,
so the ten winners of a query lie anywhere: no two share a page but by chance, which is the worst
case. With IVF, winners of one list share pages."""

import numpy
import pyarrow
import pyarrow.parquet

import common

ROWS, DIMENSION, QUERIES, K = 50_000, 128, 100, 10
PAYLOAD = 2048
COLUMNS = ("attributes", "payload", "title", "count", "price", "shown", "made")


def make_file(path, rows):
    random = numpy.random.default_rng(3)
    vectors = random.standard_normal((rows, DIMENSION), dtype=numpy.float32)
    words = numpy.array(["lake", "river", "stone", "index", "vector", "cloud", "north", "paper"])
    titles = [" ".join(words[random.integers(0, 8, 8)]) + f" {i}" for i in range(rows)]
    attributes = [f'{{"n": {i}, "tags": ["{titles[i]}"], "score": {random.random():.12f}}}'
                  for i in range(rows)]
    payload = random.bytes(rows * PAYLOAD)
    table = pyarrow.table({
        "id": pyarrow.array([str(i) for i in range(rows)]),
        "vector": pyarrow.FixedSizeListArray.from_arrays(pyarrow.array(vectors.ravel()), DIMENSION),
        "attributes": pyarrow.array(attributes),
        "payload": pyarrow.array([payload[i * PAYLOAD:(i + 1) * PAYLOAD] for i in range(rows)],
                                 pyarrow.binary()),
        "title": pyarrow.array(titles),
        "count": pyarrow.array(random.integers(0, 2**62, rows)),
        "price": pyarrow.array(random.random(rows)),
        "shown": pyarrow.array(random.random(rows) < 0.5),
        "made": pyarrow.array(random.integers(0, 2**50, rows), pyarrow.timestamp("us", "UTC")),
    })
    pyarrow.parquet.write_table(table, path)
    random.standard_normal((QUERIES, DIMENSION), dtype=numpy.float32).tofile(
        path.with_suffix(".f32"))


def measure():
    rows = common.scaled(ROWS)
    section = common.Section("rows", f"{rows:,} rows of {DIMENSION} floats, {PAYLOAD} bytes of payload,"
                             f" attributes and five typed columns; {QUERIES} queries, k {K}")
    common.DATA.mkdir(parents=True, exist_ok=True)
    path = common.DATA / "rows.parquet"
    make_file(path, rows)
    for index in ("flat", "ivf"):
        lake = common.fresh(common.OUT / f"lake-rows-{index}")
        common.import_into(lake, "c", "--index", index, path)
        files = sum(f.stat().st_size for f in lake.rglob("*.parquet"))
        with common.Driver(lake, "c", path.with_suffix(".f32"), DIMENSION, threads=1) as driver:
            plain = driver.search(0, QUERIES, K)
            section.line(f"{index}: pages decoded without RETURN", plain["pages"], "", "= 0",
                         plain["pages"] == 0)
            worst = 0
            for column in COLUMNS:
                answer = driver.search(0, QUERIES, K, columns=column)
                each = answer["read_bytes"] / QUERIES / K
                worst = max(worst, each)
                section.line(f"{index}: {column}", each / 1024, "KiB/row", "< 16", each < 16384,
                             f"{answer['pages'] / QUERIES:.3g} pages a query")
                section.raw[f"{index} {column}"] = {k: v for k, v in answer.items() if k != "wall_ns"}
            answer = driver.search(0, QUERIES, K, columns=",".join(COLUMNS))
            each = answer["read_bytes"] / QUERIES / K
            share = answer["read_bytes"] / QUERIES / files * 100
            took = (common.median(answer["wall_ns"]) - common.median(plain["wall_ns"])) / 1e6
            section.line(f"{index}: all {len(COLUMNS)} columns", each / 1024, "KiB/row", "<= 64",
                         each <= 65536, f"{took:.3g} ms more than the search alone")
            section.line(f"{index}: all columns, share of the {files / 1e6:,.0f} MB", share, "%", "<= 10",
                         share <= 10)
            section.raw[f"{index} all"] = {k: v for k, v in answer.items() if k != "wall_ns"}
    section.command([common.DRIVER, "serve", "LAKE", "c", "QUERIES", DIMENSION, 1])
    return section
