"""What the sections on S3 share: a server, a proxy before it, lakes in its bucket.

versitygw (what tools/setup test installs) keeps a bucket as a folder, so a lake gets there by
linking its files, and another server can be measured as well: VEXLAKE_BENCH_S3_GATEWAY names the
program. Clients come through s3_proxy.py, which counts their requests and delays them."""

import contextlib
import json
import os
import pathlib
import shutil
import socket
import statistics
import subprocess
import sys
import time

import common

GATEWAY = pathlib.Path(os.environ.get("VEXLAKE_BENCH_S3_GATEWAY") or common.ROOT / "build/go/bin/versitygw")
BUCKET, ACCESS, SECRET = "bench", "bench-access", "bench-secret-key"
ROOT = common.OUT / "s3"
DELAYS_MS = (0, 30)


def environment(endpoint):
    """Settings for a program that speaks to the server, whatever this machine says."""
    kept = {name: value for name, value in os.environ.items() if not name.startswith("AWS_")}
    return dict(kept, AWS_ACCESS_KEY_ID=ACCESS, AWS_SECRET_ACCESS_KEY=SECRET, AWS_ENDPOINT_URL=endpoint,
                AWS_REGION="us-east-1", HOME=str(ROOT))


@contextlib.contextmanager
def gateway():
    """The server over ROOT/root, with an empty bucket; gives host:port."""
    if not GATEWAY.exists():
        raise RuntimeError("no versitygw: run tools/setup test")
    shutil.rmtree(ROOT, ignore_errors=True)
    for folder in ("root/" + BUCKET, "sidecar"):
        (ROOT / folder).mkdir(parents=True)
    port = common.free_port()
    words = [GATEWAY, "--port", f"127.0.0.1:{port}", "--access", ACCESS, "--secret", SECRET, "--quiet",
             "--keep-alive", "posix", "--sidecar", ROOT / "sidecar", ROOT / "root"]
    with common.server(words, port, ROOT / "gateway.log"):
        yield f"127.0.0.1:{port}"


def bucket():
    return ROOT / "root" / BUCKET


def link_into_bucket(lake, name):
    """A lake of the disk, complete in Parquet, as the bucket's `name`; its address."""
    def link(source, target):
        if "_delta_log" in source or "/.vexlake/" in source:
            shutil.copy2(source, target)
        else:
            os.link(source, target)
    shutil.rmtree(bucket() / name, ignore_errors=True)
    shutil.copytree(lake, bucket() / name, copy_function=link,
                    ignore=lambda folder, names: {"wal", "lock"} if folder.endswith(".vexlake") else set())
    return f"s3://{BUCKET}/{name}"


class Proxy:
    def __init__(self, target):
        self.process = subprocess.Popen([sys.executable, "-B", pathlib.Path(__file__).parent / "s3_proxy.py", target],
                                        stdin=subprocess.PIPE, stdout=subprocess.PIPE, text=True)
        self.endpoint = f"http://127.0.0.1:{int(self.process.stdout.readline())}"

    def ask(self, *words):
        self.process.stdin.write(" ".join(map(str, words)) + "\n")
        self.process.stdin.flush()
        return json.loads(self.process.stdout.readline())

    def delay(self, milliseconds):
        return self.ask("delay", milliseconds)

    def take(self):
        return Taken(self.ask("take"))

    def __enter__(self):
        return self

    def __exit__(self, *_):
        self.process.stdin.close()
        self.process.wait(timeout=60)


class Taken:
    """Requests of some time: how many, how many bytes, how many had to wait for others."""

    def __init__(self, requests):
        self.list = [r for r in requests if r["ended_ns"]]
        self.requests = len(self.list)
        self.bytes = sum(r["received"] for r in self.list)
        self.sent = sum(r["sent"] for r in self.list)

    def steps(self):
        """The longest chain in which each request began after the one before had ended. What waits
        for an answer begins after it; requests in flight together overlap."""
        count, last_end = 0, 0
        for r in sorted(self.list, key=lambda r: r["ended_ns"]):
            if r["begun_ns"] >= last_end:
                count, last_end = count + 1, r["ended_ns"]
        return count

    def of_segments(self):
        """Those for data, index and graph files: what searches and prefetching ask for."""
        return [r for r in self.list if "/index/" in r["name"] or
                ("/data/" in r["name"] and "/_delta_log/" not in r["name"] and "list-type" not in r["name"])]

    def kinds(self):
        found = {}
        for r in self.list:
            kind = "LIST" if "list-type" in r["name"] else r["method"]
            found[kind] = found.get(kind, 0) + 1
        return found

    def summary(self):
        return {"requests": self.requests, "steps": self.steps(), "bytes": self.bytes, "sent": self.sent,
                "kinds": self.kinds()}


