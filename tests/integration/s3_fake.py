"""An HTTP server that stands where an S3 server would be, and answers as a test says.

    with Fake(answer) as fake: ...            fake.endpoint is its address

`answer(request)` gives (status, headers, body), or None to pass the request on to `behind`, an S3
server to whom it is signed anew with that server's keys, so that clients may come with any. `tls` is
(certificate, key), two files. `requests` lists what came, oldest first.
"""

import hashlib
import hmac
import http.client
import http.server
import ssl
import threading
import urllib.parse


class Request:
    def __init__(self, method, target, headers, body):
        self.method, self.target, self.headers, self.body = method, target, headers, body

    @property
    def access_key(self):
        authorization = self.headers.get("authorization", "")
        return authorization.partition("Credential=")[2].partition("/")[0]

    @property
    def token(self):
        return self.headers.get("x-amz-security-token", "")


def xml_error(code, **fields):
    inside = "".join(f"<{name}>{value}</{name}>" for name, value in {"Code": code, **fields}.items())
    return f'<?xml version="1.0" encoding="UTF-8"?>\n<Error>{inside}</Error>'.encode()


def signed_anew(request, host, access_key, secret_key, region="us-east-1"):
    """The request's headers with a signature of other keys; the token is left out."""
    headers = {name: value for name, value in request.headers.items()
               if name not in ("authorization", "x-amz-security-token", "connection", "content-length")}
    headers["host"] = host
    names = sorted(name for name in headers if name in ("host", "content-md5") or name.startswith("x-amz-"))
    path, _, query = request.target.partition("?")
    canonical = "\n".join([request.method, path, query, *(f"{name}:{headers[name].strip()}" for name in names), "",
                           ";".join(names), headers["x-amz-content-sha256"]])
    date = headers["x-amz-date"]
    scope = f"{date[:8]}/{region}/s3/aws4_request"
    text = f"AWS4-HMAC-SHA256\n{date}\n{scope}\n{hashlib.sha256(canonical.encode()).hexdigest()}"
    key = b"AWS4" + secret_key.encode()
    for part in scope.split("/"):
        key = hmac.digest(key, part.encode(), "sha256")
    signature = hmac.digest(key, text.encode(), "sha256").hex()
    headers["authorization"] = (f"AWS4-HMAC-SHA256 Credential={access_key}/{scope},"
                                f"SignedHeaders={';'.join(names)},Signature={signature}")
    return headers


class Fake:
    def __init__(self, answer, behind=None, keys=None, tls=None, host="127.0.0.1"):
        fake = self

        class Handler(http.server.BaseHTTPRequestHandler):
            protocol_version = "HTTP/1.1"
            wbufsize = -1  # an answer leaves in one piece

            def handle_one_request(self):
                try:
                    super().handle_one_request()
                except (ConnectionError, TimeoutError, ssl.SSLError):
                    self.close_connection = True

            def serve(self):
                size = int(self.headers.get("content-length") or 0)
                headers = {name.lower(): value for name, value in self.headers.items()}
                request = Request(self.command, self.path, headers, self.rfile.read(size))
                with fake.lock:
                    fake.requests.append(request)
                answer = fake.answer(request)
                status, headers, body = fake.forward(request) if answer is None else answer
                self.send_response_only(status)
                headers = {"Date": self.date_time_string(), **headers}
                for name, value in headers.items():
                    if value is not None:
                        self.send_header(name, value)
                if "Content-Length" not in headers:
                    self.send_header("Content-Length", str(len(body)))
                self.end_headers()
                if self.command != "HEAD":
                    self.wfile.write(body)

            do_GET = do_PUT = do_POST = do_HEAD = do_DELETE = serve

            def log_message(self, *_):
                pass

        self.answer, self.behind, self.keys = answer, behind, keys
        self.requests, self.lock = [], threading.Lock()
        self.server = http.server.ThreadingHTTPServer(("127.0.0.1", 0), Handler)
        self.server.daemon_threads = True
        self.server.handle_error = lambda *_: None
        if tls is not None:
            context = ssl.SSLContext(ssl.PROTOCOL_TLS_SERVER)
            context.load_cert_chain(*tls)
            self.server.socket = context.wrap_socket(self.server.socket, server_side=True,
                                                     do_handshake_on_connect=False)
        self.endpoint = f"{'https' if tls else 'http'}://{host}:{self.server.server_address[1]}"
        self.thread = threading.Thread(target=self.server.serve_forever, args=[0.05])

    def forward(self, request):
        host = urllib.parse.urlsplit(self.behind).netloc
        connection = http.client.HTTPConnection(host, timeout=60)
        try:
            connection.request(request.method, request.target, request.body or None,
                               signed_anew(request, host, *self.keys))
            answer = connection.getresponse()
            headers = {name: value for name, value in answer.getheaders()
                       if name.lower() not in ("connection", "transfer-encoding", "date", "server")}
            headers = {"Content-Length" if name.lower() == "content-length" else name: value
                       for name, value in headers.items()}
            return answer.status, headers, answer.read()
        finally:
            connection.close()

    def __enter__(self):
        self.thread.start()
        return self

    def __exit__(self, *_):
        self.server.shutdown()
        self.server.server_close()
        self.thread.join()
