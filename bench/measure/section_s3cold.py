"""s3cold: searches of a lake in a bucket by a server that has nothing yet.

One segment of SIFT descriptors, index ivf, versitygw on loopback and with 30 ms added to each
request. Each first search is made by a server started for it, without
prefetching; then come new queries on the same
server. The proxy counts requests, bytes and dependent steps (the longest chain of requests of which
each began after the one before had ended). LanceDB does the same with 200,000 of the rows through the
same proxy: a process each time, its table opened before the first query."""

import json
import shutil
import subprocess
import sys
import time

import numpy as np

import common
import ours
import peers
import s3
import section_resp
import vectorsets

K, FIRST, NEXT, SETTLE_S = peers.K, 5, 40, 0.7
STEPS, REQUESTS, NEXT_STEPS, LATENCIES, SHARE = 3, 30, 2, 4, 0.02


def search(client, proxy, query, is_first=False):
    """One search: seconds, ids, and what it asked the bucket for."""
    proxy.take()
    begun = time.monotonic()
    reply = client.execute_command("VSEARCH", query.tobytes(), K, "IN", "c")
    took = time.monotonic() - begun
    taken = proxy.take()
    # The first looks for newer commits and log objects before it searches. Later that is done every
    # second, beside the searches, and no part of them.
    return took, s3.ids_of(reply), taken if is_first else s3.Taken(taken.of_segments())


def quiet(proxy, found=None):
    """Until nothing is fetched in the background; all requests meanwhile."""
    found = found or []
    while True:
        time.sleep(SETTLE_S)
        taken = proxy.take()
        found += taken.list
        # The logs of a collection in use are looked at every second.
        if not taken.of_segments():
            return s3.Taken(found)


def middle(values):
    return common.median(list(values))


def our_side(section, data, truth, proxy, endpoint, delay, address, size, latency_s, rate):
    """Cold and next searches at one delay."""
    queries = data.queries()
    firsts, opens, next_found = [], [], []
    for i in range(FIRST):
        proxy.take()
        begun = time.monotonic()
        with s3.serve(address, endpoint, "--read-only", "--prefetch", "no") as (_, _, client):
            open_s = time.monotonic() - begun
            opened = quiet(proxy)
            firsts.append(search(client, proxy, queries[i], True))
            opens.append((open_s, opened))
            if i == 0:
                quiet(proxy)
                for j in range(FIRST, FIRST + NEXT):
                    next_found.append((j, search(client, proxy, queries[j])))
    name = f"{len(data.rows()):,} rows, " + (f"+{delay} ms" if delay else "loopback")
    taken = [f[2] for f in firsts]
    steps, requests = max(t.steps() for t in taken), max(t.requests for t in taken)
    elapsed = middle(f[0] for f in firsts)
    section.line(f"{name}: opening, requests in steps", middle(o[1].requests for o in opens), "",
                 note=f"{middle(o[1].steps() for o in opens):g} steps, "
                 f"{middle(o[1].bytes for o in opens) / 1e6:.3g} MB, answers after "
                 f"{middle(o[0] for o in opens) * 1e3:,.0f} ms")
    # Without a delay, requests that are in flight together may end one after the other: no chain.
    if delay:
        section.line(f"{name}: first search, dependent steps", steps, "", f"<= {STEPS}", steps <= STEPS,
                     f"the worst of {FIRST}; {max(s3.Taken(t.of_segments()).steps() for t in taken)} for index and "
                     f"vectors, the others look for newer commits and log objects; a request takes "
                     f"{latency_s * 1e3:.3g} ms")
    section.line(f"{name}: first search, requests", requests, "", f"<= {REQUESTS}", requests <= REQUESTS,
                 f"the worst; {max(len(t.of_segments()) for t in taken)} for index and vectors")
    share = max(t.bytes for t in taken) / size
    section.line(f"{name}: first search, share of the segment's {size / 1e6:,.0f} MB", share * 100, "%",
                 f"< {SHARE * 100:g}", share < SHARE, f"{max(t.bytes for t in taken) / 1e6:.3g} MB")
    allowed = LATENCIES * latency_s + middle(t.bytes for t in taken) / rate
    section.line(f"{name}: first search", elapsed * 1e3, "ms",
                 f"<= {LATENCIES} latencies + transfer = {allowed * 1e3:.3g}", elapsed <= allowed,
                 f"worst {max(f[0] for f in firsts) * 1e3:.3g}")
    steps = [f[2].steps() for _, f in next_found]
    if delay:
        section.line(f"{name}: next new query, dependent steps", max(steps), "", f"<= {NEXT_STEPS}",
                     max(steps) <= NEXT_STEPS, f"the worst of {NEXT}; median {middle(steps):g}")
    section.line(f"{name}: next new query", middle(f[0] for _, f in next_found) * 1e3, "ms",
                 note=f"{middle(f[2].requests for _, f in next_found):g} requests, "
                 f"{middle(f[2].bytes for _, f in next_found) / 1e3:,.0f} KB")
    picked = [(i, f[1]) for i, f in enumerate(firsts)] + [(j, f[1]) for j, f in next_found]
    recall = np.mean([len(set(ids) & set(truth.nearest[i][:K])) / K for i, ids in picked])
    section.raw[f"ours {data.name} {delay}"] = {
        "open": [{"seconds": o[0], **o[1].summary()} for o in opens],
        "first": [{"seconds": f[0], **f[2].summary()} for f in firsts],
        "next": [{"seconds": f[0], **f[2].summary()} for _, f in next_found], "recall": float(recall)}
    return elapsed, middle(f[0] for _, f in next_found), taken, [f[2] for _, f in next_found], recall


