"""The HTTP port: /metrics in both formats, /health and /ready through the life of a server."""

import http.client
import json
import os
import re
import socket
import subprocess
import threading
import time

import pytest
from prometheus_client.openmetrics.parser import text_string_to_metric_families as parse_open_metrics
from prometheus_client.parser import text_string_to_metric_families as parse_text

from conftest import PROGRAM, ROOT, blob, error, receive_all

OPEN_METRICS = "application/openmetrics-text; version=1.0.0"


class Port:
    """The HTTP port of a server, known once its log tells it."""

    def __init__(self, server):
        self.server = server
        end = time.monotonic() + 60
        while not (found := re.search(r" http address=\S+ port=(\d+)", server.log())):
            assert server.process.poll() is None and time.monotonic() < end, server.log()
            time.sleep(0.01)
        self.port = int(found.group(1))

    def request(self, path, method="GET", accept=OPEN_METRICS):
        connection = http.client.HTTPConnection("127.0.0.1", self.port, timeout=60)
        connection.request(method, path, headers={"Accept": accept})
        response = connection.getresponse()
        body = response.read().decode()
        connection.close()
        return response, body

    def get(self, path):
        response, body = self.request(path)
        return response.status, body

    def samples(self):
        """{name: {labels as a sorted tuple: value}}, by the strict parser."""
        response, body = self.request("/metrics")
        assert response.status == 200 and response.getheader("Content-Type").startswith(OPEN_METRICS)
        return samples_of(parse_open_metrics(body))

    def wait(self, path, status):
        end = time.monotonic() + 60
        while (got := self.get(path))[0] != status:
            assert time.monotonic() < end, got
            time.sleep(0.01)
        return got[1]

    def raw(self):
        return socket.create_connection(("127.0.0.1", self.port), timeout=60)


def samples_of(families):
    out = {}
    for family in families:
        for sample in family.samples:
            labels = tuple(sorted(sample.labels.items()))
            assert labels not in out.setdefault(sample.name, {}), sample
            out[sample.name][labels] = sample.value
    return out


def one(samples, name, **labels):
    return samples[name][tuple(sorted(labels.items()))]


@pytest.fixture
def served(start):
    server = start("--http-port", "0")
    return server, Port(server)


def fill(call, collection, count=64, dimension=8):
    call("VCREATE", collection, "DIM", dimension)
    for i in range(count):
        call("VSET", f"k{i}", blob(*([i] * dimension)), "IN", collection)


def test_off_by_default(server):
    assert server.client().config_get("http-port") == {"http-port": "off"}
    assert " http address=" not in server.log()


def test_both_formats_say_the_same(served):
    server, port = served
    call = server.client().execute_command
    fill(call, "c")
    call("VSEARCH", blob(*([1] * 8)), 3, "IN", "c")
    response, text = port.request("/metrics", accept="text/plain")
    assert response.getheader("Content-Type") == "text/plain; version=0.0.4; charset=utf-8"
    assert "# EOF" not in text and "# UNIT" not in text
    response, opened = port.request("/metrics")
    assert opened.endswith("\n# EOF\n")
    plain, strict = samples_of(parse_text(text)), samples_of(parse_open_metrics(opened))
    assert plain.keys() == strict.keys() and len(strict) > 60
    for name in plain:
        assert plain[name].keys() == strict[name].keys()
    for family in parse_open_metrics(opened):
        assert family.documentation
        unit = re.search(r"_(seconds|bytes)$", family.name)
        assert family.unit == (unit.group(1) if unit else "")
    assert one(strict, "vexlake_build_info", version="0.1.0") == 1


