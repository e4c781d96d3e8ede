"""inserts: rows over RESP that are searchable at once, with durability `always`.

SIFT descriptors as blobs by VSET, eight connections, 256 commands in flight on each. The short run
stays in the memtable; the long one goes through flushes and IVF indexing and counts until VFLUSH
has answered: then every row is in an indexed segment. Between the two, searches for rows just
written: each must find itself. Redis' VADD beside it."""

import json
import shutil
import time

import numpy as np
import redis

import common
import vectorsets
import redis8

SHORT, LONG, CONNECTIONS, DEPTH = 100_000, 1_000_000, 8, 256
SHORT_TARGET, LONG_TARGET = 50_000, 20_000


def field(info, name):
    pairs = dict(zip(info[::2], info[1::2])) if isinstance(info, list) else info
    value = pairs.get(name.encode(), pairs.get(name))
    return int(value) if value is not None else None


def one_run(data, count, flush):
    lake = common.fresh(common.OUT / "lake-inserts")
    port = common.free_port()
    with common.vexlake_server(lake, port) as process:
        client = redis.Redis(port=port, socket_timeout=600)
        client.execute_command("VCREATE", "bench", "DIM", data.dimension, "INDEX", "ivf")
        before, begun = sum(common.cpu_seconds(process.pid)), time.monotonic()
        answer = json.loads(common.run([
            common.DRIVER, "vset", "127.0.0.1", port, "bench", data.dimension, count, CONNECTIONS,
            DEPTH, "vset", data.rows_path]))
        written = time.monotonic() - begun
        found = 0
        rows = data.rows()
        picks = np.linspace(0, min(count, len(rows)) - 1, 50).astype(int)
        for i in picks:
            reply = client.execute_command("VSEARCH", rows[i].tobytes(), 1, "IN", "bench")
            found += bool(reply) and int(reply[0][0]) == i
        begun = time.monotonic()
        if flush:
            client.execute_command("VFLUSH", "bench")
        flushed = time.monotonic() - begun
        info = client.execute_command("VINFO", "bench")
        cpu = sum(common.cpu_seconds(process.pid)) - before
        out = {"count": count, "written_s": answer["wall_ns"][0] / 1e9, "process_s": written,
               "flush_s": flushed, "found": found, "asked": len(picks), "cpu_s": cpu,
               "memory": common.memory_bytes(process.pid),
               "info": {str(k): str(v) for k, v in zip(info[::2], info[1::2])}
               if isinstance(info, list) else str(info)}
    shutil.rmtree(lake)
    return out


def measure():
    data = vectorsets.get("sift-1m")
    section = common.Section("inserts", f"VSET of SIFT descriptors, {CONNECTIONS} connections x "
                             f"{DEPTH} in flight, durability always, INDEX ivf")
    short = [one_run(data, common.scaled(SHORT), False) for _ in range(3)]
    rate = common.median([r["count"] / r["written_s"] for r in short])
    section.line(f"{short[0]['count']:,} rows into the memtable", rate, "/s", f">= {SHORT_TARGET:,}",
                 rate >= SHORT_TARGET, f"server CPU {short[0]['cpu_s'] / short[0]['count'] * 1e6:.3g} "
                 "us a row")
    long = one_run(data, common.scaled(LONG), True)
    rate = long["count"] / (long["written_s"] + long["flush_s"])
    section.line(f"{long['count']:,} rows, flushed and indexed", rate, "/s", f">= {LONG_TARGET:,}",
                 rate >= LONG_TARGET, f"written in {long['written_s']:.3g} s, the last flush "
                 f"{long['flush_s']:.3g} s; server CPU {long['cpu_s'] / long['count'] * 1e6:.3g} us a "
                 f"row, memory {long['memory']['RssAnon'] / 2**20:,.0f} MiB")
    found = sum(r["found"] for r in [*short, long])
    asked = sum(r["asked"] for r in [*short, long])
    section.line("rows just written that their own vector finds", found / asked * 100, "%", ">= 95",
                 found / asked >= 0.95)
    if redis8.words():
        _, filled = redis8.filled("sift-200k")
        section.line(f"Redis {filled['version']}, {filled['rows']:,} VADD",
                     filled["rows"] / filled["cpu_s"], "/CPU-s", note="of the server; filled once, "
                     f"load {filled['load'][0]}, {filled['rows'] / filled['wall_s']:,.0f} a second")
    section.raw = {"short": short, "long": long}
    section.command([common.DRIVER, "vset", "127.0.0.1", "PORT", "bench", data.dimension, SHORT,
                     CONNECTIONS, DEPTH, "vset", "ROWS"])
    return section
