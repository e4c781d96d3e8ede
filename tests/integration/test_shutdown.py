"""Signals: work under way is finished and answered, everything is flushed, the exit code is 0."""

import signal
import threading
import time

import pytest
import redis
from conftest import as_map, blob


@pytest.mark.parametrize("number", [signal.SIGTERM, signal.SIGINT])
def test_a_clean_end_flushes(start, number):
    server = start()
    call = server.client().execute_command
    for i in range(50):
        call("VSET", f"k{i}", blob(i, 0))
    assert list(server.lake.rglob("*.parquet")) == []
    assert server.stop(number) == 0
    assert len(list(server.lake.rglob("*.parquet"))) == 1
    assert "draining" in server.log() and "stopped exit=0" in server.log()
    server = start()
    info = as_map(server.client().execute_command("VINFO"))
    assert (info["size"], info["memtable-rows"], info["segments"]) == (50, 0, 1)


def test_acknowledged_writes_are_there_after_a_signal(start):
    server = start()
    acknowledged = [0] * 4

    def put(i):
        client = server.client()
        try:
            while True:
                pipe = client.pipeline(transaction=False)
                for j in range(20):
                    pipe.execute_command("VSET", f"{i}-{acknowledged[i] + j}", blob(i, j))
                for reply in pipe.execute():
                    assert reply == b"OK"
                    acknowledged[i] += 1
        except redis.ConnectionError:
            pass

    threads = [threading.Thread(target=put, args=(i,)) for i in range(4)]
    for thread in threads:
        thread.start()
    time.sleep(0.7)
    server.process.terminate()
    assert server.process.wait(60) == 0
    for thread in threads:
        thread.join()
    print("acknowledged", acknowledged)
    assert min(acknowledged) > 0
    call = start().client().execute_command
    for i, count in enumerate(acknowledged):
        rows = call("VGET", *(f"{i}-{j}" for j in range(count)), "none", "RETURN", 1, "payload")
        assert all(row is not None for row in rows[:-1])


def test_idle_clients_do_not_hold_it_up(start):
    server = start()
    raws = [server.socket() for _ in range(20)]
    raws[0].sendall(b"*3\r\n$4\r\nVSET\r\n")  # half a command
    server.process.terminate()
    assert server.process.wait(60) == 0  # they would stay for ever
    for raw in raws:
        raw.close()


def test_kill_and_recover(start):
    server = start()
    call = server.client().execute_command
    for round_number in range(3):
        for i in range(30):
            call("VSET", f"k{i}", blob(round_number, i))
        call("VDEL", f"k{round_number}")
        server.kill()
        server = start()
        call = server.client().execute_command
        assert as_map(call("VINFO"))["size"] == 29
        assert call("VGET", f"k{round_number}") is None
        assert as_map(call("VGET", "k29", "RAW"))["vector"] == blob(round_number, 29)
