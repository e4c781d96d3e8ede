"""What deploy/ offers: the configuration file, the unit, the image and the compose file agree with
the program, with each other and with the repository.

No daemon that runs containers is needed. VEXLAKE names the program; build/vexlake is the default.
"""

import json
import os
import pathlib
import re
import shutil
import signal
import socket
import subprocess
import time
import urllib.request

import pytest
import redis
import yaml

ROOT = pathlib.Path(__file__).resolve().parents[2]
DEPLOY = ROOT / "deploy"
PROGRAM = os.environ.get("VEXLAKE") or str(ROOT / "build/vexlake")


def run(*command, **options):
    return subprocess.run([str(word) for word in command], capture_output=True, text=True, timeout=300, **options)


@pytest.fixture(scope="module")
def flags():
    """Name of each flag of `vexlake serve` and its default, as --help shows them."""
    text = run(PROGRAM, "serve", "--help").stdout
    found = {}
    for line in text.splitlines():
        match = re.match(r"  --([a-z0-9-]+)(?: \S+)? {2,}\S.*?(?: \[([^\[\]]*)\])?$", line)
        if match is None:
            match = re.match(r"  --([a-z0-9-]+)(?: \S+)? \S.*?(?: \[([^\[\]]*)\])?$", line)
        if match:
            found[match.group(1)] = match.group(2) or ""
    assert len(found) == sum(line.startswith("  --") for line in text.splitlines()) > 20
    del found["help"]
    return found


class Server:
    """A server on a free port; `command` is all of its command line."""

    def __init__(self, command, log, **options):
        self.log_path = log
        with open(log, "wb") as stderr:
            self.process = subprocess.Popen([str(word) for word in command], stdin=subprocess.DEVNULL,
                                            stdout=subprocess.DEVNULL, stderr=stderr, **options)
        end = time.monotonic() + 60
        while (found := re.search(r"ready address=\S+ port=(\d+)", self.log())) is None:
            assert self.process.poll() is None and time.monotonic() < end, self.log()
            time.sleep(0.01)
        self.port = int(found.group(1))

    def log(self):
        return self.log_path.read_text(errors="replace")

    def stop(self):
        self.process.send_signal(signal.SIGTERM)
        assert self.process.wait(60) == 0, self.log()


# ---- vexlake.conf ---------------------------------------------------------------------------------

def settings_of_file():
    """(name, value) of each line that would be a setting without its #."""
    lines = (DEPLOY / "vexlake.conf").read_text().splitlines()
    assert all(not line or line.startswith("#") for line in lines), "every setting is commented out"
    return [(match.group(1), match.group(2) or "") for line in lines
            if (match := re.fullmatch(r"#([a-z0-9-]+)(?: (\S.*))?", line))]


def test_the_file_names_every_setting_with_its_default(flags):
    settings = settings_of_file()
    assert len(dict(settings)) == len(settings)
    assert dict(settings) == {name: value for name, value in flags.items() if name != "config"}


def test_every_setting_is_explained():
    lines = (DEPLOY / "vexlake.conf").read_text().splitlines()
    for i, line in enumerate(lines):
        if re.fullmatch(r"#[a-z0-9-]+( .*)?", line):
            assert re.match(r"# \w", lines[i - 1]), line


def test_a_server_takes_the_whole_file(tmp_path):
    """With every # taken away it says what the program does by itself."""
    text = (DEPLOY / "vexlake.conf").read_text()
    conf = tmp_path / "vexlake.conf"
    conf.write_text(re.sub(r"(?m)^#(?=[a-z0-9-]+( |$))", "", text))
    assert len(re.findall(r"(?m)^[a-z]", conf.read_text())) == len(settings_of_file())
    got = []
    for name, options in (("plain", []), ("file", ["--config", conf])):
        server = Server([PROGRAM, "serve", *options, "--port", 0, "--lake", tmp_path / "lake"], tmp_path / name)
        client = redis.Redis(port=server.port, decode_responses=True)
        got.append(client.config_get("*"))
        client.close()
        server.stop()
    got[0]["config"] = got[1]["config"]
    assert got[0] == got[1]
    assert set(got[0]) >= {name for name, _ in settings_of_file()}


