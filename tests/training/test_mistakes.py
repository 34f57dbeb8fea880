"""Mistakes that a user can mend end in one line: checkpoints, recipes, places."""

from __future__ import annotations

import itertools
import os
import subprocess
import sys
from collections.abc import Callable
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch

from encdl.cli import main as encdl
from encdl.training.cli import main
from encdl.utils.errors import UsageError
from tests.stores import make_store
from tests.tiny_task import TinyTask
from tests.training.test_cli import CONFIG

PLAIN = ["--trainer.logger", "false", "--no-panels"]


@pytest.fixture
def config(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> list[str]:
    monkeypatch.chdir(tmp_path)
    Path("tiny.yaml").write_text(CONFIG)
    return ["--config", "tiny.yaml", *PLAIN]


@pytest.mark.parametrize("content", ["password: hunter2", "hunter2", "- hunter2", "hunter2: [", "\x00hunter2", ""])
@pytest.mark.parametrize("how", ["--config {}", "--config={}"])
def test_a_file_that_is_no_recipe_is_not_quoted(
    config: list[str], how: str, content: str, capfd: pytest.CaptureFixture[str]
) -> None:
    Path("secret").write_text(content)
    with pytest.raises(UsageError, match="secret: is no recipe") as caught:
        main(["fit", *how.format("secret").split()])
    assert "hunter2" not in f"{caught.value}{capfd.readouterr()}"


def test_places_of_other_runs_are_refused(config: list[str]) -> None:
    fit = ["fit", *config, "--resume", "place"]
    assert main(fit) == 0
    last = Path("place/last.ckpt")
    whole = torch.load(last, weights_only=True)
    with pytest.raises(UsageError, match=r"batch_size 4, and this is 3: .* \(--resume\)"):
        main([*fit, "--data.init_args.batch_size", "3"])
    name, value = next((name, value) for name, value in whole["state_dict"].items())
    for state in ({}, {name: torch.zeros(*value.shape, 2)}):
        torch.save({**whole, "state_dict": state}, last)
        with pytest.raises(UsageError, match="is of another network"):
            main(fit)
        for verb in ("fit", "validate"):
            with pytest.raises(UsageError, match=r"is of another network .* \(--ckpt_path\)"):
                main([verb, *config, "--ckpt_path", str(last)])


@pytest.mark.parametrize("share", [0, 0.3, 0.99])
def test_a_cut_place_is_named(config: list[str], share: float) -> None:
    fit = ["fit", *config, "--resume", "place"]
    assert main(fit) == 0
    last = Path("place/last.ckpt")
    last.write_bytes(last.read_bytes()[: int(share * last.stat().st_size)])
    with pytest.raises(UsageError, match=r"place/last\.ckpt: not a checkpoint of a training run, or a damaged one"):
        main(fit)


def test_a_second_training_in_the_same_place_is_refused(config: list[str]) -> None:
    code = "from encdl.training.run_folder import hold; lock = hold('place'); print(flush=True); input()"
    with subprocess.Popen([sys.executable, "-c", code], stdin=subprocess.PIPE, stdout=subprocess.PIPE) as other:
        assert other.stdout is not None
        assert other.stdout.readline()
        with pytest.raises(UsageError, match="place: another training keeps its place there"):
            main(["fit", *config, "--resume", "place"])
        other.communicate(b"\n")
    assert main(["fit", *config, "--resume", "place"]) == 0


@pytest.mark.parametrize("place", ["last", "best", "hpc", "runs", "none.ckpt"])
def test_a_checkpoint_that_is_not_there_is_not_gone_on_without(told: Told, place: str) -> None:
    Path("runs").mkdir()
    for verb in ("fit", "validate", "test"):
        code, line = told(verb, "--config", "tiny.yaml", *PLAIN, "--ckpt_path", place)
        assert code == 2
        assert f"{place}: no such checkpoint" in line


@pytest.mark.parametrize("verb", ["validate", "test"])
def test_an_untrained_network_is_said_to_be_one(
    config: list[str], verb: str, monkeypatch: pytest.MonkeyPatch, capfd: pytest.CaptureFixture[str]
) -> None:
    monkeypatch.setattr(TinyTask, "test_step", TinyTask.validation_step, raising=False)
    assert main([verb, *config]) == 0
    told = f"{verb} without --ckpt_path measures the network as its settings make it: UNTRAINED"
    assert told in capfd.readouterr().err


# ---- generated: every combination ends in one line, exit code 2

Told = Callable[..., tuple[int, str]]
QUICK = ["--no-panels", "--trainer.max_epochs", "1", "--trainer.limit_train_batches", "1"]
LAYOUT = ("pytorch-lightning_version", "state_dict", "loops", "callbacks", "optimizer_states", "lr_schedulers")
WRONG: list[Any] = [..., None, "x", 5, [], {}, [{}]]
PLACES = ["/sys/nope", "/proc/nope", "tiny.yaml/below", "tiny.yaml", "/dev/null", "/dev/full/x"]
OPTIONS = ["--trainer.default_root_dir", "--resume", "--config", "--ckpt_path", "--recipe", "--model", "--data"]
VERBS = ["fit", "validate", "test", "predict", "submit", "sweep"]
SETTINGS = [
    "trainer.max_epochs",
    "trainer.devices",
    "trainer.accelerator",
    "trainer.precision",
    "data.init_args.batch_size",
]
VALUES = ["", "x", "-7", "1e99", "{", "null]", "\udcff"]
NAMES = ["a b", "50%20", "what?", "x#y", "ä中", "new\nline", "$HOME", "-dash", "it's", 'a"b', "{a,b}", "[x]", "a=b"]
REFUSED_NAMES = [":colon", "b;:c", "\udcff", "q'u\"x"]


@pytest.fixture
def told(config: list[str], capfd: pytest.CaptureFixture[str]) -> Told:
    """Runs `encdl ...`; gives its exit code and its one line."""

    def run(*words: str) -> tuple[int, str]:
        capfd.readouterr()
        try:
            code = encdl(list(words))
        except SystemExit as stop:
            code = int(stop.code or 0)
        err = capfd.readouterr().err
        lines = [line for line in err.splitlines() if line.startswith("encdl: error: ")]
        assert "Traceback" not in err, (words, err)
        assert len(lines) == (code != 0), (words, err)
        assert code in (0, 2), words
        return code, "".join(lines)

    return run


def sampled(cases: list[Any], count: int) -> list[Any]:
    """Some for `make test`; the others are slow."""
    picked = set(np.random.default_rng(1).permutation(len(cases))[:count].tolist())
    return [
        case if index in picked else pytest.param(*case, marks=pytest.mark.slow) for index, case in enumerate(cases)
    ]


@pytest.mark.filterwarnings("ignore:Checkpoint directory")
@pytest.mark.parametrize(("verb", "name"), sampled(list(itertools.product(("fit", "validate"), LAYOUT)), 2))
def test_parts_of_a_checkpoint(config: list[str], told: Told, verb: str, name: str) -> None:
    assert main(["fit", *config, "--resume", "place"]) == 0
    whole = torch.load("place/last.ckpt", weights_only=True)
    for wrong in WRONG:
        torch.save({each: value for each, value in {**whole, name: wrong}.items() if value is not ...}, "b.ckpt")
        code, line = told(verb, *config, "--ckpt_path", "b.ckpt", "--trainer.max_epochs", "2")
        assert code == 0 or "b.ckpt: " in line
        assert code == 2 or name not in LAYOUT[:2]


@pytest.mark.parametrize(("option", "place"), sampled(list(itertools.product(OPTIONS, PLACES)), 6))
def test_places_that_cannot_be(told: Told, option: str, place: str) -> None:
    for verb in VERBS:
        words = ["--config", "tiny.yaml", *QUICK] if option not in ("--config", "--recipe") else QUICK
        code, line = told(verb, *words, option, place)
        assert code == 2 or place == "tiny.yaml"
        if verb in ("fit", "validate") and code and option not in ("--model", "--data"):
            assert Path(place).name in line


@pytest.mark.parametrize(("name", "value"), sampled(list(itertools.product(SETTINGS, VALUES)), 4))
def test_settings_that_cannot_be(told: Told, name: str, value: str) -> None:
    for verb in VERBS:
        told(verb, "--config", "tiny.yaml", "--no-panels", "--trainer.logger", "false", f"--{name}={value}")
    for words in ([], ["--config"], [f"--{name}"], ["--config", "gone.yaml"], [value]):
        for verb in VERBS:
            assert told(verb, *words)[0] == 2


@pytest.mark.parametrize("name", [NAMES[0], *[pytest.param(name, marks=pytest.mark.slow) for name in NAMES[1:]]])
def test_folders_of_any_name(told: Told, tmp_path: Path, monkeypatch: pytest.MonkeyPatch, name: str) -> None:
    folder = tmp_path / name
    folder.mkdir()
    (folder / "tiny.yaml").write_text(CONFIG)
    make_store(folder / "runs")
    monkeypatch.chdir(folder)
    assert told("fit", "--config", "tiny.yaml", *QUICK) == (0, "")
    [last] = folder.rglob("last.ckpt")
    assert told("validate", "--config", "tiny.yaml", "--no-panels", "--ckpt_path", str(last)) == (0, "")
    for _ in range(2):
        assert told("fit", "--config", str(folder / "tiny.yaml"), *QUICK, "--resume", str(folder / "place")) == (0, "")


@pytest.mark.parametrize(
    "name", [REFUSED_NAMES[0], *[pytest.param(name, marks=pytest.mark.slow) for name in REFUSED_NAMES[1:]]]
)
def test_folders_that_mlflow_cannot_take(
    told: Told, tmp_path: Path, monkeypatch: pytest.MonkeyPatch, name: str
) -> None:
    folder = tmp_path / name
    folder.mkdir()
    (folder / "tiny.yaml").write_text(CONFIG)
    monkeypatch.chdir(folder)
    code, line = told("fit", "--config", "tiny.yaml", *QUICK)
    assert code == 2
    assert "under such a name" in line
    assert told("fit", "--config", "tiny.yaml", *QUICK, "--trainer.logger", "false") == (0, "")


def test_a_folder_that_was_removed(told: Told, tmp_path: Path) -> None:
    (tmp_path / "gone").mkdir()
    os.chdir(tmp_path / "gone")
    (tmp_path / "gone").rmdir()
    for verb in VERBS:
        assert told(verb, "--config", str(tmp_path / "tiny.yaml")) == (
            2, "encdl: error: the working directory was removed: go to another one first"
        )  # fmt: skip
    os.chdir(tmp_path)
