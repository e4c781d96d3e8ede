"""The installed library as an embedder meets it: staged by `make install`, found by pkg-config.

Needs build/release, which `make build` fills.
"""

import os
import pathlib
import subprocess

import pytest

ROOT = pathlib.Path(__file__).resolve().parents[2]
FOUND = "orange 0.0625\nred 0.3125\n"


def run(*command, **options):
    result = subprocess.run([str(word) for word in command], capture_output=True, text=True, **options)
    assert result.returncode == 0, f"{command}\n{result.stdout}{result.stderr}"
    return result.stdout


@pytest.fixture(scope="session")
def stage(tmp_path_factory):
    """The prefix of a staged installation."""
    folder = tmp_path_factory.mktemp("stage")
    run("make", "-s", "install", f"DESTDIR={folder}", "PREFIX=/opt/vexlake", cwd=ROOT)
    return folder / "opt" / "vexlake"


@pytest.fixture(scope="session")
def environment(stage):
    library = next(stage.rglob("vexlake.pc")).parent.parent
    return dict(
        os.environ, PKG_CONFIG_PATH=str(library / "pkgconfig"), LD_LIBRARY_PATH=str(library)
    )


def flags(environment, *options):
    return run("pkg-config", *options, "vexlake", env=environment).split()


def test_what_is_installed(stage):
    files = {path.relative_to(stage).as_posix() for path in stage.rglob("*") if not path.is_dir()}
    assert files >= {
        "bin/vexlake", "include/vexlake.h", "lib/libvexlake.a", "lib/libvexlake.so",
        "lib/libvexlake.so.0", "lib/pkgconfig/vexlake.pc",
    }
    assert {path.split("/")[0] for path in files} == {"bin", "include", "lib", "share"}


def test_the_program_runs_where_it_is_installed(stage, environment):
    version = flags(environment, "--modversion")[0]
    assert run(stage / "bin" / "vexlake", "version") == f"vexlake {version}\n"


def test_shared(environment, tmp_path):
    run("cc", "-Wall", "-Wextra", "-Werror", ROOT / "examples/embed.c", "-o", tmp_path / "embed",
        *flags(environment, "--cflags", "--libs"))
    assert run(tmp_path / "embed", env=environment) == FOUND
    assert "libvexlake.so.0" in run("ldd", tmp_path / "embed", env=environment)


def internal_names():
    """A function of ours and one of carquet's that cross files, as the build's archives have them."""
    for archive, prefix in (("libvexlake.a", "vexi_"), ("carquet/libcarquet.a", "carquet_")):
        lines = run("nm", "-g", "--defined-only", ROOT / "build/release" / archive).splitlines()
        yield next(line.split()[2] for line in lines if f" T {prefix}" in line)


def test_static(environment, tmp_path):
    """The archive needs carquet no more, and its internal names do not meet the program's."""
    names = list(internal_names())
    (tmp_path / "own.c").write_text("".join(f"int {name}(void);\nint {name}(void) {{ return 1; }}\n" for name in names))
    libraries = ["-l:libvexlake.a" if flag == "-lvexlake" else flag
                 for flag in flags(environment, "--static", "--cflags", "--libs")]
    run("cc", "-Wall", "-Wextra", "-Werror", ROOT / "examples/embed.c", tmp_path / "own.c", "-o",
        tmp_path / "embed", *libraries)
    assert run(tmp_path / "embed") == FOUND
    assert "libvexlake" not in run("ldd", tmp_path / "embed")


def test_a_lake_on_disk(environment, tmp_path):
    run("cc", ROOT / "examples/embed.c", "-o", tmp_path / "embed", *flags(environment, "--cflags", "--libs"))
    assert run(tmp_path / "embed", tmp_path / "lake", env=environment) == FOUND
    again = subprocess.run([tmp_path / "embed", tmp_path / "lake"], capture_output=True, text=True, env=environment)
    assert again.returncode == 1 and "colours" in again.stderr


def test_the_header_is_cpp(environment, tmp_path):
    (tmp_path / "try.cpp").write_text(
        '#include <vexlake.h>\n#include <cstdio>\nint main() { std::puts(vex_version()); }\n')
    run("g++", "-Wall", "-Wextra", "-Werror", tmp_path / "try.cpp", "-o", tmp_path / "try",
        *flags(environment, "--cflags", "--libs"))
    assert run(tmp_path / "try", env=environment).strip() == flags(environment, "--modversion")[0]


def test_go(environment, tmp_path):
    go = ROOT / "build/go/go"
    if not go.exists():
        pytest.skip("no Go: tools/setup test brings one")
    environment = dict(environment, GOTOOLCHAIN="local", GOFLAGS="-mod=readonly -buildvcs=false", CGO_ENABLED="1",
                       # Go's cache does not look at what pkg-config says, but it looks at this.
                       CGO_LDFLAGS=f"-L{environment['LD_LIBRARY_PATH']}")
    assert run(go, "vet", "embed.go", env=environment, cwd=ROOT / "examples") == ""
    run(go, "build", "-o", tmp_path / "embed", "embed.go", env=environment, cwd=ROOT / "examples")
    lines = run(tmp_path / "embed", env=environment).splitlines()
    assert lines == ["orange 0.0625 [1,0.5,0]", "red 0.3125 [1,0,0]"]
