"""wire: PING and VGET of a row in memory against redis-server's PING and GET.

redis-benchmark is the client of both, with the same clients and depth; rounds alternate between
the servers, medians of their throughput are compared. A value of GET has the size of the RAW
vector, 32 bytes. CPU seconds per million requests tell where a server would be on cores of its
own: here client and server share two."""

import struct

import redis

import common

CLIENTS, ROUNDS, DIMENSION = 50, 7, 8
REQUESTS = {1: 100_000, 16: 600_000}
COMMANDS = {
    "PING": (("PING",), ("PING",)),
    "VGET RAW / GET": (("VGET", "row:1", "RAW"), ("GET", "row:1")),
}


def throughput(port, depth, requests, words):
    """Requests a second, by redis-benchmark."""
    out = common.run(["redis-benchmark", "-p", port, "-c", CLIENTS, "-P", depth, "-n", requests,
                      "--csv", *words])
    return float(out.strip().splitlines()[-1].split('","')[1])


def measure():
    section = common.Section("wire", f"{CLIENTS} clients; a row of {DIMENSION} values in the memtable, "
                             "a value of as many bytes in redis")
    blob = struct.pack("<8f", *range(1, 9))
    lake = common.fresh(common.OUT / "lake-wire")
    ports = common.free_port(), common.free_port()
    folder = common.fresh(common.OUT / "redis")
    folder.mkdir()
    redis_words = ["redis-server", "--port", ports[1], "--save", "", "--appendonly", "no",
                   "--dir", folder, "--bind", "127.0.0.1"]
    with common.vexlake_server(lake, ports[0]) as ours, \
            common.server(redis_words, ports[1], common.OUT / "redis.log") as theirs:
        us, them = (redis.Redis(port=port) for port in ports)
        us.execute_command("VSET", "row:1", blob)
        them.set("row:1", blob)
        assert us.execute_command("VGET", "row:1", "RAW")
        for depth, requests in REQUESTS.items():
            requests = common.scaled(requests)
            for name, words in COMMANDS.items():
                rates, cpu = ([], []), ([], [])
                for _ in range(ROUNDS):
                    for side, process in enumerate((ours, theirs)):
                        before = sum(common.cpu_seconds(process.pid))
                        rates[side].append(throughput(ports[side], depth, requests, words[side]))
                        used = sum(common.cpu_seconds(process.pid)) - before
                        cpu[side].append(used / requests * 1e6)
                middle = [common.median(side) for side in rates]
                spent = [common.median(side) for side in cpu]
                ratio = middle[0] / middle[1]
                section.line(f"{name}, pipeline {depth}: vexlake", middle[0], "/s",
                             note=f"CPU {spent[0]:.3g} s a million")
                section.line(f"{name}, pipeline {depth}: redis", middle[1], "/s",
                             note=f"CPU {spent[1]:.3g} s a million")
                section.line(f"{name}, pipeline {depth}: ratio", ratio, "x", ">= 0.75", ratio >= 0.75)
                section.line(f"{name}, pipeline {depth}: CPU time / redis", spent[0] / spent[1], "x")
                section.raw[f"{name} {depth}"] = {"rates": rates, "cpu_s_per_million": cpu}
    section.command(["redis-benchmark", "-p", "PORT", "-c", CLIENTS, "-P", "1|16", "-n",
                     "REQUESTS", "--csv", "VGET row:1 RAW"])
    return section
