"""Our indexes over the sets of vectorsets.py, and their recall/QPS curves, in the terms of peers.py."""

import hashlib
import json
import os

import numpy as np

import common
import vectorsets
import peers

ONE_SEGMENT = 8 << 30
NPROBE = (1, 2, 3, 4, 6, 8, 10, 12, 16, 20, 24, 32, 40, 48, 64, 80, 96, 128, 160, 192, 256, 384, 512)
EF = (10, 12, 14, 16, 20, 24, 28, 32, 40, 48, 56, 64, 80, 96, 112, 128, 160, 192, 256, 320, 400, 512)
RECALLS = (0.8, 0.85, 0.9, 0.92, 0.94, 0.95, 0.96, 0.97, 0.98, 0.985, 0.99, 0.995)


def npy(data):
    """The set as a .npy file, for vex_import."""
    path = data.rows_path.with_suffix(".npy")
    if not path.exists():
        rows = data.rows()
        part = path.with_suffix(".npy.part")
        with open(part, "wb") as out:
            np.lib.format.write_array_header_1_0(out, {
                "descr": "<f4", "fortran_order": False, "shape": rows.shape})
            for at in range(0, len(rows), 1_000_000):
                rows[at:at + 1_000_000].tofile(out)
        part.rename(path)
    return path


def lake(data, index, bits=0, segment_size=ONE_SEGMENT):
    """A lake that holds the set in the collection `c`, and what building it cost. Made again when
    the program changed."""
    program = hashlib.sha256(common.DRIVER.read_bytes()).hexdigest()[:16]
    name = f"{data.name}-{index}-{bits}-{segment_size >> 20}"
    path = common.OUT / "lakes" / name
    note = path.with_suffix(".json")
    if note.exists():
        known = json.loads(note.read_text())
        if known["program"] == program:
            return path, known["built"]
    common.fresh(path)
    note.unlink(missing_ok=True)
    words = [common.DRIVER, "import", path, "c", index, npy(data), data.metric, bits, 0, segment_size]
    load = common.load()
    built = json.loads(common.run(words)) | {"load": load}
    note.write_text(json.dumps({"program": program, "built": built}) + "\n")
    return path, built


class Ours:
    """The driver with an open lake; run() answers as peers.Worker.run() does."""

    def __init__(self, data, index, bits=0, segment_size=ONE_SEGMENT, kernel=None, truth=None):
        self.data, self.index = data, index
        self.path, self.built = lake(data, index, bits, segment_size)
        self.driver = common.Driver(self.path, "c", data.queries_path, data.dimension, 1, kernel)
        self.driver.ask("wait")  # opening begins to load the graphs
        self.truth = truth or peers.Truth(data)
        self.count = self.driver.count

    def run(self, parameters, batch=1, ids=True):
        answer = self.driver.search(0, self.count // batch * batch, peers.K, ids=ids, batch=batch,
                                    **parameters)
        point = {"parameters": parameters, "qps": self.count * 1e9 / answer["cpu_ns"],
                 "wall_ns": sum(answer["wall_ns"]) / self.count,
                 "graphs": answer["graph_segments"], "ivf": answer["ivf_segments"],
                 "codes": answer["codes"] / self.count, "rows": answer["rows"] / self.count,
                 "lists": answer["lists"] / self.count, "hops": answer["hops"] / self.count}
        if ids:
            found = np.full((len(answer["ids"]), peers.K), -1, np.int64)
            for i, row in enumerate(answer["ids"]):
                found[i, :len(row)] = [int(x) for x in row[:peers.K]]
            point["recall"] = self.truth.recall(found)
        times = np.sort(answer["wall_ns"])
        point["p50_ms"], point["p99_ms"] = (times[len(times) * p // 100] / 1e6 for p in (50, 99))
        return point

    def series(self):
        effort = ([{"ef": ef} for ef in EF] if self.index == "hnsw" else
                  [{"nprobe": n} for n in NPROBE])
        return effort, [{"recall": r} for r in RECALLS]

    def curve(self, least=0.85, enough=0.996):
        """Both series: by effort, and by the recall that is asked for."""
        self.run({"recall": 0.9})  # the files' pages are there
        found = []
        for series in self.series():
            for parameters in series:
                point = self.run(parameters)
                if point["recall"] >= least:
                    found.append(point)
                if point["recall"] >= enough:
                    break
        return found

    def memory(self):
        return common.memory_bytes(self.driver.process.pid)

    def close(self):
        self.driver.close()


class Peer:
    """A process of peers.py; run() as above."""

    def __init__(self, data, name):
        import subprocess
        import sys
        self.name, self.data = name, data
        self.process = subprocess.Popen(
            [sys.executable, "-B", peers.__file__, "serve", data.name, name],
            stdin=subprocess.PIPE, stdout=subprocess.PIPE, text=True)
        first = json.loads(self._line())
        self.built, self.version = first["built"], first["version"]

    def _line(self):
        for line in self.process.stdout:
            if line.startswith("{"):  # some libraries talk while they build
                return line
        raise RuntimeError(f"{self.name} ended with {self.process.wait()}")

    def run(self, parameters):
        self.process.stdin.write(f"run {json.dumps(parameters)}\n")
        self.process.stdin.flush()
        return json.loads(self._line())

    def close(self):
        self.process.stdin.close()
        self.process.wait(timeout=60)


def around(points, recall):
    """The parameters of the frontier's points on both sides of a recall."""
    kept = peers.frontier(points)
    above = [p for p in kept if p["recall"] >= recall][:1]
    below = [p for p in kept if p["recall"] < recall][-1:]
    return [p["parameters"] for p in below + above]


def alternate(sides, curves, recalls, rounds=3):
    """Each side's speed at each recall, measured in turns: {side: {recall: qps or None}}, and all
    points. `sides` has run(); `curves` the points known of each."""
    asked = {name: [] for name in sides}
    for name in sides:
        for recall in recalls:
            for parameters in around(curves[name], recall):
                if parameters not in asked[name]:
                    asked[name].append(parameters)
    seen = {name: {} for name in sides}
    for _ in range(rounds):
        for name, side in sides.items():
            for parameters in asked[name]:
                seen[name].setdefault(json.dumps(parameters), []).append(side.run(parameters))
    result, points = {}, {}
    for name in sides:
        points[name] = []
        for runs in seen[name].values():
            middle = dict(runs[0], qps=common.median([r["qps"] for r in runs]),
                          all_qps=[r["qps"] for r in runs])
            if "batch_qps" in middle:
                middle["batch_qps"] = common.median([r["batch_qps"] for r in runs])
            points[name].append(middle)
        result[name] = {r: peers.qps_at(points[name], r) for r in recalls}
    return result, points
