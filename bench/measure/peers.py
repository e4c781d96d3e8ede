"""Other libraries under the same queries: hnswlib, faiss, usearch, rabitqlib, pyvsag.

    peers.py list                        names of all peers, as PEER below
    peers.py curve SET PEER...           build (or load), then print the recall/QPS curve as JSON
    peers.py table SET [PEER...]         measure what is not in the cache, then print a table
    peers.py build SET PEER              build anew, keep nothing, print what it cost
    peers.py serve SET PEER              build or load, then obey lines on stdin, so that runs
                                         alternate with those of others: `run PARAMETERS`, with
                                         PARAMETERS as JSON; answers are JSON, a line each

Each peer runs in a process of its own, on one thread. Speed is queries per second of the process'
CPU time, in two ways. `single`: the library sees one query at a time. A call through Python costs
microseconds that no C user would pay; so where the library merely loops over the queries of a call,
all are given in one, and faiss is called with prepared pointers. `batch`: one call for all 1,000
queries, where that lets the library share work between them (faiss' IVF, SymphonyQG's search_batch).
Built indexes and their costs stay in the cache folder of vectorsets.py, in peers/; so do the curves,
under set, peer, versions and CPU.
"""

import hashlib
import importlib.metadata
import json
import os
import pathlib
import re
import subprocess
import sys
import time

for name in ("OMP_NUM_THREADS", "OPENBLAS_NUM_THREADS"):
    os.environ.setdefault(name, "1")

import numpy as np

import vectorsets

K = 10
REPEATS = 2
BUILD_THREADS = int(os.environ.get("BENCH_BUILD_THREADS", "2"))
EF = (10, 12, 16, 20, 24, 32, 40, 48, 64, 80, 96, 128, 160, 200, 256, 320, 400, 512, 800, 1200)
NPROBE = (1, 2, 4, 6, 8, 12, 16, 20, 24, 32, 40, 48, 64, 80, 96, 128, 160, 192, 256, 384, 512, 768,
          1024)


class Peer:
    """One library with one setting of its build."""

    package = ""

    def build(self, rows): ...
    def save(self, path): ...
    def load(self, path, rows): ...
    def parameters(self, count): ...
    def set(self, parameters): ...

    def one(self, query):
        """Answer of one query, 1 x dimension."""

    loop = None   # many queries, one after the other within the library
    batch = None  # many queries together


class Hnswlib(Peer):
    package = "hnswlib"

    def __init__(self, degree, ef=200):
        self.degree, self.ef = degree, ef

    def _new(self, dimension):
        import hnswlib
        return hnswlib.Index("l2", dimension)

    def build(self, rows):
        self.index = self._new(rows.shape[1])
        self.index.init_index(len(rows), M=self.degree, ef_construction=self.ef)
        self.index.add_items(rows, num_threads=BUILD_THREADS)

    def save(self, path):
        self.index.save_index(str(path))

    def load(self, path, rows):
        self.index = self._new(rows.shape[1])
        self.index.load_index(str(path))

    def parameters(self, count):
        return [{"ef": ef} for ef in EF]

    def set(self, parameters):
        self.index.set_num_threads(1)
        self.index.set_ef(parameters["ef"])

    def one(self, query):
        return self.index.knn_query(query, K, num_threads=1)[0]

    loop = one


class Faiss(Peer):
    package = "faiss-cpu"

    def __init__(self, recipe, train=None):
        self.recipe = recipe

    def _make(self, dimension):
        import faiss
        return faiss.index_factory(dimension, self.recipe)

    def build(self, rows):
        import faiss
        faiss.omp_set_num_threads(BUILD_THREADS)
        self.index = self._make(rows.shape[1])
        self._prepare()
        self._prepare_lists(rows)
        if not self.index.is_trained:
            self.index.train(np.ascontiguousarray(rows[:1_000_000]))
        for at in range(0, len(rows), 500_000):
            self.index.add(np.ascontiguousarray(rows[at:at + 500_000]))
        faiss.omp_set_num_threads(1)

    def _prepare(self):
        pass

    def _prepare_lists(self, rows):
        pass

    def save(self, path):
        import faiss
        faiss.write_index(self.index, str(path))

    def load(self, path, rows):
        import faiss
        faiss.omp_set_num_threads(1)
        self.index = faiss.read_index(str(path))

    def prepare(self, queries):
        """Pointers, so that a call costs what it would cost from C++, nearly."""
        import faiss
        self.distances = np.empty((1, K), np.float32)
        self.ids = np.empty((1, K), np.int64)
        self.out = faiss.swig_ptr(self.distances), faiss.swig_ptr(self.ids)
        self.at = {q.ctypes.data: faiss.swig_ptr(q) for q in queries}

    def one(self, query):
        self.index.search_c(1, self.at[query.ctypes.data], K, *self.out)
        return self.ids

    def many(self, queries):
        return self.index.search(queries, K)[1]


