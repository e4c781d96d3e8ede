"""The sets of vectors that the sections search: made here once, then read from the cache folder.

    vectorsets.py [NAME...]        sift-200k sift-1m text syn-1m syn-10m

The folder is $VEXLAKE_BENCH_DATA, by default build/bench/data. A set NAME is NAME.f32 (rows,
float32, row-major), its queries (FAMILY-queries.f32, none of them among the rows) and NAME-gt.i32:
for each query the numbers of its 100 nearest rows by exact search, nearest first.

sift  Descriptors that opencv's SIFT finds in the pictures of Debian's wallpaper packages: what SIFT
      sets of the literature hold, without their download. A picture that a package has in several
      sizes is used once, in the largest. Rows are distinct and in random order, so that the first
      200,000 of the million are a fair sample of it.
syn   Clusters of low intrinsic dimension: each has a centre, a basis of 12 to 16 axes of falling
      length in 128 dimensions, and a little noise beside it. Centres lie on a few coarse
      subspaces of the same kind, so that clusters overlap; sizes follow a power law. Rows come in
      random order, the first million is a sample of the ten.
text  The sentence embeddings of $VEXLAKE_DATA (default ../shared/data), scaled to unit length:
      under inner product, cosine and squared L2 the nearest are the same.
"""

import glob
import os
import pathlib
import subprocess
import sys

import numpy as np

ROOT = pathlib.Path(__file__).resolve().parent.parent.parent
QUERIES = 1000
NEAREST = 100
SEED = 20261122

PACKAGES = ("plasma-workspace-wallpapers", "gnome-backgrounds", "mate-backgrounds",
            "ukui-wallpapers", "lxqt-themes", "lomiri-wallpapers-16.04",
            "lomiri-wallpapers-20.04", "desktop-base")
SIFT_ROWS = 1_000_000

SYN_ROWS = 10_000_000
SYN_CHUNK = 500_000
SYN_CLUSTERS = 12_000
SYN_GROUPS = 60


def folder():
    found = pathlib.Path(os.environ.get("VEXLAKE_BENCH_DATA", ROOT / "build" / "bench" / "data"))
    found.mkdir(parents=True, exist_ok=True)
    return found


def say(text):
    print(f"vectorsets: {text}", file=sys.stderr, flush=True)


class Dataset:
    """Paths and arrays of one set."""

    def __init__(self, name, dimension, metric):
        self.name, self.dimension, self.metric = name, dimension, metric
        self.family = name.split("-")[0]
        self.rows_path = folder() / f"{name}.f32"
        self.queries_path = folder() / f"{self.family}-queries.f32"
        self.truth_path = folder() / f"{name}-gt.i32"

    def rows(self):
        return np.memmap(self.rows_path, np.float32, "r").reshape(-1, self.dimension)

    def queries(self):
        return np.fromfile(self.queries_path, np.float32).reshape(-1, self.dimension)

    def truth(self):
        return np.fromfile(self.truth_path, np.int32).reshape(-1, NEAREST)

    def ready(self):
        return all(p.exists() for p in (self.rows_path, self.queries_path, self.truth_path))


def write(path, array):
    """Whole or not at all: a run that is cut short must not leave half a set."""
    part = path.with_suffix(".part")
    array.tofile(part)
    part.rename(path)


def write_truth(found):
    """Exact neighbours, a piece of the rows at a time, so that memory stays small."""
    import faiss
    say(f"exact neighbours of {found.name}")
    rows, queries = found.rows(), found.queries()
    best, ids = None, None
    for at in range(0, len(rows), 1_000_000):
        distance, nearest = faiss.knn(queries, np.ascontiguousarray(rows[at:at + 1_000_000]),
                                      NEAREST)
        nearest = nearest + at
        if best is not None:
            distance, nearest = np.hstack([best, distance]), np.hstack([ids, nearest])
        order = np.argsort(distance, axis=1, kind="stable")[:, :NEAREST]
        best = np.take_along_axis(distance, order, 1)
        ids = np.take_along_axis(nearest, order, 1)
    write(found.truth_path, ids.astype(np.int32))


