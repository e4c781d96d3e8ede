"""Starting: flags, the configuration file, and clear messages for what cannot work."""

import json
import socket
import subprocess

from conftest import PROGRAM, ROOT, error


def run(*flags):
    done = subprocess.run([PROGRAM, "serve", *map(str, flags)], capture_output=True, timeout=60, text=True)
    return done.returncode, done.stdout, done.stderr


def test_help():
    code, out, _ = run("--help")
    assert code == 0
    for flag in ("--lake", "--port", "--requirepass", "--durability", "--import-dir", "--read-only"):
        assert flag in out


def test_the_documented_commands_are_the_table():
    code, out, _ = run("--print-docs")
    assert code == 0 and out == (ROOT / "docs/commands.md").read_text()


def test_flags_that_make_no_sense():
    for flags, says in ((["--prot", 1], "--prot"), (["--port", "x"], "port"), (["--port"], "needs a value"),
                        (["6390"], "6390"), (["--durability", "never"], "always|interval"),
                        (["--config", "/nonexistent"], "/nonexistent")):
        code, _, err = run(*flags)
        assert code == 2 and says in err and err.count("\n") == 1


def test_a_configuration_file(start, tmp_path):
    config = tmp_path / "vexlake.conf"
    config.write_text("# settings\nmaxclients 77\nlog-level debug\ndurability interval\n")
    server = start("--config", str(config), "--log-level", "info")
    got = server.client().config_get("*")
    assert got["maxclients"] == "77" and got["log-level"] == "info" and got["durability"] == "interval"
    server.client().execute_command("VSET", "a", "[1,2]")
    config.write_text("maxclients 77\n\nnonsense 5\n")
    code, _, err = run("--config", config)
    assert code == 2 and f"{config}:3" in err and "nonsense" in err


def test_a_port_in_use(tmp_path):
    with socket.socket() as taken:
        taken.bind(("127.0.0.1", 0))
        taken.listen()
        code, _, err = run("--lake", tmp_path / "lake", "--port", taken.getsockname()[1])
    assert code == 1 and "address already in use" in err and str(taken) and err.count("\n") == 1
    assert not (tmp_path / "lake").exists()


def test_a_lake_that_is_taken(start, tmp_path):
    server = start()
    server.client().execute_command("VSET", "a", "[1,2]")
    code, _, err = run("--lake", server.lake, "--port", 0)
    assert code == 1 and "is held by process" in err and err.count("\n") == 1
    assert server.client().ping()


def test_a_newer_lake(start):
    server = start()
    server.client().execute_command("VSET", "a", "[1,2]")
    assert server.stop() == 0
    path = server.lake / ".vexlake" / "format"
    content = json.loads(path.read_text())
    newer = {key: value + 1000 if isinstance(value, int) else value for key, value in content.items()}
    assert newer != content
    path.write_text(json.dumps(newer))
    code, _, err = run("--lake", server.lake, "--port", 0)
    assert code == 1 and err.count("\n") == 1 and "version" in err


def test_reading_beside_a_writer(start, tmp_path):
    server = start()
    call = server.client().execute_command
    call("VSET", "a", "[1,2]")
    call("VFLUSH")
    reader = start("--read-only", lake=server.lake)
    client = reader.client()
    assert client.execute_command("VSEARCH", "[1,2]", 1)[0][0] == b"a"
    assert "read-only" in error(client, "VSET", "b", "[1,2]")
    assert "read-only" in error(client, "VDEL", "a")
    assert "read-only" in error(client, "VCREATE", "c", "DIM", 2)


def test_addresses():
    code, _, err = run("--bind", "nonsense", "--port", 0)
    assert code == 1 and "nonsense" in err


def test_a_lake_in_memory(start):
    server = start(lake="mem://")
    call = server.client().execute_command
    call("VSET", "a", "[1,2]")
    call("VFLUSH")
    assert call("VSEARCH", "[1,2]", 1)[0][0] == b"a"
