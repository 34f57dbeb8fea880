"""Jobs on a real Slurm of two simulated nodes: submit, array, preempt by signal, requeue, resume, cancel."""

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
from encdl.cluster.sweep.plan import Sweep
from encdl.commands.submit import ROOT
from encdl.training.run_folder import CHECKPOINT
from tests.runs import DRAWING, points, runs
from tests.stores import make_store

pytestmark = [pytest.mark.slow, pytest.mark.timeout(2700)]
SCRIPTS = Path(__file__).parents[1] / "slurm"
TRAININGS, TIMES = 5, 4
NODES = 2
CPU = (
    "--cluster",
    "slurm",
    "--resume-every",
    "5",
    "--env",
    "OMP_NUM_THREADS=1",
    "--env",
    f"PYTHONPATH={Path(__file__).parents[2]}",
)


@pytest.fixture(scope="module")
def cluster(tmp_path_factory: pytest.TempPathFactory) -> Iterator[None]:
    """A cluster of this machine alone, which passes for two."""
    if missing := [name for name in ("slurmctld", "slurmd", "munged") if not shutil.which(name, path=_sbin())]:
        pytest.skip(f"{missing[0]} is not installed: apt-get install slurm-wlm munge")
    if os.geteuid() != 0:
        pytest.skip("only root can start a Slurm of its own")
    folder = tmp_path_factory.mktemp("slurm")
    with pytest.MonkeyPatch.context() as patch:
        patch.setenv("SLURM_CONF", str(folder / "slurm.conf"))
        patch.setenv("PYTHONPATH", str(Path(__file__).parents[2]))
        patch.setenv("PATH", _sbin())
        started = subprocess.run(
            [SCRIPTS / "start.sh", folder, str(NODES)], capture_output=True, text=True, check=False
        )
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
    """Each of them again and again; they rest longer, so that there is time to ask."""
    tags = ",".join(f"t{number}" for number in range(TRAININGS))
    slow = ("--set", "model.init_args.pause_s=0.4", "--at-once", "2")
    job = submit("preempted", "--grid", f"model.init_args.tag={tags}", *slow)
    preemptions = [Preemptions(job, number) for number in range(TRAININGS)]

    def preempt(states: list[str]) -> bool:
        for one, state in zip(preemptions, states, strict=True):
            one.look(state)
        return set(states) == {"COMPLETED"}

    wait(job, preempt)
    for one in preemptions:
        one.check()
    found = runs_of(job, workdir)
    assert [run.info.status for run in found] == ["FINISHED"] * TRAININGS
    assert {run.data.params["model.init_args.tag"] for run in found} == set(tags.split(","))
    assert all(points(workdir / "runs", run.info.run_id) == whole for run in found)
    print(f"{sum(len(one.asked) for one in preemptions)} preemptions of {TRAININGS} trainings")


class Preemptions:
    """Asks one training of an array for room, `TIMES` times, each time after it has kept its place anew."""

    def __init__(self, job: Submitted, number: int) -> None:
        self.task = f"{job.slurm_id}_{number}"
        self.log = Path(job.job.folder, "logs", f"{self.task}.log")
        self.place = job.job.place(number) / CHECKPOINT
        self.asked: list[subprocess.Popen[bytes]] = []
        self.gone, self.since = 0, 0.0

    def look(self, state: str) -> None:
        """Ask if it is time."""
        gone = self.log.read_text().count("back into the queue") if self.log.is_file() else 0
        if gone > self.gone:
            self.gone, self.since = gone, time.time()
            self.asked[-1].kill()  # it would go on trying, and hit the next turn before that listens
        kept = self.place.is_file() and self.place.stat().st_mtime > self.since
        if state == "RUNNING" and kept and gone == len(self.asked) < TIMES:
            self.asked.append(ask(self.task))

    def check(self) -> None:
        """Fail unless it went back into the queue each time, with its place kept each time."""
        for signal in self.asked:
            signal.wait(10)
        text = self.log.read_text()
        assert text.count("back into the queue") == TIMES
        assert text.count("asked to make room: saved at step") == TIMES


