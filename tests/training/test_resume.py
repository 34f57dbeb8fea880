"""A run that is stopped anywhere ends as one that is not: same weights, and every metric once a step."""

from __future__ import annotations

import os
import signal
from itertools import product
from pathlib import Path
from typing import Any

import pytest
import torch
from lightning.pytorch import Trainer, seed_everything
from lightning.pytorch.callbacks import Callback, Checkpoint
from mlflow import MlflowClient

from encdl.training.resume import AtomicCheckpoints, Preempted, ResumePoint, SeededSteps, step_seed
from encdl.training.run_folder import CHECKPOINT, EXIT_PREEMPTED, run_key
from encdl.training.tracking import RunLogger
from encdl.utils.errors import UsageError
from tests.stores import make_store
from tests.tiny_task import DrawingTask, TinyData

BATCHES, EPOCHS = 4, 2


class Killed(BaseException):
    """Stands for SIGKILL: nothing after it is run."""


class Kill(Checkpoint):
    """Raises at the nth call of a hook; as a `Checkpoint` it comes after all other callbacks."""

    def __init__(self, hook: str, call: int) -> None:
        self.hook, self.call = hook, call
        setattr(self, hook, self._count)

    def _count(self, trainer: Trainer, *_: Any) -> None:
        self.call -= not trainer.sanity_checking
        if self.call == 0:
            raise Killed


class KillFirst(Callback):
    """The same before all other callbacks."""

    __init__ = Kill.__init__
    _count = Kill._count


def fit(folder: Path, kill: Callback | None = None, **settings: Any) -> tuple[dict[str, Any], dict[str, list[Any]]]:
    """Train or go on; the weights and the run's points."""
    seed_everything(0)
    logger = RunLogger("tiny", str(folder))
    logger.claim(run_key(folder))
    file = folder / CHECKPOINT
    callbacks = [SeededSteps(), ResumePoint(folder, **settings.pop("point", {"every_n_steps": 3}))]
    if kill is not None:
        callbacks = [*callbacks, kill] if isinstance(kill, Kill) else [kill, *callbacks]
    trainer = Trainer(
        **{
            "accelerator": "cpu",
            "max_epochs": EPOCHS,
            "default_root_dir": str(folder),
            "logger": logger,
            "callbacks": callbacks,
            "log_every_n_steps": 1,
            "enable_progress_bar": False,
            "enable_model_summary": False,
            "enable_checkpointing": True,
            **settings,
        }
    )
    task, data = DrawingTask(), TinyData(batch_size=2, eval_batch_size=3, crop=8)
    trainer.fit(task, data, ckpt_path=str(file) if file.is_file() else None)
    client, run_id = logger.experiment, logger.run_id
    names = [name for name in client.get_run(run_id).data.metrics if not name.startswith("system/")]
    points = {name: [(point.step, point.value) for point in client.get_metric_history(run_id, name)] for name in names}
    return task.state_dict(), points


def new_folder(parent: Path, name: str) -> Path:
    folder = parent / name
    make_store(folder)
    return folder


@pytest.fixture(scope="module")
def whole(tmp_path_factory: pytest.TempPathFactory) -> tuple[dict[str, Any], dict[str, list[Any]]]:
    """An uninterrupted run."""
    return fit(new_folder(tmp_path_factory.mktemp("whole"), "run"))


def same(one: Any, other: Any) -> bool:
    weights = all(torch.equal(value, other[0][name]) for name, value in one[0].items())
    return weights and one[1] == other[1]


def test_an_uninterrupted_run_is_the_same_twice(whole: Any, tmp_path: Path) -> None:
    assert same(whole, fit(new_folder(tmp_path, "again")))
    assert [step for step, _ in whole[1]["train/loss"]] == [*range(BATCHES * EPOCHS)]
    assert [step for step, _ in whole[1]["val/loss"]] == [3, 7]


@pytest.mark.parametrize(
    ("kill", "saved"),
    [
        (KillFirst("on_train_batch_end", 2), None),  # before the first checkpoint
        (Kill("on_train_batch_end", 3), 3),  # right after one, in the middle of an epoch
        (Kill("on_train_batch_start", 4), 3),
        (Kill("on_validation_batch_start", 2), 3),
        (Kill("on_validation_end", 1), 4),
        (KillFirst("on_train_batch_end", 7), 6),
        (Kill("on_train_end", 1), 8),
    ],
    ids=lambda value: f"{value.hook} {value.call}" if isinstance(value, Kill | KillFirst) else "",
)
def test_a_killed_run_goes_on_as_if_nothing_had_happened(
    whole: Any, tmp_path: Path, kill: Any, saved: int | None
) -> None:
    folder = new_folder(tmp_path, "run")
    with pytest.raises(Killed):
        fit(folder, kill)
    assert step_of(folder) == saved
    assert same(whole, fit(folder))
    client = MlflowClient(f"sqlite:///{folder}/mlflow.db")
    [run] = client.search_runs([each.experiment_id for each in client.search_experiments()])
    assert run.info.status == "FINISHED"


OFTEN = {"every_n_steps": 1}
ELSE = {
    "gradients of 2 batches": {"accumulate_grad_batches": 2},
    "of 2, the last alone": {"accumulate_grad_batches": 2, "limit_train_batches": 3},
    "of 2, validation between them": {"accumulate_grad_batches": 2, "val_check_interval": 3},
    "of 3, validations at 2 and 4": {"accumulate_grad_batches": 3, "val_check_interval": 2},
    "validation in the middle": {"val_check_interval": 3},
    "twice an epoch": {"val_check_interval": 0.5},
    "after batches of any epoch": {"val_check_interval": 3, "check_val_every_n_epoch": None},
    "every other epoch": {"check_val_every_n_epoch": 2},
    "ends by steps": {"max_epochs": -1, "max_steps": 3, "accumulate_grad_batches": 2},
}