def lancedb(*words):
    return [sys.executable, "-B", common.ROOT / "bench/measure/peer_lancedb_s3.py", *map(str, words)]


def their_side(section, data, proxy, delay, mine):
    name = f"+{delay} ms" if delay else "loopback"
    firsts, nexts, recall = [], [], []
    for i in range(FIRST):
        count = NEXT // 2 if i == 0 else 0
        process = subprocess.Popen([str(w) for w in lancedb(data.name, s3.BUCKET)],
                                   stdin=subprocess.PIPE, stdout=subprocess.PIPE, text=True,
                                   env=s3.environment(proxy.endpoint))
        process.stdout.readline()  # the table is open
        for j in range(i, i + 1 + count):
            proxy.take()
            process.stdin.write(f"{j}\n")
            process.stdin.flush()
            answer = json.loads(process.stdout.readline())
            (firsts if j == i else nexts).append((answer["seconds"], proxy.take()))
            recall.append(answer["recall"])
        process.stdin.close()
        process.wait(timeout=60)
    elapsed = middle(f[0] for f in firsts)
    section.line(f"{name}, 200,000 rows: LanceDB's first search / ours", elapsed / mine[0], "x",
                 note=f"{elapsed * 1e3:,.0f} ms and {middle(f[1].requests for f in firsts):g} requests in "
                 f"{middle(f[1].steps() for f in firsts):g} steps; ours {mine[0] * 1e3:.3g} ms and "
                 f"{middle(t.requests for t in mine[2]):g} in {middle(t.steps() for t in mine[2]):g}")
    elapsed = middle(f[0] for f in nexts)
    section.line(f"{name}, 200,000 rows: LanceDB's next new query / ours", elapsed / mine[1], "x",
                 note=f"{elapsed * 1e3:,.0f} ms and {middle(f[1].requests for f in nexts):g} requests in "
                 f"{middle(f[1].steps() for f in nexts):g} steps; ours {mine[1] * 1e3:.3g} ms and "
                 f"{middle(t.requests for t in mine[3]):g} in {middle(t.steps() for t in mine[3]):g}; recall "
                 f"{np.mean(recall):.3f}, ours {mine[4]:.3f}")
    section.raw[f"lancedb {delay}"] = {
        "first": [{"seconds": f[0], **f[1].summary()} for f in firsts],
        "next": [{"seconds": f[0], **f[1].summary()} for f in nexts], "recall": float(np.mean(recall))}


def measure():
    large, small = vectorsets.get("sift-1m"), vectorsets.get("sift-200k")
    section = common.Section("s3cold", "SIFT descriptors, one segment, k 10, RECALL as it comes (0.95); "
                             "versitygw on loopback, and with 30 ms added to each request by a proxy")
    with s3.gateway() as target, s3.Proxy(target) as proxy:
        made = {}
        for data in (large, small):
            path, _ = ours.lake(data, "ivf")
            files = [f for f in path.rglob("*") if f.suffix == ".parquet" or "_index" in str(f) or f.suffix == ".vxi"]
            made[data.name] = (s3.link_into_bucket(path, data.name), sum(f.stat().st_size for f in files),
                               peers.Truth(data))
        section_resp.lancedb_cached()  # makes the table, on disk
        shutil.copytree(vectorsets.folder() / "lancedb" / f"{small.name}.lance",
                        s3.bucket() / "lancedb" / f"{small.name}.lance")
        for delay in s3.DELAYS_MS:
            proxy.delay(delay)
            probe = next(s3.bucket().rglob("*.parquet")).relative_to(s3.bucket())
            latency_s = s3.latency(proxy.endpoint, probe)
            long_s = s3.latency(proxy.endpoint, probe, 1 << 20, 12)
            rate = (1 << 20) / max(1e-6, long_s - latency_s)
            for data in (large, small):
                address, size, truth = made[data.name]
                found = our_side(section, data, truth, proxy, proxy.endpoint, delay, address, size,
                                 latency_s, rate)
                if data is large:
                    section.line(f"recall@10 of these queries, {'+%d ms' % delay if delay else 'loopback'}",
                                 found[4], "", ">= 0.95", found[4] >= 0.95)
            their_side(section, small, proxy, delay, found)
            section.raw[f"latency {delay}"] = {"seconds": latency_s, "bytes_per_second": rate}
    section.command([common.VEXLAKE, "serve", "--lake", "s3://bench/sift-1m", "--read-only", "--prefetch", "no"])
    return section
