"""Ctrl-C and SIGTERM end a training at once, whatever it is doing, and its run says KILLED."""

from __future__ import annotations

import contextlib
import os
import random
import signal
import subprocess
import sys
import time
from collections.abc import Iterator
from multiprocessing.process import BaseProcess
from pathlib import Path
from typing import Any

import psutil
import pytest

from encdl.utils.processes import Held, Terminated, held, terminable
from tests.processes import log, start, start_ranks
from tests.runs import DRAWING, runs
from tests.stores import make_store

WORDS = ["fit", "--config", "tiny.yaml", "--model.init_args.keys_file", "keys"]
TWO = ["--trainer.devices", "2", "--trainer.strategy", "ddp"]
CODES = {signal.SIGINT: 130, signal.SIGTERM: 143}
SAID = {signal.SIGINT: "KeyboardInterrupt", signal.SIGTERM: "Terminated: asked to end by SIGTERM"}
TOLD = {signal.SIGINT: "interrupted", signal.SIGTERM: "ended by SIGTERM"}
HOWS = pytest.mark.parametrize("how", CODES, ids=["Ctrl-C", "SIGTERM"])
TRIALS = 10


@pytest.fixture(autouse=True)
def heard() -> Iterator[None]:
    """Ctrl-C, also where whoever runs the tests ignores it, behind a shell's `&`."""
    before = signal.signal(signal.SIGINT, signal.default_int_handler)
    yield
    signal.signal(signal.SIGINT, before)


def new_folder(folder: Path, pause_s: float) -> Path:
    make_store(folder / "runs")
    (folder / "tiny.yaml").write_text(DRAWING % pause_s)
    return folder


def until_training(folder: Path, ranks: int = 1, seconds: float = 240) -> None:
    """Wait for the first batch of each rank: each notes its keys."""
    end = time.monotonic() + seconds
    while not all((folder / f"keys-{rank}").is_file() for rank in range(ranks)):
        assert time.monotonic() < end, log(folder)
        time.sleep(0.05)


def stop(process: BaseProcess, how: signal.Signals) -> int | None:
    """Send a signal, unless it has ended by itself; the exit code."""
    assert process.pid is not None
    with contextlib.suppress(ProcessLookupError):
        os.kill(process.pid, how)
    return end_of(process)


def end_of(process: BaseProcess) -> int | None:
    process.join(60)
    process.kill()
    return process.exitcode


def check_killed(folder: Path, how: signal.Signals) -> None:
    [one] = runs(folder / "runs")
    assert one.info.status == "KILLED", log(folder)
    assert one.data.tags["ended_by"].startswith(SAID[how])


@HOWS
def test_in_a_batch_that_takes_minutes(tmp_path: Path, how: signal.Signals) -> None:
    process = start(WORDS, new_folder(tmp_path, 600))
    until_training(tmp_path)
    assert stop(process, how) == CODES[how], log(tmp_path)
    check_killed(tmp_path, how)
    assert log(tmp_path).splitlines()[-1] == f"encdl: {TOLD[how]}"
    assert "Detected KeyboardInterrupt" not in log(tmp_path)


@pytest.mark.parametrize("kept", [False, True])
def test_how_to_go_on(tmp_path: Path, kept: bool) -> None:
    """From the place, if one was kept before."""
    place = tmp_path / "place" / "last.ckpt"
    process = start([*WORDS, "--resume", "place", "--resume_every", "1"], new_folder(tmp_path, 0.2 if kept else 600))
    until_training(tmp_path)
    end = time.monotonic() + 120
    while kept and not place.is_file():
        assert time.monotonic() < end, log(tmp_path)
        time.sleep(0.05)
    assert stop(process, signal.SIGTERM) == CODES[signal.SIGTERM], log(tmp_path)
    said = f"goes on from {place}" if kept else "begins again, no place was kept"
    assert f"stopped: the same command {said}" in log(tmp_path).splitlines()


