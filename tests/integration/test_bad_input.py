"""Every malformed thing gets a clear error, changes nothing and leaves the connection usable."""

import json

import pytest
from conftest import as_map, blob, error

CASES = [
    # command, what the message must name
    (["VSET", "a", "[1,2]"], ["2", "3"]),
    (["VSET", "a", blob(1, 2, 3, 4)], ["4", "3"]),
    (["VSET", "a", blob(1, 2, 3) + b"x"], ["13 bytes"]),
    (["VSET", "a", blob(1, 2, float("nan"))], ["value", "of the vector is"]),
    (["VSET", "a", blob(1, float("inf"), 3)], ["value", "of the vector is"]),
    (["VSET", "a", "[1,2,1e39]"], ["value 2", "range"]),
    (["VSET", "a", "[1,2,NaN]"], []),
    (["VSET", "a", "[1,2,3"], []),
    (["VSET", "a", "[1,,3]"], ["byte 3"]),
    (["VSET", "a", "[1,2,3,]"], ["byte 7"]),
    (["VSET", "a", "[1 2 3]"], ["byte 3"]),
    (["VSET", "a", "[]"], ["empty"]),
    (["VSET", "a", ""], ["empty"]),
    (["VSET", "a", "[" + "1," * 5000 + "1]"], ["5001", "4096"]),
    (["VSET", "a", b"\0" * 4 * 4097], ["4097", "4096"]),
    (["VSET", "", "[1,2,3]"], ["id"]),
    (["VSET", "x" * 513, "[1,2,3]"], ["512"]),
    (["VSET", b"\xc3\x28", "[1,2,3]"], ["UTF-8"]),
    (["VSET", "a", "[1,2,3]", "ATTRIBUTES", "[1]"], ["object"]),
    (["VSET", "a", "[1,2,3]", "ATTRIBUTES", '{"a":'], []),
    (["VSET", "a", "[1,2,3]", "ATTRIBUTES", ""], []),
    (["VSET", "a", "[1,2,3]", "ATTRIBUTES", b'{"a":"\xff"}'], []),
    (["VSET", "a", "[1,2,3]", "ATTRIBUTES", '{"a":"' + "x" * (1 << 20) + '"}'], []),
    (["VSET", "a", "[1,2,3]", "ATTRIBUTES"], ["ATTRIBUTES"]),
    (["VSET", "a", "[1,2,3]", "BLOB", "x"], ["BLOB"]),
    (["VSET", "a", "[1,2,3]", "IN", "nobody"], ["nobody"]),
    (["VSET", "a", "[0,0,0]", "IN", "cosine"], ["zero"]),
    (["VSET", "a"], ["wrong number of arguments for 'vset'"]),
    (["VSEARCH", "[1,2]", 5], ["2", "3"]),
    (["VSEARCH", "[0,0,0]", 5, "IN", "cosine"], ["zero"]),
    (["VSEARCH", blob(1, 2, float("nan")), 5], ["value", "of the vector is"]),
    (["VSEARCH", "[1,2,3]", 0], ["k", "10000"]),
    (["VSEARCH", "[1,2,3]", 10001], ["k", "10000"]),
    (["VSEARCH", "[1,2,3]", -1], ["k", "10000"]),
    (["VSEARCH", "[1,2,3]", "5.0"], ["k"]),
    (["VSEARCH", "[1,2,3]"], ["wrong number of arguments for 'vsearch'"]),
    (["VSEARCH", "[1,2,3]", 5, "IN", "nobody"], ["nobody"]),
    (["VSEARCH", "[1,2,3]", 5, "RETURN", 1, "nothing"], ["nothing"]),
    (["VSEARCH", "[1,2,3]", 5, "RETURN", 2, "vector"], ["RETURN"]),
    (["VSEARCH", "[1,2,3]", 5, "FASTER"], ["FASTER"]),
    (["VSEARCH", "[1,2,3]", 5, "NPROBE", "many"], ["NPROBE"]),
    (["VSEARCH", "[1,2,3]", 5, "EF", -1], ["EF"]),
    (["VSEARCH", "[1,2,3]", 5, "RECALL", "1.5"], ["RECALL", "0.95"]),
    (["VSEARCH", "[1,2,3]", 5, "RECALL"], ["RECALL"]),
    (["VSEARCH", "ID", "nobody", 5], ["nobody"]),
    (["VGET", "a", "IN", "nobody"], ["nobody"]),
    (["VGET", "a", "RETURN", 1, "nothing"], ["nothing"]),
    (["VGET"], ["wrong number of arguments for 'vget'"]),
    (["VDEL", "a", "IN", "nobody"], ["nobody"]),
    (["VDEL"], ["wrong number of arguments for 'vdel'"]),
    (["VCREATE", "c", "DIM", 0], ["DIM", "4096"]),
    (["VCREATE", "c", "DIM", 4097], ["DIM", "4096"]),
    (["VCREATE", "c", "DIM", "many"], ["DIM"]),
    (["VCREATE", "c", "DIM", 3, "METRIC", "l1"], ["METRIC"]),
    (["VCREATE", "c", "DIM", 3, "INDEX", "tree"], ["INDEX", "hnsw"]),
    (["VCREATE", "c", "DIM", 3, "BITS", 3], ["BITS"]),
    (["VCREATE", "c", "DIM", 3, "RECALL", 0], ["RECALL"]),
    (["VCREATE", "c", "DIM", 3, "COLUMNS", "a", "int8"], ["type"]),
    (["VCREATE", "c", "DIM", 3, "COLUMNS", "a", "int64", "a", "double"], ["a"]),
    (["VCREATE", "c", "DIM", 3, "COLUMNS", "vector", "int64"], ["vector"]),
    (["VCREATE", "c", "DIM", 3, "SHARDS", 4], ["SHARDS"]),
    (["VDROP", "nobody"], ["nobody"]),
    (["VFLUSH", "nobody"], ["nobody"]),
    (["VIMPORT", "/etc/passwd"], ["--import-dir"]),
    (["NOSUCH", "x"], ["unknown command 'NOSUCH', with args beginning with: 'x'"]),
    (["SELECT", 1], ["out of range"]),
    (["HELLO", 4], ["NOPROTO"]),
    (["CLIENT", "NOSUCH"], ["unknown subcommand 'NOSUCH'"]),
    (["CONFIG", "SET", "port", "1"], ["fixed"]),
    (["SCAN", "x"], ["cursor"]),
]


