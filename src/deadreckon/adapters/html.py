"""Events as one HTML page: no script, no network, readable on a phone, safe to open whatever a crash had in it.

Every string of an event passes ``_say``: what HTML could take for markup is escaped, and control characters, among them
those that turn the direction of text, are written out. The page's policy forbids scripts, images, forms and all loading
besides. Threads and lists are folded by ``<details>``, which need no script.
"""

from __future__ import annotations

from html import escape
from typing import TYPE_CHECKING

from deadreckon.adapters.text import safe

if TYPE_CHECKING:
    from collections.abc import Iterable, Iterator

    from deadreckon.model.event import Event, ExceptionInfo, Frame, ModuleInfo, Thread

__all__ = ["HEAD", "TAIL", "article"]

_MAX_FRAMES = 1000
_MAX_THREADS = 2000
_MAX_MODULES = 5000
_MAX_LISTED = 1000
_MAX_TEXT = 20_000

_STYLE = """
:root{color-scheme:light dark;--line:#8884;--soft:#8881;--dim:#777;--bad:#c62828;--warn:#b26a00;--good:#2e7d32}
@media(prefers-color-scheme:dark){:root{--dim:#999;--bad:#ff7b72;--warn:#e3b341;--good:#7ee787}}
*{box-sizing:border-box}
body{font:15px/1.45 system-ui,sans-serif;margin:0 auto;max-width:70rem;padding:.75rem}
h1{font-size:1.25rem;margin:.25rem 0;overflow-wrap:anywhere}
h2{font-size:1rem;margin:1.5rem 0 .5rem;border-bottom:1px solid var(--line)}
article{border-bottom:3px double var(--line);padding-bottom:1.5rem;margin-bottom:1.5rem}
dl{display:grid;grid-template-columns:max-content 1fr;gap:.1rem .8rem;margin:.5rem 0}
dt{color:var(--dim)}dd{margin:0;overflow-wrap:anywhere}
ol.stack{list-style:none;margin:0;padding:0}
ol.stack>li{border-top:1px solid var(--line);padding:.35rem .25rem;overflow-wrap:anywhere}
ol.stack>li.app{background:var(--soft)}
.n{color:var(--dim);display:inline-block;min-width:2.2em}
code,pre,.m{font-family:ui-monospace,Menlo,Consolas,monospace;font-size:.87em}
.at{color:var(--dim);padding-left:2.5em}
.tag{border:1px solid var(--line);border-radius:.6em;font-size:.72em;padding:0 .45em;color:var(--dim)}
.tag{white-space:nowrap}
.bad{color:var(--bad)}.warn{color:var(--warn)}.good{color:var(--good)}
pre{overflow-x:auto;background:var(--soft);margin:.3rem 0 .3rem 2.2em;padding:.4rem}
pre b{background:#f4c43055;font-weight:inherit;display:block}
summary{cursor:pointer;padding:.3rem 0}
.scroll{overflow-x:auto}
table{border-collapse:collapse;font-size:.87em;width:100%}
td,th{text-align:left;padding:.15rem .5rem;border-top:1px solid var(--line);vertical-align:top;overflow-wrap:anywhere}
ul{padding-left:1.2rem;margin:.3rem 0}
@media(max-width:40rem){dl{grid-template-columns:1fr}dt{margin-top:.3rem}.at,pre{padding-left:.3rem;margin-left:0}}
"""

HEAD = (
    '<!DOCTYPE html>\n<html lang="en"><head><meta charset="utf-8">'
    "<meta http-equiv=\"Content-Security-Policy\" content=\"default-src 'none'; style-src 'unsafe-inline';"
    " base-uri 'none'; form-action 'none'\">"
    '<meta name="viewport" content="width=device-width, initial-scale=1"><meta name="referrer" content="no-referrer">'
    f"<title>deadreckon: crash report</title><style>{_STYLE}</style></head><body>\n"
)
TAIL = "</body></html>\n"

_TRUST = {
    "context": "from the registers",
    "cfi": "by unwind information",
    "cfi_scan": "by unwind information, after a guess",
    "frame_pointer": "by the frame pointer",
    "scan": "a guess: found by scanning the stack",
    "prewalked": "as the report says",
}
_GUESSED = {"scan", "cfi_scan"}
_STATE_CLASS = {
    "ok": "good", "found": "good", "degraded": "warn", "missing": "warn", "mismatch": "warn", "malformed": "bad",
    "unreadable": "bad", "unsupported": "bad", "error": "bad", "warning": "warn",
}  # fmt: skip


def article(event: Event) -> str:
    """Return an event as one ``<article>``, to stand between HEAD and TAIL."""
    return "".join(_article(event))