@pytest.mark.slow
@pytest.mark.timeout(1200)
@HOWS
def test_at_any_moment(tmp_path: Path, how: signal.Signals) -> None:
    """Whoever ends with 0 came to the end; whoever does not is KILLED, or had no run yet."""
    when, killed = random.Random(how), 0
    for number in range(TRIALS):
        folder = new_folder(tmp_path / str(number), 0.02)
        process = start(WORDS, folder)
        # From the first sign of a run over all 48 batches of 2 images to the time after them.
        until_progress(process, folder, number * 50 // (TRIALS - 1))
        time.sleep(when.uniform(0.0, 0.3))
        code = stop(process, how)
        found: list[Any] = runs(folder / "runs")
        if code == 0:
            assert [one.info.status for one in found] == ["FINISHED"]
            continue
        assert code == CODES[how], f"{code} {log(folder)}"
        if found:
            check_killed(folder, how)
            killed += 1
    print(f"{killed} of {TRIALS} trainings ended as KILLED, the others before their run began or after its end")
    assert killed >= TRIALS // 2


def until_progress(process: BaseProcess, folder: Path, batches: int) -> None:
    """Wait until a training has a run and has begun so many batches, or has ended."""
    keys = folder / "keys-0"
    while process.is_alive():
        begun = len(keys.read_text().split()) // 2 if keys.is_file() else 0
        if begun >= min(batches, 48) and (begun or runs(folder / "runs")):
            break
        time.sleep(0.02)
    time.sleep(0.2 * max(0, batches - 48))


@pytest.mark.slow
@HOWS
def test_all_ranks_of_one_run(tmp_path: Path, how: signal.Signals) -> None:
    """As Slurm cancels: everyone gets the signal, in a batch or while waiting for another rank."""
    processes = start_ranks([*WORDS, *TWO], new_folder(tmp_path, 0.5))
    until_training(tmp_path, 2)
    for process in processes:
        assert process.pid is not None
        os.kill(process.pid, how)
    assert [end_of(process) for process in processes] == [CODES[how], 0], log(tmp_path)
    check_killed(tmp_path, how)


@pytest.mark.slow
@HOWS
def test_the_process_that_started_the_others(tmp_path: Path, how: signal.Signals) -> None:
    """Its other ranks do not outlive it."""
    new_folder(tmp_path, 0.5)
    environment = {name: value for name, value in os.environ.items() if name != "MLFLOW_TRACKING_URI"}
    environment["PYTHONPATH"] = str(Path(__file__).parents[2])
    with (tmp_path / "log").open("w") as stream:
        command = [sys.executable, "-m", "encdl", *WORDS, *TWO]
        first = subprocess.Popen(command, cwd=tmp_path, env=environment, stdout=stream, stderr=stream)
    until_training(tmp_path, 2)
    others = psutil.Process(first.pid).children(recursive=True)
    first.send_signal(how)
    assert first.wait(60) == CODES[how], log(tmp_path)
    check_killed(tmp_path, how)
    assert others
    assert psutil.wait_procs(others, timeout=30)[1] == []


def test_what_was_there_before_comes_back() -> None:
    before = signal.getsignal(signal.SIGTERM)
    with pytest.raises(Terminated, match="asked to end by SIGTERM"), terminable():
        signal.raise_signal(signal.SIGTERM)
    assert signal.getsignal(signal.SIGTERM) == before


def test_who_is_to_ignore_it_ignores_it() -> None:
    before = signal.signal(signal.SIGTERM, signal.SIG_IGN)
    try:
        with terminable():
            signal.raise_signal(signal.SIGTERM)
    finally:
        signal.signal(signal.SIGTERM, before)


def interrupted(told: list[str], *signals: signal.Signals) -> None:
    with terminable(), held():
        for each in signals:
            signal.raise_signal(each)
        told.append("came to its end")


def test_what_must_not_be_broken_off_ends_first() -> None:
    told: list[str] = []
    with pytest.raises(Terminated):
        interrupted(told, signal.SIGTERM)
    assert told == ["came to its end"]
    with pytest.raises(KeyboardInterrupt):
        interrupted(told, signal.SIGTERM, signal.SIGINT)  # a second one does not wait
    assert len(told) == 1


def test_an_object_whose_methods_end_first() -> None:
    told: list[int] = []

    class Store:
        size = 3

        def write(self, value: int) -> int:
            signal.raise_signal(signal.SIGTERM)
            told.append(value)
            return value

    store = Held(Store())
    assert store.size == 3
    with pytest.raises(Terminated), terminable():
        store.write(7)
    assert told == [7]
    with pytest.raises(AttributeError):
        store.nothing  # noqa: B018
