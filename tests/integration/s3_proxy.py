"""A TCP proxy before an S3 server that can be told to misbehave, for whole servers under test.

One request a connection: it is read whole, given to the server, and its answer given back, unless one of the faults
below befalls it. Rates are drawn from a printed seed.
"""

import random
import socket
import threading


class Proxy:
    def __init__(self, server_port, seed=1):
        print("proxy seed", seed)
        self.server_port = server_port
        self.random = random.Random(seed)
        self.lock = threading.Lock()
        self.requests = 0  # that came through, whatever became of them
        self.refuses = False  # connections end before they are served
        self.hangs = False  # no byte comes back
        self.error = 0.0  # share of requests answered 500, and as many 503
        self.cut = 0.0  # share of answers that end in their middle
        self.flip = 0.0  # share of answers to GET with a flipped bit
        self.lose = 0.0  # share of requests that the server serves and nobody answers
        self.late = 0.0  # share of requests that reach the server after their client has given up
        self.late_seconds = 2.0
        self.delay = 0.0  # seconds before each answer
        self.stopping = False
        self.listener = socket.create_server(("127.0.0.1", 0), backlog=256)
        self.endpoint = f"http://127.0.0.1:{self.listener.getsockname()[1]}"
        self.thread = threading.Thread(target=self.accept, daemon=True)
        self.thread.start()

    def stop(self):
        self.stopping = True
        self.listener.shutdown(socket.SHUT_RDWR)
        self.listener.close()
        self.thread.join()

    def accept(self):
        while not self.stopping:
            try:
                connection, _ = self.listener.accept()
            except OSError:
                return
            threading.Thread(target=self.serve, args=(connection,), daemon=True).start()

    def draw(self, share):
        with self.lock:
            return self.random.random() < share

    def serve(self, connection):
        with connection:
            try:
                if not self.refuses:
                    self.exchange(connection)
            except OSError:
                pass

    def exchange(self, connection):
        head, body = read_request(connection)
        if head is None:
            return
        with self.lock:
            self.requests += 1
        if self.hangs:
            connection.settimeout(0.05)
            while self.hangs and not self.stopping:
                try:
                    if connection.recv(1) == b"":
                        return
                except TimeoutError:
                    pass
            return
        if self.draw(self.error):
            return connection.sendall(answer("500 Internal Server Error", "InternalError"))
        if self.draw(self.error):
            return connection.sendall(answer("503 Service Unavailable", "ServiceUnavailable"))
        if self.draw(self.late):
            threading.Timer(self.random.uniform(0.1, self.late_seconds), self.ask_late, (head, body)).start()
            return
        data = bytearray(self.ask(head, body))
        if self.draw(self.lose):
            return
        if self.delay:
            threading.Event().wait(self.delay)
        start = data.find(b"\r\n\r\n") + 4
        if head.startswith(b"GET") and b"list-type" not in head and data[9:12] in (b"200", b"206") and \
                len(data) > start and self.draw(self.flip):
            with self.lock:
                data[self.random.randrange(start, len(data))] ^= 1 << self.random.randrange(8)
        if self.draw(self.cut):
            del data[len(data) * 2 // 3:]
        connection.sendall(data)

    def ask_late(self, head, body):
        try:
            self.ask(head, body)
        except OSError:
            pass

    def ask(self, head, body):
        lines = [line for line in head.split(b"\r\n") if not line.lower().startswith(b"connection:")]
        with socket.create_connection(("127.0.0.1", self.server_port), timeout=60) as server:
            server.sendall(b"\r\n".join([*lines, b"Connection: close", b"", b""]) + body)
            pieces = []
            while piece := server.recv(1 << 16):
                pieces.append(piece)
        return b"".join(pieces)


def answer(status, code):
    body = f"<Error><Code>{code}</Code></Error>"
    return f"HTTP/1.1 {status}\r\nContent-Length: {len(body)}\r\nConnection: close\r\n\r\n{body}".encode()


def read_request(connection):
    """Its head without the empty line, and its body; (None, None) where it ends before."""
    data = b""
    while (end := data.find(b"\r\n\r\n")) < 0:
        piece = connection.recv(1 << 16)
        if not piece:
            return None, None
        data += piece
    head, body = data[:end], data[end + 4:]
    size = 0
    for line in head.split(b"\r\n"):
        if line.lower().startswith(b"expect:"):
            connection.sendall(b"HTTP/1.1 100 Continue\r\n\r\n")
        if line.lower().startswith(b"content-length:"):
            size = int(line.split(b":")[1])
    while len(body) < size:
        piece = connection.recv(1 << 16)
        if not piece:
            return None, None
        body += piece
    head = b"\r\n".join(line for line in head.split(b"\r\n") if not line.lower().startswith(b"expect:"))
    return head, body
