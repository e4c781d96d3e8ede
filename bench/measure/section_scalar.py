"""scalar: the same searches with the kernels of other instruction sets forced, in turns.

VEXLAKE_KERNEL=scalar is compiled without auto-vectorisation: what a host that computes without
SIMD would do. Speed is queries per CPU-second."""

import common
import vectorsets
import ours
import peers

SET, RECALL, ROUNDS = "sift-200k", 0.95, 3
KERNELS = ("scalar", "avx2", None)
CASES = (("flat", "ivf", {"exact": True}, 20, 2), ("IVF", "ivf", {"recall": RECALL}, 1000, 4),
         ("packed HNSW", "hnsw", {"recall": RECALL}, 1000, 4))


def measure():
    data = vectorsets.get(SET)
    section = common.Section("scalar", f"{SET}, k {peers.K}, one thread, one query a call, RECALL "
                             f"{RECALL}; kernels forced by VEXLAKE_KERNEL")
    for what, index, parameters, count, least in CASES:
        path, _ = ours.lake(data, index)
        speeds, seen = {kernel: [] for kernel in KERNELS}, {}
        for _ in range(ROUNDS):
            for kernel in KERNELS:
                # A lake has one process at a time.
                with common.Driver(path, "c", data.queries_path, data.dimension, 1, kernel) as driver:
                    driver.ask("wait")
                    driver.search(0, max(5, count // 10), peers.K, **parameters)
                    answer = driver.search(0, count, peers.K, **parameters)
                    speeds[kernel].append(count * 1e9 / answer["cpu_ns"])
                    seen[kernel] = answer
        middle = {kernel: common.median(values) for kernel, values in speeds.items()}
        for kernel in KERNELS:
            section.line(f"{what}: {kernel or 'chosen by the machine'}", middle[kernel], "/CPU-s",
                         note=f"{seen[kernel]['graph_segments'] / count:.3g} graphs, "
                         f"{seen[kernel]['codes'] / count:,.0f} codes, "
                         f"{seen[kernel]['rows'] / count:,.0f} rows a query")
        ratio = middle["avx2"] / middle["scalar"]
        section.line(f"{what}: avx2 / scalar", ratio, "x", f">= {least}", ratio >= least)
        section.raw[what] = {str(kernel): values for kernel, values in speeds.items()}
    section.command(["VEXLAKE_KERNEL=scalar|avx2", common.DRIVER, "serve", "LAKE", "c", "QUERIES",
                     data.dimension, 1])
    return section
