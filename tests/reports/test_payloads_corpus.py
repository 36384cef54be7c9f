"""Requests that real clients made, and Sentry's own samples: each decodes to what its product's documentation says.

The golden files have what was read of each, reduced to what a person can check. They were checked against the payloads
by hand; a line that changes needs that again. ``python tests/reports/test_payloads_corpus.py CORPUS`` writes them anew.
"""

from __future__ import annotations

import gzip
import json
import sys
from pathlib import Path
from typing import Any

import pytest

from deadreckon import reports
from deadreckon.config import ReportLimits
from deadreckon.errors import DeadreckonError
from deadreckon.reports import Probe

sys.path[:0] = [str(Path(__file__).parent.parent)] if __name__ == "__main__" else []
from synth.golden import reduced  # noqa: E402

GOLDEN = Path(__file__).parent / "golden"
SETS = {
    "rollbar": ("payloads/captured/rollbar*.body",),
    "sentry": ("payloads/captured/sentry*.body", "payloads/captured/store*.body"),
    "sentry-samples": ("payloads/sentry-samples-2023-02/**/*.json",),
    "backtrace": ("payloads/captured/*backtrace*.body",),
    "posthog": ("payloads/captured/posthog*.body", "payloads/posthog/*.json"),
}
"""Files of the corpus by golden file."""
NO_CRASH = ("sentry-cli-dif", "sentry-cli-sm")


def files(corpus: Path, name: str) -> list[Path]:
    found = sorted(path for pattern in SETS[name] for path in corpus.glob(pattern))
    return [p for p in found if not p.name.startswith(NO_CRASH)]


def decoded(path: Path) -> Any:
    data = path.read_bytes()
    data = gzip.decompress(data) if data[:2] == b"\x1f\x8b" else data
    form = next((f for f in reports.FORMATS if f.sniff(Probe(data, path.name))), None)
    if form is None:
        return "no reader"
    try:
        return [reduced(crash) for crash in reports.read(form, data, ReportLimits())]
    except DeadreckonError as e:
        return f"{e.code}: {str(e)[:40]}"


def read_set(corpus: Path, name: str) -> dict[str, Any]:
    return {p.name: decoded(p) for p in files(corpus, name)}


@pytest.mark.corpus
@pytest.mark.parametrize("name", list(SETS))
def test_golden(corpus: Path, name: str) -> None:
    expected = json.loads((GOLDEN / f"{name}.json").read_text())
    found = read_set(corpus, name)
    assert expected.keys() <= found.keys()
    for file, crashes in expected.items():
        assert found[file] == crashes, file


if __name__ == "__main__":
    for name in SETS:
        text = json.dumps(read_set(Path(sys.argv[1]), name), indent=1, ensure_ascii=False)
        (GOLDEN / f"{name}.json").write_text(text + "\n")