class FaissHnsw(Faiss):
    def __init__(self, degree, ef=200):
        super().__init__(f"HNSW{degree},Flat")
        self.ef = ef

    def _prepare(self):
        self.index.hnsw.efConstruction = self.ef

    def parameters(self, count):
        return [{"ef": ef} for ef in EF]

    def set(self, parameters):
        self.index.hnsw.efSearch = parameters["ef"]

    loop = Faiss.many


class FaissIvf(Faiss):
    """An IVF over short codes, and the stored float32 rows that refine its candidates."""

    def _prepare_lists(self, rows):
        """Plain training of this many lists takes an hour. So: faiss' own clustering in two levels,
        then two rounds of Lloyd's algorithm over all lists."""
        import faiss
        from faiss.contrib.clustering import two_level_clustering
        if self.lists < 16384:
            return
        sample = np.ascontiguousarray(rows[:40 * self.lists])
        found = two_level_clustering(sample, 128, self.lists, clustering_niter=10)
        centroids = found[0] if isinstance(found, tuple) else found
        lloyd = faiss.Kmeans(rows.shape[1], self.lists, niter=2, max_points_per_centroid=40)
        lloyd.train(sample, init_centroids=centroids)
        ivf = faiss.extract_index_ivf(self.index.base_index)
        ivf.quantizer.add(lloyd.centroids)

    def __init__(self, lists, codes, factors, routing=""):
        super().__init__(f"IVF{lists}{routing},{codes},RFlat")
        self.lists, self.factors = lists, factors

    def parameters(self, count):
        return [{"nprobe": n, "k_factor": f} for f in self.factors for n in NPROBE
                if n <= self.lists]

    def set(self, parameters):
        import faiss
        self.index.k_factor = parameters["k_factor"]
        ivf = faiss.extract_index_ivf(self.index.base_index)
        ivf.nprobe = parameters["nprobe"]
        routing = faiss.downcast_index(ivf.quantizer)
        if hasattr(routing, "hnsw"):
            routing.hnsw.efSearch = max(2 * parameters["nprobe"], 16)

    batch = Faiss.many


class Usearch(Peer):
    package = "usearch"

    def __init__(self, degree, kind, ef=200):
        self.degree, self.kind, self.ef = degree, kind, ef

    def build(self, rows):
        from usearch.index import Index
        self.index = Index(ndim=rows.shape[1], metric="l2sq", dtype=self.kind,
                           connectivity=self.degree, expansion_add=self.ef)
        self.index.add(np.arange(len(rows)), rows, threads=BUILD_THREADS)

    def save(self, path):
        self.index.save(str(path))

    def load(self, path, rows):
        from usearch.index import Index
        self.index = Index.restore(str(path))

    def parameters(self, count):
        return [{"ef": ef} for ef in EF]

    def set(self, parameters):
        self.index.expansion_search = parameters["ef"]

    def one(self, query):
        return self.index.search(query[0], K, threads=1).keys[None]

    def loop(self, queries):
        return self.index.search(queries, K, threads=1).keys


class SymphonyQg(Peer):
    package = "rabitqlib"

    def __init__(self, degree, bits, ef=200):
        self.degree, self.bits, self.ef = degree, bits, ef

    def build(self, rows):
        import rabitqlib
        self.index = rabitqlib.SymqgIndex(rows.shape[1], self.degree, "l2", self.bits)
        self.index.build(rows, self.ef, BUILD_THREADS)

    def save(self, path):
        self.index.save(str(path))

    def load(self, path, rows):
        import rabitqlib
        self.index = rabitqlib.SymqgIndex.load(str(path))

    def parameters(self, count):
        return [{"ef": ef} for ef in EF]

    def set(self, parameters):
        self.ef_search = parameters["ef"]

    def one(self, query):
        return self.index.search(query, K, self.ef_search, 1)[0]

    loop = one

    def batch(self, queries):
        return self.index.search_batch(queries, K, self.ef_search, 1)[0]


