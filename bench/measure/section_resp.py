"""resp: searches over RESP, by recall 0.95, against Redis' vector sets and LanceDB.

200,000 SIFT descriptors. The client is one thread of vexlake_bench; server and client share the
machine's cores, so CPU time of the server process per query is what does not depend on the client.
Beside each: the same searches through vex_search in a process of their own. Redis 8 holds
the same rows in a vector set (its HNSW, int8, cosine; its recall is against exact cosine), filled
once and loaded from its dump. LanceDB runs in process, as it comes."""

import json
import subprocess
import sys

import numpy as np
import redis

import common
import vectorsets
import ours
import peers
import redis8

SET, K, RECALL, ROUNDS = "sift-200k", peers.K, 0.95, 3
QUERIES = {"hnsw": 20_000, "ivf": 10_000}
SHAPES = (("one connection", 1, 1), ("eight connections", 8, 1),
          ("eight connections, pipeline depth 16", 8, 16))
REDIS_STATED = 2_000  # queries per CPU-second of Redis 8.6 at recall 0.95 on such data
TARGET, OVERHEAD_US, OVERHEAD_SHARE = 5, 18, 0.2


def ask(port, process, data, count, connections, depth, *words):
    """One run of the client: what the server spent, what the client saw."""
    before = sum(common.cpu_seconds(process.pid))
    answer = json.loads(common.run([
        common.DRIVER, "query", "127.0.0.1", port, "c", data.dimension, data.queries_path, count, K,
        connections, depth, *words]))
    spent = sum(common.cpu_seconds(process.pid)) - before
    times = np.sort(answer["wall_ns"])
    return {"qps": count / answer["took_ns"] * 1e9, "cpu_us": spent / count * 1e6,
            "client_us": answer["cpu_ns"] / count / 1e3, "ids": answer["ids"],
            "p50_ms": times[len(times) // 2] / 1e6, "p99_ms": times[len(times) * 99 // 100] / 1e6}


def numbers(ids):
    found = np.full((len(ids), K), -1, np.int64)
    for i, row in enumerate(ids):
        found[i, :len(row)] = [int(x) for x in row[:K]]
    return found


def cosine_truth(data):
    """Exact neighbours under cosine, as Truth takes them."""
    path = vectorsets.folder() / f"{data.name}-cosine-gt.i32"
    if not path.exists():
        rows, queries = np.array(data.rows()), data.queries()
        rows /= np.linalg.norm(rows, axis=1, keepdims=True)
        nearest = np.argsort(-(queries @ rows.T), axis=1)[:, :vectorsets.NEAREST]
        vectorsets.write(path, nearest.astype(np.int32))
    return np.fromfile(path, np.int32).reshape(-1, vectorsets.NEAREST)[:, :K]


def our_side(section, data, truth, index):
    """The lines of one index; returns queries per CPU-second by shape."""
    port, speeds = common.free_port(), {}
    path, _ = ours.lake(data, index)
    runs = {name: [] for name, _, _ in SHAPES}
    within = {1: [], 16: []}
    # A lake has one process at a time: first the server, then the searches without one.
    with common.vexlake_server(path, port) as process:
        common.wait_for_graphs(port)
        for _ in range(ROUNDS):
            for name, connections, depth in SHAPES:
                runs[name].append(ask(port, process, data, QUERIES[index], connections, depth,
                                      "vexlake", "RECALL", RECALL))
        memory = common.memory_bytes(process.pid)
    direct = ours.Ours(data, index, truth=truth)
    for _ in range(ROUNDS):
        for depth in within:
            batch = depth if direct.count % depth == 0 else 1
            point = direct.run({"recall": RECALL}, batch=batch, ids=False)
            within[depth].append(1e6 / point["qps"])
    direct.close()
    search = {depth: common.median(times) for depth, times in within.items()}
    for name, connections, depth in SHAPES:
        middle = {key: common.median([r[key] for r in runs[name]])
                  for key in ("qps", "cpu_us", "client_us", "p50_ms", "p99_ms")}
        recall = truth.recall(numbers(runs[name][0]["ids"]))
        speeds[name] = 1e6 / middle["cpu_us"]
        section.line(f"{index}, {name}", middle["qps"], "/s",
                     note=f"recall {recall:.4f}, p50 {middle['p50_ms']:.3g} ms, p99 "
                     f"{middle['p99_ms']:.3g} ms; CPU a query: server {middle['cpu_us']:.3g} us, "
                     f"client {middle['client_us']:.3g} us")
        inside = search[16 if depth == 16 else 1]
        beyond = middle["cpu_us"] - inside
        if name == "eight connections":
            section.line(f"{index}, {name}: server CPU beyond the search", beyond, "us a query",
                         f"<= {OVERHEAD_US}", beyond <= OVERHEAD_US,
                         f"vex_search alone {inside:.3g} us")
        elif depth == 16:
            share = max(0.0, beyond / middle["cpu_us"])
            section.line(f"{index}, {name}: share beyond the search", share * 100, "%",
                         f"<= {OVERHEAD_SHARE * 100:g}", share <= OVERHEAD_SHARE,
                         f"vex_search of 16 queries a call {inside:.3g} us a query, of one "
                         f"{search[1]:.3g} us")
    section.raw[index] = {"runs": [{k: v for k, v in r.items() if k != "ids"}
                                   for name in runs for r in runs[name]],
                          "within_us": within, "memory": memory}
    return speeds


def redis_side(section, data):
    """Queries per CPU-second of VSIM at recall 0.95, by shape; None without such a server."""
    if redis8.words() is None:
        return None
    folder, filled = redis8.filled(SET)
    truth = cosine_truth(data)
    port, points = common.free_port(), {}
    speeds = {}
    with redis8.start(port, "--dbfilename", "dump.rdb", folder=folder) as process:
        client = redis.Redis(port=port)
        while client.info("persistence").get("loading"):
            common.time.sleep(0.1)
        for name, connections, depth in SHAPES[:2]:
            points = []
            for ef in (20, 40, 60, 80, 120, 200):
                run = ask(port, process, data, 2000, connections, depth, "redis", "EF", ef)
                found = numbers(run["ids"])
                recall = np.mean([len(set(a) & set(b)) / K for a, b in zip(found, truth)])
                points.append({"parameters": {"ef": ef}, "recall": float(recall),
                               "qps": 1e6 / run["cpu_us"], "wall_qps": run["qps"]})
                if recall > RECALL:
                    break
            speeds[name] = peers.qps_at(points, RECALL)
            near = points[-1]
            section.line(f"Redis {filled['version']} VSIM, {name}", near["wall_qps"], "/s",
                         note=f"EF {near['parameters']['ef']}: recall {near['recall']:.4f}; "
                         f"{speeds[name] or 0:,.0f} a CPU-second at {RECALL}")
            section.raw[f"redis {name}"] = points
    return speeds if all(speeds.values()) else None


def lancedb_cached():
    """Its curve, measured in a process of its own and cached like those of other peers."""
    path = vectorsets.folder() / "peers" / f"{SET}.lancedb.json"
    if not path.exists():
        found = common.run([sys.executable, "-B", common.ROOT / "bench/measure/peer_lancedb.py", SET])
        path.write_text(found.strip().splitlines()[-1] + "\n")
    return json.loads(path.read_text())


def lancedb_side(section):
    known = lancedb_cached()
    speed = peers.qps_at(known["points"], RECALL)
    section.line(f"LanceDB {known['version']} in process, IVF_PQ + refine", speed or 0, "/CPU-s",
                 note=f"at {RECALL}; building {known['built']['cpu_s']:.0f} CPU-s")
    section.raw["lancedb"] = known


def measure():
    section = common.Section("resp", f"{SET}, k {K}, RECALL {RECALL}; client and server share the "
                             "cores")
    data = vectorsets.get(SET)
    truth = peers.Truth(data)
    mine = {index: our_side(section, data, truth, index) for index in ("hnsw", "ivf")}
    theirs = redis_side(section, data)
    for name, _, _ in SHAPES[:2]:
        base = theirs[name] if theirs else REDIS_STATED
        for index in mine:
            ratio = mine[index][name] / base
            section.line(f"{index}, {name}: queries per server CPU-second / Redis", ratio, "x",
                         f">= {TARGET}", ratio >= TARGET, "same run" if theirs else
                         f"no Redis 8 here: against {REDIS_STATED:,} a CPU-second, measured elsewhere")
    lancedb_side(section)
    section.command([common.DRIVER, "query", "127.0.0.1", "PORT", "c", 128, "QUERIES", "COUNT", K,
                     "1|8", "1|16", "vexlake", "RECALL", RECALL])
    return section