def test_the_file_as_it_is(tmp_path):
    server = Server([PROGRAM, "serve", "--config", DEPLOY / "vexlake.conf", "--port", 0], tmp_path / "log", cwd=tmp_path)
    client = redis.Redis(port=server.port)
    assert client.execute_command("VSET", "a", "[1,2]")
    client.close()
    server.stop()
    assert (tmp_path / "lake").is_dir()


# ---- The unit -------------------------------------------------------------------------------------

def unit_settings():
    text = (DEPLOY / "vexlake.service").read_text()
    found = {}
    for key, value in re.findall(r"(?m)^(\w+)=(.*)$", text):
        found.setdefault(key, []).append(value)
    return found


def test_the_unit_starts_the_program_as_it_is_installed(flags):
    unit = unit_settings()
    program, *words = unit["ExecStart"][0].split()
    assert program == "/usr/local/bin/vexlake" and words[0] == "serve"
    assert {word[2:] for word in words if word.startswith("--")} <= set(flags)
    assert unit["DynamicUser"] == ["yes"] and unit["ProtectSystem"] == ["strict"]
    assert unit["Restart"] == ["on-failure"] and unit["StateDirectory"] == ["vexlake"]


def test_systemd_accepts_the_unit(tmp_path):
    if shutil.which("systemd-analyze") is None:
        pytest.skip("no systemd-analyze")
    unit = (DEPLOY / "vexlake.service").read_text().replace("/usr/local/bin/vexlake", PROGRAM)
    (tmp_path / "vexlake.service").write_text(unit)
    done = run("systemd-analyze", "verify", "--man=no", tmp_path / "vexlake.service")
    assert done.returncode == 0 and "vexlake.service" not in done.stderr, done.stderr
    broken = unit.replace("ProtectSystem=strict", "ProtectSystem=perhaps")
    (tmp_path / "vexlake.service").write_text(broken)
    assert "vexlake.service" in run("systemd-analyze", "verify", "--man=no", tmp_path / "vexlake.service").stderr


# ---- The image ------------------------------------------------------------------------------------

def instructions():
    """(word, rest) of each instruction of the Dockerfile, continued lines joined."""
    text = re.sub(r"(?m)^\s*#.*\n", "", (DEPLOY / "Dockerfile").read_text())
    text = re.sub(r"\\\n\s*", " ", text)
    return [tuple(line.split(None, 1)) for line in text.splitlines() if line.strip()]


def stages():
    parts = []
    for word, rest in instructions():
        if word == "FROM":
            parts.append([])
        parts[-1].append((word, rest))
    return parts


def ignored():
    lines = (ROOT / ".dockerignore").read_text().splitlines()
    return {line for line in lines if line and not line.startswith("#")}


def test_the_image_is_built_of_what_is_there():
    words = {"FROM", "RUN", "WORKDIR", "COPY", "USER", "VOLUME", "EXPOSE", "HEALTHCHECK", "STOPSIGNAL", "ENTRYPOINT"}
    assert {word for word, _ in instructions()} <= words
    build, final = stages()
    assert build[0] == ("FROM", "debian:12-slim AS build") and final[0] == ("FROM", "debian:12-slim")
    for word, rest in instructions():
        if word != "COPY" or rest.startswith("--from=build "):
            continue
        *sources, _ = rest.split()
        for source in sources:
            assert (ROOT / source).exists() and source not in ignored(), source
    assert ".git" in ignored() and "build" in ignored()
    assert {"deploy", "deploy/vexlake.conf", "src", "tools"}.isdisjoint(ignored())


def test_the_image_is_built_by_the_projects_own_commands(tmp_path):
    build, final = stages()
    commands = " && ".join(rest for word, rest in build if word == "RUN")
    assert re.search(r"&& make build && make install DESTDIR=/stage PREFIX=/usr$", commands)
    assert ("COPY", "--from=build /stage/usr/bin/vexlake /usr/bin/vexlake") in final
    done = run("make", "-s", "install", f"DESTDIR={tmp_path}/stage", "PREFIX=/usr", cwd=ROOT)
    assert done.returncode == 0, done.stderr
    assert os.access(tmp_path / "stage/usr/bin/vexlake", os.X_OK)


