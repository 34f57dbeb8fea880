"""Calls in a process that may crash: how each end is told, and what the process cannot see."""

from __future__ import annotations

import os
import time
from typing import Any

import numpy as np
import pytest

from encdl.utils import worker_process
from encdl.utils.errors import ImageFileError
from encdl.utils.worker_process import CrashedError, RaisedError, array_from, decoded


def ask(target: str, seconds: float = 20.0, limit: int = 10**6, **arguments: Any) -> Any:
    return array_from(target, arguments, seconds, limit)


def test_arrays_come_back() -> None:
    for dtype in ("uint8", "<i2", ">f4", "bool"):
        found = ask("numpy:full", shape=(2, 3), fill_value=1, dtype=dtype)
        np.testing.assert_array_equal(found, np.ones((2, 3), dtype))
        assert found.dtype == np.dtype(dtype)
    assert ask("numpy:zeros", shape=(0, 4)).shape == (0, 4)


@pytest.mark.parametrize(
    ("target", "arguments", "kind", "told"),
    [
        ("os:abort", {}, CrashedError, "SIGABRT"),
        ("os:_exit", {"status": 0}, CrashedError, "exit code 0"),
        ("timeit:timeit", {"number": 10**12}, CrashedError, "did not end within 1 s of computing"),
        ("subprocess:call", {"args": "sleep 60", "shell": True}, CrashedError, "did not end within 6 s"),
        ("numpy:zeros", {"shape": 2**40}, RaisedError, "Unable to allocate"),
        ("numpy:zeros", {"shape": 2**20}, CrashedError, "gave no array"),
        ("os:getcwd", {}, CrashedError, "gave no array"),
    ],
)
def test_every_end_is_told_and_the_next_call_works(
    target: str, arguments: dict[str, Any], kind: type[Exception], told: str
) -> None:
    started = time.monotonic()
    with pytest.raises(kind, match=told):
        ask(target, seconds=1.0, **arguments)
    assert time.monotonic() - started < 20
    assert ask("numpy:ones", shape=3).sum() == 3


@pytest.mark.parametrize(("size", "values", "seconds"), [(28, 2**20, 10), (28, 2**26, 17), (10**7, 2**24, 62)])
def test_what_decoding_may_take_goes_by_what_it_has_to_do(
    monkeypatch: pytest.MonkeyPatch, size: int, values: int, seconds: int
) -> None:
    given: list[float] = []
    monkeypatch.setattr(worker_process, "array_from", lambda *given_: given.append(given_[2]))
    decoded("a.dcm", "os:abort", {}, size, values, 0)
    assert round(given[0]) == seconds


def test_a_terminal_is_told_once_of_what_takes_long(
    monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    monkeypatch.setattr(worker_process, "QUIET_S", 0.05)
    slow = {"args": ["sleep", "0.3"]}
    for name, terminal in (("no.dcm", False), ("a\x1b.dcm", True), ("a\x1b.dcm", True), ("b.dcm", True)):
        monkeypatch.setattr("sys.stderr.isatty", lambda terminal=terminal: terminal)
        with pytest.raises(ImageFileError, match="gave no array"):
            decoded(name, "subprocess:call", slow, 1, 1, 0)
    monkeypatch.setattr(worker_process, "QUIET_S", 9.0)
    with pytest.raises(ImageFileError):
        decoded("c.dcm", "subprocess:call", slow, 1, 1, 0)
    assert capsys.readouterr().err.splitlines() == ["decoding a\\x1b.dcm ...", "decoding b.dcm ..."]


def test_a_process_serves_many_calls() -> None:
    pids = set()
    for _ in range(3):
        ask("numpy:ones", shape=1)
        pids.add(worker_process._idle[-1]._process.pid)
    assert len(pids) == 1


def test_it_has_no_environment_and_no_open_file(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("MY_KEY", "encdl-key-1:abc")
    worker_process._end_all()
    here, there = os.pipe()
    try:
        code = f'test -z "$MY_KEY" -a ! -e /proc/self/fd/{here}'
        assert ask("subprocess:call", args=["sh", "-c", code]) == 0
    finally:
        os.close(here)
        os.close(there)
