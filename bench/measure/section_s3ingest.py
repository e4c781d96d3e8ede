"""s3ingest: VSET into a lake in a bucket, each answered when its log object is there.

SIFT descriptors, 16 connections, durability lake with the defaults (50 ms, 1 MiB). Speed with 256
commands in flight on each connection; the time of an answer with one. A PUT's latency is that of a
conditional PUT of a group's size on a kept connection, measured beside it."""

import json
import selectors
import socket
import statistics
import time

import common
import s3
import vectorsets

CONNECTIONS, DEPTH, ROWS, ACKS, GROUP_DELAY_MS = 16, 256, 200_000, 25, 50
TARGET, ACK_TARGET = 20_000, 2


def acks(port, rows, count):
    """Seconds of each answer: CONNECTIONS connections that wait for it before they write again."""
    def command(number, i):
        words = [b"VSET", b"ack-%d-%d" % (number, i), rows[number * count + i].tobytes(), b"IN", b"bench"]
        return b"*%d\r\n" % len(words) + b"".join(b"$%d\r\n%s\r\n" % (len(w), w) for w in words)

    times, poll = [], selectors.DefaultSelector()
    for number in range(CONNECTIONS):
        raw = socket.create_connection(("127.0.0.1", port))
        raw.setsockopt(socket.IPPROTO_TCP, socket.TCP_NODELAY, 1)
        state = {"socket": raw, "number": number, "i": 0, "sent": time.monotonic()}
        raw.sendall(command(number, 0))
        poll.register(raw, selectors.EVENT_READ, state)
    while poll.get_map():
        for key, _ in poll.select():
            state, now = key.data, time.monotonic()
            reply = state["socket"].recv(4096)
            if reply != b"+OK\r\n":
                raise RuntimeError(f"VSET was answered {reply[:200]}")
            if state["i"] >= 2:  # the first claims the collection
                times.append(now - state["sent"])
            state["i"] += 1
            if state["i"] == count:
                poll.unregister(state["socket"])
                state["socket"].close()
                continue
            message = command(state["number"], state["i"])
            state["sent"] = time.monotonic()
            state["socket"].sendall(message)
    return times


def measure():
    data = vectorsets.get("sift-200k")
    rows = data.rows()
    count = common.scaled(ROWS)
    section = common.Section("s3ingest", f"VSET of SIFT descriptors into s3://, durability lake, {CONNECTIONS} "
                             "connections; versitygw on loopback, and with 30 ms added to each request by a proxy")
    with s3.gateway() as target, s3.Proxy(target) as proxy:
        for delay in s3.DELAYS_MS:
            proxy.delay(delay)
            name = f"+{delay} ms" if delay else "loopback"
            endpoint = proxy.endpoint if delay else f"http://{target}"
            with s3.serve(f"s3://{s3.BUCKET}/ingest-{delay}", endpoint) as (process, port, client):
                client.execute_command("VCREATE", "bench", "DIM", data.dimension)
                times = acks(port, rows, ACKS)
                put = s3.put_latency(endpoint, CONNECTIONS * 600)
                before = sum(common.cpu_seconds(process.pid))
                runs = []
                for _ in range(3):
                    proxy.take()
                    answer = json.loads(common.run([
                        common.DRIVER, "vset", "127.0.0.1", port, "bench", data.dimension, count, CONNECTIONS,
                        DEPTH, "vset", data.rows_path]))
                    runs.append((count / (answer["wall_ns"][0] / 1e9), proxy.take().summary()))
                cpu = (sum(common.cpu_seconds(process.pid)) - before) / 3
                found = client.execute_command("VSEARCH", rows[7].tobytes(), 1, "IN", "bench")
            if int(found[0][0].split(b"-")[-1]) not in (7, count - count % len(rows) + 7):
                raise RuntimeError(f"a row that was acknowledged is not found: {found}")
            rate = common.median([run[0] for run in runs])
            section.line(f"{name}: {count:,} rows, {DEPTH} in flight on each", rate, "/s", f">= {TARGET:,}",
                         rate >= TARGET, f"{min(r[0] for r in runs):,.0f} to {max(r[0] for r in runs):,.0f}; server "
                         f"CPU {cpu / count * 1e6:.3g} us a row")
            middle, allowed = statistics.median(times), ACK_TARGET * put + GROUP_DELAY_MS / 1e3
            section.line(f"{name}: an answer, one in flight on each, p50", middle * 1e3, "ms",
                         f"<= {ACK_TARGET} PUTs + delay = {allowed * 1e3:.3g}", middle <= allowed,
                         f"p99 {sorted(times)[len(times) * 99 // 100] * 1e3:.3g} ms; a PUT takes {put * 1e3:.3g} ms")
            section.raw[name] = {"runs": runs, "acks": times, "put_s": put}
    section.command([common.DRIVER, "vset", "127.0.0.1", "PORT", "bench", 128, ROWS, CONNECTIONS, DEPTH, "vset",
                     "ROWS"])
    return section
