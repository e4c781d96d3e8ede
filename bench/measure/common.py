"""What the sections share: programs under test, processes, statistics, results."""

import contextlib
import json
import os
import pathlib
import re
import shutil
import socket
import statistics
import subprocess
import threading
import time

ROOT = pathlib.Path(__file__).resolve().parent.parent.parent
RELEASE = ROOT / "build" / "release"
VEXLAKE = RELEASE / "vexlake"
DRIVER = RELEASE / "vexlake_bench"
OUT = ROOT / "build" / "bench"
DATA = OUT / "data"
SCALE = float(os.environ.get("BENCH_SCALE", "1"))


def scaled(count):
    return max(1000, int(count * SCALE))


def median(values):
    return statistics.median(values)


def text_of(command):
    try:
        return subprocess.run(command, capture_output=True, text=True).stdout.strip()
    except FileNotFoundError:
        return ""


# ---- Results ------------------------------------------------------------------------------------


class Section:
    """Figures of one section: lines of a table, and everything measured as JSON."""

    def __init__(self, name, data):
        self.name, self.data, self.lines, self.raw, self.commands = name, data, [], {}, []

    def line(self, what, value, unit, target=None, holds=None, note=""):
        self.lines.append({"what": what, "value": value, "unit": unit, "target": target,
                           "holds": None if holds is None else bool(holds), "note": note})

    def command(self, words):
        self.commands.append(" ".join(str(w).replace(str(ROOT) + "/", "") for w in words))

    def print(self):
        print(f"\n{self.name}: {self.data}")
        for command in self.commands:
            print(f"  $ {command}")
        rows = [(l["what"], number_text(l["value"]), l["unit"], l["target"] or "",
                 "" if l["holds"] is None else "holds" if l["holds"] else "FALLS SHORT", l["note"])
                for l in self.lines]
        widths = [max(len(r[i]) for r in rows) for i in range(6)]
        for row in rows:
            cells = [row[0].ljust(widths[0]), row[1].rjust(widths[1]), row[2].ljust(widths[2]),
                     row[3].ljust(widths[3]), row[4].ljust(widths[4]), row[5]]
            print("  " + "  ".join(cells).rstrip())

    def write(self, machine):
        OUT.mkdir(parents=True, exist_ok=True)
        (OUT / f"{self.name}.json").write_text(json.dumps(
            {"section": self.name, "data": self.data, "commands": self.commands, "scale": SCALE,
             "machine": machine, "lines": self.lines, "raw": self.raw}, indent=1,
            default=lambda value: value.item()) + "\n")  # numpy's numbers


def number_text(value):
    if isinstance(value, int) or abs(value) >= 1000:
        return f"{value:,.0f}"
    return f"{value:.3g}" if abs(value) < 1 else f"{value:.4g}"


def load():
    return [round(x, 2) for x in os.getloadavg()]


def machine():
    cpu = text_of(["lscpu"])
    def field(name):
        found = re.search(rf"^{name}:\s*(.*)$", cpu, re.M)
        return found.group(1) if found else ""
    memory = next((int(line.split()[1]) // 1024 for line in open("/proc/meminfo")
                   if line.startswith("MemTotal")), 0)
    kernels = [f for f in ("avx2", "avx512f") if f" {f} " in field("Flags") + " "]
    import faiss, numpy, pyarrow
    OUT.mkdir(parents=True, exist_ok=True)
    return {
        "date": time.strftime("%Y-%m-%d %H:%M UTC", time.gmtime()),
        "cpu": field("Model name"), "family": field("CPU family"), "model": field("Model"),
        "cores": os.cpu_count(), "l2": field("L2 cache"), "l3": field("L3 cache"),
        "instruction_sets": kernels, "memory_mib": memory,
        "kernel": text_of(["uname", "-r"]),
        "huge_pages": re.sub(r".*\[(\w+)\].*", r"\1", (pathlib.Path(
            "/sys/kernel/mm/transparent_hugepage/enabled").read_text().strip())),
        "file_system": text_of(["stat", "-f", "-c", "%T", str(OUT)]),
        "load": load(), "nice": os.nice(0),
        "compiler": text_of(["cc", "--version"]).split("\n")[0],
        "commit": text_of(["git", "-C", str(ROOT), "describe", "--always", "--dirty"]),
        "vexlake": text_of([str(VEXLAKE), "version"]).split("\n")[0],
        "faiss": faiss.__version__, "numpy": numpy.__version__, "pyarrow": pyarrow.__version__,
        "redis": text_of(["redis-server", "--version"]).split(" sha=")[0],
    }


# ---- Processes ----------------------------------------------------------------------------------


def run(words, **options):
    """Run to its end; its stdout. Its stderr comes with the failure."""
    done = subprocess.run([str(w) for w in words], capture_output=True, text=True, **options)
    if done.returncode:
        raise RuntimeError(f"{words[0]} ended with {done.returncode}: {done.stderr[-800:]}")
    return done.stdout