# ---- SIFT ---------------------------------------------------------------------------------------


def pictures():
    """Largest version of each picture of the packages."""
    from PIL import Image
    Image.MAX_IMAGE_PIXELS = None
    work = folder() / "pictures"
    if not work.exists():
        packages = folder() / "packages"
        packages.mkdir(exist_ok=True)
        say("downloading " + " ".join(PACKAGES))
        subprocess.run(["apt-get", "download", "-q", *PACKAGES], cwd=packages, check=True,
                       stdout=subprocess.DEVNULL, stderr=subprocess.DEVNULL)
        part = folder() / "pictures.part"
        for archive in sorted(packages.glob("*.deb")):
            subprocess.run(["dpkg", "-x", archive, part], check=True)
        part.rename(work)
    largest = {}
    for name in sorted(glob.glob(f"{work}/**/*", recursive=True)):
        path = pathlib.Path(name)
        if path.suffix.lower() not in (".jpg", ".jpeg", ".png", ".webp") or path.is_symlink():
            continue
        try:
            size = Image.open(path).size
        except OSError:
            continue
        # Plasma: <picture>/contents/images[_dark]/<width>x<height>.jpg; others a file a picture.
        key = str(path.parent) if path.parent.name.startswith("images") else str(path)
        if size[0] * size[1] > largest.get(key, (0, None))[0]:
            largest[key] = size[0] * size[1], path
    return [path for pixels, path in largest.values() if pixels >= 500_000]


def descriptors(path, scale, threshold):
    import cv2
    picture = cv2.imread(str(path), cv2.IMREAD_GRAYSCALE)
    if picture is None:
        return np.empty((0, 128), np.uint8)
    width, height = picture.shape[1] * scale, picture.shape[0] * scale
    shrink = min(1.0, 5120 / max(width, height)) * scale
    if shrink != 1:
        picture = cv2.resize(picture, None, fx=shrink, fy=shrink,
                             interpolation=cv2.INTER_AREA if shrink < 1 else cv2.INTER_CUBIC)
    _, found = cv2.SIFT_create(nfeatures=20_000, contrastThreshold=threshold).detectAndCompute(
        picture, None)
    return np.empty((0, 128), np.uint8) if found is None else found.astype(np.uint8)


def make_sift():
    import cv2
    cv2.setNumThreads(os.cpu_count())
    paths, found, count = pictures(), [], 0
    say(f"SIFT of {len(paths)} pictures")
    rows = np.empty((0, 128), np.uint8)
    for scale, threshold in ((1, 0.02), (0.61, 0.01), (0.37, 0.005), (1.3, 0.005)):
        for path in paths:
            found.append(descriptors(path, scale, threshold))
        rows = np.unique(np.concatenate(found).view("V128").ravel()).view(np.uint8)
        rows = rows.reshape(-1, 128)
        found = [rows]
        say(f"{len(rows):,} distinct descriptors with scale {scale}")
        if len(rows) >= SIFT_ROWS + QUERIES:
            break
    else:
        sys.exit("vectorsets: too few descriptors")
    order = np.random.default_rng(SEED).permutation(len(rows))[:SIFT_ROWS + QUERIES]
    rows = rows[order].astype(np.float32)
    write(folder() / "sift-queries.f32", rows[:QUERIES])
    write(folder() / "sift-200k.f32", rows[QUERIES:QUERIES + 200_000])
    write(folder() / "sift-1m.f32", rows[QUERIES:])


# ---- Synthetic ----------------------------------------------------------------------------------


