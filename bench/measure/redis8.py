"""A redis-server that has vector sets (8.0 and later), to compare VSIM and VADD with.

One on the PATH is taken if it is new enough. Otherwise Debian's newer release has one: its package
and the libraries that it needs are unpacked in the cache folder of vectorsets.py and run from there by
their own loader; nothing is installed."""

import os
import pathlib
import re
import subprocess
import time

import redis

import common
import vectorsets

RELEASE = "trixie"
PACKAGES = ("redis-server", "redis-tools", "libc6", "libatomic1", "libjemalloc2", "liblzf1",
            "libssl3t64", "libstdc++6", "libsystemd0", "libgcc-s1", "libcap2", "liblzma5",
            "libzstd1", "liblz4-1", "zlib1g")
KEYRING = "/usr/share/keyrings/debian-archive-keyring.gpg"


def _unpacked():
    home = vectorsets.folder() / "redis8"
    root = home / "root"
    if not root.exists():
        lists, packages, part = home / "lists", home / "packages", home / "part"
        for path in (lists / "partial", home / "cache/archives/partial", packages, part):
            path.mkdir(parents=True, exist_ok=True)
        sources = home / "sources.list"
        sources.write_text(
            f"deb [signed-by={KEYRING}] http://deb.debian.org/debian {RELEASE} main\n")
        options = ["-q", "-o", f"Dir::Etc::SourceList={sources}", "-o",
                   "Dir::Etc::SourceParts=/dev/null", "-o", f"Dir::State::Lists={lists}", "-o",
                   f"Dir::Cache={home / 'cache'}", "-o", "APT::Sandbox::User=root"]
        vectorsets.say(f"redis-server of {RELEASE}")
        quiet = {"check": True, "stdout": subprocess.DEVNULL, "stderr": subprocess.DEVNULL}
        subprocess.run(["apt-get", *options, "update"], **quiet)
        subprocess.run(["apt-get", *options, "download", *PACKAGES], cwd=packages, **quiet)
        for archive in sorted(packages.glob("*.deb")):
            subprocess.run(["dpkg", "-x", archive, part], check=True)
        part.rename(root)
    return root


def words():
    """How to start it, or None if there is none."""
    found = re.search(r"v=(\d+)\.", common.text_of(["redis-server", "--version"]))
    if found and int(found.group(1)) >= 8:
        return ["redis-server"]
    if pathlib.Path(KEYRING).exists() and os.uname().machine == "x86_64":
        try:
            root = _unpacked()
            return [root / "usr/lib64/ld-linux-x86-64.so.2", "--library-path",
                    root / "usr/lib/x86_64-linux-gnu", root / "usr/bin/redis-server"]
        except (subprocess.CalledProcessError, OSError) as problem:
            vectorsets.say(f"no redis-server with vector sets: {problem}")
    return None


def start(port, *more, folder=None):
    """A context: the server process on the port, without persistence unless asked."""
    return common.server([*words(), "--port", port, "--bind", "127.0.0.1", "--save", "",
                          "--appendonly", "no", "--dir", folder or common.OUT, *more], port,
                         common.OUT / "redis8.log")


def filled(set_name):
    """The folder with a dump.rdb whose key `c` holds the set, and what VADD of its rows cost."""
    data = vectorsets.get(set_name)
    folder = vectorsets.folder() / "redis8" / set_name
    note = folder / "vadd.json"
    if not note.exists():
        folder.mkdir(parents=True, exist_ok=True)
        common.OUT.mkdir(parents=True, exist_ok=True)
        port = common.free_port()
        rows = len(data.rows())
        with start(port, folder=folder) as process:
            begun = time.monotonic()
            common.run([common.DRIVER, "vset", "127.0.0.1", port, "c", data.dimension, rows, 8, 16,
                        "vadd", data.rows_path])
            took = time.monotonic() - begun
            client = redis.Redis(port=port)
            cpu = sum(common.cpu_seconds(process.pid))
            memory = client.info("memory")["used_memory"]
            client.save()
            note.write_text(common.json.dumps({
                "rows": rows, "wall_s": took, "cpu_s": cpu, "memory_bytes": memory,
                "version": client.info("server")["redis_version"], "load": common.load()}) + "\n")
    return folder, common.json.loads(note.read_text())
