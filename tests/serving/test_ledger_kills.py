"""SIGKILL in the middle of a ledger's writes: what was answered is there, and the chain is whole."""

from __future__ import annotations

import contextlib
import os
import random
import signal
import sqlite3
import time
from pathlib import Path

from encdl.serving.ledger import Ledger

KILLS = 50


def writes(path: Path, trial: int, told: int) -> None:
    """Enter keys and refusals until someone ends it; each is told of once it is entered."""
    ledger = Ledger(path)
    for number in range(10**6):
        if number % 3:
            ledger.charge(f"{trial}-{number}", "r", 7, 0.0, 10, {"trial": trial})
        else:
            ledger.note({"trial": trial, "refused": "x"})
        os.write(told, b"%d\n" % number)


def killed(path: Path, trial: int, after: float) -> list[int]:
    """What a writer that is killed had told of."""
    here, there = os.pipe()
    pid = os.fork()
    if pid == 0:
        with contextlib.suppress(BaseException):
            os.close(here)
            writes(path, trial, there)
        os._exit(1)
    os.close(there)
    with os.fdopen(here, "rb") as stream:
        found = stream.readline()  # it is at work
        time.sleep(after)
        os.kill(pid, signal.SIGKILL)
        found += stream.read()
    _, status = os.waitpid(pid, 0)
    assert os.WIFSIGNALED(status)
    return [int(line) for line in found.split()]


def test_fifty_kills_lose_nothing(tmp_path: Path) -> None:
    path, rng = tmp_path / "ledger", random.Random(0)
    lines = 0
    for trial in range(KILLS):
        told = killed(path, trial, rng.uniform(0, 0.05))
        with contextlib.closing(Ledger(path)) as ledger:  # checks the chain
            count, _ = ledger.found
        assert len(told) <= count - lines <= len(told) + 1  # the last one may have come too late to be told
        lines = count
        with contextlib.closing(sqlite3.connect(path)) as base:
            spent = {nonce for (nonce,) in base.execute("SELECT nonce FROM spent")}
            assert base.execute("PRAGMA integrity_check").fetchall() == [("ok",)]
        assert {f"{trial}-{number}" for number in told if number % 3} <= spent
    assert lines > 2 * KILLS
