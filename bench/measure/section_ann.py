"""ann: our indexes against other libraries' at equal recall, k 10, one thread, in alternation.

Sets: SIFT descriptors, 200,000 and a million, and real sentence embeddings. Every library holds
the set as one index; so do we (one segment). The peers are those of peers.py that its cached curves
show to be the fastest of their kind; for each side the settings on both sides of a recall run in
turns, three rounds, and the median speeds are interpolated. Speed is queries per CPU-second."""

import common
import vectorsets
import ours
import peers

RECALLS = (0.95, 0.99)
SETS = ("sift-200k", "sift-1m", "text")
BATCH = 100
GRAPH_RATIO, IVF_RATIO, IVF_LEAST = 4, 2, 1.5

# What is measured where no curve is known yet; tuned further, others may take their place.
DEFAULT = {
    "sift-200k": ("hnswlib-M16", "symqg-32", "faiss-ivfpq-1024-64", "rabitq-ivf-1024-9bit",
                  "rabitq-ivf-1024-5bit", "rabitq-ivf-1024-32bit", "faiss-HNSW32",
                  "usearch-M16-bf16", "vsag-sq8", "faiss-rabitq-1024-1bit"),
    "sift-1m": ("hnswlib-M16", "symqg-32", "faiss-ivfpq-2048-64", "rabitq-ivf-4096-32bit"),
    "text": ("hnswlib-M16", "symqg-32", "faiss-ivfpq-512-96", "rabitq-ivf-512-9bit",
             "rabitq-ivf-512-32bit"),
}


def kind(name):
    if name.startswith("symqg"):
        return "SymphonyQG"
    if "ivf" in name or name.startswith("faiss-rabitq"):
        return "IVF of faiss" if name.startswith("faiss") else "IVF of rabitqlib"
    return name.split("-")[0] + (" HNSW" if name.startswith("faiss") else "")


def known_curves(set_name):
    """{peer: curve} from the cache; measures the default ones that are missing."""
    for name in DEFAULT[set_name]:
        peers.measure(set_name, name)
    known = peers.cached()
    found = {}
    for name in peers.PEERS:
        key = peers.key_of(set_name, name)
        if key in known:
            found[name] = known[key]
    return found


def chosen(curves):
    """The fastest of each kind at either recall: those that run again, in turns with us."""
    names = ["hnswlib-M16"]
    for group in ("SymphonyQG", "IVF of faiss", "IVF of rabitqlib"):
        for recall in RECALLS:
            speed = {n: peers.qps_at(c["points"], recall) or 0 for n, c in curves.items()
                     if kind(n) == group}
            best = max(speed, key=speed.get, default=None)
            if best and speed[best] and best not in names:
                names.append(best)
    return names


def describe(found):
    near = next((p for p in peers.frontier(found) if p["recall"] >= 0.95), None)
    return f"{peers.describe(near)}: {near['recall']:.4f}" if near else ""


def one_set(section, set_name):
    data = vectorsets.get(set_name)
    cached = known_curves(set_name)
    truth = peers.Truth(data)
    mine = {"vexlake HNSW": ours.Ours(data, "hnsw", truth=truth),
            "vexlake IVF": ours.Ours(data, "ivf", truth=truth)}
    curves = {name: side.curve() for name, side in mine.items()}
    names = chosen(cached)
    sides = dict(mine) | {name: ours.Peer(data, name) for name in names}
    try:
        result, points = ours.alternate(sides, curves | {n: cached[n]["points"] for n in names},
                                        RECALLS)
        section.raw[set_name] = {"alternated": points, "curves": curves,
                                 "versions": {n: cached[n]["version"] for n in names}}
        for recall in RECALLS:
            lines(section, set_name, recall, result, points, names)
        for name, side in mine.items():
            for recall in RECALLS:
                point = side.run({"recall": recall})
                section.line(f"{set_name}: {name}, RECALL {recall}", point["recall"], "",
                             f">= {recall}", point["recall"] >= recall - 5e-4,
                             f"{point['qps']:,.0f} a CPU-second; {point['lists']:.3g} lists, "
                             f"{point['hops']:.3g} hops, {point['codes']:,.0f} codes, "
                             f"{point['rows']:,.0f} rows; p50 {point['p50_ms']:.3g} ms, p99 "
                             f"{point['p99_ms']:.3g} ms")
            many = side.run({"recall": 0.95}, batch=min(BATCH, side.count))
            section.line(f"{set_name}: {name}, RECALL 0.95, {BATCH} queries a call", many["qps"],
                         "/CPU-s", note=f"recall {many['recall']:.4f}")
        for name in names:
            many = [peers.qps_at(peers.batched(points[name]), r) for r in RECALLS]
            if "batch_qps" in points[name][0] and all(many):
                section.line(f"{set_name}: {name}, all queries in one call, at 0.95", many[0],
                             "/CPU-s", note=f"{many[1]:,.0f} at 0.99")
    finally:
        for side in sides.values():
            side.close()
    return curves, cached, names


