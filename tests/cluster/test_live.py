"""Jobs on a real Slurm of one node: submit, array, preempt by signal, requeue, resume, cancel."""

from __future__ import annotations

import os
import shutil
import subprocess
import time
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any

import pytest

from encdl.cli import main
from encdl.cluster import slurm
from encdl.cluster.job import Submitted
from encdl.commands.submit import ROOT
from encdl.places import CHECKPOINT
from tests.runs import DRAWING, points, runs
from tests.stores import make_store

pytestmark = [pytest.mark.slow, pytest.mark.timeout(2700), pytest.mark.xdist_group("slurm")]
SCRIPTS = Path(__file__).parents[1] / "slurm"
PREEMPTIONS = 20
CPU = ("--cluster", "slurm", "--resume-every", "5", "--env", "OMP_NUM_THREADS=1")


@pytest.fixture(scope="module")
def cluster(tmp_path_factory: pytest.TempPathFactory) -> Iterator[None]:
    """A cluster of this machine alone."""
    if missing := [
        name for name in ("slurmctld", "slurmd", "munged") if not shutil.which(name, path=_sbin())
    ]:
        pytest.skip(f"{missing[0]} is not installed: apt-get install slurm-wlm munge")
    if os.geteuid() != 0:
        pytest.skip("only root can start a Slurm of its own")
    folder = tmp_path_factory.mktemp("slurm")
    with pytest.MonkeyPatch.context() as patch:
        patch.setenv("SLURM_CONF", str(folder / "slurm.conf"))
        patch.setenv("PYTHONPATH", str(Path(__file__).parents[2]))
        patch.setenv("PATH", _sbin())
        started = subprocess.run([SCRIPTS / "start.sh", folder], capture_output=True, text=True, check=False)
        try:
            assert started.returncode == 0, started.stderr
            yield
        finally:
            subprocess.run([SCRIPTS / "stop.sh", folder], check=False, timeout=120)


@pytest.fixture(scope="module")
def workdir(cluster: None, tmp_path_factory: pytest.TempPathFactory) -> Iterator[Path]:
    """Where jobs are submitted from, with a recipe that takes a few seconds and an empty store."""
    folder = tmp_path_factory.mktemp("work")
    make_store(folder / "runs")
    (folder / "tiny.yaml").write_text(DRAWING % 0.1)
    with pytest.MonkeyPatch.context() as patch:
        patch.chdir(folder)
        patch.delenv("MLFLOW_TRACKING_URI", raising=False)
        yield folder


@pytest.fixture(scope="module")
def whole(workdir: Path) -> dict[str, Any]:
    """The points of a job that nobody stops."""
    job = submit("whole")
    wait(job, lambda states: states == ["COMPLETED"])
    [run] = runs_of(job, workdir)
    assert run.info.status == "FINISHED"
    return points(workdir / "runs", run.info.run_id)


def test_a_job_is_listed_with_its_run(whole: Any, workdir: Path, capsys: pytest.CaptureFixture[str]) -> None:
    assert main(["jobs", "whole"]) == 0
    headings, row = capsys.readouterr().out.splitlines()
    assert headings.split() == ["JOB", "TASK", "SLURM", "STATE", "RUN", "STATUS", "SETTINGS"]
    [run] = runs_of(Submitted.read(ROOT / "whole"), workdir)
    assert row.split()[3:] == ["COMPLETED", run.info.run_id, "FINISHED", "-"]
    assert [step for step, _ in whole["train/loss"]] == [*range(48)]