class RabitqHnsw(Peer):
    package = "rabitqlib"

    def __init__(self, degree, bits, ef=200):
        self.degree, self.bits, self.ef = degree, bits, ef

    def build(self, rows):
        import rabitqlib
        means = rabitqlib.RaBitQKMeans(rows.shape[1], 16, num_threads=BUILD_THREADS)
        means.train(rows)
        self.index = rabitqlib.HnswIndex(rows.shape[1], len(rows), self.degree, self.ef, self.bits)
        self.index.build(rows, means.centroids, means.assignments, BUILD_THREADS)

    def save(self, path):
        self.index.save(str(path))

    def load(self, path, rows):
        import rabitqlib
        self.index = rabitqlib.HnswIndex.load(str(path))

    def parameters(self, count):
        return [{"ef": ef} for ef in EF]

    def set(self, parameters):
        self.ef_search = parameters["ef"]

    def one(self, query):
        return self.index.search(query, K, self.ef_search, 1)[0]

    loop = one


class RabitqIvf(Peer):
    package = "rabitqlib"

    def __init__(self, lists, bits, routing="auto"):
        self.lists, self.bits, self.routing = lists, bits, routing

    def build(self, rows):
        import rabitqlib
        means = rabitqlib.RaBitQKMeans(
            rows.shape[1], self.lists, num_threads=BUILD_THREADS,
            final_assignment=rabitqlib.FinalAssignmentMode.Exact)
        means.train(rows)
        self.index = rabitqlib.IvfIndex(rows.shape[1], len(rows), self.lists, self.bits, "l2",
                                        self.routing)
        self.index.build(rows, means.centroids, means.assignments, BUILD_THREADS)

    def save(self, path):
        self.index.save(str(path))

    def load(self, path, rows):
        import rabitqlib
        self.index = rabitqlib.IvfIndex.load(str(path))

    def parameters(self, count):
        return [{"nprobe": n, "high_accuracy": h} for h in (None, True) for n in NPROBE
                if n <= self.lists]

    def set(self, parameters):
        self.nprobe, self.high = parameters["nprobe"], parameters["high_accuracy"]

    def one(self, query):
        return self.index.search(query, K, self.nprobe, self.high, 1)[0]

    loop = one


class Vsag(Peer):
    package = "pyvsag"

    def __init__(self, degree, **index):
        self.index_parameters = {"max_degree": degree, "ef_construction": 400,
                                 "build_thread_count": BUILD_THREADS, **index}

    def _new(self, dimension):
        import pyvsag
        pyvsag.set_logger_off()
        return pyvsag.Index("hgraph", json.dumps({
            "dtype": "float32", "metric_type": "l2", "dim": dimension,
            "index_param": self.index_parameters}))

    def build(self, rows):
        self.index = self._new(rows.shape[1])
        self.index.build(rows.ravel(), np.arange(len(rows)), *rows.shape)

    def save(self, path):
        self.index.save(str(path))

    def load(self, path, rows):
        self.index = self._new(rows.shape[1])
        self.index.load(str(path))

    def parameters(self, count):
        return [{"ef": ef} for ef in EF]

    def set(self, parameters):
        self.text = json.dumps({"hgraph": {"ef_search": parameters["ef"]}})

    def one(self, query):
        return self.index.knn_search(query[0], K, self.text)[0][None]


