"""vset: durable writes of 128 floats as blobs, pipelined over 8 connections.

The client is one thread of vexlake_bench. Durability is `always`: a reply comes after the fsync
that covers it. One run stays below the flush size, one is long enough to flush many times; the
cost of fsync on this disk and the CPU seconds of server and client stand beside them. With perf
installed, where the server's CPU goes."""

import re
import shutil
import subprocess
import time

import redis

import common

DIMENSION, CONNECTIONS, DEPTH, ROUNDS = 128, 8, 256, 5
SHORT, LONG = 100_000, 1_000_000
SYNC_SIZES = (4096, 140_000, 1_120_000)


def write(port, count):
    out = common.run([common.DRIVER, "vset", "127.0.0.1", port, "bench", DIMENSION, count,
                      CONNECTIONS, DEPTH])
    return common.json.loads(out)


def one_run(count, durability, profile=None):
    lake = common.fresh(common.OUT / "lake-vset")
    port = common.free_port()
    with common.vexlake_server(lake, port, "--durability", durability) as process:
        client = redis.Redis(port=port)
        client.execute_command("VCREATE", "bench", "DIM", DIMENSION, "INDEX", "flat")
        before = common.cpu_seconds(process.pid)
        perf = None
        if profile:
            perf = subprocess.Popen(["perf", "record", "-q", "-F", "999", "-g", "-o", str(profile),
                                     "-p", str(process.pid)], stderr=subprocess.DEVNULL)
            time.sleep(2)  # it takes a while to attach
        answer = write(port, count)
        after = common.cpu_seconds(process.pid)
        if perf:
            perf.terminate()
            perf.wait()
        return {"rate": count / (answer["wall_ns"][0] / 1e9), "user_s": after[0] - before[0],
                "system_s": after[1] - before[1], "client_s": answer["cpu_ns"] / 1e9,
                "wall_s": answer["wall_ns"][0] / 1e9, **common.memory_bytes(process.pid)}


def profile_lines(path):
    """The hottest functions: (share in percent, name)."""
    out = common.text_of(["perf", "report", "-i", str(path), "--no-children", "-g", "none",
                          "--percent-limit", "1.5", "--stdio", "-F", "overhead,sym"])
    return [(float(share), name.strip()) for share, name in
            re.findall(r"^\s*([\d.]+)%\s+\[[.k]\]\s+(\S.*)$", out, re.M)]


def measure():
    short, long = common.scaled(SHORT), common.scaled(LONG)
    section = common.Section("vset", f"{DIMENSION} floats, {CONNECTIONS} connections x {DEPTH} in "
                             "flight, durability always")
    for size in SYNC_SIZES:
        count = 30
        answer = common.json.loads(common.run(
            [common.DRIVER, "fsync", common.OUT / "fsync.bin", size, count]))
        middle = common.median(answer["wall_ns"]) / 1e6
        section.line(f"append {size:,} bytes and fdatasync", middle, "ms",
                     note=f"{size / middle / 1e6:.3g} GB/s")
        section.raw[f"fsync {size}"] = answer
    for name, count, durability, rounds in (("below the flush size", short, "always", ROUNDS),
                                            ("the same, interval", short, "interval", ROUNDS),
                                            ("flushing", long, "always", 3)):
        runs = [one_run(count, durability) for _ in range(rounds)]
        rate = common.median([r["rate"] for r in runs])
        per = {key: common.median([r[key] for r in runs]) / count * 1e6
               for key in ("user_s", "system_s", "client_s")}
        asked = durability == "always"
        section.line(f"{count:,} VSET, {name}", rate, "/s", ">= 50,000" if asked else None,
                     rate >= 50_000 if asked else None,
                     f"CPU s a million: server {per['user_s']:.3g} user + {per['system_s']:.3g} "
                     f"system, client {per['client_s']:.3g}; best "
                     f"{max(r['rate'] for r in runs):,.0f}/s")
        section.raw[name] = runs
    if shutil.which("perf"):
        path = common.OUT / "vset.perf"
        one_run(long, "always", path)
        hot = profile_lines(path)
        section.raw["profile"] = hot
        for share, name in hot[:8]:
            section.line(f"server CPU in {name}", share, "%")
    section.command([common.DRIVER, "vset", "127.0.0.1", "PORT", "bench", DIMENSION, short,
                     CONNECTIONS, DEPTH])
    return section