@pytest.mark.parametrize(
    ("name", "kill", "saved"),
    [
        ("gradients of 2 batches", Kill("on_train_batch_start", 4), 1),  # 3 batches: half of a step
        ("of 2, validation between them", Kill("on_validation_end", 1), 1),
        ("of 2, the last alone", Kill("on_train_batch_end", 3), 1),
        ("validation in the middle", Kill("on_validation_batch_start", 2), 2),
        ("validation in the middle", Kill("on_train_batch_start", 4), 3),
    ],
)
def test_in_the_middle_of_an_epoch(tmp_path: Path, name: str, kill: Kill, saved: int | None) -> None:
    whole = fit(new_folder(tmp_path, "whole"), **ELSE[name], point=OFTEN)
    folder = new_folder(tmp_path, "run")
    with pytest.raises(Killed):
        fit(folder, kill, **ELSE[name], point=OFTEN)
    assert step_of(folder) == saved
    assert same(whole, fit(folder, **ELSE[name], point=OFTEN))


HOOKS = ("on_train_batch_start", "on_train_batch_end", "on_validation_batch_start", "on_validation_end")


@pytest.mark.slow
@pytest.mark.timeout(600)
@pytest.mark.parametrize("name", ELSE)
def test_everywhere_in_a_run(tmp_path: Path, name: str) -> None:
    whole = fit(new_folder(tmp_path, "whole"), **ELSE[name], point=OFTEN)
    trials = 0
    for kind, hook, call in product((Kill, KillFirst), HOOKS, range(1, BATCHES * EPOCHS + 1)):
        folder = new_folder(tmp_path, f"{kind.__name__}-{hook}-{call}")
        try:
            fit(folder, kind(hook, call), **ELSE[name], point=OFTEN)
        except Killed:
            trials += 1
            assert same(whole, fit(folder, **ELSE[name], point=OFTEN)), f"killed in {hook} {call}"
    assert trials >= 16


def step_of(folder: Path) -> int | None:
    """The step that a run would go on from."""
    file = folder / CHECKPOINT
    return torch.load(file, weights_only=True)["global_step"] if file.is_file() else None


def test_a_run_killed_again_and_again(whole: Any, tmp_path: Path) -> None:
    folder = new_folder(tmp_path, "run")
    for _ in range(5):
        with pytest.raises(Killed):
            fit(folder, Kill("on_train_batch_end", 2), point={"every_n_steps": 1})
        if (step_of(folder) or 0) >= 6:
            break
    assert same(whole, fit(folder, point={"every_n_steps": 1}))


def test_a_finished_run_has_nothing_left_to_do(whole: Any, tmp_path: Path) -> None:
    folder = new_folder(tmp_path, "run")
    fit(folder)
    before = (folder / CHECKPOINT).read_bytes()
    assert same(whole, fit(folder))
    assert (folder / CHECKPOINT).read_bytes() == before


class Ask(Callback):
    """Sends the signal that asks for room in training batch `number`."""

    def __init__(self, number: int) -> None:
        self.number = number

    def on_train_batch_start(self, trainer: Trainer, *_: Any) -> None:
        if trainer.fit_loop.epoch_loop.total_batch_idx + 1 == self.number:
            os.kill(os.getpid(), signal.SIGUSR1)


@pytest.mark.parametrize(("number", "saved"), [(1, 1), (2, 2), (4, 4), (8, 8)])
def test_a_run_makes_room_when_asked(whole: Any, tmp_path: Path, number: int, saved: int) -> None:
    folder = new_folder(tmp_path, "run")
    rare = {"every_n_steps": 0}
    with pytest.raises(Preempted, match="asked to make room; goes on from") as stopped:
        fit(folder, Ask(number), point=rare)
    assert stopped.value.code == EXIT_PREEMPTED
    assert step_of(folder) == saved
    assert same(whole, fit(folder, point=rare))


def test_by_the_clock(tmp_path: Path) -> None:
    folder = new_folder(tmp_path, "run")
    with pytest.raises(Killed):
        fit(folder, Kill("on_train_batch_end", 2), point={"every_s": 0.0})
    assert step_of(folder) == 2


def test_settings_of_the_place() -> None:
    with pytest.raises(UsageError, match=r"less than never: give 0 or more \(--resume_every\)"):
        ResumePoint("x", every_n_steps=-1)


def test_no_two_steps_or_ranks_share_a_seed() -> None:
    places = list(product(range(3), range(4), range(50)))
    assert len({step_seed(*place) for place in places}) == len(places)
    assert all(0 <= step_seed(*place) < 2**32 for place in places)
    assert step_seed(1, 11, 1) != step_seed(11, 1, 1)


def test_without_a_seed_nothing_is_seeded(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.delenv("PL_GLOBAL_SEED", raising=False)
    trainer, task = Trainer(logger=False, accelerator="cpu"), DrawingTask()
    torch.manual_seed(7)
    expected = torch.rand(3)
    torch.manual_seed(7)
    SeededSteps().on_train_batch_start(trainer, task, None, 0)
    assert torch.equal(torch.rand(3), expected)


def test_a_checkpoint_is_whole_or_the_old_one(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    file = tmp_path / "folder" / CHECKPOINT
    AtomicCheckpoints().save_checkpoint({"step": 1}, file)

    def killed(*_: Any) -> None:
        raise Killed

    monkeypatch.setattr("encdl.utils.atomic.os.replace", killed)
    with pytest.raises(Killed):
        AtomicCheckpoints().save_checkpoint({"step": 2}, file)
    assert torch.load(file, weights_only=True) == {"step": 1}
    assert [each.name for each in file.parent.iterdir()] == [CHECKPOINT]