REORDER = {"use_reorder": True, "precise_quantization_type": "fp32"}
PEERS = {
    "hnswlib-M16": lambda: Hnswlib(16),
    "hnswlib-M32": lambda: Hnswlib(32),
    "faiss-HNSW32": lambda: FaissHnsw(32),
    "usearch-M16-f32": lambda: Usearch(16, "f32"),
    "usearch-M16-bf16": lambda: Usearch(16, "bf16"),
    "symqg-32": lambda: SymphonyQg(32, 0),
    "symqg-64": lambda: SymphonyQg(64, 0),
    "symqg-32-8bit": lambda: SymphonyQg(32, 8),
    "rabitq-hnsw-M16-8bit": lambda: RabitqHnsw(16, 8),
    "vsag-sq8": lambda: Vsag(32, base_quantization_type="sq8_uniform", **REORDER),
    "vsag-rabitq": lambda: Vsag(32, base_quantization_type="rabitq", **REORDER),
}
for lists in (512, 1024, 2048, 4096, 8192, 16384):
    for m in (32, 64, 96, 192):
        PEERS[f"faiss-ivfpq-{lists}-{m}"] = lambda l=lists, m=m: FaissIvf(
            l, f"PQ{m}x4fs", (4, 8, 16, 32))
        PEERS[f"faiss-ivfpq-{lists}h-{m}"] = lambda l=lists, m=m: FaissIvf(
            l, f"PQ{m}x4fs", (4, 8, 16, 32), "_HNSW32")
    for bits in (1, 2, 4):
        code = "RaBitQfs" + ("" if bits == 1 else str(bits))
        PEERS[f"faiss-rabitq-{lists}-{bits}bit"] = lambda l=lists, c=code: FaissIvf(
            l, c, (2, 4, 8, 16, 32))
    for bits in (5, 9, 32):
        PEERS[f"rabitq-ivf-{lists}-{bits}bit"] = lambda l=lists, b=bits: RabitqIvf(l, b)


# ---- Measuring ----------------------------------------------------------------------------------


class Truth:
    """Counts answers that are among the k nearest; one as near as the k-th counts."""

    def __init__(self, data):
        self.rows, self.queries = data.rows(), data.queries()
        self.nearest = data.truth()[:, :K]
        last = np.array([self.rows[i[-1]] for i in self.nearest])
        self.limit = self._distance(last[:, None])[:, 0] * (1 + 1e-6) + 1e-12

    def _distance(self, rows):
        return ((rows.astype(np.float64) - self.queries[:, None]) ** 2).sum(2)

    def recall(self, ids):
        """ids: queries x k; missing ones are negative or beyond the rows."""
        found = 0
        for i, row in enumerate(np.asarray(ids).astype(np.int64)):
            row = np.unique(row[(row >= 0) & (row < len(self.rows))])
            known = np.isin(row, self.nearest[i])
            found += known.sum()
            other = row[~known]
            if len(other):
                distance = ((self.rows[other].astype(np.float64) - self.queries[i]) ** 2).sum(1)
                found += (distance <= self.limit[i]).sum()
        return found / (len(self.nearest) * K)


def cpu_model():
    text = pathlib.Path("/proc/cpuinfo").read_text()
    parts = [re.search(rf"^{n}\s*: (.*)$", text, re.M).group(1)
             for n in ("model name", "cpu family", "model")]
    return " ".join(parts)


def resident():
    text = pathlib.Path("/proc/self/status").read_text()
    return sum(int(re.search(rf"^{n}:\s*(\d+)", text, re.M).group(1)) * 1024
               for n in ("RssAnon",))


def cpu_s():
    times = os.times()
    return times.user + times.system


