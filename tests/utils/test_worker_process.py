"""Calls in a process that may crash: how each end is told, and what the process cannot see."""

from __future__ import annotations

import os
import time
from typing import Any

import numpy as np
import pytest

from encdl.utils import worker_process
from encdl.utils.worker_process import CrashedError, RaisedError, array_from


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
        ("subprocess:call", {"args": "sleep 60", "shell": True}, CrashedError, "did not end within 1 s"),
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
    assert time.monotonic() - started < 15
    assert ask("numpy:ones", shape=3).sum() == 3


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
