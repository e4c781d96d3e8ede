"""A proxy before an S3 server that delays each request and writes down what came.

    s3_proxy.py HOST:PORT            listens on a free port of 127.0.0.1, which is its first line

Then it obeys lines on stdin, each answered by a line of JSON:

    delay MS        from now on every request waits so long before it is passed on
    take            what came since the last take: [{method, name, range, begun_ns, ended_ns,
                    received, sent, status}], by begin; bytes of bodies
    end             when stdin ends, so does the proxy

A connection is kept and carries one request after the other; each of a client's has one of its own
to the server, so that requests which the client has in flight together are delayed together. A
network of a given round trip costs more than that for large answers, which TCP sends in several;
the figures say what the delay is and nothing of bandwidth.

In a process of its own, so that it does not share an interpreter with what measures."""

import asyncio
import json
import sys
import time

CHUNK = 1 << 18


class Proxy:
    def __init__(self, host, port):
        self.host, self.port = host, port
        self.delay_s = 0.0
        self.seen = []

    async def head(self, reader):
        """First line and headers of a message, and its raw bytes; None at the end."""
        try:
            raw = await reader.readuntil(b"\r\n\r\n")
        except (asyncio.IncompleteReadError, ConnectionError):
            return None
        lines = raw.decode("latin-1").split("\r\n")
        headers = {}
        for line in lines[1:]:
            name, _, value = line.partition(":")
            headers[name.lower()] = value.strip()
        return lines[0], headers, raw

    async def body(self, headers, reader, writer, is_empty):
        """Pass a body on as it comes; its size without framing."""
        if is_empty:
            return 0
        size = 0
        if "chunked" in headers.get("transfer-encoding", ""):
            while True:
                line = await reader.readuntil(b"\r\n")
                writer.write(line)
                count = int(line.split(b";")[0], 16)
                if count == 0:
                    while line != b"\r\n":
                        line = await reader.readuntil(b"\r\n")
                        writer.write(line)
                    break
                left = count + 2
                while left > 0:
                    data = await reader.readexactly(min(left, CHUNK))
                    left -= len(data)
                    writer.write(data)
                    await writer.drain()
                size += count
        else:
            left = int(headers.get("content-length", 0))
            size = left
            while left > 0:
                data = await reader.read(min(left, CHUNK))
                if not data:
                    raise ConnectionError("cut")
                left -= len(data)
                writer.write(data)
                await writer.drain()
        await writer.drain()
        return size

    async def serve(self, reader, writer):
        up_reader = up_writer = None
        try:
            while True:
                request = await self.head(reader)
                if request is None:
                    return
                line, headers, raw = request
                method, target, _ = line.split(" ", 2)
                record = {"method": method, "name": target, "range": headers.get("range", ""),
                          "begun_ns": time.monotonic_ns(), "ended_ns": 0, "sent": 0, "received": 0,
                          "status": 0}
                self.seen.append(record)
                if up_writer is None:
                    up_reader, up_writer = await asyncio.open_connection(self.host, self.port, limit=1 << 20)
                if self.delay_s:
                    await asyncio.sleep(self.delay_s)
                if headers.get("expect", "").lower() == "100-continue":
                    writer.write(b"HTTP/1.1 100 Continue\r\n\r\n")
                    raw = b"\r\n".join(l for l in raw.split(b"\r\n") if not l.lower().startswith(b"expect:"))
                up_writer.write(raw)
                record["sent"] = await self.body(headers, reader, up_writer, False)
                answer = await self.head(up_reader)
                if answer is None:
                    raise ConnectionError("no answer")
                line, headers, raw = answer
                status = int(line.split(" ")[1])
                writer.write(raw)
                is_empty = method == "HEAD" or status in (204, 304)
                record["received"] = await self.body(headers, up_reader, writer, is_empty)
                record["status"], record["ended_ns"] = status, time.monotonic_ns()
                if headers.get("connection", "").lower() == "close":
                    return
        except (ConnectionError, asyncio.IncompleteReadError, OSError):
            pass
        finally:
            for end in (writer, up_writer):
                if end is not None:
                    end.close()

    def obey(self, words):
        if words[0] == "delay":
            self.delay_s = float(words[1]) / 1000
            return self.delay_s * 1000
        if words[0] == "take":
            seen, self.seen = self.seen, []
            return seen
        raise ValueError(words)


async def main():
    host, _, port = sys.argv[1].rpartition(":")
    proxy = Proxy(host, int(port))
    server = await asyncio.start_server(proxy.serve, "127.0.0.1", 0, limit=1 << 20, backlog=1024)
    print(server.sockets[0].getsockname()[1], flush=True)
    loop = asyncio.get_running_loop()
    lines = asyncio.StreamReader()
    await loop.connect_read_pipe(lambda: asyncio.StreamReaderProtocol(lines), sys.stdin)
    while line := await lines.readline():
        print(json.dumps(proxy.obey(line.decode().split())), flush=True)


if __name__ == "__main__":
    asyncio.run(main())