def test_counters_move_with_traffic(served):
    server, port = served
    client = server.client()
    call = client.execute_command
    fill(call, "c", 100)
    before = port.samples()
    for _ in range(7):
        call("VSEARCH", blob(*([1] * 8)), 3, "IN", "c")
    pipe = client.pipeline(transaction=False)
    for i in range(20):
        pipe.execute_command("VSEARCH", blob(*([i] * 8)), 3, "IN", "c")
    pipe.execute()
    error(client, "VSEARCH", blob(1, 2), 3, "IN", "c")
    error(client, "VSEARCH", blob(1, 2), 3, "IN", "absent")
    error(client, "VGET", "k1", "IN", "absent")
    error(client, "VSET", "k1", blob(1), "IN", "c")
    error(client, "VDEL", "k1", "IN", "absent")
    error(client, "NOSUCH")
    error(client, "VINFO", "a", "b", "c")
    error(client, "ECHO")
    for i in range(5):
        call("VGET", f"k{i}", "IN", "c")
    call("VDEL", "k0", "k1", "IN", "c")
    mid = port.samples()

    def moved(name, **labels):
        return one(mid, name, **labels) - one(before, name, **labels)

    searches = dict(collection="c")
    assert one(mid, "vexlake_search_duration_seconds_count", **searches) == 28
    assert one(mid, "vexlake_search_errors_total", **searches) == 1
    assert one(mid, "vexlake_search_duration_seconds_sum", **searches) > 0
    assert moved("vexlake_searches_total") == 29 and moved("vexlake_searches_unlisted_total") == 1
    assert moved("vexlake_command_duration_seconds_count", command="vsearch") == 29
    assert moved("vexlake_command_errors_total", command="vsearch") == 2
    assert moved("vexlake_command_duration_seconds_count", command="vget") == 6
    assert moved("vexlake_command_errors_total", command="vget") == 1
    assert moved("vexlake_command_errors_total", command="vset") == 1
    assert moved("vexlake_command_duration_seconds_count", command="vdel") == 2
    assert moved("vexlake_command_errors_total", command="vdel") == 1
    assert moved("vexlake_command_errors_total", command="vinfo") == 1
    assert moved("vexlake_commands_refused_total") == 2
    assert moved("vexlake_command_duration_seconds_count", command="ping") == 8  # of error()
    assert moved("vexlake_received_bytes_total") > 0 and moved("vexlake_sent_bytes_total") > 0
    assert one(mid, "vexlake_rows_written_total") == 100
    assert one(mid, "vexlake_collection_rows", collection="c") == one(mid, "vexlake_rows") == 98
    assert one(mid, "vexlake_collection_memtable_rows", collection="c") == 102
    assert 0 < one(mid, "vexlake_collection_log_delay_seconds", collection="c") == one(mid, "vexlake_log_delay_seconds")
    assert one(mid, "vexlake_memtable_used_bytes") > 0 and one(mid, "vexlake_memtable_limit_bytes") == 1 << 30
    assert one(mid, "vexlake_log_files") == 1 and one(mid, "vexlake_log_failed") == 0
    log = sum(path.stat().st_size for path in server.lake.rglob("*.wal"))
    assert one(mid, "vexlake_log_bytes") == log
    assert moved("vexlake_store_operation_duration_seconds_count", operation="log_sync") >= 1
    assert one(mid, "vexlake_store_bytes_total", operation="log_append") == log

    call("VFLUSH", "c")
    after = port.samples()
    assert one(after, "vexlake_collection_log_delay_seconds", collection="c") == 0
    assert one(after, "vexlake_collection_memtable_rows", collection="c") == 0
    assert one(after, "vexlake_collection_segments", collection="c") == one(after, "vexlake_segments") == 1
    assert one(after, "vexlake_collection_flushes_total", collection="c") == 1
    parquet = sum(path.stat().st_size for path in server.lake.rglob("*.parquet"))
    assert one(after, "vexlake_collection_parquet_bytes", collection="c") == parquet
    for operation in ("put", "put_if_absent", "map", "size"):
        assert one(after, "vexlake_store_operation_duration_seconds_count", operation=operation) > 0
        assert one(after, "vexlake_store_operation_errors_total", operation=operation) == 0
    assert one(after, "vexlake_store_bytes_total", operation="put") >= parquet
    # No counter goes back.
    for name, values in before.items():
        if name.endswith(("_total", "_count", "_bucket")):
            for labels, value in values.items():
                assert after[name][labels] >= value, (name, labels)