def test_set_up_needs_no_more_than_was_copied_before_it(tmp_path):
    """The layer of packages: tools/setup alone, with the packages of this machine."""
    context = tmp_path / "context"
    (context / "tools").mkdir(parents=True)
    copied = [rest.split() for word, rest in stages()[0] if word == "COPY"][:2]
    assert copied == [["tools/setup", "tools/"], ["tools/requirements", "tools/requirements/"]]
    shutil.copy(ROOT / "tools/setup", context / "tools/setup")
    shutil.copytree(ROOT / "tools/requirements", context / "tools/requirements")
    (context / "build").mkdir()
    os.symlink(ROOT / "build/deps", context / "build/deps")  # what it would fetch
    done = run("tools/setup", "build", cwd=context)
    assert done.returncode == 0, done.stdout + done.stderr


def packages_of(stage):
    text = " ".join(rest for word, rest in stage if word == "RUN")
    listed = re.search(r"apt-get install -y -q --no-install-recommends ([^&]*)&&", text).group(1)
    return set(listed.split())


def test_the_image_has_every_library_of_the_program():
    if shutil.which("dpkg") is None or "Debian GNU/Linux 12" not in pathlib.Path("/etc/os-release").read_text():
        pytest.skip("no Debian 12: its packages have other names")
    program = ROOT / "build/release/vexlake"
    needed = set(re.findall(r"NEEDED.*\[(.*)\]", run("readelf", "-d", program).stdout))
    paths = dict(re.findall(r"(\S+) => (\S+)", run("ldd", program).stdout))
    owners = set()
    for library in needed & set(paths):
        for path in (paths[library], "/usr" + paths[library]):
            found = run("dpkg", "-S", path).stdout
            owners |= {found.split(":")[0]} if found else set()
    assert owners - {"libc6", "libgcc-s1"} == packages_of(stages()[1]) - {"ca-certificates", "curl"}


def test_the_server_of_the_image_is_not_root():
    _, final = stages()
    words = [word for word, _ in final]
    assert ("USER", "vexlake") in final
    assert not {"RUN", "COPY"} & set(words[words.index("USER"):])
    assert "useradd --system --uid 6390 --user-group" in dict(final[1:2])["RUN"]


def free_port():
    with socket.socket() as probe:
        probe.bind(("127.0.0.1", 0))
        return probe.getsockname()[1]


def entrypoint(tmp_path, *arguments):
    """The command line and environment by which the image's entry point runs here."""
    (tmp_path / "bin").mkdir(exist_ok=True)
    if not (tmp_path / "bin/vexlake").exists():
        os.symlink(PROGRAM, tmp_path / "bin/vexlake")
    environment = dict(os.environ, PATH=f"{tmp_path}/bin:{os.environ['PATH']}", TMPDIR=str(tmp_path),
                       VEXLAKE_CONF=str(DEPLOY / "vexlake.conf"))
    environment.pop("VEXLAKE_PASSWORD", None)
    return [DEPLOY / "entrypoint.sh", *arguments], environment


def test_the_entry_point(tmp_path):
    assert os.access(DEPLOY / "entrypoint.sh", os.X_OK)
    command, environment = entrypoint(tmp_path, "--port", 0, "--http-bind", "127.0.0.1", "--lake", tmp_path / "lake",
                                      "--http-port", port := free_port())
    done = run(*command, env=environment)
    assert done.returncode == 1 and "requirepass" in done.stderr and done.stderr.count("\n") == 1, done.stderr
    environment["VEXLAKE_PASSWORD"] = "a secret"
    server = Server(command, tmp_path / "log", env=environment)
    assert "secret" not in pathlib.Path(f"/proc/{server.process.pid}/cmdline").read_text()
    assert "a secret" not in pathlib.Path(f"/proc/{server.process.pid}/environ").read_text()
    client = redis.Redis(port=server.port, password="a secret")
    assert client.ping()
    client.close()
    with pytest.raises(redis.AuthenticationError):
        redis.Redis(port=server.port).ping()
    check = dict((word, rest) for word, rest in stages()[1])["HEALTHCHECK"]
    url = json.loads(check[check.index("CMD ") + 4:])[-1]
    assert "--http-port 9390" in (DEPLOY / "entrypoint.sh").read_text() and ":9390/" in url
    with urllib.request.urlopen(url.replace(":9390/", f":{port}/"), timeout=30) as answer:
        assert answer.status == 200
    server.stop()


