"""A run whose process is gone is ended by the next command; one whose process lives is left alone."""

from __future__ import annotations

import os
import signal
import subprocess
import sys
from pathlib import Path
from typing import Any

import pytest
from mlflow import MlflowClient

from encdl.training.tracking import RunLogger, end_lost_runs
from encdl.training.tracking.processes import is_lost, process_tags
from tests.stores import make_store
from tests.training.tracking.test_logger import fit

TRAIN = """
import signal, sys, time
signal.signal(signal.SIGINT, signal.default_int_handler)  # which is ignored behind a shell's `&`
from encdl.training.tracking import RunLogger
from tests.tiny_task import TinyTask
from tests.training.tracking.test_logger import fit
TinyTask.on_train_batch_end = lambda *_: (print("training", flush=True), time.sleep(4))
fit(sys.argv[1], RunLogger("tiny", sys.argv[1]))
"""


def test_this_process_lives_and_others_do_not() -> None:
    mine = process_tags()
    assert not is_lost(mine)
    pid, started = mine["process"].split()
    assert is_lost(mine | {"process": f"{pid} {float(started) - 1000:.1f}"})  # an older process of that number
    gone = subprocess.Popen([sys.executable, "-c", ""])
    gone.wait()
    assert is_lost(mine | {"process": f"{gone.pid} {started}"})
    assert not is_lost(mine | {"process": f"{gone.pid} {started}", "host": "another"})
    assert not is_lost(mine | {"process": "what"})
    assert not is_lost({})


def stopped(root: Path, how: int) -> tuple[Any, RunLogger]:
    """A training that a signal ended in its first step, and a logger over its store."""
    make_store(root)
    environment = {name: value for name, value in os.environ.items() if name != "MLFLOW_TRACKING_URI"}
    command = [sys.executable, "-c", TRAIN, str(root)]
    with subprocess.Popen(
        command, stdout=subprocess.PIPE, stderr=subprocess.DEVNULL, text=True, env=environment
    ) as process:
        assert process.stdout is not None
        for line in process.stdout:
            if "training" in line:
                break
        process.send_signal(how)
        assert process.wait(60) != 0
    logger = RunLogger("tiny", str(root))
    client = MlflowClient(logger.tracking_uri)
    experiment = client.get_experiment_by_name("tiny")
    assert experiment is not None
    [run] = client.search_runs([experiment.experiment_id])
    return run, logger


def test_a_run_killed_outright_is_ended_by_the_next(tmp_path: Path) -> None:
    lost, logger = stopped(tmp_path, signal.SIGKILL)
    assert lost.info.status == "RUNNING"
    fit(tmp_path, logger)
    client = MlflowClient(logger.tracking_uri)
    run = client.get_run(lost.info.run_id)
    assert run.info.status == "KILLED"
    assert run.data.tags["ended_by"].endswith("is gone: killed")
    assert run.info.start_time <= run.info.end_time <= client.get_run(logger.run_id).info.start_time
    assert client.get_run(logger.run_id).info.status == "FINISHED"
    assert end_lost_runs(client) == []


@pytest.mark.slow
def test_a_run_that_is_stopped_ends_as_killed(tmp_path: Path) -> None:
    run, _ = stopped(tmp_path, signal.SIGINT)
    assert run.info.status == "KILLED"
    assert run.data.tags["ended_by"].startswith("KeyboardInterrupt")