def test_a_cancelled_job_goes_on_when_submitted_again(whole: Any, workdir: Path) -> None:
    job = submit("cancelled")
    wait(job, lambda states: (job.job.place(0) / CHECKPOINT).is_file())
    assert main(["jobs", "cancelled", "--cancel"]) == 0
    wait(job, lambda states: states == ["CANCELLED"])
    [stopped] = runs_of(job, workdir)
    assert stopped.info.status == "KILLED"
    assert stopped.data.tags["ended_by"].startswith("Terminated")
    assert main(["jobs", "cancelled", "--again"]) == 0
    again = Submitted.read(ROOT / "cancelled")
    assert again.slurm_id != job.slurm_id
    wait(again, lambda states: states == ["COMPLETED"])
    [run] = runs_of(again, workdir)
    assert run.info.status == "FINISHED"
    assert points(workdir / "runs", run.info.run_id) == whole


@pytest.fixture(scope="module")
def two_whole(workdir: Path) -> dict[str, Any]:
    """The points of two ranks on one node that nobody stops."""
    job = submit("two-whole", "--processes", "2")
    wait(job, lambda states: states == ["COMPLETED"])
    [run] = runs_of(job, workdir)
    return points(workdir / "runs", run.info.run_id)


@pytest.mark.parametrize("spread", ["processes", "nodes"])
def test_two_ranks_make_room_together(two_whole: Any, workdir: Path, spread: str) -> None:
    """On one node, and on two: in both turns there are both ranks, and all is as if nobody had stopped them."""
    job = submit(f"two-{spread}", f"--{spread}", "2")
    wait(job, lambda states: (job.job.place(0) / CHECKPOINT).is_file())
    signal = ask(job.slurm_id)
    wait(job, lambda states: states == ["COMPLETED"])
    signal.wait(120)
    told = subprocess.run(["scontrol", "show", "job", job.slurm_id], capture_output=True, text=True, check=True).stdout
    assert f"NumNodes={2 if spread == 'nodes' else 1} " in told
    assert "Restarts=1 " in told
    [log] = Path(job.job.folder, "logs").iterdir()
    text = log.read_text()
    assert text.count("back into the queue") == text.count("asked to make room: saved at step") == 1
    for rank in range(2):
        assert text.count(f"GLOBAL_RANK: {rank}, MEMBER: {rank + 1}/2") == 2
    [run] = runs_of(job, workdir)
    assert (run.info.status, run.data.tags["device"]) == ("FINISHED", "2 x cpu")
    assert points(workdir / "runs", run.info.run_id) == two_whole


def test_a_sweep_is_summed_up_when_all_have_ended(workdir: Path) -> None:
    """One of its trainings makes room: the last job waits for that one too."""
    rates = "model.init_args.learning_rate=0.001,0.01,0.1"
    assert main(["sweep", "--config", "tiny.yaml", "--name", "swept", "--grid", rates, *CPU]) == 0
    folder = workdir / "runs" / "sweeps" / "swept"
    job, sweep = Submitted.read(folder), Sweep.read(folder)
    asked: list[subprocess.Popen[bytes]] = []

    def preempt(states: list[str]) -> bool:
        if states[0] == "RUNNING" and not asked and (job.job.place(0) / CHECKPOINT).is_file():
            asked.append(ask(f"{job.slurm_id}_0"))
        return set(states) == {"COMPLETED"}

    wait(job, preempt)
    [signal] = asked
    signal.wait(120)
    assert "back into the queue" in (folder / "logs" / f"{job.slurm_id}_0.log").read_text()
    told = folder / "logs" / "summary.log"
    until(lambda: told.is_file() and "parent run:" in told.read_text())
    assert told.read_text().count("COMPLETE") == 3
    every = {run.info.run_id: run for run in runs(workdir / "runs")}
    top = every[sweep.parent]
    assert top.info.status == "FINISHED"
    children = [run for run in every.values() if run.data.tags.get("mlflow.parentRunId") == sweep.parent]
    assert [run.info.status for run in children] == ["FINISHED"] * 3
    values = {run.info.run_id: run.data.metrics["val/loss"] for run in children}
    assert top.data.metrics["best/val/loss"] == min(values.values()) == values[top.data.tags["best_run"]]
    assert (top.data.metrics["trials/complete"], top.data.metrics["trials/failed"]) == (3, 0)


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


def until(done: Callable[[], bool], seconds: float = 600) -> None:
    """Wait for something that needs no more than a look at a file."""
    end = time.monotonic() + seconds
    while not done():
        assert time.monotonic() < end
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