class Worker:
    """A peer that is built or loaded, and the queries."""

    def __init__(self, data, name):
        self.data, self.name, self.peer = data, name, PEERS[name]()
        self.truth = Truth(data)
        self.queries = np.ascontiguousarray(data.queries())
        home = vectorsets.folder() / "peers"
        home.mkdir(exist_ok=True)
        version = importlib.metadata.version(self.peer.package)
        path = home / f"{data.name}.{name}.{version}.index"
        notes = path.with_suffix(".json")
        self.version = f"{self.peer.package} {version}"
        if hasattr(self.peer, "prepare"):
            self.peer.prepare(self.queries)
        if notes.exists():
            before = resident()
            self.peer.load(path, data.rows())
            self.built = json.loads(notes.read_text()) | {"cached": True}
        else:
            rows = data.rows()
            if len(rows) <= 2_000_000:  # else memory would not hold it twice
                rows = np.array(rows)
            before, cpu, wall = resident(), time.process_time(), time.monotonic()
            self.peer.build(rows)
            self.built = {"cpu_s": time.process_time() - cpu, "wall_s": time.monotonic() - wall,
                          "memory_bytes": resident() - before, "load": os.getloadavg()[0]}
            self.peer.save(path)
            self.built["file_bytes"] = path.stat().st_size if path.exists() else 0
            notes.write_text(json.dumps(self.built) + "\n")
            self.built["cached"] = False

    def run(self, parameters, repeats=REPEATS):
        """Recall and speed, single and in a batch."""
        self.peer.set(parameters)
        count = len(self.queries)
        ids = np.empty((count, K), np.int64)
        rows = [self.queries[i:i + 1] for i in range(count)]
        for row in rows[:50]:
            self.peer.one(row)
        single, wall, batch = [], [], []
        for _ in range(repeats):
            start, begun = time.monotonic_ns(), time.process_time_ns()
            for i, row in enumerate(rows):
                ids[i] = self.peer.one(row)[0][:K]
            single.append((time.process_time_ns() - begun) / count)
            wall.append((time.monotonic_ns() - start) / count)
            for call, times in ((self.peer.loop, single), (self.peer.batch, batch)):
                if call:
                    begun = time.process_time_ns()
                    together = call(self.queries)
                    times.append((time.process_time_ns() - begun) / count)
        point = {"parameters": parameters, "recall": self.truth.recall(ids),
                 "qps": 1e9 / min(single), "wall_ns": min(wall)}
        if batch:
            point |= {"batch_recall": self.truth.recall(np.asarray(together)[:, :K]),
                      "batch_qps": 1e9 / min(batch)}
        return point

    def quick(self, parameters):
        """Recall of a fifth of the queries, to find the part of the curve that matters."""
        self.peer.set(parameters)
        ids = np.full((len(self.queries), K), -1, np.int64)
        some = range(0, len(self.queries), 5)
        for i in some:
            ids[i] = self.peer.one(self.queries[i:i + 1])[0][:K]
        return self.truth.recall(ids) * len(self.queries) / len(some)

    def curve(self, least=0.9, enough=0.993):
        """Points from recall `least` to the first that reaches `enough`, of each series: all values
        of `ef` or `nprobe` under the same other parameters."""
        found, over, begun, last = [], set(), set(), {}
        for parameters in self.peer.parameters(len(self.data.rows())):
            series = json.dumps({n: v for n, v in parameters.items() if n not in ("ef", "nprobe")})
            if series in over:
                continue
            if series not in begun:
                recall = self.quick(parameters)
                if recall < least - 0.01:
                    # More probes that find no more: the codes are at their limit.
                    if recall > 0.5 and recall < last.get(series, -1) + 1e-3:
                        over.add(series)
                    last[series] = recall
                    continue
                begun.add(series)
            point = self.run(parameters)
            if point["recall"] >= enough or point["recall"] < last.get(series, -1) + 3e-4:
                over.add(series)
            last[series] = point["recall"]
            found.append(point)
        return found


def batched(points):
    """The same curve as the batch call gives it; of single queries where there is none."""
    return [p | {"recall": p.get("batch_recall", p["recall"]),
                 "qps": max(p.get("batch_qps", 0), p["qps"])} for p in points]


def frontier(points):
    """Points that no other beats in both recall and speed, by rising recall."""
    best, kept = 0, []
    for point in sorted(points, key=lambda p: (-p["recall"], -p["qps"])):
        if point["qps"] > best:
            best = point["qps"]
            kept.append(point)
    return kept[::-1]


def qps_at(points, recall):
    """Speed at a recall: between two points of the frontier the logarithm of the speed is taken as
    linear in the logarithm of the error. None where the curve does not reach."""
    kept = frontier(points)
    if not kept or kept[-1]["recall"] < recall:
        return None
    above = next(p for p in kept if p["recall"] >= recall)
    below = [p for p in kept if p["recall"] < recall]
    if not below or above["recall"] == recall:
        return above["qps"]
    error = lambda p: np.log(max(1 - p["recall"], 1e-4))
    share = (np.log(1 - recall) - error(below[-1])) / (error(above) - error(below[-1]))
    return float(np.exp(np.log(below[-1]["qps"]) * (1 - share) + np.log(above["qps"]) * share))