def lines(section, set_name, recall, result, points, names):
    for name in result:
        speed = result[name][recall]
        if speed:
            section.line(f"{set_name} at {recall}: {name}", speed, "/CPU-s",
                         note=describe(points[name]) if recall == 0.95 else "")
    def ratio(mine, others, what, least):
        theirs = [result[n][recall] for n in others if result[n][recall]]
        if result[mine][recall] and theirs:
            value = result[mine][recall] / max(theirs)
            section.line(f"{set_name} at {recall}: {mine} / {what}", value, "x", f">= {least:g}",
                         value >= least, "" if value >= least or mine != "vexlake IVF" else
                         f"{'not ' if value >= IVF_LEAST else ''}below {IVF_LEAST}")
        else:
            section.line(f"{set_name} at {recall}: {mine} / {what}", 0, "x", f">= {least:g}",
                         False, "the recall was not reached")
    ratio("vexlake HNSW", ["hnswlib-M16"], "hnswlib", GRAPH_RATIO)
    ratio("vexlake HNSW", [n for n in names if kind(n) == "SymphonyQG"], "SymphonyQG", 1)
    ratio("vexlake IVF", [n for n in names if kind(n).startswith("IVF")],
          "best IVF of faiss and rabitqlib", IVF_RATIO)


def plot(sets):
    """One PNG: recall against speed, a panel a set."""
    import matplotlib
    matplotlib.use("Agg")
    from matplotlib import pyplot
    figure, panels = pyplot.subplots(1, len(sets), figsize=(6 * len(sets), 5.5), squeeze=False)
    for panel, (set_name, (mine, cached, names)) in zip(panels[0], sets.items()):
        shown = {n: p for n, p in mine.items()}
        best = {}
        for name, curve in cached.items():
            speed = peers.qps_at(curve["points"], 0.95) or 0
            if speed > best.get(kind(name), (0, ""))[0]:
                best[kind(name)] = speed, name
        shown |= {name: cached[name]["points"] for _, name in sorted(best.values(), reverse=True)}
        for name, points in shown.items():
            kept = [p for p in peers.frontier(points) if p["recall"] >= 0.85]
            ours_too = name.startswith("vexlake")
            panel.plot([p["recall"] for p in kept], [p["qps"] for p in kept], label=name,
                       marker="o", markersize=4 if ours_too else 3,
                       linewidth=2.5 if ours_too else 1.2,
                       linestyle="-" if ours_too else "--")
        panel.set(title=set_name, xlabel="recall@10", yscale="log", xlim=(0.85, 1.0),
                  ylabel="queries per CPU-second, one thread")
        panel.grid(True, which="both", alpha=0.3)
        panel.legend(fontsize=8)
    figure.tight_layout()
    common.OUT.mkdir(parents=True, exist_ok=True)
    figure.savefig(common.OUT / "ann.png", dpi=110)


def measure():
    section = common.Section("ann", "SIFT 128-d (200,000 and 1,000,000 rows) and text 384-d (20,000), "
                             "k 10, one thread, one query a call; kernel: the machine's best")
    sets = {name: one_set(section, name) for name in SETS}
    plot(sets)
    section.command(["bench/measure/peers.py", "table", "SET"])
    section.command([common.DRIVER, "serve", "LAKE", "c", "QUERIES", "DIM", 1])
    return section
