"""Every block of code in the README and in docs/ does what the text says: it is run, parsed or loaded here.

A block says by its language what becomes of it: ``sh`` is run, ``sh parse`` (what needs a network, or another system)
is understood by the command line, ``python`` is run, ``toml`` is loaded as settings, ``rules`` and ``toml rules``
are loaded as grouping rules, ``json`` is parsed, ``text`` is shown only.
The blocks of one page are run in one directory, which has the files that the pages talk of.
"""

from __future__ import annotations

import json
import os
import re
import shlex
import shutil
import subprocess
import sys
import sysconfig
import tarfile
import tomllib
from dataclasses import asdict
from pathlib import Path
from typing import NamedTuple

import pytest

from deadreckon import config
from deadreckon.arguments import parser
from deadreckon.errors import DIAGNOSTIC_CODES, ConfigError, DeadreckonError
from deadreckon.grouping.families import Families
from deadreckon.reports import FORMATS
from synth.sourcemap import source_map

ROOT = Path(__file__).parent.parent
PAGES = [ROOT / "README.md", ROOT / "CONTRIBUTING.md", *sorted((ROOT / "docs").rglob("*.md"))]
INSIDE = {"backtrace-form", "sentry-minidump"}
"""Forms: an event of theirs has the format of the report inside."""
LANGUAGES = {"sh", "sh parse", "python", "toml", "toml rules", "rules", "json", "text"}


class Block(NamedTuple):
    page: Path
    line: int
    language: str
    text: str

    def __str__(self) -> str:
        return f"{self.page.name}:{self.line}"


def blocks(page: Path) -> list[Block]:
    """Return the fenced blocks of a page."""
    found: list[Block] = []
    opened: tuple[int, str, list[str]] | None = None
    for number, line in enumerate(page.read_text(encoding="utf-8").splitlines(), 1):
        if line.startswith("```"):
            if opened is None:
                opened = number, line[3:].strip(), []
            else:
                found.append(Block(page, opened[0], opened[1], "\n".join(opened[2]) + "\n"))
                opened = None
        elif opened is not None:
            opened[2].append(line)
    assert opened is None, f"{page.name}: a block is not closed"
    return found


ALL = [block for page in PAGES for block in blocks(page)]


def of(language: str) -> list[Block]:
    return [block for block in ALL if block.language == language]


