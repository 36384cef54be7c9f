"""MetricKit's diagnostics: call stack trees, bare or in the payload that the system hands to a program.

Source: Apple, "MXCallStackTree jsonRepresentation()" and "MXDiagnosticPayload". A tree is one of two things, and
which of them the tree does not say:

* The stacks of a crash, one of each thread: a chain of frames without branches. Its root is where the thread was, and
  ``subFrames`` holds the caller.
* The samples of a hang, of used processor time or of disk writes, merged: a root is where a thread began,
  ``subFrames`` holds what it called, and ``sampleCount`` how often. The stack seen most often stands for them.
"""

from __future__ import annotations

from dataclasses import dataclass, field
from typing import TYPE_CHECKING, Any

from deadreckon.errors import Malformed
from deadreckon.model.crash import RawCrash, RawException, RawThread
from deadreckon.model.event import Diagnostic
from deadreckon.model.ids import Arch
from deadreckon.reports.apple import facts, listing
from deadreckon.reports.apple.documents import as_address, as_dict, as_int, as_list, as_text, parse, parse_whole
from deadreckon.reports.apple.listing import Image, Images, Listed

if TYPE_CHECKING:
    from collections.abc import Iterable, Iterator
    from mmap import mmap

    from deadreckon.config import ReportLimits

__all__ = ["read"]

_KINDS = {
    "crashDiagnostics": "crash",
    "hangDiagnostics": "hang",
    "cpuExceptionDiagnostics": "cpu exception",
    "diskWriteExceptionDiagnostics": "disk write exception",
    "appLaunchDiagnostics": "app launch",
    "memoryExceptionDiagnostics": "memory exception",
}
_ATTRIBUTES = {
    "deviceType": "machine_model",
    "terminationReason": "termination_reason",
    "virtualMemoryRegionInfo": "vm_region_info",
    "regionFormat": "region_format",
    "hangDuration": "hang_duration",
    "launchDuration": "launch_duration",
    "totalCPUTime": "cpu_time",
    "totalSampledTime": "sampled_time",
    "writesCaused": "writes_caused",
    "isTestFlightApp": "testflight",
    "lowPowerModeEnabled": "low_power_mode",
}
_MAX_DIAGNOSTICS = 256
_MAX_NODES = 200_000
_PAGE = 0x1000


@dataclass(slots=True)
class _Node:
    """A frame of a tree, and where it hangs."""

    parent: int
    depth: int
    samples: int
    below: int = 0
    """Samples of the frames below it."""
    address: int | None = None
    uuid: str = ""
    name: str = ""
    offset: int | None = None


@dataclass(slots=True)
class _Tree:
    nodes: list[_Node] = field(default_factory=list)
    branches: bool = False


def read(data: bytes | memoryview | mmap, limits: ReportLimits) -> list[RawCrash]:
    """Read the diagnostics of one or more payloads, or one bare tree.

    Raises Malformed where there is no call stack tree, and LimitExceeded.
    """
    document = parse_whole(memoryview(data), "MetricKit payload")
    found = [_crash(d, limits) for d in list(_diagnostics(document.value))[:_MAX_DIAGNOSTICS]]
    if not found:
        got = ", ".join(list(document.value)[:8]) if isinstance(document.value, dict) else "an array"
        raise Malformed("MetricKit payload", expected="a diagnostic or a call stack tree", got=got)
    if document.problem is not None:
        found[-1].diagnostics.append(
            Diagnostic(
                code="malformed",
                severity="warning",
                stage="read",
                message=str(document.problem),
                where=document.problem.where() or None,
            )
        )
    return found


@dataclass(slots=True)
class _Diagnostic:
    kind: str
    tree: dict[str, Any]
    metadata: dict[str, Any]
    begin: Any = None


def _diagnostics(value: Any) -> Iterator[_Diagnostic]:
    """Find the diagnostics of a payload, of an array of payloads, or of one diagnostic or tree alone."""
    for payload in value if isinstance(value, list) else [value]:
        found = as_dict(payload)
        begin = found.get("timeStampBegin") or as_dict(found.get("timeRange")).get("begin")
        listed = [(kind, as_dict(d)) for key, kind in _KINDS.items() for d in as_list(found.get(key))]
        listed += [(kind, found[key]) for key, kind in _KINDS.items() if isinstance(found.get(key), dict)]
        if not listed and ("callStackTree" in found or _stacks(found)):
            listed = [("", found)]
        for kind, one in listed:
            tree = one.get("callStackTree")
            if isinstance(tree, str):  # Some clients keep the text that jsonRepresentation() gave them.
                tree = parse(tree).value
            tree = as_dict(tree) or (one if _stacks(one) else {})
            metadata = one.get("diagnosticMetaData") or one.get("environment") or found.get("environment")
            yield _Diagnostic(kind, tree, {**one, **as_dict(metadata)}, begin)


