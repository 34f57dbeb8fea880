from __future__ import annotations

import importlib
import sys

import pytest

from encdl.utils.lazy import without


@pytest.fixture(autouse=True)
def not_imported_yet(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.delitem(sys.modules, "colorsys", raising=False)


def test_a_library_is_not_found_and_then_found() -> None:
    with without("colorsys"):
        for _ in range(2):
            with pytest.raises(ModuleNotFoundError):
                importlib.import_module("colorsys")
    assert importlib.import_module("colorsys").rgb_to_hsv(0, 0, 0) == (0, 0, 0)


def test_one_that_is_there_stays() -> None:
    known = importlib.import_module("colorsys")
    with without("colorsys"):
        assert importlib.import_module("colorsys") is known
    assert sys.modules["colorsys"] is known


def test_an_error_ends_it() -> None:
    with pytest.raises(ValueError, match="inside"), without("colorsys"):
        raise ValueError("inside")
    importlib.import_module("colorsys")