def test_the_process_is_told(served):
    server, port = served
    samples = port.samples()
    assert one(samples, "process_resident_memory_bytes") > 1 << 20
    assert one(samples, "process_cpu_seconds_total") > 0
    files = len(os.listdir(f"/proc/{server.process.pid}/fd"))
    assert abs(one(samples, "process_open_fds") - files) <= 2
    assert abs(one(samples, "process_start_time_seconds") - time.time()) < 3600
    assert one(samples, "vexlake_ready") == 1 and one(samples, "vexlake_connections_limit") == 10000
    assert one(samples, "vexlake_http_requests_total", path="/metrics") == 1
    assert one(samples, "vexlake_connections") == 0
    clients = [server.client() for _ in range(3)]
    for client in clients:
        client.ping()
    assert one(port.samples(), "vexlake_connections") == 3


def test_odd_names_of_collections(served):
    server, port = served
    call = server.client().execute_command
    names = ['quote"s', "back\\slash", "\\n", 'x="y",z={}', "é ∑ 数", "a b", "#", "", "\u2028", "x" * 128]
    for name in filter(None, names):
        fill(call, name, 2)
        call("VSEARCH", blob(*([1] * 8)), 1, "IN", name)
    samples = port.samples()
    told = {dict(labels)["collection"] for labels in samples["vexlake_collection_rows"]}
    searched = {dict(labels)["collection"] for labels in samples["vexlake_search_duration_seconds_count"]}
    assert told == searched == set(filter(None, names))


def test_the_cap_of_collections_is_told(served):
    server, port = served
    call = server.client().execute_command
    count = 260
    for i in range(count):
        call("VCREATE", f"c{i:04}", "DIM", 2)
        call("VSEARCH", blob(1, 1), 1, "IN", f"c{i:04}")
    samples = port.samples()
    assert one(samples, "vexlake_collections") == count and one(samples, "vexlake_collections_unlisted") == 4
    assert len(samples["vexlake_collection_rows"]) == 256
    assert len(samples["vexlake_search_duration_seconds_count"]) == 256
    assert one(samples, "vexlake_searches_unlisted_total") == 4
    # Dropped ones make room, and are told no more.
    for i in range(10):
        call("VDROP", f"c{i:04}")
    samples = port.samples()
    assert one(samples, "vexlake_collections_unlisted") == 0
    assert len(samples["vexlake_search_duration_seconds_count"]) == 246
    call("VSEARCH", blob(1, 1), 1, "IN", "c0259")
    assert one(port.samples(), "vexlake_search_duration_seconds_count", collection="c0259") == 1


# ---- Health and readiness ---------------------------------------------------------------------------


def test_the_port_is_there_before_the_lake(start):
    """src/server/http_test.c holds a server in that state; here is its order, and a clean end of a failed start."""
    server = start()
    server.client().execute_command("VSET", "a", "[1,2]")
    done = subprocess.run([PROGRAM, "serve", "--lake", server.lake, "--port", "0", "--http-port", "0"],
                          capture_output=True, timeout=60, text=True)
    lines = done.stderr.splitlines()
    assert done.returncode == 1 and len(lines) == 2, done.stderr
    assert " http address=127.0.0.1 port=" in lines[0] and "is held by process" in lines[1]


def test_readiness_follows_the_storage(served):
    server, port = served
    call = server.client().execute_command
    fill(call, "c")
    assert port.get("/ready") == (200, "ok\n")
    away = server.lake.with_name("away")
    server.lake.rename(away)
    assert "storage fails" in port.wait("/ready", 503)
    assert port.get("/health") == (200, "ok\n")
    assert one(port.samples(), "vexlake_ready") == 0
    away.rename(server.lake)
    assert port.wait("/ready", 200) == "ok\n"


