"""Real sentence embeddings: 20,000 packages imported as another program wrote them, searched with
queries that are none of them, against exact answers computed by numpy.

The data lie beside the repository in ../shared/data, or where VEXLAKE_SHARED says; without them
these tests are skipped.
"""

import os
import pathlib
import subprocess

import numpy
import pyarrow.parquet
import pytest

from conftest import PROGRAM, ROOT, as_map

DATA = pathlib.Path(os.environ.get("VEXLAKE_SHARED", ROOT.parent / "shared")) / "data"
PACKAGES = DATA / "debian-packages.parquet"
QUERIES = DATA / "queries-384.npy"
NPROBE = 96
QUERY_COUNT = 200
RECALL_MIN = 0.95

pytestmark = pytest.mark.skipif(not PACKAGES.exists() or not QUERIES.exists(), reason=f"no {PACKAGES} or {QUERIES}")


@pytest.fixture(scope="module")
def packages():
    return pyarrow.parquet.read_table(PACKAGES).to_pydict()


@pytest.fixture(scope="module")
def truth(packages):
    """For each query the ids of its ten nearest by cosine."""
    rows = numpy.array(packages["vector"], "f8")
    rows /= numpy.linalg.norm(rows, axis=1, keepdims=True)
    queries = numpy.load(QUERIES)[:QUERY_COUNT].astype("f8")
    scores = queries @ rows.T
    return [{packages["id"][i] for i in order} for order in numpy.argsort(-scores, axis=1)[:, :10]]


@pytest.fixture(scope="module", params=["auto", "ivf"])
def lake(request, tmp_path_factory):
    folder = tmp_path_factory.mktemp("real") / "lake"
    subprocess.run([PROGRAM, "import", "--lake", folder, "--into", "packages", "--metric", "cosine",
                    "--index", request.param, PACKAGES], check=True)
    return folder


def recall(client, truth, *options):
    queries = numpy.load(QUERIES)[:QUERY_COUNT].astype("<f4")
    pipe = client.pipeline(transaction=False)
    for query in queries:
        pipe.execute_command("VSEARCH", query.tobytes(), 10, *options, "IN", "packages")
    found = [{row[0].decode() for row in rows} for rows in pipe.execute()]
    return sum(len(a & b) for a, b in zip(found, truth)) / (10 * len(truth))


def test_recall(start, lake, truth):
    client = start(lake=lake).client()
    exact = recall(client, truth, "EXACT")
    default = recall(client, truth)
    probed = recall(client, truth, "NPROBE", NPROBE)
    narrow = recall(client, truth, "NPROBE", 1)
    print(f"recall@10: exact {exact:.4f}, default {default:.4f}, NPROBE {NPROBE} {probed:.4f}, NPROBE 1 {narrow:.4f}")
    assert exact >= 0.999  # a tie may fall the other way in float32
    assert default >= RECALL_MIN and probed >= RECALL_MIN
    assert narrow < 0.9  # the index was used


def test_typed_columns_come_along(start, lake, packages):
    client = start(lake=lake).client()
    info = as_map(client.execute_command("VINFO", "packages"))
    assert info["size"] == len(packages["id"]) and info["segments-damaged"] == 0
    for place in range(0, len(packages["id"]), 1999):
        row = client.execute_command(
            "VGET", packages["id"][place], "RETURN", 4, "vector", "section", "priority", "installed_size_kib",
            "RAW", "IN", "packages")
        assert row[b"vector"] == numpy.array(packages["vector"][place], "<f4").tobytes()
        assert row[b"section"].decode() == packages["section"][place]
        assert row[b"priority"].decode() == packages["priority"][place]
        assert row[b"installed_size_kib"] == packages["installed_size_kib"][place]


def test_verify(lake):
    result = subprocess.run([PROGRAM, "verify", "--lake", lake], capture_output=True, text=True)
    assert result.returncode == 0, result.stdout + result.stderr
