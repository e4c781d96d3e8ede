"""imports: Parquet files into a collection, and the memory that import and flush take.

pyarrow writes the files as other programs would: `id` string and `vector` list<float>, zstd and
its other defaults. With INDEX flat the whole call is reading, checking, writing and committing;
INDEX ivf adds clustering. Memory is anonymous memory, sampled every millisecond: the input is
mapped, and its pages belong to the page cache."""

import pathlib
import shutil

import numpy
import pyarrow
import pyarrow.parquet
import redis

import common

DIMENSION, SPEED_ROWS, BASE_ROWS, ROUNDS = 128, 1_000_000, 200_000, 3
FLUSH_MIB = 8


def make_file(path, rows, seed=1):
    """Rows of unit-scale normal values around 1,000 centres."""
    if path.exists():
        return
    path.parent.mkdir(parents=True, exist_ok=True)
    random = numpy.random.default_rng(seed)
    centres = random.standard_normal((1000, DIMENSION), dtype=numpy.float32)
    schema = pyarrow.schema([("id", pyarrow.string()), ("vector", pyarrow.list_(pyarrow.float32()))])
    part = path.with_suffix(".part")
    with pyarrow.parquet.ParquetWriter(part, schema, compression="zstd") as writer:
        for first in range(0, rows, 100_000):
            count = min(100_000, rows - first)
            vectors = centres[random.integers(0, 1000, count)]
            vectors = vectors + 0.5 * random.standard_normal((count, DIMENSION), dtype=numpy.float32)
            offsets = numpy.arange(0, (count + 1) * DIMENSION, DIMENSION, dtype=numpy.int32)
            writer.write_table(pyarrow.table([
                pyarrow.array([f"row-{i:09d}" for i in range(first, first + count)]),
                pyarrow.ListArray.from_arrays(offsets, vectors.ravel())], schema=schema))
    part.rename(path)


def one_import(path, index):
    lake = common.fresh(common.OUT / "lake-import")
    answer = common.json.loads(common.run([common.DRIVER, "import", lake, "c", index, path]))
    shutil.rmtree(lake)
    return answer


def flush_peak(rows):
    """Peak anonymous memory of a server that takes rows as fast as it can and flushes as it goes."""
    lake = common.fresh(common.OUT / "lake-flush")
    port = common.free_port()
    with common.vexlake_server(lake, port, "--flush-size", f"{FLUSH_MIB}mb") as process:
        client = redis.Redis(port=port)
        client.execute_command("VCREATE", "bench", "DIM", DIMENSION)
        peak = common.AnonymousPeak(process.pid)
        common.run([common.DRIVER, "vset", "127.0.0.1", port, "bench", DIMENSION, rows, 8, 64])
        client.execute_command("VFLUSH", "bench")
        peak = peak.stop()
    size = sum(f.stat().st_size for f in pathlib.Path(lake).rglob("*.parquet"))
    shutil.rmtree(lake)
    return peak, size


def measure():
    rows, base = common.scaled(SPEED_ROWS), common.scaled(BASE_ROWS)
    section = common.Section("imports", f"Parquet by pyarrow (zstd), id string + {DIMENSION} float32")
    path = common.DATA / f"import-{rows}.parquet"
    make_file(path, rows)
    size = path.stat().st_size
    for index, rounds in (("flat", ROUNDS), ("ivf", 2)):
        runs = [one_import(path, index) for _ in range(rounds)]
        middle = sorted(runs, key=lambda run: run["wall_ns"][0])[len(runs) // 2]
        seconds = middle["wall_ns"][0] / 1e9
        cpu = common.median([run["cpu_ns"] for run in runs]) / 1e9
        flat = index == "flat"
        section.line(f"import of {rows:,} rows ({size / 1e6:,.0f} MB), INDEX {index}", rows / seconds,
                     "rows/s", ">= 200,000" if flat else None,
                     rows / seconds >= 200_000 if flat else None,
                     f"{seconds:.3g} s: reading {middle['reading_ns'] / 1e9:.3g}, building "
                     f"{middle['building_ns'] / 1e9:.3g}, committing "
                     f"{middle['committing_ns'] / 1e9:.3g}; CPU {cpu:.3g} s = "
                     f"{rows / cpu:,.0f} rows a CPU second")
        section.raw[f"speed {index}"] = runs
    peaks = []
    for count in (3 * base, 10 * base):  # both more than a segment
        file = common.DATA / f"import-{count}.parquet"
        make_file(file, count)
        answer = one_import(file, "ivf")
        peaks.append(answer["anonymous_max"])
        section.line(f"peak memory of importing {count:,} rows ({file.stat().st_size / 1e6:,.0f} MB)",
                     peaks[-1] / 2**20, "MiB", note=f"{answer['resident_max'] / 2**20:,.0f} MiB with "
                     "mapped pages")
        section.raw[f"memory {count}"] = answer
    section.line("peak of the larger import / the smaller", peaks[1] / peaks[0], "x", "<= 1.5",
                 peaks[1] / peaks[0] <= 1.5)
    peaks = []
    for count in (base, 10 * base):
        peak, size = flush_peak(count)
        peaks.append(peak)
        section.line(f"peak memory of the server writing {count:,} rows, flushing each {FLUSH_MIB} MiB",
                     peak / 2**20, "MiB", note=f"{peak / 2**20 / FLUSH_MIB:.3g} x flush size; "
                     f"{size / 1e6:,.0f} MB of Parquet")
        section.raw[f"flush {count}"] = peak
    section.line("peak of the longer writing / the shorter", peaks[1] / peaks[0], "x", "<= 1.5",
                 peaks[1] / peaks[0] <= 1.5)
    section.command([common.DRIVER, "import", "LAKE", "c", "flat|ivf", path])
    return section