def run_measured(words):
    """Run to its end; wall seconds, CPU seconds and peak resident bytes of that process alone."""
    start = time.monotonic()
    process = subprocess.Popen([str(w) for w in words], stdout=subprocess.DEVNULL,
                               stderr=subprocess.PIPE, text=True)
    errors = process.stderr.read()
    _, status, usage = os.wait4(process.pid, 0)
    wall = time.monotonic() - start
    process.returncode = os.waitstatus_to_exitcode(status)
    if process.returncode:
        raise RuntimeError(f"{words[0]} ended with {process.returncode}: {errors[-800:]}")
    return {"wall_s": wall, "user_s": usage.ru_utime, "system_s": usage.ru_stime,
            "peak_bytes": usage.ru_maxrss * 1024}


class Driver:
    """vexlake_bench serve: a lake opened in a process that waits for lines."""

    def __init__(self, lake, collection, queries, dimension, threads=1, kernel=None, environment=None):
        words = [DRIVER, "serve", lake, collection, queries, dimension, threads]
        environment = dict(os.environ, VEXLAKE_KERNEL=kernel) if kernel else environment
        self.process = subprocess.Popen([str(w) for w in words], stdin=subprocess.PIPE,
                                        stdout=subprocess.PIPE, text=True, env=environment)
        first = self._answer()
        self.count, self.open_s = first["queries"], first["open_ns"] / 1e9

    def _answer(self):
        line = self.process.stdout.readline()
        if not line:
            raise RuntimeError(f"vexlake_bench ended with {self.process.wait()}")
        return json.loads(line)

    def ask(self, *words):
        self.process.stdin.write(" ".join(str(w) for w in words) + "\n")
        self.process.stdin.flush()
        return self._answer()

    def search(self, first, count, k=10, nprobe=0, exact=False, ids=False, columns="-", ef=0,
               recall=0, batch=1):
        return self.ask("search", first, count, k, nprobe, int(exact), int(ids), columns, ef,
                        recall, batch)

    def close(self):
        self.process.stdin.close()
        self.process.wait(timeout=60)

    def __enter__(self):
        return self

    def __exit__(self, *_):
        self.close()


def free_port():
    with socket.socket() as s:
        s.bind(("127.0.0.1", 0))
        return s.getsockname()[1]


def cpu_seconds(pid):
    """User and system seconds of a running process."""
    fields = pathlib.Path(f"/proc/{pid}/stat").read_text().rsplit(")", 1)[1].split()
    tick = os.sysconf("SC_CLK_TCK")
    return int(fields[11]) / tick, int(fields[12]) / tick


def memory_bytes(pid):
    """Anonymous, file-backed and peak resident bytes."""
    found = {}
    for line in open(f"/proc/{pid}/status"):
        name, _, rest = line.partition(":")
        if name in ("RssAnon", "RssFile", "VmHWM"):
            found[name] = int(rest.split()[0]) * 1024
    return found


class AnonymousPeak(threading.Thread):
    """Samples a process' anonymous memory every five milliseconds; stop() gives the peak."""

    def __init__(self, pid):
        super().__init__(daemon=True)
        self.pid, self.peak, self.over = pid, 0, threading.Event()
        self.start()

    def run(self):
        while not self.over.wait(0.005):
            self.peak = max(self.peak, memory_bytes(self.pid).get("RssAnon", 0))

    def stop(self):
        self.over.set()
        self.join()
        return self.peak


@contextlib.contextmanager
def server(words, port, log):
    """A server process that answers on the port; ended by its pid."""
    with open(log, "w") as out:
        process = subprocess.Popen([str(w) for w in words], stdout=out, stderr=out)
    try:
        for _ in range(300):
            if process.poll() is not None:
                raise RuntimeError(f"{words[0]} ended: {pathlib.Path(log).read_text()[-800:]}")
            try:
                socket.create_connection(("127.0.0.1", port), timeout=1).close()
                break
            except OSError:
                time.sleep(0.05)
        yield process
    finally:
        if process.poll() is None:
            process.terminate()
            try:
                process.wait(timeout=120)
            except subprocess.TimeoutExpired:
                process.kill()
                process.wait()


def vexlake_server(lake, port, *flags, log=None):
    return server([VEXLAKE, "serve", "--lake", lake, "--port", port, "--log-level", "warning",
                   *flags], port, log or OUT / "server.log")


def wait_for_graphs(port, collection="c"):
    """Until a server has loaded or built the graphs of a collection."""
    import redis
    client = redis.Redis(port=port)
    while True:
        info = client.execute_command("VINFO", collection)
        pairs = dict(zip(info[::2], info[1::2])) if isinstance(info, list) else info
        if int(pairs[b"graphs-missing"]) == 0:
            return
        time.sleep(0.05)


def fresh(path):
    shutil.rmtree(path, ignore_errors=True)
    path.parent.mkdir(parents=True, exist_ok=True)
    return path


def import_into(lake, collection, *words):
    return run([VEXLAKE, "import", "--lake", lake, "--into", collection, *words])