def _stacks(tree: dict[str, Any]) -> list[Any]:
    return as_list(tree.get("callStacks")) or as_list(tree.get("callStackThreads"))


def _crash(diagnostic: _Diagnostic, limits: ReportLimits) -> RawCrash:
    metadata = diagnostic.metadata
    crash = RawCrash("metrickit", arch=Arch.parse(as_text(metadata.get("platformArchitecture"), 64)))
    _describe(crash, diagnostic)
    names = _binary_names(diagnostic.tree)
    stacks = [as_dict(s) for s in _stacks(diagnostic.tree)[: limits.max_threads]]
    budget = [_MAX_NODES]
    trees = [
        _tree(as_list(s.get("callStackRootFrames")) or as_list(s.get("rootFrames")), names, budget) for s in stacks
    ]
    images = _images(node for tree in trees for node in tree.nodes)
    if crash.arch is Arch.UNKNOWN:
        # All that MetricKit reports on is 64 bits wide; the shared cache of x86-64 lies above all of ARM64's addresses.
        highest = max((i.base for i in images.values()), default=0)
        crash.arch = Arch.X86_64 if highest >= 0x7FF8_0000_0000 else Arch.ARM64 if highest else Arch.UNKNOWN
    sampled = diagnostic.kind not in {"", "crash"} or (
        not diagnostic.kind and (not _per_thread(diagnostic.tree) or any(t.branches for t in trees))
    )
    chosen = [_path(tree, sampled=sampled) for tree in trees]
    paths = [[_listed(node, images) for node in path] for path in chosen]
    Images(list(images.values())).place(crash, paths, limits.max_modules)
    attributed = next((i for i, s in enumerate(stacks) if s.get("threadAttributed")), None)
    died = not sampled
    for number, frames in enumerate(paths):
        raw = listing.stack(frames, crash.arch, exact=True)
        crash.threads.append(RawThread(number, crashed=died and number == attributed, frames=raw))
    if sampled:
        crash.level, crash.message = "warning", "the stack that was sampled most often"
        crash.attributes["samples"] = sum(n.samples for t in trees for n in t.nodes if n.parent < 0)
        crash.attributes["samples_of_stack"] = [p[0].samples - p[0].below for p in chosen if p]
    _exceptions(crash, metadata, attributed if died else None, diagnostic.kind)
    if budget[0] <= 0:
        message = f"only the first {_MAX_NODES} frames of the tree were read"
        crash.diagnostics.append(Diagnostic(code="limit_exceeded", severity="warning", stage="read", message=message))
    return crash


def _per_thread(tree: dict[str, Any]) -> bool:
    return bool(tree.get("callStackPerThread", True))


def _describe(crash: RawCrash, diagnostic: _Diagnostic) -> None:
    metadata = diagnostic.metadata
    system = metadata.get("osVersion")
    if isinstance(system, dict):
        system = (
            f"{as_text(system.get('platform'))} {as_text(system.get('number'))} ({as_text(system.get('buildNumber'))})"
        )
    facts.operating_system(crash, as_text(system, 256))
    crash.pid = as_int(metadata.get("pid"))
    short = as_text(metadata.get("appVersion") or metadata.get("applicationVersion"), 256)
    build = as_text(metadata.get("appBuildVersion") or metadata.get("applicationBuildVersion"), 256)
    facts.application(crash, as_text(metadata.get("bundleIdentifier"), 256), short, build)
    if isinstance(diagnostic.begin, str):
        crash.timestamp = facts.timestamp(diagnostic.begin)
    for key, name in _ATTRIBUTES.items():
        value = metadata.get(key)
        if isinstance(value, dict):  # A measurement: {"value": 2500, "unit": "ms"}.
            value = f"{as_int(value.get('value'))} {as_text(value.get('unit'), 16)}"
        if isinstance(value, bool):
            crash.attributes[name] = value
        elif as_text(value):
            crash.attributes[name] = as_text(value)
    if diagnostic.kind:
        crash.attributes["diagnostic"] = diagnostic.kind


def _binary_names(tree: dict[str, Any]) -> dict[str, str]:
    """Read ``binaryInfo``, in which newer systems keep each binary's name once: an object or an array of them."""
    told = tree.get("binaryInfo")
    rows = list(told.items()) if isinstance(told, dict) else [("", row) for row in as_list(told)]
    names = {}
    for key, row in rows[:65_536]:
        entry = as_dict(row)
        uuid = key or as_text(entry.get("binaryUUID") or entry.get("uuid"), 64)
        name = as_text(row, 4096) or as_text(entry.get("binaryName") or entry.get("name"), 4096)
        names[as_text(uuid, 64).lower()] = name
    return names


