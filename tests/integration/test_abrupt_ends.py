"""Clients that vanish or send garbage at any moment: nobody else notices, nothing leaks."""

import contextlib
import random
import socket
import struct
import threading

from conftest import as_map, blob


def command(*arguments):
    parts = [a if isinstance(a, bytes) else str(a).encode() for a in arguments]
    return b"*%d\r\n" % len(parts) + b"".join(b"$%d\r\n%s\r\n" % (len(p), p) for p in parts)


def test_clients_that_vanish(server):
    seed = 11
    print("seed", seed)
    call = server.client().execute_command
    for i in range(500):
        call("VSET", f"k{i}", blob(*([i] * 16)))
    call("VFLUSH")

    def vanish(number):
        rng = random.Random(seed + number)
        for _ in range(40):
            raw = server.socket()
            pieces = []
            for _ in range(rng.randrange(1, 60)):
                pieces.append(rng.choice([
                    command("VSEARCH", blob(*([rng.random()] * 16)), 100, "EXACT", "WITHVECTORS"),
                    command("VSET", f"x{rng.randrange(50)}", blob(*([1] * 16)), "PAYLOAD", b"p" * rng.randrange(5000)),
                    command("VGET", *(f"k{rng.randrange(600)}" for _ in range(20))),
                    command("VDEL", f"x{rng.randrange(50)}"),
                    command("VINFO"), command("PING"), command("INFO"), command("KEYS", "*"),
                    rng.randbytes(rng.randrange(30)) if rng.random() < 0.1 else b"",
                ]))
            data = b"".join(pieces)
            raw.sendall(data[:rng.randrange(len(data) + 1)])
            end = rng.randrange(4)
            if end == 0:
                raw.setsockopt(socket.SOL_SOCKET, socket.SO_LINGER, struct.pack("ii", 1, 0))  # reset
            elif end == 1:
                raw.settimeout(0.3)  # perhaps no command was complete
                with contextlib.suppress(TimeoutError):
                    raw.recv(rng.randrange(1, 5000))
            elif end == 2:
                raw.shutdown(socket.SHUT_WR)
                while raw.recv(1 << 16):
                    pass
            raw.close()

    threads = [threading.Thread(target=vanish, args=(i,)) for i in range(6)]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join()
    assert as_map(call("VINFO"))["size"] >= 500
    assert call("VSEARCH", "ID", "k7", 1)[0][0] == b"k7"
    for _ in range(100):
        if len(server.client().client_list()) <= 3:
            break
    else:
        raise AssertionError("clients that are gone are still there")


def test_vanishing_while_the_server_ends(start):
    for _ in range(5):
        server = start()
        raws = []
        for i in range(10):
            raw = server.socket()
            raw.sendall(command("VSET", f"k{i}", "[1,2]") * 50 + command("VSEARCH", "[1,2]", 10) * 20)
            raws.append(raw)
        server.process.terminate()
        for raw in raws[::2]:
            raw.close()
        assert server.process.wait(60) == 0, server.log()
        for raw in raws[1::2]:
            raw.close()
