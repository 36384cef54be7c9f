"""Families by name: in the engine, on the command line, with rules of files and with explanations."""

from __future__ import annotations

import json
from typing import TYPE_CHECKING, Any

import pytest

from deadreckon.cli import main
from deadreckon.config import Config, GroupingConfig
from deadreckon.engine import Engine
from deadreckon.errors import ConfigError, SourceUnavailable
from deadreckon.grouping.families import FAMILIES, Families
from deadreckon.grouping.families.sentry import Grouping, decode, sentry_event
from deadreckon.grouping.rules import RuleError, RuleSet, load_rules
from deadreckon.model.event import SCHEMA, Event, ExceptionInfo, Frame, Source, Thread
from synth.payloads import posthog_event, rollbar_item
from synth.payloads import sentry_event as sentry_payload

if TYPE_CHECKING:
    from pathlib import Path

NEWSTYLE = "sentry:newstyle:2023-01-11"


def processed(data: bytes, *families: str, rules: tuple[str, ...] = (), explain: bool = False) -> Event:
    config = Config(grouping=GroupingConfig(families, rules, explain))
    with Engine(config) as engine:
        return engine.process(data)


def test_all_families_of_one_event() -> None:
    told = processed(json.dumps(sentry_payload()).encode(), *FAMILIES, explain=True)
    assert told.fingerprint is not None
    assert told.fingerprints is not None
    assert list(told.fingerprints) == list(FAMILIES)
    assert told.fingerprints["native128"] == [told.fingerprint.id]
    assert all(told.fingerprints.values())
    assert told.explained is not None
    assert list(told.explained) == list(FAMILIES)
    assert processed(json.dumps(sentry_payload()).encode()).fingerprints is None


def test_a_sentry_payload_is_grouped_as_it_came() -> None:
    payload = {
        "event_id": "a" * 32,
        "platform": "csharp",
        "exception": {"values": [{"type": "T", "stacktrace": {"frames": [{"function": "A.B (C)", "in_app": True}]}}]},
    }
    data = json.dumps(payload).encode()
    told = processed(data, "sentry")
    assert told.fingerprints == {NEWSTYLE: Grouping("newstyle:2023-01-11", RuleSet()).hashes(decode(data))}


@pytest.mark.corpus
def test_sentrys_cases_from_end_to_end(corpus: Path) -> None:
    home = corpus / "grouping/sentry-2023-02"
    expected = json.loads((home / "expected_variants.json").read_text())["newstyle:2023-01-11"]
    rules = str(home / "enhancement-configs/newstyle@2023-01-11.txt")
    wrong = {}
    with Engine(Config(grouping=GroupingConfig((NEWSTYLE,), (rules,)))) as engine:
        for name, told in json.loads((home / "normalized_inputs.json").read_text()).items():
            found = engine.process(json.dumps(told).encode())
            wanted = {v["hash"] for v in expected[name].values() if v["hash"]}
            if set((found.fingerprints or {}).get(NEWSTYLE, ())) != wanted:
                wrong[name] = found.fingerprints
    assert wrong == {}


def test_other_products_payloads() -> None:
    for payload in (posthog_event(), rollbar_item()):
        told = processed(json.dumps(payload).encode(), NEWSTYLE, "posthog", "rollbar")
        assert told.fingerprints is not None
        assert all(told.fingerprints.values()), told.source.format


def test_a_crash_of_another_format_as_sentry_sees_it() -> None:
    frames = [Frame(status="symbolicated", function="inner", in_app=True), Frame(status="missing", function="outer")]
    event = Event(
        schema=SCHEMA,
        event_id="0" * 32,
        status="ok",
        source=Source(format="minidump"),
        platform="native",
        exceptions=[ExceptionInfo(type="SIGSEGV", value="x"), ExceptionInfo(type="Cause")],
        threads=[Thread(id=1, crashed=True, frames=frames)],
    )
    told = sentry_event(event)
    assert told.exception is not None
    first, last = told.exception.values or []
    assert first is not None
    assert last is not None
    assert (first.type, last.type) == ("Cause", "SIGSEGV")
    assert last.stacktrace is not None
    assert [f.function for f in last.stacktrace.frames or () if f] == ["outer", "inner"]
    assert last.mechanism is not None
    assert last.mechanism.synthetic is True


