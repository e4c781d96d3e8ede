"""s3warm: the same searches where the blocks are there already: in memory, on the SSD, on a local lake.

One segment of SIFT descriptors, index ivf. In process: the driver over a local folder and over the
bucket, in turns, one search at a time through vex_search, one thread. Then the same over RESP, one
connection. "Memory" has all blocks in level 1; "SSD" has them in level 2 and a level 1 of 1 MiB; each
was given all queries once before. The proxy counts what still comes from the bucket."""

import contextlib
import shutil

import common
import ours
import peers
import s3
import section_resp
import vectorsets

SET, QUERIES, ROUNDS = "sift-1m", 1000, 5
TARGETS = {"memory": 1.1, "SSD": 2}
SMALL = 1 << 20  # of level 1, where level 2 is to answer
NAMES = {"local": "a local lake", "memory": "from memory", "SSD": "from the SSD"}


def compare(section, where, runs):
    """Lines for runs of {side: [{p50_ms, cpu_us, ...}]}."""
    middles = {side: {key: common.median([r[key] for r in found]) for key in ("p50_ms", "p99_ms", "cpu_us")}
               for side, found in runs.items()}
    for side, m in middles.items():
        section.line(f"{where}, {NAMES[side]}: p50", m["p50_ms"] * 1e3, "us",
                     note=f"p99 {m['p99_ms'] * 1e3:.3g} us, CPU a query {m['cpu_us']:.3g} us")
    for side, target in TARGETS.items():
        ratio = common.median([a["p50_ms"] / b["p50_ms"] for a, b in zip(runs[side], runs["local"])])
        section.line(f"{where}, {side}: p50 / a local lake", ratio, "x", f"<= {target}", ratio <= target,
                     f"CPU {middles[side]['cpu_us'] / middles['local']['cpu_us']:.3g} x")
    section.raw[where] = {side: [{k: v for k, v in r.items() if k != "ids"} for r in found]
                          for side, found in runs.items()}


def in_process(section, data, sides, proxy):
    truth = peers.Truth(data)
    with contextlib.ExitStack() as stack:
        drivers = {side: stack.enter_context(common.Driver(lake, "c", data.queries_path, data.dimension, 1,
                                                           environment=environment))
                   for side, (lake, environment, _) in sides.items()}

        def ask(side, ids=False):
            answer = drivers[side].search(0, QUERIES, peers.K, ids=ids)
            times = sorted(answer["wall_ns"])
            return {"p50_ms": times[len(times) // 2] / 1e6, "p99_ms": times[len(times) * 99 // 100] / 1e6,
                    "cpu_us": answer["cpu_ns"] / QUERIES / 1e3, "ids": answer.get("ids")}
        for side in drivers:
            found = ask(side, True)
            recall = truth.recall(section_resp.numbers(found["ids"]))
            if side != "SSD":
                section.line(f"in process, {NAMES[side]}: recall@10", recall, "")
        ask("SSD")
        proxy.take()
        runs = {side: [] for side in drivers}
        for _ in range(ROUNDS):
            for side in drivers:
                runs[side].append(ask(side))
        fetched = len(proxy.take().of_segments())
        section.line("requests for blocks meanwhile", fetched, "", "= 0", fetched == 0)
    compare(section, "in process", runs)


def over_resp(section, data, sides):
    with contextlib.ExitStack() as stack:
        servers = {side: stack.enter_context(s3.serve(lake, environment["AWS_ENDPOINT_URL"], "--read-only", *flags))
                   for side, (lake, environment, flags) in sides.items()}

        def ask(side):
            process, port, _ = servers[side]
            return section_resp.ask(port, process, data, QUERIES, 1, 1, "vexlake")
        for side in servers:
            ask(side)
        runs = {side: [] for side in servers}
        for _ in range(ROUNDS):
            for side in servers:
                runs[side].append(ask(side))
    compare(section, "RESP", runs)


def measure():
    data = vectorsets.get(SET)
    section = common.Section("s3warm", f"{SET}, one segment, k {peers.K}, RECALL as it comes, one search at a time; "
                             "versitygw on loopback")
    path, _ = ours.lake(data, "ivf")
    caches = [common.fresh(common.OUT / f"s3-cache-{i}") for i in range(2)]
    with s3.gateway() as target, s3.Proxy(target) as proxy:
        address = s3.link_into_bucket(path, SET)
        plain = s3.environment(proxy.endpoint)
        sides = {"local": (path, plain, []), "memory": (address, plain, []),
                 "SSD": (address, dict(plain, VEXLAKE_BENCH_CACHE=str(caches[0]), VEXLAKE_BENCH_CACHE_MEMORY=str(SMALL)),
                         ["--cache-dir", caches[1], "--cache-memory", SMALL])}
        in_process(section, data, sides, proxy)
        over_resp(section, data, sides)
    for folder in caches:
        shutil.rmtree(folder, ignore_errors=True)
    section.command([common.DRIVER, "serve", "LAKE", "c", "QUERIES", 128, 1])
    section.command([common.DRIVER, "query", "127.0.0.1", "PORT", "c", 128, "QUERIES", QUERIES, peers.K, 1, 1,
                     "vexlake"])
    return section
