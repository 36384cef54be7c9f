"""Many crashes on all cores: the same bytes as one by one, in order, whatever happens to a process; and resumed."""

from __future__ import annotations

import io
import json
import os
import signal
import subprocess
import sys
import tarfile
import time
from typing import TYPE_CHECKING

import pytest

from deadreckon.adapters.output import Output
from deadreckon.errors import ConfigError

if TYPE_CHECKING:
    from pathlib import Path


def process(*arguments: object) -> subprocess.CompletedProcess[bytes]:
    command = [sys.executable, "-m", "deadreckon.cli", "process", *map(str, arguments)]
    return subprocess.run(command, capture_output=True, check=False, timeout=100)


@pytest.fixture
def pile(tmp_path: Path, fixtures: Path) -> Path:
    """Give a directory with more crashes than are processed one by one, some of them unreadable."""
    made = tmp_path / "pile"
    made.mkdir()
    dumps = sorted((fixtures / "linux/x86_64/pie-O2/dumps").glob("*.dmp"))
    for number in range(40):
        path = dumps[number % len(dumps)]
        (made / f"{number:03d}.dmp").write_bytes(path.read_bytes() if number % 20 else b"nothing")
    os.mkfifo(made / "fifo")
    return made


def test_processes_write_what_one_would(pile: Path, fixtures: Path) -> None:
    symbols = ["--symbols", fixtures / "linux/x86_64/pie-O2"]
    one, two = (process(pile, *symbols, "--processes", n) for n in ("1", "2"))
    assert one.stdout.count(b"\n") == 40
    assert (two.returncode, two.stdout, two.stderr) == (3, one.stdout, one.stderr)
    assert two.stderr.count(b"unknown_format") == 2
    names = [json.loads(line)["source"]["name"] for line in two.stdout.splitlines()]
    assert names == sorted(names)


def test_the_crashes_of_an_archive_are_dealt_out(pile: Path, tmp_path: Path, fixtures: Path) -> None:
    archive = tmp_path / "pile.tar"
    with tarfile.open(archive, "w") as out:
        for path in sorted(pile.glob("*.dmp")):
            out.add(path, path.name)
        out.add(fixtures / "linux/x86_64/pie-O2/crashy.debug", "crashy.debug")
        filling = tarfile.TarInfo("notes.txt")
        filling.size = 2 << 20
        out.addfile(filling, io.BytesIO(bytes(filling.size)))
    one, two = (process(archive, "--processes", n) for n in ("1", "2"))
    assert one.stdout.count(b"\n") == 38
    assert b'"symbolicated"' in one.stdout
    assert (two.returncode, two.stdout) == (0, one.stdout)


POISON = """
import os, signal, sys
from deadreckon.adapters import many, pool
from deadreckon import inputs
from deadreckon.config import Config, WorkerConfig

def poisoned(engine, plan, item):
    if item.path.endswith("013.dmp"):
        os.kill(os.getpid(), signal.SIGSEGV)
    if item.path.endswith("031.dmp"):
        while True:
            pass
    return real(engine, plan, item)

real, pool.made = pool.made, poisoned
if __name__ == "__main__":
    plan = many.Plan(Config(worker=WorkerConfig(job_seconds=1)), "json")
    paths = sorted(os.path.join(sys.argv[1], name) for name in os.listdir(sys.argv[1]) if name != "fifo")
    with inputs.Scratch(lambda: None) as scratch:
        for _, made in many.process(many.items_of(paths, plan, scratch), plan, 2):
            sys.stdout.buffer.write(made.output)
"""


def test_a_poisonous_input_costs_itself_only(pile: Path, tmp_path: Path) -> None:
    program = tmp_path / "poison.py"
    program.write_text(POISON)
    done = subprocess.run([sys.executable, program, pile], capture_output=True, check=False, timeout=100)
    told = [json.loads(line) for line in done.stdout.splitlines()]
    expected = [json.loads(line) for line in process(pile).stdout.splitlines()]
    assert len(told) == 40, done.stderr.decode()
    assert [n for n in range(40) if told[n] != expected[n]] == [13, 31]
    assert [told[n]["status"] for n in (13, 31)] == ["unreadable"] * 2
    assert "killed by SIGSEGV" in told[13]["diagnostics"][-1]["message"]
    assert told[31]["diagnostics"][-1]["code"] == "limit_exceeded"


def interrupted(path: str, asked: str, lines: list[bytes]) -> None:
    """Write lines, then be interrupted."""

    def run() -> None:
        with Output(path, resume=asked) as out:
            for line in lines:
                out.write(1, line)
            raise KeyboardInterrupt

    with pytest.raises(KeyboardInterrupt):
        run()


def test_an_interrupted_run_is_resumed(pile: Path, tmp_path: Path) -> None:
    output = tmp_path / "events.jsonl"
    whole = process(pile, "--processes", "1").stdout
    interrupted(str(output), "asked", whole.splitlines(keepends=True)[:25])
    assert not output.exists()
    with (tmp_path / "events.jsonl.tmp").open("ab") as late:
        late.write(b"what a killed run wrote after its last note")
    with Output(str(output), resume="asked") as out:
        assert out.items == 25
        for line in whole.splitlines(keepends=True)[out.items :]:
            out.write(1, line)
    assert output.read_bytes() == whole
    assert sorted(p.name for p in tmp_path.iterdir() if "events" in p.name) == ["events.jsonl"]


def test_another_question_is_not_a_resumption(tmp_path: Path) -> None:
    path = str(tmp_path / "out")
    interrupted(path, "one", [b"x\n"])
    with pytest.raises(ConfigError, match="other inputs"), Output(path, resume="two"):
        pass


def test_the_command_resumes_after_a_signal(pile: Path, tmp_path: Path) -> None:
    whole = process(pile, "--processes", "1").stdout
    output = tmp_path / "events.jsonl"
    command = [sys.executable, "-m", "deadreckon.cli", "process", str(pile), "-o", str(output), "--resume"]
    command += ["--processes", "1"]
    running = subprocess.Popen(command, stderr=subprocess.PIPE)
    limit = time.monotonic() + 30
    while not (tmp_path / "events.jsonl.tmp").exists() and time.monotonic() < limit:
        time.sleep(0.01)
    running.send_signal(signal.SIGINT)
    running.communicate(timeout=30)
    subprocess.run(command, capture_output=True, check=False, timeout=60)
    assert output.read_bytes() == whole


def test_resuming_needs_a_file(pile: Path) -> None:
    assert process(pile, "--resume").returncode == 2
