"""s3warm: the same searches where the blocks are there already: in memory, on the SSD, on a local lake.

One segment of SIFT descriptors, index ivf, a server over a local folder and servers over the bucket,
in turns; one connection, one search at a time. \"Memory\" has everything in level 1; \"SSD\" has
level 2 filled and a level 1 that holds next to nothing; each was given all queries once before."""

import shutil

import numpy as np

import common
import ours
import peers
import s3
import section_resp
import vectorsets

SET, QUERIES, ROUNDS = "sift-1m", 1000, 5
MEMORY_TARGET, SSD_TARGET = 1.1, 2
SMALL = "1mb"  # of level 1, where level 2 is to answer


def measure():
    data = vectorsets.get(SET)
    truth = peers.Truth(data)
    section = common.Section("s3warm", f"{SET}, one segment, k {peers.K}, RECALL as it comes; one connection; "
                             "versitygw on loopback")
    path, _ = ours.lake(data, "ivf")
    flags = s3.flags_of_serve()
    with s3.gateway() as target:
        address = s3.link_into_bucket(path, SET)
        endpoint = f"http://{target}"
        cache = common.fresh(common.OUT / "s3-cache")
        runs = {"local": [], "memory": [], "SSD": []}
        small = ["--cache-memory", SMALL] if "--cache-memory" in flags else ["--memory", SMALL]
        with s3.serve(path, endpoint, "--read-only") as local, \
                s3.serve(address, endpoint, "--role", "reader") as memory, \
                s3.serve(address, endpoint, "--role", "reader", "--cache-dir", cache, *small) as disk:
            servers = {"local": local, "memory": memory, "SSD": disk}
            def ask(name, count):
                process, port, _ = servers[name]
                return section_resp.ask(port, process, data, count, 1, 1, "vexlake")
            for name in servers:
                ask(name, QUERIES)
            for _ in range(ROUNDS):
                for name in servers:
                    runs[name].append(ask(name, QUERIES))
            # Nothing may come from the bucket now.
            proof = {name: servers[name][2].execute_command("VINFO", "c") for name in servers}
        shutil.rmtree(cache, ignore_errors=True)
    middles = {}
    for name, found in runs.items():
        middles[name] = {key: common.median([r[key] for r in found]) for key in ("qps", "cpu_us", "p50_ms", "p99_ms")}
        m = middles[name]
        recall = truth.recall(section_resp.numbers(found[0]["ids"]))
        section.line({"local": "a local lake", "memory": "from memory", "SSD": "from the SSD"}[name], m["qps"], "/s",
                     note=f"recall {recall:.4f}, p50 {m['p50_ms']:.3g} ms, p99 {m['p99_ms']:.3g} ms; server CPU a "
                     f"query {m['cpu_us']:.3g} us")
    for name, target_ratio in (("memory", MEMORY_TARGET), ("SSD", SSD_TARGET)):
        ratio = middles[name]["p50_ms"] / middles["local"]["p50_ms"]
        section.line(f"{name}, p50 / a local lake", ratio, "x", f"<= {target_ratio}", ratio <= target_ratio,
                     f"server CPU {middles[name]['cpu_us'] / middles['local']['cpu_us']:.3g} x")
    section.raw = {name: [{k: v for k, v in r.items() if k != "ids"} for r in found] for name, found in runs.items()}
    section.raw["info"] = {name: str(info) for name, info in proof.items()}
    section.command([common.DRIVER, "query", "127.0.0.1", "PORT", "c", 128, "QUERIES", QUERIES, peers.K, 1, 1,
                     "vexlake"])
    return section
