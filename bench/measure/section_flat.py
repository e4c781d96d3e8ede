"""flat: exact search of one query by one thread, against faiss and against reading the bytes.

The rows lie in a lake on disk (page cache warm) and are searched through vex_search with exact
set; faiss has them in its own memory. Rounds alternate: a batch of queries by VexLake, the same by
faiss, then the bytes read once by a loop that does nothing else. Medians over all queries."""

import time

import faiss
import numpy

import common

ROWS, DIMENSION, QUERIES, ROUNDS, BATCH, K = 100_000, 384, 200, 15, 4, 10


def faiss_run(index, queries, first):
    wall, cpu = [], time.process_time_ns()
    for i in range(first, first + BATCH):
        start = time.perf_counter_ns()
        index.search(queries[i:i + 1], K)
        wall.append(time.perf_counter_ns() - start)
    return wall, time.process_time_ns() - cpu


def measure():
    rows = common.scaled(ROWS)
    section = common.Section("flat", f"{rows:,} x {DIMENSION} float32, normal, seed 1; k {K}; "
                             "one thread, one query at a time")
    random = numpy.random.default_rng(1)
    vectors = random.standard_normal((rows, DIMENSION), dtype=numpy.float32)
    queries = random.standard_normal((QUERIES, DIMENSION), dtype=numpy.float32)
    common.DATA.mkdir(parents=True, exist_ok=True)
    numpy.save(common.DATA / "flat.npy", vectors)
    queries.tofile(common.DATA / "flat-queries.f32")
    faiss.omp_set_num_threads(1)
    size = vectors.nbytes // 4096 * 4096
    for metric, make in (("l2", faiss.IndexFlatL2), ("ip", faiss.IndexFlatIP)):
        lake = common.fresh(common.OUT / f"lake-flat-{metric}")
        common.import_into(lake, "flat", "--index", "flat", "--metric", metric,
                           common.DATA / "flat.npy")
        index = make(DIMENSION)
        index.add(vectors)
        times = {name: [] for name in ("vexlake", "faiss", "memory", "mapped")}
        cpu = dict.fromkeys(("vexlake", "faiss", "memory", "mapped"), 0)
        with common.Driver(lake, "flat", common.DATA / "flat-queries.f32", DIMENSION) as driver:
            driver.ask("load", common.DATA / "flat.npy", size)
            found = driver.search(0, 20, K, exact=True, ids=True)["ids"]
            _, expected = index.search(queries[:20], K)
            same = sum(found[i] == [str(n) for n in expected[i]] for i in range(20))
            for round_ in range(ROUNDS):
                first = round_ * BATCH % QUERIES
                answer = driver.search(first, BATCH, K, exact=True)
                times["vexlake"] += answer["wall_ns"]
                cpu["vexlake"] += answer["cpu_ns"]
                wall, used = faiss_run(index, queries, first)
                times["faiss"] += wall
                cpu["faiss"] += used
                for place in ("memory", "mapped"):
                    best = min((driver.ask("sum", place, width) for width in (1, 2, 4)),
                               key=lambda answer: answer["wall_ns"][0])
                    times[place] += best["wall_ns"]
                    cpu[place] += best["cpu_ns"]
        count = ROUNDS * BATCH
        best = {name: min(values) / 1e6 for name, values in times.items()}
        middle = {name: common.median(values) / 1e6 for name, values in times.items()}
        mean_cpu = {"vexlake": cpu["vexlake"] / count / 1e6, "faiss": cpu["faiss"] / count / 1e6,
                    "memory": cpu["memory"] / ROUNDS / 1e6, "mapped": cpu["mapped"] / ROUNDS / 1e6}
        for name, what in (("vexlake", "vex_search, exact"), ("faiss", "faiss flat index"),
                           ("memory", "reading the bytes, memory"),
                           ("mapped", "reading the bytes, mapped file")):
            section.line(f"{metric}: {what}", middle[name], "ms", note=f"CPU {mean_cpu[name]:.3g} ms,"
                         f" best {best[name]:.3g} ms, {size / middle[name] / 1e6:.3g} GB/s")
        ratio = middle["vexlake"] / middle["faiss"]
        bound = middle["vexlake"] / middle["memory"]
        section.line(f"{metric}: time / faiss", ratio, "x", "<= 1.1", ratio <= 1.1)
        section.line(f"{metric}: CPU time / faiss", mean_cpu["vexlake"] / mean_cpu["faiss"], "x")
        section.line(f"{metric}: time / reading the bytes", bound, "x")
        section.line(f"{metric}: queries of 20 with faiss' ids in faiss' order", same, "")
        section.raw[metric] = {"wall_ns": times, "cpu_ns": cpu}
    section.command([common.DRIVER, "serve", "LAKE", "flat", "QUERIES", DIMENSION, 1])
    return section
