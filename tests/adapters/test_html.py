"""The HTML report: complete, and safe to open whatever a crash had in it."""

from __future__ import annotations

from html.parser import HTMLParser
from typing import Any

import msgspec
from hypothesis import given
from hypothesis import strategies as st

from deadreckon.adapters.html import HEAD, TAIL, article
from deadreckon.model.event import Event, decode_event

TAGS = set(
    "html head meta title style body article h1 h2 p dl dt dd ol ul li span code div pre b"
    " details summary table tr th td".split()
)  # fmt: skip
ATTRIBUTES = {"lang", "charset", "content", "http-equiv", "name", "class", "title", "open", "colspan"}
CLASSES = {"", "good", "warn", "bad", "m", "at m", "n", "app", "stack", "scroll", "tag", "tag warn", "tag bad"}
HOSTILE = [
    "<script>alert(1)</script>",
    '"><img src=x onerror=alert(1)>',
    "' onmouseover='alert(1)",
    "</pre></style></title><svg/onload=alert(1)>",
    "javascript:alert(1)",
    "<!--",
    "]]>",
    "&lt;script&gt;",
    "\u202egnp.exe\u2066",
    "\x00\x1b[2J\r\n",
    "\udcff",
    "{{7*7}}${7*7}",
]


class Seen(HTMLParser):
    """What a browser would make of it: tags, attributes, text."""

    def __init__(self, page: str) -> None:
        super().__init__(convert_charrefs=True)
        self.tags: set[str] = set()
        self.attributes: set[str] = set()
        self.classes: set[str] = set()
        self.text: list[str] = []
        self.other: list[str] = []
        self.feed(page)
        self.close()

    def handle_starttag(self, tag: str, attrs: list[tuple[str, str | None]]) -> None:
        self.tags.add(tag)
        self.attributes |= {name for name, _ in attrs}
        self.classes |= {value or "" for name, value in attrs if name == "class"}

    def handle_data(self, data: str) -> None:
        self.text.append(data)

    def handle_comment(self, data: str) -> None:
        self.other.append(data)

    def handle_pi(self, data: str) -> None:
        self.other.append(data)

    def unknown_decl(self, data: str) -> None:
        self.other.append(data)


def hostile(value: str) -> Event:
    """Return an event that says the same in every text there is."""
    frame = {
        "status": value, "function": value, "module": value, "package": value, "rva": value, "filename": value,
        "abs_path": value, "lineno": 7, "colno": 1, "trust": value, "in_app": True, "inline": True, "lang": value,
        "pre_context": [value], "context_line": value, "post_context": [value], "source_link": value,
        "locals": {value: value}, "instruction_addr": value,
    }  # fmt: skip
    told: dict[str, Any] = {
        "schema": value, "event_id": value, "status": value, "title": value, "culprit": value, "message": value,
        "timestamp": value, "release": value, "environment": value, "arch": value, "platform": value,
        "source": {"format": value, "name": value, "container": [value]},
        "os": {"name": value, "version": value, "build": value},
        "process": {"name": value, "pid": 1},
        "exceptions": [
            {"type": value, "module": value, "value": value, "code": value, "address": value, "access": value,
             "instruction": value, "notes": [value], "mechanism": value, "frames": [frame]}
        ],
        "threads": [
            {"id": 1, "name": value, "crashed": True, "registers": {value: value}, "frames": [frame],
             "explanation": [value]},
            {"id": 2, "frames": [frame, frame]},
        ],
        "modules": [
            {"symbols": value, "code_file": value, "debug_id": value, "image_addr": value},
            {"symbols": "unused", "code_file": value},
        ],
        "fingerprint": {"id": value, "algorithm": value,
                        "components": [{"text": value, "contributes": True, "why": value}]},
        "attributes": {value: value}, "tags": {value: value}, "user": {value: value},
        "attachments": [{"name": value, "size": 1}],
        "diagnostics": [{"code": value, "severity": "error", "message": value}],
    }  # fmt: skip
    return msgspec.convert(told, Event)


def check(value: str) -> None:
    page = HEAD + article(hostile(value)) + TAIL
    seen = Seen(page)
    assert seen.tags <= TAGS
    assert seen.attributes <= ATTRIBUTES
    assert seen.classes <= CLASSES
    assert seen.other == []
    assert all(c.isprintable() or c == "\n" for c in page)


def test_hostile_strings_stay_text() -> None:
    for value in HOSTILE:
        check(value)


@given(st.text(alphabet=st.sampled_from("<>&\"'`=/!-;:\\ \n\x00\u202eabconx{}[]()"), max_size=30))
def test_any_string_stays_text(value: str) -> None:
    check(value)


def test_the_page_loads_nothing() -> None:
    page = HEAD + article(hostile("x")) + TAIL
    assert "default-src 'none'" in HEAD
    for loaded in ("<script", "<link", "<img", "<iframe", "src=", "href=", "url(", "@import", "http:", "https:"):
        assert loaded not in page


def test_what_is_said_and_in_which_order() -> None:
    event = decode_event(
        b'{"schema": "s", "event_id": "e", "status": "degraded", "source": {"format": "minidump", "name": "a.dmp"},'
        b' "title": "SIGSEGV in f", "threads": [{"id": 1, "name": "idle", "frames": [{"status": "symbolicated",'
        b' "function": "poll"}]}, {"id": 2, "crashed": true, "frames": [{"status": "symbolicated", "function": "f",'
        b' "filename": "f.c", "lineno": 3, "pre_context": ["one", "two"], "context_line": "three = *p;",'
        b' "post_context": ["four"], "trust": "scan"}]}], "modules": [{"code_file": "libf.so", "symbols": "mismatch"}],'
        b' "diagnostics": [{"code": "unwind_stopped", "severity": "info", "message": "ends early"}],'
        b' "fingerprint": {"id": "beef", "algorithm": "native128/1", "components":'
        b' [{"text": "f", "contributes": true, "why": "because"}]}}'
    )
    page = article(event)
    said = " ".join("".join(Seen(page).text).split())
    parts = ["SIGSEGV in f", "degraded", "Thread 2", "guess: scan", "f.c:3", "1 one", "3 three = *p;", "4 four"]
    parts += ["Thread 1", "unwind_stopped", "ends early", "beef", "because", "mismatch"]
    places = [said.index(part) for part in parts]
    assert places == sorted(places)
    assert page.index("<details open><summary><b>Thread 2") < page.index("<details><summary><b>Thread 1")


def test_long_lists_are_cut_and_say_so() -> None:
    event = hostile("x")
    assert event.threads is not None
    event.threads = [event.threads[0]]
    event.threads[0].frames = (event.threads[0].frames or []) * 5000
    assert "... and 4000 more frames" in article(event)
    event.message = "y" * 1_000_000
    assert len(article(event)) < 2_000_000
