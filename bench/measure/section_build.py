"""build: CPU seconds from float32 to an index that can be searched.

Ours: vex_import of a .npy file that is in the page cache, to a committed lake with calibrated
indexes (and, with INDEX hnsw, its graphs): so Parquet, checksums and syncing are in it. Peers: from
an array in memory to an index in memory. The 200,000 and the text are built anew, in turns; peers'
builds of a million rows come from the cache (their load average beside them)."""

import json
import sys

import common
import vectorsets
import ours
import peers

# set, our index, peer, at most this many times its CPU seconds
CASES = (("sift-200k", "hnsw", "hnswlib-M16", 0.5), ("sift-1m", "hnsw", "hnswlib-M16", 0.5),
         ("text", "hnsw", "symqg-32", 1.0), ("sift-200k", "hnsw", "symqg-32", None),
         ("sift-200k", "ivf", "faiss-ivfpq-1024-64", 0.5),
         ("sift-1m", "ivf", "faiss-ivfpq-2048-64", 0.5))
FRESH = ("sift-200k", "text")


def peer_build(set_name, name):
    if set_name in FRESH:
        said = common.run([sys.executable, "-B", peers.__file__, "build", set_name, name])
        return json.loads(said.strip().splitlines()[-1])  # some libraries talk while they build
    return peers.measure(set_name, name)["built"]


def measure():
    section = common.Section("build", f"CPU seconds of all threads; {peers.BUILD_THREADS} threads")
    built = {}
    for set_name, index, name, most in CASES:
        data = vectorsets.get(set_name)
        if (set_name, index) not in built:
            _, built[set_name, index] = ours.lake(data, index)
        mine = built[set_name, index]
        if (set_name, name) not in built:
            built[set_name, name] = peer_build(set_name, name)
        theirs = built[set_name, name]
        seconds = mine["cpu_ns"] / 1e9
        ratio = seconds / theirs["cpu_s"]
        section.line(f"{set_name}: vexlake {index.upper()} / {name}", ratio, "x",
                     f"<= {most:g}" if most else None, ratio <= most if most else None,
                     f"{seconds:.3g} CPU-s ({mine['wall_ns'][0] / 1e9:.3g} s) against "
                     f"{theirs['cpu_s']:.3g}"
                     f"{'' if set_name in FRESH else ', cached, load %.1f' % theirs['load']}; "
                     f"index files {(mine['index_size_bytes'] + mine['graph_size_bytes']) / 1e6:,.0f} "
                     f"MB besides {mine['segment_size_bytes'] / 1e6:,.0f} MB of Parquet, peak memory "
                     f"{mine['anonymous_max'] / 1e6:,.0f} MB")
    section.raw = {" ".join(key): value for key, value in built.items()}
    section.command([common.DRIVER, "import", "LAKE", "c", "ivf|hnsw", "SET.npy", "l2", 0, 0,
                     ours.ONE_SEGMENT])
    return section
