"""What keeps a server from starting on a bucket is told in one line that says what to change.

Against a server that answers as AWS and others do (s3_fake.py), with and without TLS, and against
versitygw; and keys that expire while a server runs.
"""

import email.utils
import os
import re
import shutil
import socket
import subprocess
import threading
import time

import pytest
from conftest import PROGRAM, blob
from s3_fake import Fake, xml_error
from test_s3_lake import GATEWAY, LAKE, fill, gateway, wait_until, writer  # noqa: F401 (fixtures)

SECRETS = {"AWS_ACCESS_KEY_ID": "the-access-key", "AWS_SECRET_ACCESS_KEY": "the-secret-key",
           "AWS_SESSION_TOKEN": "the-session-token"}
LISTING = (b'<?xml version="1.0" encoding="UTF-8"?>\n<ListBucketResult><Name>vex-test</Name><KeyCount>0</KeyCount>'
           b"<IsTruncated>false</IsTruncated></ListBucketResult>")


@pytest.fixture
def clean(monkeypatch, tmp_path):
    """No setting of this machine says anything."""
    for name in [name for name in os.environ if name.startswith("AWS_") or name.lower().endswith("_proxy")]:
        monkeypatch.delenv(name)
    monkeypatch.setenv("HOME", str(tmp_path))
    for name, value in SECRETS.items():
        monkeypatch.setenv(name, value)


def refusals(*options):
    """The line in which each command that opens the lake says why it does not."""
    for command in (["serve", "--port", "0", "--read-only"], ["info"]):
        done = subprocess.run([PROGRAM, *command, "--lake", LAKE, *map(str, options)], capture_output=True,
                              timeout=120, text=True)
        assert done.returncode in (1, 2) and done.stdout == "" and done.stderr.count("\n") == 1, done.stderr
        assert not [secret for name, secret in SECRETS.items() if name != "AWS_ACCESS_KEY_ID" and secret in done.stderr]
        print(done.stderr, end="")
        yield done.stderr


def earlier(seconds):
    return {"Date": email.utils.formatdate(time.time() - seconds, usegmt=True)}


ANSWERS = {
    "an expired token": (400, {}, xml_error("ExpiredToken"), r"session token has expired: .*AWS_SESSION_TOKEN"),
    "a token to be renewed": (400, {}, xml_error("TokenRefreshRequired"), "session token has expired"),
    "an expired token, as STS says it": (403, {}, xml_error("ExpiredTokenException"), "session token has expired"),
    "an unknown token": (400, {}, xml_error("InvalidToken"), "check AWS_SESSION_TOKEN"),
    "an unknown token, as MinIO says it": (403, {}, xml_error("InvalidTokenId"), "check AWS_SESSION_TOKEN"),
    "an unknown key": (403, {}, xml_error("InvalidAccessKeyId"), "check AWS_ACCESS_KEY_ID"),
    "a wrong secret": (403, {}, xml_error("SignatureDoesNotMatch"), "check AWS_SECRET_ACCESS_KEY"),
    "keys that may not": (403, {}, xml_error("AccessDenied"), "denies access to bucket 'vex-test'.*what they may do"),
    "no bucket": (404, {}, xml_error("NoSuchBucket"), "no bucket 'vex-test' at .*: create it, or correct"),
    "a clock that is ahead": (403, earlier(7200), xml_error("RequestTimeTooSkewed"), r"clock is 7[12]\d\d s ahead of"),
    "a clock that is behind": (403, earlier(-7200), xml_error("RequestTimeTooSkewed"), r"clock is 7[12]\d\d s behind"),
    "a clock, told as a wrong signature": (403, earlier(7200), xml_error("SignatureDoesNotMatch"), "clock is 7"),
    "a clock, told without a time": (403, {"Date": None}, xml_error("RequestTimeTooSkewed"), "clocks .* differ by"),
    "another region, told by a redirect": (301, {"x-amz-bucket-region": "eu-central-1"},
                                           xml_error("PermanentRedirect"), "set AWS_REGION=eu-central-1"),
    "another region, told in the body": (400, {}, xml_error("AuthorizationHeaderMalformed", Region="eu-north-1"),
                                         "lies in region eu-north-1, not us-east-1: set AWS_REGION=eu-north-1"),
    "another place": (307, {"Location": "http://elsewhere/"}, b"", "check AWS_REGION and AWS_ENDPOINT_URL"),
    "a web page": (200, {}, b"<html><body>It works!</body></html>", "does not answer as an S3 server"),
    "a web server without such a page": (404, {}, b"<html>Not found</html>", "does not answer as an S3 server"),
    "a server of https": (400, {}, b"Client sent an HTTP request to an HTTPS server.\n", "does it speak https"),
    "no storage left behind it": (500, {}, xml_error("InternalError"), "store unavailable: .* answered 500"),
    "too much to do": (503, {}, xml_error("SlowDown"), "store unavailable: .* is overloaded"),
}


