"""LanceDB in process over one set: peer_lancedb.py SET prints its curve as JSON.

Its IVF_PQ index with refinement. It runs its own threads, so CPU time of the process counts."""

import json
import os
import sys
import time

import numpy as np

import vectorsets
import peers


def main():
    import lancedb
    import pyarrow
    data = vectorsets.get(sys.argv[1])
    rows, truth = data.rows(), peers.Truth(data)
    queries = data.queries()[:200]
    truth.nearest, truth.queries = truth.nearest[:200], truth.queries[:200]
    home = vectorsets.folder() / "lancedb"
    base = lancedb.connect(str(home))
    begun = time.process_time()
    flat = pyarrow.array(np.ascontiguousarray(rows).ravel())
    table = base.create_table(data.name, pyarrow.table({
        "id": pyarrow.array(np.arange(len(rows), dtype=np.int32)),
        "vector": pyarrow.FixedSizeListArray.from_arrays(flat, data.dimension)}), mode="overwrite")
    table.create_index(metric="l2", vector_column_name="vector", num_partitions=512,
                       num_sub_vectors=data.dimension // 4, index_type="IVF_PQ")
    table.wait_for_index(["vector_idx"])
    built = time.process_time() - begun
    points = []
    for refine in (4, 10):
        for probes in (8, 16, 24, 32, 48, 64, 96):
            def one(query):
                found = (table.search(query).limit(peers.K).nprobes(probes).refine_factor(refine)
                         .select(["id"]).to_arrow())
                return found["id"].to_numpy()
            one(queries[0])
            begun, start = time.process_time(), time.monotonic()
            ids = [one(q) for q in queries]
            cpu, wall = time.process_time() - begun, time.monotonic() - start
            found = np.full((len(queries), peers.K), -1, np.int64)
            for i, row in enumerate(ids):
                found[i, :len(row)] = row[:peers.K]
            recall = float(truth.recall(found))
            points.append({"parameters": {"nprobes": probes, "refine": refine}, "recall": recall,
                           "qps": len(queries) / cpu, "wall_qps": len(queries) / wall})
            if recall > 0.97:
                break
    print(json.dumps({"version": lancedb.__version__, "points": points,
                      "built": {"cpu_s": built}, "load": os.getloadavg()[0]}))


main()
