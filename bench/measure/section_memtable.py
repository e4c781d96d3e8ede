"""memtable: a search over a full memtable of 64 MiB, 128 dimensions, in process."""

import common
import vectorsets
import peers

LIMIT, FULL, STEP, ROUNDS = 64 << 20, 0.97, 2000, 5
TARGET_MS = 1


def measure():
    data = vectorsets.get("sift-1m")
    lake = common.fresh(common.OUT / "lake-memtable")
    section = common.Section("memtable", "SIFT descriptors, 128-d, k 10, one thread, RECALL 0.95")
    with common.Driver(lake, "c", data.queries_path, data.dimension) as driver:
        driver.ask("make", "l2", "ivf", 0, 0)
        rows, info, put = 0, {"memtable_size_bytes": 0, "flushes": 0}, 0
        while info["memtable_size_bytes"] < FULL * LIMIT:
            put += driver.ask("put", data.rows_path, rows, STEP)["cpu_ns"]
            rows += STEP
            info = driver.ask("info")
            if info["flushes"]:
                raise RuntimeError(f"flushed at {rows} rows")
        count = driver.count
        exact = driver.search(0, count, peers.K, exact=True, ids=True)
        answers = [driver.search(0, count, peers.K, recall=0.95, ids=True) for _ in range(ROUNDS)]
    found = sum(len(set(a) & set(b)) for a, b in zip(answers[0]["ids"], exact["ids"]))
    middle = common.median([common.median(a["wall_ns"]) for a in answers]) / 1e6
    cpu = common.median([a["cpu_ns"] / count for a in answers]) / 1e6
    section.line(f"search over {rows:,} rows ({info['memtable_size_bytes'] / 2**20:.3g} MiB)", middle,
                 "ms", f"< {TARGET_MS}", middle < TARGET_MS, f"CPU {cpu:.3g} ms; recall "
                 f"{found / count / peers.K:.4f}; {answers[0]['codes'] / count:,.0f} codes and "
                 f"{answers[0]['rows'] / count:,.0f} rows compared")
    section.line("exact, the same", common.median(exact["wall_ns"]) / 1e6, "ms")
    section.line("putting a row (log, memtable, code)", put / rows / 1e3, "us of CPU")
    section.raw = {"info": info, "rows": rows}
    section.command([common.DRIVER, "serve", "LAKE", "c", "QUERIES", data.dimension, 1])
    return section
