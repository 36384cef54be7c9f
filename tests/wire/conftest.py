"""Each way of opening archives, for the tests that must hold for both."""

from __future__ import annotations

import pytest

from deadreckon.wire import archive
from synth.archives import BACKENDS


@pytest.fixture(params=BACKENDS)
def backend(request: pytest.FixtureRequest, monkeypatch: pytest.MonkeyPatch) -> str:
    """Unpack through libarchive, then through the standard library; give its name."""
    monkeypatch.setattr(archive, "_backend", lambda: BACKENDS[request.param])
    return str(request.param)