def test_what_maps_and_symbols_added_counts() -> None:
    frames = [{"filename": "a.min.js", "function": "x", "lineno": 1, "colno": 9}]
    payload = {"platform": "javascript", "exception": {"values": [{"type": "T", "stacktrace": {"frames": frames}}]}}

    def grouped(found: Frame) -> list[str | None]:
        event = Event(
            schema=SCHEMA,
            event_id="0" * 32,
            status="ok",
            source=Source(format="sentry-event"),
            exceptions=[ExceptionInfo(type="T", frames=[found])],
        )
        told = sentry_event(event, payload)
        assert told.exception is not None
        assert told.exception.values is not None
        assert told.exception.values[0] is not None
        assert told.exception.values[0].stacktrace is not None
        return [f.filename for f in told.exception.values[0].stacktrace.frames or () if f is not None]

    plain = Frame(status="missing_symbol", function="x", filename="elsewhere.js")
    assert grouped(plain) == ["a.min.js"]
    mapped = Frame(status="symbolicated", function="real", filename="src/a.ts", origin={"lineno": 1}, lang="javascript")
    assert grouped(mapped) == ["src/a.ts"]


def test_rules_of_files(tmp_path: Path) -> None:
    rules = tmp_path / "own.toml"
    rules.write_text(
        '[[stack]]\nmatch = {function = "*"}\ndo = ["-group"]\n'
        '[[fingerprint]]\nmatch = {type = "*"}\nvalues = ["mine"]\ntitle = "{{ type }} of mine"\n'
        '\n[[backtrace]]\nfunction = "."\nignore = true\n'
    )
    (tmp_path / "irrelevant_signature_re.txt").write_text(".*")
    data = json.dumps(sentry_payload()).encode()
    told = processed(data, NEWSTYLE, "backtrace", "signature", rules=(str(rules), str(tmp_path)), explain=True)
    assert told.explained is not None
    assert not any(c.contributes for c in told.explained["backtrace"][""])
    assert not any(c.contributes for c in told.explained["signature"][""])
    assert [c.text for c in told.explained[NEWSTYLE]["custom-fingerprint"]] == ["mine"]
    assert told.title is not None
    assert told.title.endswith(" of mine")
    assert load_rules(rules).stack


