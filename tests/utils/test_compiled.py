"""The compiled library is used only where it fits; everything else goes on without it."""

from __future__ import annotations

import ctypes
import importlib.util
import warnings
from collections.abc import Iterator
from pathlib import Path
from types import SimpleNamespace

import pytest

from encdl.utils import compiled

NAME, REVISION = "encdl_agile_revision", 1


@pytest.fixture(autouse=True)
def looked_for_anew() -> Iterator[None]:
    for found in (compiled.library, compiled._tell_once):
        found.cache_clear()
    yield
    for found in (compiled.library, compiled._tell_once):
        found.cache_clear()


def not_for_this_machine(_: str) -> None:
    raise OSError("wrong ELF class")


@pytest.mark.parametrize(
    ("opened", "fits"),
    [
        (lambda _: SimpleNamespace(encdl_agile_revision=lambda: REVISION), True),
        (lambda _: SimpleNamespace(encdl_agile_revision=lambda: REVISION + 1), False),
        (lambda _: SimpleNamespace(encdl_agile_revision=lambda: 0), False),
        (lambda _: SimpleNamespace(), False),
        (not_for_this_machine, False),
    ],
    ids=["fits", "of another EncDL", "not for this processor", "without the function", "not for this machine"],
)
def test_only_a_library_that_fits(opened: object, fits: bool, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(importlib.util, "find_spec", lambda _: SimpleNamespace(origin="somewhere"))
    monkeypatch.setattr(ctypes, "CDLL", opened)
    assert (compiled.library(NAME, REVISION) is not None) == fits


def test_where_it_was_not_built(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(importlib.util, "find_spec", lambda _: None)
    with warnings.catch_warnings(record=True) as told:
        warnings.simplefilter("always")
        assert compiled.library(NAME, REVISION) is None
        assert compiled.library("another", REVISION) is None
    assert [each.category for each in told] == [compiled.NotCompiledWarning]


def test_worker_processes_do_not_repeat_it(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(importlib.util, "find_spec", lambda _: None)
    monkeypatch.setattr("multiprocessing.parent_process", object)
    with warnings.catch_warnings():
        warnings.simplefilter("error")
        assert compiled.library(NAME, REVISION) is None


def test_a_damaged_file(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    (tmp_path / "library.so").write_bytes(b"no library")
    monkeypatch.setattr(importlib.util, "find_spec", lambda _: SimpleNamespace(origin=str(tmp_path / "library.so")))
    assert compiled.library(NAME, REVISION) is None