def test_preempted_trainings_end_as_the_whole_one(whole: Any, workdir: Path) -> None:
    tags = ",".join(f"t{number}" for number in range(PREEMPTIONS))
    job = submit("preempted", "--grid", f"model.init_args.tag={tags}")
    asked: dict[int, subprocess.Popen[bytes]] = {}

    def preempt(states: list[str]) -> bool:
        for number, state in enumerate(states):
            if state == "RUNNING" and number not in asked and (job.job.place(number) / CHECKPOINT).is_file():
                asked[number] = ask(f"{job.slurm_id}_{number}")
        return set(states) == {"COMPLETED"}

    wait(job, preempt)
    assert set(asked) == {*range(PREEMPTIONS)}
    for signal in asked.values():
        signal.wait(120)
    found = runs_of(job, workdir)
    assert [run.info.status for run in found] == ["FINISHED"] * PREEMPTIONS
    assert {run.data.params["model.init_args.tag"] for run in found} == set(tags.split(","))
    assert all(points(workdir / "runs", run.info.run_id) == whole for run in found)
    logs = [file.read_text() for file in Path(job.job.folder, "logs").iterdir()]
    assert [text.count("back into the queue") > 0 for text in logs] == [True] * PREEMPTIONS


def test_a_cancelled_job_goes_on_when_submitted_again(whole: Any, workdir: Path) -> None:
    job = submit("cancelled")
    wait(job, lambda states: (job.job.place(0) / CHECKPOINT).is_file())
    assert main(["jobs", "cancelled", "--cancel"]) == 0
    wait(job, lambda states: states == ["CANCELLED"])
    assert main(["jobs", "cancelled", "--again"]) == 0
    again = Submitted.read(ROOT / "cancelled")
    assert again.slurm_id != job.slurm_id
    wait(again, lambda states: states == ["COMPLETED"])
    [run] = runs_of(again, workdir)
    assert run.info.status == "FINISHED"
    assert points(workdir / "runs", run.info.run_id) == whole


def test_two_ranks_make_room_together(workdir: Path) -> None:
    undisturbed = submit("two-whole", "--processes", "2")
    wait(undisturbed, lambda states: states == ["COMPLETED"])
    job = submit("two", "--processes", "2")
    wait(job, lambda states: (job.job.place(0) / CHECKPOINT).is_file())
    signal = ask(job.slurm_id)
    wait(job, lambda states: states == ["COMPLETED"])
    signal.wait(120)
    [log] = Path(job.job.folder, "logs").iterdir()
    assert "back into the queue" in log.read_text()
    [one], [other] = runs_of(undisturbed, workdir), runs_of(job, workdir)
    assert one.data.tags["device"] == "2 x cpu"
    assert points(workdir / "runs", one.info.run_id) == points(workdir / "runs", other.info.run_id)


def test_a_job_that_fails_stays_failed(workdir: Path) -> None:
    job = submit("failing", "--setup", "export NO_SUCH=1", "--env", "PYTHONHOME=/nowhere")
    wait(job, lambda states: states == ["FAILED"])
    assert not runs_of(job, workdir)


def submit(name: str, *more: str) -> Submitted:
    assert main(["submit", "--config", "tiny.yaml", "--name", name, *CPU, *more]) == 0
    return Submitted.read(ROOT / name)


def wait(job: Submitted, done: Callable[[list[str]], bool], seconds: float = 2400) -> None:
    """Look at the states of a job's trainings until `done`."""
    end = time.monotonic() + seconds
    while True:
        states = slurm.states(job.slurm_id, len(job.job.trials))
        if done(states):
            return
        logs = [*Path(job.job.folder, "logs").iterdir()]
        told = "\n".join(file.read_text()[-2000:] for file in logs[-2:])
        assert time.monotonic() < end, f"{states}\n{told}"
        assert "FAILED" not in states, told
        time.sleep(0.5)


def ask(slurm_id: str) -> subprocess.Popen[bytes]:
    """Send the signal that asks a training for room, and do not wait: Slurm's command tries for minutes if it must."""
    return subprocess.Popen(["scancel", "--signal=USR1", slurm_id], stderr=subprocess.DEVNULL)


def runs_of(job: Submitted, workdir: Path) -> list[Any]:
    """The MLflow runs of a job, one a training if all is well."""
    keys = {(job.job.place(number) / "run-key").read_text().strip() for number in range(len(job.job.trials))}
    return [run for run in runs(workdir / "runs") if run.data.tags.get("resume_key") in keys]


def _sbin() -> str:
    return f"{os.environ['PATH']}:/usr/sbin:/sbin"