@pytest.mark.parametrize("case", ANSWERS)
def test_what_servers_answer(clean, case):
    status, headers, body, says = ANSWERS[case]
    with Fake(lambda request: (status, headers, body)) as fake:
        for line in refusals("--endpoint", fake.endpoint):
            assert re.search(says, line), line
        final = status not in (500, 503)
        assert len(fake.requests) == 2 if final else 2 < len(fake.requests) <= 8  # not asked again in vain
        assert {request.token for request in fake.requests} == {"the-session-token"}


# ---- Servers that do not answer ----------------------------------------------------------------

def test_no_host_of_that_name(clean):
    for line in refusals("--endpoint", "http://no-such-host.invalid:9000"):
        assert "no host of the name" in line and "check --endpoint or AWS_ENDPOINT_URL" in line


def test_nothing_listens(clean):
    with socket.socket() as taken:
        taken.bind(("127.0.0.1", 0))  # and does not listen
        for line in refusals("--endpoint", f"http://127.0.0.1:{taken.getsockname()[1]}"):
            assert "nothing answers at" in line and "is the server running, and is the address right?" in line


def test_a_server_that_is_silent(clean):
    with socket.socket() as listener:
        listener.bind(("127.0.0.1", 0))
        listener.listen()
        for line in refusals("--endpoint", f"http://127.0.0.1:{listener.getsockname()[1]}"):
            assert "store unavailable" in line and "ms" in line


@pytest.mark.parametrize("farewell", [b"", b"SSH-2.0-OpenSSH_9.2\r\n", b"\x15\x03\x01\x00\x02\x02\x46"])
def test_a_server_of_something_else(clean, farewell):
    """One that hangs up, one that speaks another protocol, and the alert of one that wants TLS."""
    with socket.socket() as listener:
        listener.bind(("127.0.0.1", 0))
        listener.listen()

        def serve():
            while True:
                try:
                    connection, _ = listener.accept()
                except OSError:
                    return
                with connection:
                    connection.recv(65536)
                    connection.sendall(farewell)

        thread = threading.Thread(target=serve)
        thread.start()
        try:
            for line in refusals("--endpoint", f"http://127.0.0.1:{listener.getsockname()[1]}"):
                assert "store unavailable" in line and "does it speak https at this port?" in line
        finally:
            listener.shutdown(socket.SHUT_RDWR)
            thread.join()


# ---- TLS -----------------------------------------------------------------------------------------

@pytest.fixture(scope="module")
def certificate(tmp_path_factory):
    """certificate(host, days) makes one that is its own authority: (certificate, key)."""
    if shutil.which("openssl") is None:
        pytest.skip("no openssl program")
    folder = tmp_path_factory.mktemp("certificates")

    def make(host, days=30):
        names = [folder / f"{host}{days}.{end}" for end in ("crt", "key", "csr", "ext")]
        names[3].write_text(f"subjectAltName=DNS:{host}\n")
        for command in (["req", "-new", "-newkey", "rsa:2048", "-nodes", "-keyout", names[1], "-out", names[2],
                         "-subj", f"/CN={host}"],
                        ["x509", "-req", "-in", names[2], "-signkey", names[1], "-days", str(days), "-extfile",
                         names[3], "-out", names[0]]):
            subprocess.run(["openssl", *command], check=True, capture_output=True)
        return names[0], names[1]

    return make


def listing(request):
    return 200, {"Content-Type": "application/xml"}, LISTING if request.target.startswith("/vex-test?") else b""


def test_a_certificate_of_nobody_known(clean, certificate):
    pair = certificate("localhost")
    with Fake(listing, tls=pair, host="localhost") as fake:
        for line in refusals("--endpoint", fake.endpoint):
            assert "is not trusted (self-signed certificate)" in line and "--ca-file or AWS_CA_BUNDLE" in line
        assert fake.requests == []  # nothing was told to it
        for options in (["--ca-file", pair[0]], ["--insecure"]):
            for line in refusals("--endpoint", fake.endpoint, *options):
                assert "certificate" not in line
        assert len(fake.requests) > 0


def test_a_certificate_of_another_host(clean, certificate):
    pair = certificate("elsewhere.example")
    with Fake(listing, tls=pair, host="localhost") as fake:
        for line in refusals("--endpoint", fake.endpoint, "--ca-file", pair[0]):
            assert "is for another host: name the server" in line
        assert fake.requests == []


