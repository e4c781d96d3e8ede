"""What clients send by themselves."""

import redis
from conftest import as_map, error


def test_hello_and_names(server, protocol):
    client = server.client(protocol, client_name="tester", single_connection_client=True)
    hello = as_map(client.execute_command("HELLO", protocol))
    assert hello["server"] == b"vexlake" and hello["proto"] == protocol and hello["role"] == b"master"
    assert client.client_getname() in ("tester", b"tester")
    assert client.client_setname("other") and client.client_getname() in ("other", b"other")
    assert "spaces" in error(client, "CLIENT", "SETNAME", "two words")
    assert client.client_id() == hello["id"]
    info = client.client_info()
    assert info["name"] == "other" and info["lib-name"].startswith("redis-py") and info["resp"] == str(protocol)
    assert len(client.client_list()) == 1
    assert client.execute_command("CLIENT", "NO-EVICT", "ON") == b"OK"
    client.close()


def test_ping_echo_select(client):
    assert client.ping() and client.echo("hallo") == b"hallo"
    assert client.execute_command("SELECT", 0)
    assert "wrong number" in error(client, "PING", "a", "b")
    assert "wrong number" in error(client, "ECHO")


def test_command(client):
    count = client.command_count()
    commands = client.command()
    assert len(commands) == count and commands["vsearch"]["arity"] == -3
    assert "write" in commands["vset"]["flags"] and "readonly" in commands["vget"]["flags"]
    assert sorted(c.decode() for c in client.execute_command("COMMAND LIST")) == sorted(commands)
    docs = as_map(client.execute_command("COMMAND DOCS", "vset", "nothing"))
    assert list(docs) == ["vset"] and as_map(docs["vset"])["summary"].startswith(b"Store")
    assert len(as_map(client.execute_command("COMMAND DOCS"))) == count
    known, unknown = client.execute_command("COMMAND INFO", "ping", "nothing")
    assert known[0] == b"ping" and unknown is None


def test_config_and_info(server, client):
    assert client.config_get("maxclients") == {"maxclients": "10000"}
    assert client.config_get("save") == {"save": ""}
    assert {"port", "lake", "durability"} <= set(client.config_get("*"))
    assert client.config_get("nothing") == {}
    client.execute_command("VSET", "a", "[1,2]")
    info = client.info()
    assert info["tcp_port"] == server.port and info["connected_clients"] >= 1
    assert info["db0"]["keys"] == 1 and info["rows"] == 1 and info["rows_written"] >= 1
    assert "tcp_port" not in client.info("clients")
    assert info["redis_mode"] == "standalone" and info["role"] == "master"


def test_redis_py_as_it_comes(server):
    """A client without any setting of ours connects and works."""
    client = redis.Redis(port=server.port)
    assert client.ping()
    client.execute_command("VSET", "a", "[1,2]")
    assert client.execute_command("VSEARCH", "[1,2]", 1)[0][0] == b"a"
    client.close()
