"""s3open: opening a lake with 1,000 collections and 10,000 segments in a bucket.

The generator imports ten files into one collection and copies its folder under 1,000 names, each with
a metaData id of its own in its commits; data and index files are linked. Then a server opens it: what
it asks the bucket for until it answers, and the first search in a collection."""

import json
import os
import re
import shutil
import time
import uuid

import numpy as np

import common
import s3

COLLECTIONS, SEGMENTS, ROWS, DIMENSION = 1000, 10, 100, 16
SECONDS = 5


def generate(lake, collections):
    """A lake of `collections` collections of SEGMENTS segments of ROWS rows."""
    common.fresh(lake)
    random = np.random.default_rng(5)
    for i in range(SEGMENTS):
        path = lake.parent / "open.npy"
        np.save(path, random.standard_normal((ROWS, DIMENSION), dtype=np.float32))
        ids = lake.parent / "open.ids"
        ids.write_text("".join(f"{i * ROWS + j}\n" for j in range(ROWS)))
        common.import_into(lake, "c0000", "--ids", ids, path)
    first = lake / "c0000"
    commits = sorted((first / "data/_delta_log").iterdir())
    old = re.search(r'"metaData":{"id":"([0-9a-f-]{36})"', commits[0].read_text()).group(1)
    if any(not path.name.endswith(".json") for path in commits):
        raise RuntimeError("a log with checkpoints cannot be copied so")
    for i in range(1, collections):
        folder, new = lake / f"c{i:04d}", str(uuid.uuid4())
        shutil.copytree(first, folder, copy_function=os.link, ignore=lambda _, names: {"_delta_log"} & set(names))
        (folder / "data/_delta_log").mkdir()
        for path in commits:
            (folder / "data/_delta_log" / path.name).write_text(path.read_text().replace(old, new))
    return lake


def measure():
    collections = max(10, int(COLLECTIONS * common.SCALE))
    segments = collections * SEGMENTS
    section = common.Section("s3open", f"{collections:,} collections of {SEGMENTS} segments, each of {ROWS} "
                             f"rows of {DIMENSION} floats; versitygw on loopback, and with 30 ms added to "
                             "each request by a proxy")
    lake = generate(common.OUT / "lake-open", collections)
    query = np.zeros(DIMENSION, np.float32).tobytes()
    local = []
    for _ in range(3):
        begun = time.monotonic()
        port = common.free_port()
        with common.vexlake_server(lake, port, "--read-only") as _process:
            import redis
            client = redis.Redis(port=port, socket_timeout=600)
            client.ping()
            local.append(time.monotonic() - begun)
            client.close()
    with s3.gateway() as target, s3.Proxy(target) as proxy:
        address = s3.link_into_bucket(lake, "open")
        for delay in s3.DELAYS_MS:
            proxy.delay(delay)
            name = f"+{delay} ms" if delay else "loopback"
            runs = []
            if delay and steps * delay > 60_000:
                section.line(f"{name}: until it answers", steps * delay / 1e3, "s", note="not measured: as many "
                             "dependent steps as on loopback, each with the delay")
                continue
            for _ in range(1 if delay else 3):
                begun = time.monotonic()
                # Times without the proxy where it adds nothing but its own.
                with s3.serve(address, proxy.endpoint if delay else f"http://{target}", "--read-only", "--prefetch",
                              "no") as (_, _, client):
                    took = time.monotonic() - begun
                    count = len(client.execute_command("VLIST"))
                    begun = time.monotonic()
                    found = client.execute_command("VSEARCH", query, 10, "IN", f"c{collections // 2:04d}")
                    runs.append((took, time.monotonic() - begun))
                    if count != collections or len(found) != 10:
                        raise RuntimeError(f"{count} collections, {len(found)} rows")
            proxy.take()
            with s3.serve(address, proxy.endpoint, "--read-only", "--prefetch", "no") as (_, _, client):
                opened = proxy.take()
                client.execute_command("VSEARCH", query, 10, "IN", f"c{collections // 2:04d}")
                first = proxy.take()
            steps = opened.steps()
            took = common.median([run[0] for run in runs])
            section.line(f"{name}: until it answers", took, "s", None if delay else f"< {SECONDS}",
                         None if delay else took < SECONDS, f"a local lake {common.median(local):.3g} s")
            kinds = ", ".join(f"{count:,} {kind}" for kind, count in sorted(opened.kinds().items()))
            section.line(f"{name}: requests until then", opened.requests, "", note=f"{kinds}; "
                         f"{opened.requests / collections:.3g} a collection, {opened.steps()} dependent steps, "
                         f"{opened.bytes / 1e6:.3g} MB")
            section.line(f"{name}: the first search in one of them", common.median([run[1] for run in runs]) * 1e3,
                         "ms", note=f"{first.requests} requests with those of the logs that were looked at "
                         "meanwhile")
            section.raw[name] = {"runs": runs, "open": opened.summary(), "first": first.summary()}
    section.raw["segments"] = segments
    section.raw["local"] = local
    section.command([common.VEXLAKE, "serve", "--lake", "s3://bench/open", "--read-only", "--prefetch", "no"])
    return section