@pytest.fixture(scope="module")
def shared(tmp_path_factory):
    from conftest import Server

    folder = tmp_path_factory.mktemp("bad-input")
    server = Server(folder / "lake", folder / "server.log")
    call = server.client().execute_command
    call("VSET", "kept", "[1,2,3]", "ATTRIBUTES", "{}")
    call("VCREATE", "cosine", "DIM", 3, "METRIC", "cosine")
    yield server
    assert server.stop() == 0, server.log()
    assert "Sanitizer" not in server.log()


def state(call):
    return call("VLIST"), as_map(call("VINFO"))["size"], call("VGET", "kept", "a"), as_map(call("VINFO", "cosine"))["size"]


@pytest.mark.parametrize("command,names", CASES, ids=[json.dumps(str(c[0]))[:60] for c in CASES])
def test_clear_error(shared, protocol, command, names):
    client = shared.client(protocol)
    before = state(client.execute_command)
    message = error(client, *command)
    assert "\n" not in message and len(message) > 5
    for name in names:
        assert name in message
    assert state(client.execute_command) == before
    client.close()


def test_a_bad_command_in_a_pipeline_hurts_nobody_else(shared, protocol):
    pipe = shared.client(protocol).pipeline(transaction=False)
    commands = []
    for i in range(60):
        if i % 7 == 3:
            commands.append(["VSET", f"p{i}", "[1,2]"])
        elif i % 7 == 5:
            commands.append(["VSET", f"p{i}", blob(1, 2, float("nan"))])
        elif i % 7 == 6:
            commands.append(["VSET", f"p{i}", "[1,2,3]", "ATTRIBUTES", "nonsense"])
        else:
            commands.append(["VSET", f"p{i}", f"[{i},2,3]"])
        pipe.execute_command(*commands[-1])
    replies = pipe.execute(raise_on_error=False)
    for i, reply in enumerate(replies):
        if i % 7 in (3, 5, 6):
            assert isinstance(reply, Exception), i
            assert {3: "2 ", 5: "value 2 of the vector is", 6: "attributes"}[i % 7] in str(reply)
        else:
            assert reply == b"OK", (i, reply)
    call = shared.client(protocol).execute_command
    for i in range(60):
        assert (call("VGET", f"p{i}") is None) == (i % 7 in (3, 5, 6))
    assert call("VDEL", *(f"p{i}" for i in range(60))) == 35