def _say(value: object) -> str:
    """Return a string of an event as HTML shows it; the only way for one into the page."""
    text = str(value)
    if len(text) > _MAX_TEXT:
        text = f"{text[:_MAX_TEXT]} ... ({len(text)} characters)"
    return escape(safe(text), quote=True)


def _article(event: Event) -> Iterator[str]:
    yield f"<article><h1>{_say(event.title or event.source.name or 'a crash')}</h1>"
    yield f'<p class="m">{_say(event.culprit)}</p>' if event.culprit else ""
    yield "<dl>" + "".join(_facts(event)) + "</dl>"
    for exception in event.exceptions or ():
        yield from _exception(exception)
    threads = sorted(event.threads or (), key=lambda t: not t.crashed)[:_MAX_THREADS]
    for thread in threads:
        yield from _thread(thread, opened=thread.crashed or len(threads) == 1)
    yield from _left_out("threads", len(event.threads or ()), _MAX_THREADS)
    if event.diagnostics:
        yield "<h2>Diagnostics</h2><ul>"
        for each in event.diagnostics[:_MAX_LISTED]:
            yield f'<li><span class="{_class(each.severity)}">{_say(each.severity)}</span> '
            yield f"<code>{_say(each.code)}</code> {_say(each.message or '')}</li>"
        yield "</ul>"
    if event.fingerprint:
        yield f"<h2>Grouping</h2><p><code>{_say(event.fingerprint.id)}</code> {_say(event.fingerprint.algorithm)}</p>"
        yield from _table(
            ("counts", "part", "why"),
            (("yes" if c.contributes else "no", c.text, c.why) for c in event.fingerprint.components or ()),
        )
    if event.modules:
        yield from _modules(event.modules)
    for name, found in (("Attributes", event.attributes), ("Tags", event.tags), ("User", event.user)):
        if found:
            yield f"<details><summary>{name} ({len(found)})</summary>"
            yield from _table(("name", "value"), found.items())
            yield "</details>"
    if event.attachments:
        yield from _table(("attachment", "bytes"), ((a.name, a.size) for a in event.attachments))
    yield "</article>\n"


def _facts(event: Event) -> Iterator[str]:
    system = " ".join(p for p in (event.os.name, event.os.version, event.os.build) if p) if event.os else ""
    process = event.process
    program = f"{process.name or ''} {f'(pid {process.pid})' if process.pid is not None else ''}" if process else ""
    where = " > ".join([*(event.source.container or []), event.source.name or ""])
    for label, value in (
        ("status", event.status),
        ("message", event.message),
        ("time", event.timestamp),
        ("program", program.strip()),
        ("release", event.release),
        ("environment", event.environment),
        ("system", f"{system} {event.arch or ''}".strip()),
        ("source", f"{event.source.format}: {where}"),
        ("event", event.event_id),
    ):
        if value:
            marked = f' class="{_class(event.status)}"' if label == "status" else ""
            yield f"<dt>{label}</dt><dd{marked}>{_say(value)}</dd>"


def _exception(exception: ExceptionInfo) -> Iterator[str]:
    kind = ".".join(p for p in (exception.module, exception.type) if p)
    yield f"<h2>{_say(kind or 'Exception')}</h2>"
    did = " ".join(p for p in (exception.access, exception.address and f"at {exception.address}") if p)
    facts = [("value", exception.value), ("code", exception.code), ("access", did)]
    facts += [("instruction", exception.instruction), ("mechanism", exception.mechanism)]
    yield "<dl>" + "".join(f"<dt>{label}</dt><dd>{_say(value)}</dd>" for label, value in facts if value) + "</dl>"
    if exception.notes:
        yield "<ul>" + "".join(f"<li>{_say(note)}</li>" for note in exception.notes[:_MAX_LISTED]) + "</ul>"
    if exception.frames:
        yield from _stack(exception.frames)


def _thread(thread: Thread, *, opened: bool) -> Iterator[str]:
    frames = thread.frames or []
    name = f" {_say(repr(thread.name))}" if thread.name else ""
    first = next((f.function for f in frames if f.function), "")
    hint = "" if opened else f' <span class="tag">{len(frames)} frames</span> <span class="m">{_say(first)}</span>'
    mark = ' <span class="tag bad">crashed</span>' if thread.crashed else ""
    yield f"<details{' open' if opened else ''}><summary><b>Thread {_say(thread.id)}{name}</b>{mark}{hint}</summary>"
    yield from _stack(frames)
    if thread.explanation:
        yield "<details><summary>how each frame was found</summary><pre>"
        yield "\n".join(_say(f"{n:>3}  {line}") for n, line in enumerate(thread.explanation[:_MAX_FRAMES]))
        yield "</pre></details>"
    if thread.registers:
        yield '<details><summary>Registers</summary><div class="m">'
        yield " ".join(f"<span>{_say(k)}&nbsp;{_say(v)}</span>" for k, v in thread.registers.items())
        yield "</div></details>"
    yield "</details>"