def _tree(roots: list[Any], names: dict[str, str], budget: list[int]) -> _Tree:
    """Flatten a tree, parents before children, without recursion: stacks that ran over nest a thousand levels deep."""
    tree = _Tree(branches=len(roots) > 1)
    waiting: list[tuple[Any, int]] = [(root, -1) for root in reversed(roots)]
    while waiting and budget[0] > 0:
        budget[0] -= 1
        item, parent = waiting.pop()
        entry = as_dict(item)
        node = _Node(parent, 0 if parent < 0 else tree.nodes[parent].depth + 1, as_int(entry.get("sampleCount")) or 0)
        node.address = as_address(entry.get("address"))
        node.uuid = as_text(entry.get("binaryUUID"), 64).lower()
        node.name = as_text(entry.get("binaryName"), 4096) or names.get(node.uuid, "")
        node.offset = as_int(entry.get("offsetIntoBinaryTextSegment"))
        at = len(tree.nodes)
        tree.nodes.append(node)
        if parent >= 0:
            tree.nodes[parent].below += node.samples
        below = as_list(entry.get("subFrames"))
        tree.branches |= len(below) > 1
        waiting.extend((child, at) for child in reversed(below))
    return tree


def _path(tree: _Tree, *, sampled: bool) -> list[_Node]:
    """Return one stack of a tree, innermost frame first: a crash's own, or the one that was sampled most often.

    A frame with more samples than the frames below it was innermost that often; of equals, the deepest one counts.
    """
    nodes = tree.nodes
    if not nodes:
        return []
    if sampled:
        at = max(range(len(nodes)), key=lambda i: (nodes[i].samples - nodes[i].below, nodes[i].depth))
        path: list[_Node] = []
        while at >= 0 and len(path) < listing.MAX_FRAMES:
            path.append(nodes[at])
            at = nodes[at].parent
        return path
    # Nodes are in depth-first order, so that the first chain is the front of the list.
    chain = nodes[:1]
    for at, node in enumerate(nodes[1 : listing.MAX_FRAMES], 1):
        if node.parent != at - 1:
            break
        chain.append(node)
    return chain


def _images(nodes: Iterable[_Node]) -> dict[str, Image]:
    """Find where each binary was loaded, from its frames.

    The base is ``address - offset``. Up to iOS 15 and macOS 12 the offset is the base itself, and the offset of a
    return address may be that of the byte before it. Of all that an image's frames say, what most say counts; a base
    is at the beginning of a page.
    """
    votes: dict[str, dict[int, int]] = {}
    names: dict[str, str] = {}
    for node in nodes:
        if not node.uuid or node.address is None or node.offset is None:
            continue
        if node.name:
            names.setdefault(node.uuid, node.name)
        base = node.address - node.offset
        if node.offset >= _PAGE and node.offset % _PAGE == 0 and (base % _PAGE or base < 0):
            base = node.offset
        elif base % _PAGE == 1:
            base -= 1
        if 0 < base <= node.address:
            tally = votes.setdefault(node.uuid, {})
            tally[base] = tally.get(base, 0) + 1
    found = {}
    for uuid, tally in votes.items():
        base = max(tally, key=lambda b: (b % _PAGE == 0, tally[b], -b))
        if base % _PAGE == 0:
            found[uuid] = Image(base, None, names.get(uuid, ""), uuid=uuid)
    return found


def _listed(node: _Node, images: dict[str, Image]) -> Listed:
    image = images.get(node.uuid)
    frame = Listed(node.address, node.name)
    if image is not None and node.address is not None and node.address >= image.base:
        frame.base, frame.image = image.base, image.name or node.name
    return frame


def _exceptions(crash: RawCrash, metadata: dict[str, Any], thread: int | None, kind: str) -> None:
    number, signo = as_int(metadata.get("exceptionType")), as_int(metadata.get("signal"))
    signal = facts.signal_name(signo)
    code = as_int(metadata.get("exceptionCode"))
    if number:
        codes = [] if code is None else [code]
        crash.exceptions.append(facts.exception(number, crash.arch, signal=signal, codes=codes, thread=thread))
    elif signal:
        crash.exceptions.append(facts.exception(signal, crash.arch, thread=thread))
    elif kind and kind != "crash":
        crash.exceptions.append(RawException(kind.title().replace(" ", ""), mechanism="metrickit"))
    cause = as_dict(metadata.get("exceptionReason") or metadata.get("objectiveCexceptionReason"))
    name = as_text(cause.get("exceptionName") or cause.get("className"), 1024)
    if name:
        reason = as_text(cause.get("composedMessage"))
        crash.exceptions.append(RawException(name, reason, mechanism="nsexception", thread_id=thread))
