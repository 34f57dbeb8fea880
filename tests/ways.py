"""With compiled code and without: what does it must give the same."""

from __future__ import annotations

import pytest

from encdl.utils import compiled


def take(way: str, revision_of: str, revision: int, monkeypatch: pytest.MonkeyPatch) -> str:
    """Take compiled code or, under any other name of a way, do as if it were not built; the way."""
    if way != "compiled":
        monkeypatch.setattr(compiled, "library", lambda *_: None)
    elif compiled.library(revision_of, revision) is None:
        pytest.skip("no compiled code here: no C compiler")
    return way