@pytest.fixture
def place(tmp_path: Path, fixtures: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    """Give a directory with the files that the pages talk of, and a PATH with the program."""
    here = tmp_path / "here"
    here.mkdir()
    packed = fixtures / "demo/crash-demo.tar.xz"
    with tarfile.open(packed) as archive:
        archive.extractall(tmp_path, filter="data")
    demo = tmp_path / "crash-demo"
    shutil.copy(packed, here / "crashes.tar.xz")
    for name in ("crash.dmp", "app.dmp", "core.4711", "other.dmp"):
        shutil.copy(demo / "threads.dmp", here / name)
    shutil.copy(demo / "crashy.debug", here / "app.debug")
    (here / "debug-files").mkdir()
    shutil.copy(demo / "crashy.debug", here / "debug-files")
    (here / "build").mkdir()
    for name in ("crashy", "crashy.debug"):
        shutil.copy(demo / name, here / "build")
    (here / "crashes").mkdir()
    shutil.copy(demo / "threads.dmp", here / "crashes/a.dmp")
    shutil.copy(demo / "templates.dmp", here / "crashes/b.dmp")
    (here / "app.js.map").write_bytes(source_map([(0, 0, 0, 0, 0)]))
    (here / "app.log").write_text("started\n")
    frame = {"function": "run", "filename": "app.py", "lineno": 3}
    raised = {"type": "ValueError", "value": "no", "stacktrace": {"frames": [frame]}}
    sent = {"event_id": "0" * 32, "platform": "python", "exception": {"values": [raised]}}
    (here / "crash.json").write_text(json.dumps(sent))
    (here / "sentry-rules.txt").write_text("family:native function:std::* -app\n")
    for job in ("JOBDIR", "jobs"):
        for directory in ("tmp", "new"):
            (here / job / directory).mkdir(parents=True)
    scripts = sysconfig.get_path("scripts")
    monkeypatch.setenv("PATH", f"{scripts}{os.pathsep}{os.environ['PATH']}")
    monkeypatch.chdir(here)
    return here


def commands(text: str) -> list[str]:
    """Return the commands of a block, continued lines joined."""
    return [line for line in text.replace("\\\n", " ").splitlines() if line.strip()]


@pytest.mark.parametrize("page", PAGES, ids=lambda page: page.name)
def test_every_block_says_what_it_is(page: Path) -> None:
    assert {block.language for block in blocks(page)} <= LANGUAGES
    outside = re.sub(r"^```.*?^```$", "", page.read_text(encoding="utf-8"), flags=re.DOTALL | re.MULTILINE)
    indented = re.findall(r"\n\n(    .*)", outside)
    assert indented == [], "write it between fences"


@pytest.mark.parametrize("page", [p for p in PAGES if any(b.language == "sh" for b in blocks(p))], ids=lambda p: p.name)
def test_shell(page: Path, place: Path) -> None:
    script = ["set -eu"]
    for block in blocks(page):
        if block.language != "sh":
            continue
        for command in commands(block.text):
            words = shlex.split(command, comments=True)
            if words[:1] == ["make"]:
                subprocess.run(["make", "-n", *words[1:]], cwd=ROOT, check=True, capture_output=True)
            elif words[:2] == ["deadreckon", "worker"] and "--once" not in words:
                script.append(shlex.join([*words, "--once"]))  # It would wait for further jobs.
            else:
                script.append(command)
    done = subprocess.run(["sh"], input="\n".join(script), cwd=place, capture_output=True, text=True, check=False)
    assert done.returncode == 0, f"{page.name}: {done.stderr[-2000:]}"


@pytest.mark.parametrize("block", of("sh parse"), ids=str)
def test_command_lines_are_understood(block: Block) -> None:
    for command in commands(block.text):
        program, *arguments = shlex.split(command, comments=True)
        assert program == "deadreckon"
        parser().parse_args(arguments)


@pytest.mark.parametrize("block", of("python"), ids=str)
def test_python(block: Block, place: Path) -> None:
    done = subprocess.run([sys.executable, "-c", block.text], cwd=place, capture_output=True, text=True, check=False)
    assert done.returncode == 0, f"{block}: {done.stderr[-2000:]}"


@pytest.mark.parametrize("block", of("toml"), ids=str)
def test_settings(block: Block, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("SYMBOLS_TOKEN", "secret")
    written = tmp_path / "deadreckon.toml"
    written.write_text(block.text)
    config.load(written, {})  # It refuses what it does not know.
    written.write_text(block.text + "\nno_such_setting = 1\n")
    with pytest.raises(ConfigError):
        config.load(written, {})


@pytest.mark.parametrize("block", [*of("rules"), *of("toml rules")], ids=str)
def test_grouping_rules(block: Block, tmp_path: Path) -> None:
    written = tmp_path / ("rules.toml" if "toml" in block.language else "rules.txt")
    written.write_text(block.text)
    found = Families(["native128", "backtrace"], [str(written)])
    assert found.rules.stack or found.rules.fingerprint
    written.write_text(block.text + "\nno such rule\n")
    with pytest.raises(DeadreckonError):
        Families(["native128", "backtrace"], [str(written)])


@pytest.mark.parametrize("block", of("json"), ids=str)
def test_json(block: Block) -> None:
    json.loads(block.text)


def test_every_format_is_told_of() -> None:
    page = (ROOT / "docs/formats.md").read_text(encoding="utf-8")
    assert [form.name for form in FORMATS if f"`{form.name}`" not in page and form.name not in INSIDE] == []
    assert {f"readers/{p.name}" for p in (ROOT / "docs/readers").glob("*.md")} <= set(re.findall(r"\]\(([^)#]+)", page))


def test_limits_are_shown_with_their_defaults() -> None:
    known = config.Config()
    shown = [tomllib.loads(b.text) for b in of("toml") if b.page.name == "formats.md"]
    assert {name for part in shown for name in part} == {"archive", "report", "unwind"}
    for name, section in [item for part in shown for item in part.items()]:
        assert section == asdict(getattr(known, name)), name


@pytest.mark.parametrize("page", PAGES, ids=lambda page: page.name)
def test_diagnostics_are_known(page: Path) -> None:
    """A table of diagnostics has their codes in its first column."""
    _, _, told = page.read_text(encoding="utf-8").partition("## Diagnostics\n")
    cells = re.findall(r"^\| (`.*?) \|", told.partition("\n## ")[0], re.MULTILINE)
    assert bool(cells) == bool(told)
    assert {code for cell in cells for code in re.findall(r"`(\w+)`", cell)} <= DIAGNOSTIC_CODES.keys()


@pytest.mark.parametrize("page", PAGES, ids=lambda page: page.name)
def test_links_lead_somewhere(page: Path) -> None:
    for target in re.findall(r"\]\(([^)#]+)(?:#[^)]*)?\)", page.read_text(encoding="utf-8")):
        if "://" not in target:
            assert (page.parent / target).exists(), f"{page.name}: {target}"