class Clusters:
    """The distribution: everything about it follows from the seed."""

    def __init__(self, generator):
        self.axes = generator.integers(12, 17, SYN_CLUSTERS)
        weight = (np.arange(SYN_CLUSTERS) + 20.0) ** -0.6
        self.weight = generator.permutation(weight / weight.sum())
        group = generator.integers(0, SYN_GROUPS, SYN_CLUSTERS)
        group_centre = generator.normal(0, 0.35, (SYN_GROUPS, 128)).astype(np.float32)
        group_basis = generator.normal(0, 1, (SYN_GROUPS, 14, 128)).astype(np.float32)
        self.centre = np.empty((SYN_CLUSTERS, 128), np.float32)
        self.basis = []
        for c in range(SYN_CLUSTERS):
            g = group[c]
            axes = self.axes[c]
            self.centre[c] = group_centre[g] + generator.normal(0, 0.3, 14) @ group_basis[g]
            length = 0.9 * np.arange(1, axes + 1) ** -0.2
            # Half of the axes are those of the group: clusters of a group run into each other.
            basis = generator.normal(0, 1, (axes, 128)).astype(np.float32)
            shared = min(axes // 2 + 1, 14)
            pick = generator.permutation(14)[:shared]
            basis[:shared] = group_basis[g][pick]
            self.basis.append((length[:, None] * basis).astype(np.float32))

    def rows(self, generator, count):
        cluster = np.sort(generator.choice(SYN_CLUSTERS, count, p=self.weight))
        rows = generator.standard_normal((count, 128), np.float32) * np.float32(0.12)
        begin = np.searchsorted(cluster, np.arange(SYN_CLUSTERS + 1))
        for c in range(SYN_CLUSTERS):
            first, last = begin[c], begin[c + 1]
            if first < last:
                along = generator.standard_normal((last - first, self.axes[c]), np.float32)
                rows[first:last] += self.centre[c] + along @ self.basis[c]
        generator.shuffle(rows)
        return rows


def make_syn(count, name):
    generator = np.random.default_rng(SEED + 1)
    clusters = Clusters(generator)
    write(folder() / "syn-queries.f32", clusters.rows(generator, QUERIES))
    part = folder() / f"{name}.part"
    with open(part, "wb") as out:
        for at in range(0, count, SYN_CHUNK):
            clusters.rows(generator, min(SYN_CHUNK, count - at)).tofile(out)
    part.rename(folder() / f"{name}.f32")


# ---- Text ---------------------------------------------------------------------------------------


def text_folder():
    return pathlib.Path(os.environ.get("VEXLAKE_DATA", ROOT.parent / "shared" / "data"))


def make_text():
    import pyarrow.parquet
    table = pyarrow.parquet.read_table(text_folder() / "debian-packages.parquet", columns=["vector"])
    rows = table["vector"].combine_chunks().flatten().to_numpy().reshape(len(table), -1)
    queries = np.load(text_folder() / "queries-384.npy").astype(np.float32)
    for name, array in (("text", rows), ("text-queries", queries)):
        array = array / np.linalg.norm(array, axis=1, keepdims=True)
        write(folder() / f"{name}.f32", np.ascontiguousarray(array, np.float32))


# ---- All ----------------------------------------------------------------------------------------

SETS = {"sift-200k": (128, "l2"), "sift-1m": (128, "l2"), "text": (384, "cosine"),
        "syn-1m": (128, "l2"), "syn-10m": (128, "l2")}


def get(name):
    """The set of that name, made if it is missing."""
    dimension, metric = SETS[name]
    found = Dataset(name, dimension, metric)
    if not found.rows_path.exists() or not found.queries_path.exists():
        say(f"making {name}")
        if name.startswith("sift"):
            make_sift()
        elif name == "text":
            make_text()
        else:
            make_syn(SYN_ROWS if name == "syn-10m" else 1_000_000, name)
    if not found.truth_path.exists():
        write_truth(found)
    return found


def main():
    for name in sys.argv[1:] or SETS:
        found = get(name)
        say(f"{name}: {len(found.rows()):,} x {found.dimension}, {len(found.queries()):,} queries")


if __name__ == "__main__":
    main()