def test_draining(served):
    server, port = served
    # Replies that nobody reads keep the server from ending.
    raw = server.socket()
    raw.setsockopt(socket.SOL_SOCKET, socket.SO_RCVBUF, 4096)
    text = b"x" * (1 << 20)
    command = b"*2\r\n$4\r\nECHO\r\n$%d\r\n%s\r\n" % (len(text), text)

    def send():
        try:
            raw.sendall(command * 30)
        except OSError:
            pass  # ended below

    sender = threading.Thread(target=send)
    sender.start()
    received = [-1]
    while len(received) < 10 or len(set(received[-5:])) > 1 or received[-1] < len(text):
        time.sleep(0.05)
        received.append(one(port.samples(), "vexlake_received_bytes_total"))
    server.process.terminate()
    assert "draining" in port.wait("/ready", 503)
    assert port.get("/health") == (200, "ok\n")
    raw.shutdown(socket.SHUT_RDWR)
    sender.join()
    raw.close()
    assert server.process.wait(60) == 0
    with pytest.raises(OSError):
        port.raw()


# ---- Strangers --------------------------------------------------------------------------------------


def test_other_paths_and_methods(served):
    _, port = served
    assert port.get("/")[0] == port.get("/metrics/")[0] == port.get("/../etc/passwd")[0] == 404
    assert port.get("/health?verbose=1")[0] == 200
    response, body = port.request("/health", method="HEAD")
    assert response.status == 200 and body == ""
    for method in ("POST", "PUT", "DELETE", "OPTIONS", "TRACE"):
        response, _ = port.request("/metrics", method=method)
        assert response.status == 405 and response.getheader("Allow") == "GET, HEAD"


def test_hostile_input(served):
    _, port = served
    for data in (b"\0" * 4096, b"GET\r\n\r\n", b"GET /metrics HTTP/9.9\r\n\r\n", b"\xff\xfe\r\n\r\n",
                 b"GET /" + b"a" * 100000 + b" HTTP/1.1\r\n\r\n",
                 b"GET /health HTTP/1.1\r\n" + b"X: y\r\n" * 10000 + b"\r\n",
                 b"POST /health HTTP/1.1\r\nHost: x\r\nContent-Length: 99999999999\r\n\r\n" + b"z" * 100000,
                 b"POST /health HTTP/1.1\r\nHost: x\r\nTransfer-Encoding: chunked\r\n\r\nffffffffffffffff\r\n"):
        raw = port.raw()
        try:
            raw.sendall(data)
            raw.shutdown(socket.SHUT_WR)
            answer = receive_all(raw)
        except OSError:
            answer = b""
        raw.close()
        assert not answer.startswith(b"HTTP/1.1 200"), (data[:40], answer[:200])
        assert port.get("/health") == (200, "ok\n")


def test_one_request_a_connection(served):
    _, port = served
    raw = port.raw()
    raw.sendall(b"GET /health HTTP/1.1\r\nHost: x\r\n\r\nGET /health HTTP/1.1\r\nHost: x\r\n\r\n")
    answer = receive_all(raw)
    raw.close()
    assert answer.count(b"HTTP/1.1 200") == 1 and b"Connection: close" in answer


def test_idle_connections_do_not_keep_others_out_for_ever(served):
    """More of them than there are places; each sends a byte now and then, so only its age ends it."""
    server, port = served
    idle = [port.raw() for _ in range(40)]
    stop = threading.Event()

    def drip():
        data = iter(b"GET /health HTTP/1.1\r\nX: " + b"y" * 100000)
        while not stop.wait(1):
            byte = bytes([next(data)])
            for raw in idle:
                try:
                    raw.send(byte)
                except OSError:
                    pass

    thread = threading.Thread(target=drip)
    thread.start()
    refused = 0
    while True:
        try:
            assert port.get("/health") == (200, "ok\n")
            break
        except OSError:  # no place is free yet
            refused += 1
            time.sleep(0.1)
    stop.set()
    thread.join()
    for raw in idle:
        raw.close()
    assert refused > 0 and server.client().ping()


