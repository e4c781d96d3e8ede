"""The README's redis-cli lines, typed one after the other, answer what the README says; so does its
Python.

Floating-point texts are compared as numbers: their last digits depend on the CPU's vector kernel.
"""

import doctest
import re
import shlex
import shutil
import subprocess

import pytest

from conftest import PROGRAM, ROOT


def readme_commands():
    """[(command, what it prints)] of the console blocks."""
    found = []
    for block in re.findall(r"```console\n(.*?)```", (ROOT / "README.md").read_text(), re.S):
        for part in re.split(r"^\$ ", block, flags=re.M)[1:]:
            command, _, output = part.partition("\n")
            if command.startswith("redis-cli"):
                found.append((command, output))
    return found


def split_numbers(text):
    pieces = re.split(r"\"(-?\d+\.\d+(?:e-?\d+)?)\"", text)
    return pieces[::2], [float(number) for number in pieces[1::2]]


@pytest.mark.skipif(shutil.which("redis-cli") is None, reason="redis-cli is not installed")
def test_the_tour(start, tmp_path):
    lake = tmp_path / "lake"
    subprocess.run([PROGRAM, "import", "--lake", lake, "--into", "packages", "--metric", "cosine",
                    ROOT / "examples" / "packages.parquet"], check=True)
    server = start(lake=lake)
    commands = readme_commands()
    assert len(commands) >= 10
    for command, wanted in commands:
        words = shlex.split(command)
        assert words[:3] == ["redis-cli", "-p", "6390"]
        printed = subprocess.run(["redis-cli", "--no-raw", "-p", str(server.port), *words[3:]],
                                 capture_output=True, text=True, timeout=60).stdout
        printed = re.sub(r"\n\n$", "\n", printed)  # redis-cli ends an error with an empty line
        assert split_numbers(printed)[0] == split_numbers(wanted)[0], command
        assert split_numbers(printed)[1] == pytest.approx(split_numbers(wanted)[1], rel=1e-4), command


def test_the_python_block(tmp_path, monkeypatch):
    """In the folder of a lake that has the sample, as `make run` leaves it."""
    subprocess.run([PROGRAM, "import", "--lake", tmp_path / "lake", "--into", "packages", "--metric", "cosine",
                    ROOT / "examples" / "packages.parquet"], check=True)
    monkeypatch.chdir(tmp_path)
    (block,) = re.findall(r"```python\n(.*?)```", (ROOT / "README.md").read_text(), re.S)
    test = doctest.DocTestParser().get_doctest(block, {}, "README", "README.md", 0)
    assert len(test.examples) == 3
    assert doctest.DocTestRunner().run(test).failed == 0
