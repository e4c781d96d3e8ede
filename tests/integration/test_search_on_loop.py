"""Short searches are made by the event loop itself, others by workers; answers do not tell which."""

import random
import threading
import time

import pytest

from conftest import as_map, blob

TRIES = 3000


def on_loop(call):
    return call("INFO", "stats")["searches_on_loop"]


def until_on_loop(call, *search):
    """Ask until the loop answers: the times of a busy machine may need a few searches to settle."""
    for _ in range(TRIES):
        before = on_loop(call)
        call(*search)
        if on_loop(call) > before:
            return
    pytest.fail("the loop never answered")


def fill(server, count=20):
    call = server.client().execute_command
    pipe = server.client().pipeline(transaction=False)
    for i in range(count):
        pipe.execute_command("VSET", f"k{i}", blob(i, 1))
    pipe.execute()
    return call


def test_who_searches(server):
    call = fill(server)
    search = ("VSEARCH", blob(3, 1), 2)
    assert on_loop(call) == 0
    wanted = call(*search)
    assert on_loop(call) == 0  # nothing was known
    until_on_loop(call, *search)
    assert call(*search) == wanted
    # What is not known, what follows a change, and what reads columns is a worker's.
    for changes, other in [((), ("VSEARCH", blob(3, 1), 3)),
                           ((), ("VSEARCH", "ID", "k3", 2)),
                           ((), ("VSEARCH", blob(3, 1), 2, "EXACT")),
                           ((("VSET", "k3", blob(3, 1)),), search),
                           ((("VDEL", "nobody"),), search),
                           ((("VFLUSH",),), search),
                           ((("VCREATE", "c", "DIM", 2),), search)]:
        until_on_loop(call, *search)
        for change in changes:
            call(*change)
        before = on_loop(call)
        assert call(*other)[0][0] == b"k3"
        assert on_loop(call) == before
    # Writes elsewhere do not matter, but for those of one collection in 64.
    until_on_loop(call, *search)
    call("VSET", "a", blob(1, 2), "IN", "c")
    until_on_loop(call, *search)
    before = on_loop(call)
    for _ in range(20):
        assert call("VSEARCH", blob(3, 1), 2, "RETURN", 1, "payload")[0][0] == b"k3"
        assert call("VSEARCH", blob(3, 1), 2, "WITHVECTORS")[0][0] == b"k3"
    assert on_loop(call) == before


def test_pipelines_keep_their_order(server):
    """Searches among other commands, some of them wrong, from clients of both protocols."""
    call = fill(server, 300)
    until_on_loop(call, "VSEARCH", blob(3, 1), 1)

    def ask(seed, failures):
        rng = random.Random(seed)
        client = server.client(2 + seed % 2)
        mine = f"mine{seed}"
        try:
            for _ in range(150):
                pipe, wanted = client.pipeline(transaction=False), []
                for _ in range(rng.choice((1, 1, 2, 7, 40))):
                    kind, i = rng.randrange(12), rng.randrange(300)
                    if kind < 6:
                        pipe.execute_command("VSEARCH", blob(i, 1), 1)
                        wanted.append(lambda r, i=i: r[0][0] == b"k%d" % i)
                    elif kind == 6:
                        pipe.execute_command("VSEARCH", "ID", f"k{i}", 1)
                        wanted.append(lambda r, i=i: r[0][0] == b"k%d" % i)
                    elif kind == 7:
                        pipe.execute_command("VSEARCH", blob(i, 1, 2), 1)
                        wanted.append(lambda r: isinstance(r, Exception) and "dimension" in str(r))
                    elif kind == 8:
                        pipe.execute_command("VSEARCH", blob(i, 1), "many")
                        wanted.append(lambda r: isinstance(r, Exception) and "k is not" in str(r))
                    elif kind == 9:
                        pipe.execute_command("ECHO", i)
                        wanted.append(lambda r, i=i: r == b"%d" % i)
                    elif kind == 10:
                        pipe.execute_command("VGET", f"k{i}", "RETURN", 1, "vector", "RAW")
                        wanted.append(lambda r, i=i: as_map(r)["vector"] == blob(i, 1))
                    elif rng.randrange(10) == 0:
                        place = -1000 - 50 * seed - rng.randrange(40)
                        pipe.execute_command("VSET", mine, blob(place, 1))
                        pipe.execute_command("VSEARCH", blob(place, 1), 1)
                        wanted.append(lambda r: r == b"OK")
                        wanted.append(lambda r: r[0][0] == mine.encode())
                replies = pipe.execute(raise_on_error=False)
                assert len(replies) == len(wanted)
                for reply, right in zip(replies, wanted):
                    assert right(reply), str(reply)
        except BaseException as failure:
            failures.append(failure)

    failures = []
    before = on_loop(call)
    threads = [threading.Thread(target=ask, args=(seed, failures)) for seed in range(6)]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join()
    assert not failures, failures[0]
    assert on_loop(call) >= before
    until_on_loop(call, "VSEARCH", blob(3, 1), 1)


def test_a_client_that_never_stops_asking(server):
    """More searches than a batch holds, in one piece, delay neither the end nor another client."""
    call = fill(server)
    until_on_loop(call, "VSEARCH", blob(3, 1), 1)
    raw = server.socket()
    count = 20_000
    query = blob(3, 1)
    command = b"*3\r\n$7\r\nVSEARCH\r\n$%d\r\n%s\r\n$1\r\n1\r\n" % (len(query), query)
    reply = b"*1\r\n*2\r\n$2\r\nk3\r\n$1\r\n0\r\n"
    sender = threading.Thread(target=raw.sendall, args=(command * count,))
    sender.start()
    received = bytearray()
    pings = 0
    while len(received) < count * len(reply):
        assert call("PING") in (True, b"PONG")
        pings += 1
        piece = raw.recv(1 << 16)
        assert piece
        received += piece
    sender.join()
    assert received == reply * count
    print("pings meanwhile", pings)
    raw.close()


def test_clients_that_leave_at_once(server):
    """A client may be gone before the loop answers its search."""
    call = fill(server)
    search = ("VSEARCH", blob(3, 1), 1)
    until_on_loop(call, *search)
    query = blob(3, 1)
    command = b"*3\r\n$7\r\nVSEARCH\r\n$%d\r\n%s\r\n$1\r\n1\r\n" % (len(query), query)
    for i in range(100):
        raw = server.socket()
        raw.sendall(command * (1 + i % 3) + (b"QUIT\r\n" if i % 4 == 0 else b"*x\r\n" if i % 4 == 1 else b""))
        raw.close()
    until_on_loop(call, *search)
    end = time.monotonic() + 60
    while call("INFO", "clients")["connected_clients"] > len(server.clients):
        assert time.monotonic() < end
        time.sleep(0.01)