def test_what_is_wrong_is_told_at_once(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    with pytest.raises(ConfigError, match="did you mean posthog"):
        Families(["posthogg"])
    with pytest.raises(SourceUnavailable):
        Families(["posthog"], [str(tmp_path / "none")])
    bad = tmp_path / "bad.txt"
    bad.write_text("function:x\n")
    with pytest.raises(RuleError):
        Families(["posthog"], [str(bad)])
    bad_table = tmp_path / "bad.toml"
    bad_table.write_text("\n[[backtrace]]\nfunction = 1\n")
    with pytest.raises(RuleError, match=r"bad\.toml:2:1"):
        Families(["backtrace"], [str(bad_table)])
    assert main(["process", "--grouping", "posthog", "--grouping-rules", str(bad), str(bad)]) == 2
    assert "bad.txt:1:11" in capsys.readouterr().err
    assert main(["process", "--grouping", "nothing", str(bad)]) == 2


def run(capsys: pytest.CaptureFixture[str], *argv: str) -> tuple[int, str]:
    capsys.readouterr()
    code = main(argv)
    return code, capsys.readouterr().out


def test_on_the_command_line(tmp_path: Path, capsysbinary: Any) -> None:
    path = tmp_path / "event.json"
    path.write_text(json.dumps(sentry_payload()))
    assert main(["process", str(path), "--grouping", "sentry", "--explain-grouping", "--format", "json"]) == 0
    told = json.loads(capsysbinary.readouterr().out)
    assert list(told["fingerprints"]) == [NEWSTYLE]
    assert set(told["explained"][NEWSTYLE]) >= {"app", "system"}
    assert main(["process", str(path), "--grouping", "sentry", "--explain-grouping", "--format", "text"]) == 0
    text = capsysbinary.readouterr().out.decode()
    assert f"grouping by {NEWSTYLE}, system" in text
    assert told["fingerprints"][NEWSTYLE][0] in text


# -- deadreckon diff --------------------------------------------------------------------------------------------------


def crash(*functions: str, **told: Any) -> dict[str, Any]:
    frames = [{"function": f, "in_app": f != "sys", "filename": "a.go"} for f in functions]
    values = [{"type": "T", "value": "v", "stacktrace": {"frames": frames}}]
    return {"event_id": "b" * 32, "platform": "go", "exception": {"values": values}, **told}


def test_diff(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    paths = {name: tmp_path / f"{name}.json" for name in "abc"}
    paths["a"].write_text(json.dumps(crash("main", "run", "sys")))
    paths["b"].write_text(json.dumps(crash("main", "run", "sys", "sys")))
    paths["c"].write_text(json.dumps(crash("main", "walk", "sys")))
    a, b, c = map(str, paths.values())
    code, out = run(capsys, "diff", a, b, "--grouping", "sentry", "--format", "json")
    told = json.loads(out)["families"][NEWSTYLE]
    assert (code, told["same"]) == (0, True)
    assert told["common"] == sorted(set(told["a"]) & set(told["b"]), key=told["a"].index)
    code, out = run(capsys, "diff", a, c, "--grouping", "sentry", "--grouping", "signature", "--format", "json")
    families = json.loads(out)["families"]
    assert [families[f]["same"] for f in (NEWSTYLE, "signature")] == [False, True]
    marks = {line["text"]: line["mark"] for line in families[NEWSTYLE]["lines"]["app"]}
    assert (marks["a.go | run"], marks["a.go | walk"], marks["a.go | main"]) == ("a", "b", "=")
    code, out = run(capsys, "diff", a, c, "--format", "text")
    assert "native128: different groups" in out
    assert "\n  - " in out
    assert "\n  + " in out


def test_diff_tells_why_one_has_it_and_does_not_count_it(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    ours, theirs = tmp_path / "a.json", tmp_path / "b.json"
    ours.write_text(json.dumps(crash("main", "run", "sys")))
    told = crash("main", "run", "sys")
    told["exception"]["values"][0]["stacktrace"]["frames"][1]["in_app"] = False
    theirs.write_text(json.dumps(told))
    _, out = run(capsys, "diff", str(ours), str(theirs), "--grouping", "sentry", "--format", "json")
    (line,) = [x for x in json.loads(out)["families"][NEWSTYLE]["lines"]["app"] if x["text"] == "a.go | run"]
    assert (line["mark"], line["elsewhere"]) == ("a", "not the application's own code")


def test_diff_of_events(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    path, event = tmp_path / "a.json", tmp_path / "event.json"
    path.write_text(json.dumps(crash("main", "run")))
    assert main(["process", str(path), "-o", str(event), "--format", "json"]) == 0
    code, out = run(capsys, "diff", str(path), str(event), "--format", "json")
    assert code == 0
    assert json.loads(out)["families"]["native128"]["same"] is True
    code, out = run(capsys, "diff", str(event), str(event), "--grouping", "signature", "--format", "json")
    assert json.loads(out)["families"]["signature"]["common"] == ["run"]


def test_diff_of_what_is_none(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    good = tmp_path / "a.json"
    good.write_text(json.dumps(crash("main")))
    assert run(capsys, "diff", str(good), str(tmp_path / "none"))[0] == 3
    (tmp_path / "bad").write_bytes(b"\0\1\2 nothing")
    assert run(capsys, "diff", str(good), str(tmp_path / "bad"))[0] == 3
    (tmp_path / "cut").write_text(f'{{"schema":"{SCHEMA}","event_id"')
    assert run(capsys, "diff", str(good), str(tmp_path / "cut"))[0] == 3


def test_rules_are_for_the_families_asked_for(tmp_path: Path) -> None:
    rules = tmp_path / "rules.txt"
    rules.write_text("function:run -group")
    data = json.dumps(crash("main", "run")).encode()
    plain = processed(data).fingerprint
    own, asked, other = (processed(data, *names, rules=(str(rules),)) for names in ((), ("native128",), ("sentry",)))
    assert plain is not None
    assert own.fingerprint is not None
    assert own.fingerprint.id != plain.id
    assert own.fingerprints is None
    assert asked.fingerprint == own.fingerprint
    assert other.fingerprint == plain