# ---- The compose file -----------------------------------------------------------------------------

@pytest.fixture(scope="module")
def compose():
    return yaml.safe_load((DEPLOY / "compose.yaml").read_text())


def test_its_services(compose, flags):
    services = compose["services"]
    ours = {name: service for name, service in services.items() if service["image"] == "vexlake"}
    assert sorted(ours) == ["reader-1", "reader-2", "writer"]
    assert set(services) - set(ours) == {"master", "volume", "filer", "s3", "bucket"}
    for name, service in ours.items():
        assert (DEPLOY / service["build"]["context"] / service["build"]["dockerfile"]).resolve() == DEPLOY / "Dockerfile"
        words = service["command"]
        assert {word[2:] for word in words if word.startswith("--")} <= set(flags), name
        assert words[words.index("--lake") + 1].startswith("s3://")
        assert service["healthcheck"]["test"][-1].endswith(":9390/ready")
    lakes = {service["command"][service["command"].index("--lake") + 1] for service in ours.values()}
    assert len(lakes) == 1
    tags = {service["image"] for name, service in services.items() if name not in ours}
    assert len(tags) == 1 and re.fullmatch(r"chrislusf/seaweedfs:\d+\.\d+", tags.pop())


def test_what_waits_for_what(compose):
    services = compose["services"]

    def before(name):
        found = set()
        for other, how in services[name].get("depends_on", {}).items():
            if how["condition"] == "service_healthy":
                assert "healthcheck" in services[other], other
            else:
                assert how["condition"] == "service_completed_successfully" and services[other]["restart"] == "no"
            found |= {other} | before(other)
        return found

    assert before("writer") == {"bucket", "s3", "filer", "volume", "master"}
    assert before("reader-1") == before("reader-2") == before("writer") | {"writer"}


def test_its_ports_and_volumes(compose):
    outside, mounted = [], []
    for service in compose["services"].values():
        outside += [port.rsplit(":", 1)[0] for port in service.get("ports", [])]
        for volume in service.get("volumes", []):
            source = volume.split(":")[0]
            if source.startswith("."):
                assert (DEPLOY / source).is_file(), source
            else:
                mounted.append(source)
    assert len(set(outside)) == len(outside) and all(port.startswith("127.0.0.1:") for port in outside)
    assert len(set(mounted)) == len(mounted) and set(mounted) == set(compose["volumes"])
    exposed = dict(stages()[1])["EXPOSE"].split()
    inside = {port.rsplit(":", 1)[1] for name, service in compose["services"].items() if service["image"] == "vexlake"
              for port in service["ports"]}
    assert inside == set(exposed)


def test_its_keys_are_those_of_the_identity(compose):
    identities = json.loads((DEPLOY / "s3.json").read_text())["identities"]
    assert len(identities) == 1
    keys = identities[0]["credentials"][0]
    bucket = None
    for service in compose["services"].values():
        if service["image"] != "vexlake":
            continue
        environment = service["environment"]
        assert (environment["AWS_ACCESS_KEY_ID"], environment["AWS_SECRET_ACCESS_KEY"]) == \
            (keys["accessKey"], keys["secretKey"])
        assert environment["AWS_ENDPOINT_URL"] == "http://s3:8333"
        bucket = service["command"][service["command"].index("--lake") + 1].split("/")[2]
    assert {action.split(":")[1] for action in identities[0]["actions"]} == {bucket}
    assert f"s3.bucket.create -name {bucket} -owner {identities[0]['name']}" in \
        compose["services"]["bucket"]["command"][0]


def test_compose_itself_accepts_it():
    if shutil.which("docker") is None or run("docker", "compose", "version").returncode != 0:
        pytest.skip("no docker compose")
    done = run("docker", "compose", "-f", DEPLOY / "compose.yaml", "config", "--quiet")
    assert done.returncode == 0, done.stderr