@contextlib.contextmanager
def serve(address, endpoint, *flags, settle=True):
    """`vexlake serve` over a lake in the bucket; gives (process, port, client)."""
    import redis
    port = common.free_port()
    log = common.OUT / "s3-server.log"
    words = [common.VEXLAKE, "serve", "--lake", address, "--port", port, "--log-level", "warning", *flags]
    with open(log, "w") as out:
        process = subprocess.Popen([str(w) for w in words], stdout=out, stderr=out,
                                   env=environment(endpoint))
    client = redis.Redis(port=port, socket_timeout=600)
    try:
        # The socket is there before the lake is open: an answer says that it is.
        while True:
            if process.poll() is not None:
                raise RuntimeError(f"the server ended: {log.read_text()[-800:]}")
            try:
                client.ping()
                break
            except redis.ConnectionError:
                time.sleep(0.005)
        yield process, port, client
    finally:
        client.close()
        if process.poll() is None:
            process.terminate()
            try:
                process.wait(timeout=120)
            except subprocess.TimeoutExpired:
                process.kill()
                process.wait()


def flags_of_serve():
    return common.run([common.VEXLAKE, "serve", "--help"])


def signed(connection, method, name, body=None, **more):
    """One request with a signature, as a client would send it: seconds, status, bytes of the body."""
    import hashlib
    import hmac
    date = time.strftime("%Y%m%dT%H%M%SZ", time.gmtime())
    headers = {"host": f"{connection.host}:{connection.port}", "x-amz-content-sha256": "UNSIGNED-PAYLOAD",
               "x-amz-date": date}
    canonical = "\n".join([method, f"/{BUCKET}/{name}", "", *(f"{n}:{headers[n]}" for n in sorted(headers)), "",
                           ";".join(sorted(headers)), "UNSIGNED-PAYLOAD"])
    scope = f"{date[:8]}/us-east-1/s3/aws4_request"
    text = f"AWS4-HMAC-SHA256\n{date}\n{scope}\n{hashlib.sha256(canonical.encode()).hexdigest()}"
    key = b"AWS4" + SECRET.encode()
    for part in scope.split("/"):
        key = hmac.digest(key, part.encode(), "sha256")
    headers["authorization"] = (f"AWS4-HMAC-SHA256 Credential={ACCESS}/{scope},"
                                f"SignedHeaders={';'.join(sorted(headers))},"
                                f"Signature={hmac.digest(key, text.encode(), 'sha256').hex()}")
    begun = time.monotonic()
    connection.request(method, f"/{BUCKET}/{name}", body, {**headers, **more})
    answer = connection.getresponse()
    got = len(answer.read())
    return time.monotonic() - begun, answer.status, got


def connect(endpoint):
    import http.client
    return http.client.HTTPConnection(endpoint.partition("://")[2], timeout=60)


def latency(endpoint, name, size=4096, count=30):
    """Median seconds of one ranged GET on a kept connection."""
    with contextlib.closing(connect(endpoint)) as connection:
        times = []
        for i in range(count):
            took, status, got = signed(connection, "GET", name, Range=f"bytes={i * size}-{i * size + size - 1}")
            if status != 206 or got != size:
                raise RuntimeError(f"GET of {name}: {status}, {got} bytes")
            times.append(took)
    return statistics.median(times[3:])


def put_latency(endpoint, size, count=30):
    """Median seconds of one conditional PUT on a kept connection."""
    with contextlib.closing(connect(endpoint)) as connection:
        times = []
        for i in range(count):
            took, status, _ = signed(connection, "PUT", f"put/{size}-{time.monotonic_ns()}", os.urandom(size),
                                     **{"If-None-Match": "*"})
            if status != 200:
                raise RuntimeError(f"PUT: {status}")
            times.append(took)
    return statistics.median(times[3:])


def ids_of(reply):
    return [int(row[0]) for row in reply]
