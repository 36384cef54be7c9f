"""Converters: run without a shell, within limits, and ended with all they started."""

from __future__ import annotations

import sys
import time
from typing import TYPE_CHECKING

import pytest

from deadreckon.wire.convert import ConverterFailed, convert

if TYPE_CHECKING:
    from pathlib import Path


def run(tmp_path: Path, script: str, *, seconds: float = 20.0, max_bytes: int = 1 << 20) -> bytes:
    """Run a Python program as a converter; return what it wrote."""
    source, target = tmp_path / "input; $(touch pwned)", tmp_path / "out" / "output"
    source.write_bytes(b"secret sauce")
    target.parent.mkdir()
    program = tmp_path / "converter.py"
    program.write_text("import os, subprocess, sys, time\nsource, target = sys.argv[1:]\n" + script)
    command = (sys.executable, str(program), "{input}", "{output}")
    convert(command, source, target, seconds=seconds, max_bytes=max_bytes)
    return target.read_bytes()


def test_paths_come_as_they_are(tmp_path: Path) -> None:
    assert run(tmp_path, "open(target, 'wb').write(open(source, 'rb').read().upper())") == b"SECRET SAUCE"
    assert not (tmp_path / "pwned").exists()
    assert not (tmp_path / "out" / "pwned").exists()


def test_where_it_runs(tmp_path: Path) -> None:
    script = "told = os.getcwd(), os.environ['TMPDIR'], sys.stdin.read(), os.getsid(0) == os.getpid()\n"
    script += "open(target, 'w').write(repr(told))"
    directory = str(tmp_path / "out")
    assert run(tmp_path, script) == repr((directory, directory, "", True)).encode()


def test_paths_within_an_argument(tmp_path: Path) -> None:
    source, target = tmp_path / "in", tmp_path / "output"
    source.write_bytes(b"x")
    convert(("/bin/dd", "if={input}", "of={output}"), source, target, seconds=20, max_bytes=100)
    assert target.read_bytes() == b"x"


@pytest.mark.parametrize(
    ("script", "problem"),
    [
        ("sys.exit('no licence')", "ended with status 1; it said: no licence"),
        ("os.kill(os.getpid(), 9)", "ended with status -9"),
        ("pass", "left no output"),
        ("open(target, 'w')", "left no output"),
        ("os.symlink('/etc/passwd', target)", "left no output"),
        ("os.mkfifo(target)", "left no output"),
        ("os.mkdir(target)", "left no output"),
        ("open(target, 'wb').truncate(1 << 30)", r"wrote more than btt\.converter_max_bytes, 1048576"),
        ("open('other', 'wb').truncate(1 << 30); open(target, 'w').write('x')", "wrote more"),
        ("print('x' * 100_000, file=sys.stderr); sys.exit(3)", "ended with status 3; it said: x{499}$"),
    ],
)
def test_what_can_go_wrong(tmp_path: Path, script: str, problem: str) -> None:
    with pytest.raises(ConverterFailed, match=problem):
        run(tmp_path, script)


def test_no_such_command(tmp_path: Path) -> None:
    with pytest.raises(ConverterFailed, match=r"/no/such/tool: can't be started"):
        convert(("/no/such/tool", "{input}"), tmp_path / "in", tmp_path / "out", seconds=1, max_bytes=1)


def test_one_that_never_ends_is_ended_with_its_children(tmp_path: Path) -> None:
    script = "child = subprocess.Popen([sys.executable, '-c', 'import time; time.sleep(600)'])\n"
    script += f"open({str(tmp_path / 'pids')!r}, 'w').write(f'{{os.getpid()}} {{child.pid}}'); time.sleep(600)"
    with pytest.raises(ConverterFailed, match=r"took longer than btt\.converter_seconds, 1"):
        run(tmp_path, script, seconds=1.0)
    for pid in map(int, (tmp_path / "pids").read_text().split()):
        assert _gone(pid), pid


def test_children_left_behind_are_ended_too(tmp_path: Path) -> None:
    script = "child = subprocess.Popen([sys.executable, '-c', 'import time; time.sleep(600)'])\n"
    script += "open(target, 'w').write(str(child.pid))"
    assert _gone(int(run(tmp_path, script)))


def _gone(pid: int) -> bool:
    """Wait until a process has ended; its parent, which has too, may not have taken notice yet."""
    for _ in range(500):
        try:
            with open(f"/proc/{pid}/stat") as file:
                if file.read().rpartition(")")[2].split()[0] == "Z":
                    return True
        except OSError:
            return True
        time.sleep(0.01)
    return False
