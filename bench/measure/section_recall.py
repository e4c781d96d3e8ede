"""recall: IVF against exact search over real sentence embeddings.

20,000 package descriptions and 500 queries that are not among them, cosine. The data are not part
of the repository: VEXLAKE_DATA names the folder that has debian-packages.parquet and
queries-384.npy; without them the sample in examples/ stands in, with its own rows as queries."""

import os
import pathlib

import numpy
import pyarrow.parquet

import common

K, DIMENSION, ROUNDS = 10, 384, 3


def inputs():
    folder = pathlib.Path(os.environ.get("VEXLAKE_DATA", common.ROOT.parent / "shared" / "data"))
    path = folder / "debian-packages.parquet"
    if path.exists():
        return path, numpy.load(folder / "queries-384.npy").astype(numpy.float32)
    path = common.ROOT / "examples" / "packages.parquet"
    column = pyarrow.parquet.read_table(path, columns=["vector"])["vector"].combine_chunks()
    return path, column.flatten().to_numpy().reshape(len(column), -1)[:500].astype(numpy.float32)


def measure():
    path, queries = inputs()
    common.DATA.mkdir(parents=True, exist_ok=True)
    queries.tofile(common.DATA / "recall-queries.f32")
    lake = common.fresh(common.OUT / "lake-recall")
    common.import_into(lake, "packages", "--metric", "cosine", "--index", "ivf", path)
    count = len(queries)
    section = common.Section("recall", f"{path.name}, {count} queries, cosine, k {K}, one thread")
    with common.Driver(lake, "packages", common.DATA / "recall-queries.f32", DIMENSION) as driver:
        exact = driver.search(0, count, K, exact=True, ids=True)
        truth = [set(ids) for ids in exact["ids"]]

        def recall(nprobe):
            answers = [driver.search(0, count, K, nprobe=nprobe, ids=True) for _ in range(ROUNDS)]
            found = sum(len(set(ids) & want) for ids, want in zip(answers[0]["ids"], truth))
            times = sorted(min(answers, key=lambda a: sum(a["wall_ns"]))["wall_ns"])
            first = answers[0]
            return {"nprobe": nprobe, "recall": found / count / K,
                    "median_ms": times[count // 2] / 1e6, "p99_ms": times[count * 99 // 100] / 1e6,
                    "cpu_ms": min(a["cpu_ns"] for a in answers) / count / 1e6,
                    "lists": first["lists"] / count, "rows": first["rows"] / count,
                    "ivf_segments": first["ivf_segments"] / count}

        default = recall(0)
        section.line("recall@10, default nprobe", default["recall"], "", ">= 0.95",
                     default["recall"] >= 0.95, f"{default['lists']:.3g} lists, "
                     f"{default['rows']:,.0f} rows, median {default['median_ms']:.3g} ms, CPU "
                     f"{default['cpu_ms']:.3g} ms")
        curve = [recall(nprobe) for nprobe in (1, 2, 4, 8, 16, 32, 64)]
        for point in curve:
            section.line(f"recall@10, nprobe {point['nprobe']}", point["recall"], "",
                         note=f"{point['rows']:,.0f} rows, median {point['median_ms']:.3g} ms, CPU "
                         f"{point['cpu_ms']:.3g} ms")
        times = sorted(exact["wall_ns"])
        section.line("exact", 1.0, "", note=f"median {times[count // 2] / 1e6:.3g} ms, CPU "
                     f"{exact['cpu_ns'] / count / 1e6:.3g} ms")
        section.raw = {"default": default, "curve": curve}
    section.command([common.VEXLAKE, "import", "--lake", "LAKE", "--into", "packages", "--metric",
                     "cosine", "--index", "ivf", path.name])
    return section