def _stack(frames: list[Frame]) -> Iterator[str]:
    yield '<ol class="stack">'
    for number, frame in enumerate(frames[:_MAX_FRAMES]):
        yield from _frame(number, frame)
    yield "</ol>"
    yield from _left_out("frames", len(frames), _MAX_FRAMES)


def _frame(number: int, frame: Frame) -> Iterator[str]:
    module = (frame.package or "").replace("\\", "/").rsplit("/", 1)[-1]
    offset = f"{module}+{frame.rva}" if module and frame.rva else frame.instruction_addr or "?"
    name = ".".join(p for p in (frame.module, frame.function) if p) if frame.function else offset
    yield f'<li{" class=app" if frame.in_app else ""}><span class="n">{number}</span> <code>{_say(name)}</code>'
    if frame.inline:
        yield ' <span class="tag">inlined</span>'
    if frame.trust in _GUESSED:
        yield f' <span class="tag warn" title="{_say(_TRUST[frame.trust])}">guess: {_say(frame.trust)}</span>'
    elif frame.trust:
        yield f' <span class="tag" title="{_say(_TRUST.get(frame.trust, ""))}">{_say(frame.trust)}</span>'
    if frame.status != "symbolicated":
        yield f' <span class="tag warn">{_say(frame.status)}</span>'
    if frame.in_app:
        yield ' <span class="tag">in app</span>'
    place = frame.abs_path or frame.filename
    if place and frame.lineno:
        place += f":{frame.lineno}" + (f":{frame.colno}" if frame.colno else "")
    details = " · ".join(_say(p) for p in (place, offset if frame.function else None) if p)
    if details:
        yield f'<div class="at m">{details}</div>'
    if frame.context_line is not None:
        yield "<pre>"
        start = (frame.lineno or 1) - len(frame.pre_context or ())
        lines = [*(frame.pre_context or ()), frame.context_line, *(frame.post_context or ())]
        for at, line in enumerate(lines, start):
            shown = f"{at:>5}  {_say(line.rstrip().expandtabs(4))}"
            yield f"<b>{shown}</b>" if at == start + len(frame.pre_context or ()) else f"{shown}\n"
        yield "</pre>"
    if frame.locals:
        yield f"<details><summary>Locals ({len(frame.locals)})</summary>"
        yield from _table(("name", "value"), frame.locals.items())
        yield "</details>"
    yield "</li>"


def _modules(modules: list[ModuleInfo]) -> Iterator[str]:
    used = [m for m in modules if m.symbols != "unused"]
    others = [m for m in modules if m.symbols == "unused"]
    for title, found, opened in (("Modules on the stacks", used, " open"), ("Other modules", others, "")):
        if found:
            yield f"<details{opened}><summary><b>{title}</b> ({len(found)})</summary>"
            yield '<div class="scroll"><table><tr><th>symbols<th>module<th>debug id<th>address</tr>'
            for m in found[:_MAX_MODULES]:
                yield f'<tr><td class="{_class(m.symbols)}">{_say(m.symbols or "")}<td>{_say(m.code_file or "?")}'
                yield f'<td class="m">{_say(m.debug_id or "")}<td class="m">{_say(m.image_addr or "")}</tr>'
            yield "</table></div></details>"
            yield from _left_out("modules", len(found), _MAX_MODULES)


def _table(head: tuple[str, ...], rows: Iterable[tuple[object, ...]]) -> Iterator[str]:
    yield '<div class="scroll"><table><tr>' + "".join(f"<th>{h}" for h in head) + "</tr>"
    for number, row in enumerate(rows):
        if number == _MAX_LISTED:
            yield f"<tr><td colspan={len(head)}>... more</tr>"
            break
        yield "<tr>" + "".join(f"<td>{_say('' if value is None else value)}" for value in row) + "</tr>"
    yield "</table></div>"


def _left_out(what: str, number: int, limit: int) -> Iterator[str]:
    if number > limit:
        yield f"<p>... and {number - limit} more {what}</p>"


def _class(state: str | None) -> str:
    """Return the style of a state; one that isn't known has none, so that no event names a class."""
    return _STATE_CLASS.get(state or "", "")
