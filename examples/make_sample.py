"""Make packages.parquet, the sample that `make run` imports, out of a larger file of its kind.

    python make_sample.py SOURCE.parquet packages.parquet

It keeps the 40 nearest neighbours of a few well-known packages, so that a first search finds good
company, and fills up with rows taken evenly from the rest, in the order of the source.
"""

import sys

import numpy
import pyarrow
import pyarrow.parquet

ROWS = 3500
COLUMNS = ["id", "vector", "section", "priority", "installed_size_kib"]
KNOWN = ["redis-server", "git", "curl", "emacs", "valgrind", "vlc", "gimp", "audacity", "tmux"]


def main(source, target):
    table = pyarrow.parquet.read_table(source, columns=COLUMNS)
    ids = table["id"].to_pylist()
    flat = table["vector"].combine_chunks().flatten().to_numpy()
    vectors = flat.reshape(len(ids), -1)
    keep = set()
    for name in KNOWN:
        scores = vectors @ vectors[ids.index(name)]
        keep.update(numpy.argsort(-scores, kind="stable")[:40].tolist())
    rest = [row for row in range(len(ids)) if row not in keep]
    evenly = numpy.linspace(0, len(rest) - 1, ROWS - len(keep)).astype(int)
    keep.update(rest[i] for i in evenly)
    sample = table.take(pyarrow.array(sorted(keep)))
    pyarrow.parquet.write_table(sample, target, compression="zstd", compression_level=19)
    print(f"{target}: {sample.num_rows} rows, {vectors.shape[1]} dimensions")


if __name__ == "__main__":
    main(*sys.argv[1:])