def test_a_certificate_whose_time_is_over(clean, certificate):
    pair = certificate("localhost", -1)
    with Fake(listing, tls=pair, host="localhost") as fake:
        for line in refusals("--endpoint", fake.endpoint, "--ca-file", pair[0]):
            assert "is not valid at this time (certificate has expired): renew it" in line
        assert fake.requests == []


def test_authorities_that_cannot_be_read(clean, certificate, tmp_path):
    (tmp_path / "empty.pem").write_text("nothing\n")
    with Fake(listing, tls=certificate("localhost"), host="localhost") as fake:
        for name in ("absent.pem", "empty.pem"):
            for line in refusals("--endpoint", fake.endpoint, "--ca-file", tmp_path / name):
                assert name in line and "check --ca-file or AWS_CA_BUNDLE" in line


def test_http_where_https_is_spoken_and_the_reverse(clean, certificate):
    with Fake(listing, tls=certificate("localhost"), host="localhost") as fake:
        for line in refusals("--endpoint", fake.endpoint.replace("https:", "http:")):
            assert "does it speak https at this port?" in line
    with Fake(listing) as fake:
        for line in refusals("--endpoint", fake.endpoint.replace("http:", "https:")):
            assert "no TLS connection" in line and "does the server speak https at this port?" in line


# ---- A real server ---------------------------------------------------------------------------------

@pytest.mark.skipif(not GATEWAY.exists(), reason="no versitygw: run tools/setup test")
def test_versitygw(gateway, monkeypatch):
    for line in refusals("--region", "eu-west-1"):
        assert "lies in region us-east-1, not eu-west-1: set AWS_REGION=us-east-1" in line
    monkeypatch.setenv("AWS_SESSION_TOKEN", "the-session-token")
    for line in refusals():
        assert "does not accept the session token: check AWS_SESSION_TOKEN" in line


# ---- Keys that expire while a server runs --------------------------------------------------------

def write_keys(path, token):
    path.with_suffix(".new").write_text(
        "[default]\naws_access_key_id = temporary\naws_secret_access_key = temporary-secret\n"
        f"aws_session_token = {token}\n")
    path.with_suffix(".new").replace(path)


@pytest.mark.skipif(not GATEWAY.exists(), reason="no versitygw: run tools/setup test")
def test_keys_that_expire_are_read_again(start, writer, gateway, monkeypatch, tmp_path):
    local = writer.client()
    vectors = fill(local, "c", 200)
    for name in ("AWS_ACCESS_KEY_ID", "AWS_SECRET_ACCESS_KEY"):
        monkeypatch.delenv(name)
    keys = tmp_path / "keys"
    monkeypatch.setenv("AWS_SHARED_CREDENTIALS_FILE", str(keys))
    good = {"first"}

    def answer(request):
        return None if request.token in good else (400, {}, xml_error("ExpiredToken"))

    with Fake(answer, behind=gateway.endpoint, keys=("test-access", "test-secret-key")) as fake:
        monkeypatch.setenv("AWS_ENDPOINT_URL", fake.endpoint)
        write_keys(keys, "first")
        reader = start("--read-only", lake=LAKE)
        remote = reader.client()
        assert len(remote.execute_command("VSEARCH", vectors[7], 5, "EXACT", "IN", "c")) == 5

        # They expire, and nobody has renewed them yet: the reader does not see what is new.
        good.clear()
        good.add("second")
        before = len(fake.requests)
        local.execute_command("VSET", "later", vectors[1], "IN", "c")
        local.execute_command("VFLUSH", "c")
        wait_until(lambda: any(request.token == "first" for request in fake.requests[before:]))
        # Then they are, and it does, without a start.
        write_keys(keys, "second")
        wait_until(lambda: remote.execute_command("VGET", "later", "IN", "c") is not None)
        assert remote.execute_command("VSEARCH", vectors[1], 20, "EXACT", "IN", "c") == \
            local.execute_command("VSEARCH", vectors[1], 20, "EXACT", "IN", "c")
        # Renewed before anybody notices: no request of a client fails.
        time.sleep(1.1)  # the file is looked at once a second
        write_keys(keys, "third")
        good.clear()
        good.add("third")
        for row in range(20, 60):
            assert len(remote.execute_command("VSEARCH", vectors[row], 5, "EXACT", "RETURN", 1, "s", "IN", "c")) == 5
        local.execute_command("VSET", "last", vectors[2], "IN", "c")
        local.execute_command("VFLUSH", "c")
        wait_until(lambda: remote.execute_command("VGET", "last", "IN", "c") is not None)
        assert fake.requests[-1].token == "third"
        assert reader.stop() == 0
