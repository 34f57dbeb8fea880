"""Runs whose process was killed outright: nothing could end them, so a later command does.

Every run says in two tags which process writes it: `host` and `process`. A run that says it is running, by a process
of this host that is not there any more, was killed.
"""

from __future__ import annotations

import os
import platform
from collections.abc import Mapping
from typing import Any

import psutil

from encdl.training.tracking.names import ENDED_TAG

HOST, PROCESS = "host", "process"
PAGE = 1000
CLOCK_S = 60.0
"""Readings of one process's start differ by less, also when the clock was set right in between."""


def process_tags() -> dict[str, str]:
    """The tags by which a later command knows whether this process still lives."""
    started = psutil.Process().create_time()
    return {HOST: _host(), PROCESS: f"{os.getpid()} {started:.1f}"}


def is_lost(tags: Mapping[str, str]) -> bool:
    """Whether the process that these tags name is gone; False where this machine cannot tell."""
    if tags.get(HOST) != _host():
        return False
    try:
        pid, started = tags[PROCESS].split()
        process = psutil.Process(int(pid))
        alive = abs(process.create_time() - float(started)) < CLOCK_S
        return not alive or process.status() == psutil.STATUS_ZOMBIE
    except psutil.NoSuchProcess:
        return True
    except (KeyError, ValueError, psutil.Error):
        return False


def end_lost_runs(client: Any) -> list[str]:
    """End, as KILLED, all runs of a store that are running by a process of this host that is gone.

    They end at the time of their last metric.

    Args:
        client: An `MlflowClient`.

    Returns:
        Their ids.
    """
    ended: list[str] = []
    experiments = [each.experiment_id for each in client.search_experiments()]
    if not experiments:
        return ended
    for run in client.search_runs(experiments, "attributes.status = 'RUNNING'", max_results=PAGE):
        if is_lost(run.data.tags):
            run_id = run.info.run_id
            said = f"process {run.data.tags[PROCESS].split()[0]} on {run.data.tags[HOST]} is gone: killed"
            client.set_tag(run_id, ENDED_TAG, said)
            client.set_terminated(run_id, "KILLED", end_time=_last_sign(client, run))
            ended.append(run_id)
    return ended


def _last_sign(client: Any, run: Any) -> int:
    """Milliseconds since 1970 of the run's last metric, or of its start."""
    names = sorted(run.data.metrics, key=lambda name: not name.startswith("system/"))[:3]
    histories = [client.get_metric_history(run.info.run_id, name) for name in names]
    stamps = [point.timestamp for history in histories for point in history]
    newest: int = max([run.info.start_time, *stamps])
    return newest


def _host() -> str:
    """The host's name, and its namespace of process numbers: containers may share a name and not the numbers."""
    try:
        space = os.readlink("/proc/self/ns/pid").strip("pid:[]")
    except OSError:
        space = ""
    return f"{platform.node()} {space}".strip()