def test_scrapes_beside_traffic(served):
    server, port = served
    call = server.client().execute_command
    fill(call, "c", 200)
    stop = threading.Event()
    problems = []

    def work(number):
        client = server.client()
        i = 0
        while not stop.is_set():
            i += 1
            try:
                client.execute_command("VSET", f"w{number}-{i}", blob(*([i] * 8)), "IN", "c")
                client.execute_command("VSEARCH", blob(*([i] * 8)), 3, "IN", "c")
                if i % 20 == 0:
                    client.execute_command("VCREATE", f"t{number}-{i}", "DIM", 2)
                    client.execute_command("VSEARCH", blob(1, 2), 3, "IN", f"t{number}-{i}")
                    client.execute_command("VDROP", f"t{number}-{i}")
            except Exception as problem:  # told below
                problems.append(problem)
                return

    threads = [threading.Thread(target=work, args=(n,)) for n in range(3)]
    for thread in threads:
        thread.start()
    last = 0
    for _ in range(20):
        samples = port.samples()
        count = one(samples, "vexlake_command_duration_seconds_count", command="vsearch")
        assert count >= last
        last = count
        assert port.get("/ready")[0] == 200
    stop.set()
    for thread in threads:
        thread.join()
    assert not problems, problems


# ---- Flags ------------------------------------------------------------------------------------------


def test_flags_that_cannot_work(tmp_path):
    with socket.socket() as taken:
        taken.bind(("127.0.0.1", 0))
        taken.listen()
        for flags, code, says in ((["--http-port", "x"], 2, "or off"),
                                  (["--http-port", "70000"], 2, "http-port"),
                                  (["--http-port", "0", "--http-bind", "nowhere"], 1, "--http-bind"),
                                  (["--http-port", str(taken.getsockname()[1])], 1, "ddress already in use")):
            done = subprocess.run([PROGRAM, "serve", "--lake", tmp_path / "lake", "--port", "0", *flags],
                                  capture_output=True, timeout=60, text=True)
            assert done.returncode == code and says in done.stderr and done.stderr.count("\n") == 1, done
            assert not (tmp_path / "lake").exists()


# ---- Documents --------------------------------------------------------------------------------------

NAME = re.compile(r"\b(?:vexlake|process)_[a-z0-9_]+\b")


def told_names(port):
    """Names of samples, and of families, as they are told."""
    _, body = port.request("/metrics")
    families = {family.name for family in parse_open_metrics(body)}
    return families, set(samples_of(parse_open_metrics(body)))


@pytest.fixture
def told(served):
    server, port = served
    call = server.client().execute_command
    fill(call, "c")
    call("VSEARCH", blob(*([1] * 8)), 3, "IN", "c")
    return told_names(port)


def expressions(node):
    if isinstance(node, dict):
        for key, value in node.items():
            if key in ("expr", "query", "definition") and isinstance(value, str) and value != "prometheus":
                yield value
            else:
                yield from expressions(value)
    elif isinstance(node, list):
        for value in node:
            yield from expressions(value)


def test_the_dashboard_asks_for_what_is_told(told):
    _, samples = told
    dashboard = json.loads((ROOT / "deploy/grafana/vexlake.json").read_text())
    found = list(expressions(dashboard))
    assert len(found) > 20
    for expression in found:
        names = NAME.findall(re.sub(r'"(?:\\.|[^"\\])*"', '""', expression))
        assert names and set(names) <= samples, expression


def test_every_metric_is_explained_and_no_other(told):
    families, samples = told
    page = (ROOT / "docs/operations.md").read_text()
    explained = set(re.findall(r"^\| `((?:vexlake|process)_[a-z0-9_]+)`", page, re.M))
    assert explained == families
    assert set(NAME.findall(page)) <= families | samples