# ---- The cache of curves ------------------------------------------------------------------------


def cache_path():
    return vectorsets.folder() / "peers" / "curves.json"


def cached():
    return json.loads(cache_path().read_text()) if cache_path().exists() else {}


def key_of(set_name, peer):
    version = importlib.metadata.version(PEERS[peer]().package)
    level = os.environ.get("FAISS_SIMD_LEVEL", "")
    return f"{set_name} | {peer} | {version} | {cpu_model()}{' | ' + level if level else ''}"


def measure(set_name, peer, again=False):
    """The curve of a peer, from the cache unless `again`; in a process of its own."""
    known = cached()
    key = key_of(set_name, peer)
    if key in known and not again:
        return known[key]
    done = subprocess.run([sys.executable, "-B", __file__, "curve", set_name, peer],
                          capture_output=True, text=True)
    if done.returncode:
        raise RuntimeError(f"{peer}: {done.stderr[-600:]}")
    found = json.loads(done.stdout.strip().splitlines()[-1])
    known = cached()
    known[key] = found
    part = cache_path().with_suffix(".part")
    part.write_text(json.dumps(known, indent=1) + "\n")
    part.rename(cache_path())
    return found


def build_main(set_name, peer):
    rows, made = np.array(vectorsets.get(set_name).rows()), PEERS[peer]()
    before, cpu, wall = resident(), time.process_time(), time.monotonic()
    made.build(rows)
    print(json.dumps({"cpu_s": time.process_time() - cpu, "wall_s": time.monotonic() - wall,
                      "memory_bytes": resident() - before, "load": os.getloadavg()[0]}))


def curve_main(set_name, peer):
    worker = Worker(vectorsets.get(set_name), peer)
    points = worker.curve()
    print(json.dumps({"version": worker.version, "built": worker.built, "points": points,
                      "date": time.strftime("%Y-%m-%d %H:%M", time.gmtime()),
                      "load": os.getloadavg()[0]}))


def serve_main(set_name, peer):
    worker = Worker(vectorsets.get(set_name), peer)
    print(json.dumps({"version": worker.version, "built": worker.built,
                      "rss_bytes": resident()}), flush=True)
    for line in sys.stdin:
        word, _, rest = line.partition(" ")
        if word == "run":
            print(json.dumps(worker.run(json.loads(rest), 1)), flush=True)


def describe(point):
    return " ".join(f"{n} {v}" for n, v in point["parameters"].items() if v is not None)


def table_lines(set_name, names):
    lines = ["| peer | single @0.95 | single @0.99 | batch @0.95 | batch @0.99 | setting at 0.95 | "
             "build CPU s | memory MB | load |",
             "| --- | ---: | ---: | ---: | ---: | --- | ---: | ---: | ---: |"]
    for name in names:
        found = cached().get(key_of(set_name, name))
        if found is None:
            continue
        points = found["points"]
        at = [qps_at(p, r) for p in (points, batched(points)) for r in (0.95, 0.99)]
        near = next((p for p in frontier(points) if p["recall"] >= 0.95), None)
        text = [f"{v:,.0f}" if v else "-" for v in at]
        if "batch_qps" not in points[0]:
            text[2:] = "", ""
        lines.append(
            f"| {name} | {' | '.join(text)} | "
            f"{describe(near) + ' = ' + format(near['recall'], '.4f') if near else ''} | "
            f"{found['built']['cpu_s']:.1f} | {found['built']['memory_bytes'] / 1e6:,.0f} | "
            f"{found['load']:.1f} |")
    return lines


def main():
    words = sys.argv[1:]
    if words[:1] == ["list"]:
        print("\n".join(PEERS))
    elif words[:1] == ["curve"]:
        curve_main(words[1], words[2])
    elif words[:1] == ["build"]:
        build_main(words[1], words[2])
    elif words[:1] == ["serve"]:
        serve_main(words[1], words[2])
    elif words[:1] == ["table"]:
        for name in words[2:]:
            try:
                measure(words[1], name)
            except RuntimeError as problem:
                print(problem, file=sys.stderr, flush=True)
        print("\n".join(table_lines(words[1], words[2:] or PEERS)))
    else:
        sys.exit(__doc__)


if __name__ == "__main__":
    main()
