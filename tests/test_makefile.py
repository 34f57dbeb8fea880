"""The Makefile: help tells every target, and targets do what they say (as far as `make -n` shows)."""

from __future__ import annotations

import importlib
import os
import re
import shutil
import subprocess
from pathlib import Path

import pytest

ROOT = Path(__file__).parents[1]
MAKEFILE = (ROOT / "Makefile").read_text()
TARGETS = re.findall(r"^([a-z][a-z-]*):(?!=)", MAKEFILE, flags=re.MULTILINE)

needs_make = pytest.mark.skipif(shutil.which("make") is None, reason="make is not installed here")


VARIABLES = set(re.findall(r"\$\(([A-Z_]+)", MAKEFILE))
"""What the Makefile reads: `make test ARGS=…` hands its own on to the tests."""


def run_make(*words: str) -> subprocess.CompletedProcess[str]:
    environment = {
        name: value
        for name, value in os.environ.items()
        if name not in VARIABLES and not name.startswith(("MAKE", "MFLAGS"))
    }
    return subprocess.run(
        ["make", "--no-print-directory", *words],
        cwd=ROOT,
        env=environment,
        capture_output=True,
        text=True,
        timeout=60,
        check=False,
    )


def make(*words: str) -> str:
    result = run_make(*words)
    assert result.returncode == 0, result.stderr
    assert result.stderr == ""
    return result.stdout


def dry(*words: str) -> list[str]:
    """The commands that a target would run, in an environment that is ready (nothing is installed)."""
    return make("-n", "-o", ".venv/.installed", *words).splitlines()


def test_the_targets() -> None:
    named = "help setup train-encryptor train-thesis train-cipher-classifier train-cipher-segmenter evaluate mlflow-ui"
    named += " bench test lint docs format clean"
    assert set(named.split()) <= set(TARGETS)
    assert len(TARGETS) == len(set(TARGETS))


def test_every_target_is_phony() -> None:
    """A file of that name would otherwise switch it off."""
    [phony] = re.findall(r"^\.PHONY: (.*)$", MAKEFILE, flags=re.MULTILINE)
    assert set(phony.split()) == set(TARGETS)


@needs_make
@pytest.mark.parametrize("words", [["help"], []], ids=["help", "nothing"])
def test_help_lists_every_target(words: list[str]) -> None:
    commands, _, variables = make(*words).partition("\n\n")
    lines = commands.splitlines()
    assert [line.split()[1] for line in lines] == TARGETS
    for line in lines:
        assert re.fullmatch(r"  make [a-z-]+ +\S.{10,}", line)
    _, *lines = variables.splitlines()
    shown = [line.split("=")[0].strip() for line in lines]
    assert {"PYTHON", "VENV", "PIP_ARGS", "ARGS"} <= set(shown) <= VARIABLES
    for line in lines:
        assert re.fullmatch(r"  [A-Z_]+=\S* +\S.{10,}", line)


@needs_make
def test_help_shows_the_values_that_are_given() -> None:
    assert "  PYTHON=python3.13 " in make("help", "PYTHON=python3.13")


@needs_make
@pytest.mark.parametrize("target", TARGETS)
def test_every_target_can_be_planned(target: str) -> None:
    assert make("-n", target)


@needs_make
def test_training() -> None:
    [command] = dry("train-encryptor")
    assert command == ".venv/bin/encdl fit --recipe encryptor "
    [command] = dry("train-thesis", "VENV=/tmp/v", "ARGS=--trainer.max_epochs 2", "-o", "/tmp/v/.installed")
    assert command == "/tmp/v/bin/encdl fit --recipe encryptor-thesis --trainer.max_epochs 2"


@pytest.fixture
def stand_in(tmp_path: Path) -> str:
    """An environment whose `encdl` prints its arguments, one a line."""
    program = tmp_path / "venv" / "bin" / "encdl"
    program.parent.mkdir(parents=True)
    program.write_text("#!/bin/sh\nprintf '%s\\n' \"$@\"\n")
    program.chmod(0o755)
    (tmp_path / "venv" / ".installed").touch()
    return f"VENV={tmp_path / 'venv'}"


@needs_make
@pytest.mark.parametrize(
    ("data", "recipe", "settings"),
    [
        ("embedded", "embedded", {}),
        ("pneumoniamnist", "pneumoniamnist", {"data_dir": "/d"}),
        ("brain_tumor", "brain_tumor", {"data_dir": "/d"}),
        ("mednist", "mednist", {"data_dir": "/d"}),
        ("bloodmnist", "medmnist", {"name": "bloodmnist", "data_dir": "/d"}),
        ("organmnist3d", "medmnist3d", {"name": "organmnist3d", "data_dir": "/d"}),
        ("my files/a b.npz", "npz", {"file": "a b.npz", "data_dir": "my files"}),
        ("a.npz", "npz", {"file": "a.npz", "data_dir": "."}),
        ("docs/images", "folder", {"folder": "docs/images"}),
    ],
)
def test_training_of_classifiers(stand_in: str, data: str, recipe: str, settings: dict[str, str]) -> None:
    words = ["-o", f"{stand_in.removeprefix('VENV=')}/.installed", f"DATA={data}", "DATA_DIR=/d"]
    lines = make("train-cipher-classifier", stand_in, *words, "ARGS=--seed_everything 1").splitlines()
    given = [word for name, value in settings.items() for word in (f"--data.init_args.{name}", value)]
    assert lines == ["fit", "--recipe", f"classifier-{recipe}", *given, "--seed_everything", "1"]
    assert (ROOT / f"experiments/classifier-{recipe}.yaml").is_file()


@needs_make
@pytest.mark.parametrize("data", ["", "unknown", "no such folder/"])
def test_unknown_data_for_a_classifier(stand_in: str, data: str) -> None:
    words = ["-o", f"{stand_in.removeprefix('VENV=')}/.installed", stand_in, f"DATA={data}"]
    result = run_make("train-cipher-classifier", *words)
    assert result.returncode == 2
    [line] = result.stdout.splitlines()
    assert line.startswith(f"no data {data}: give DATA=embedded, brain_tumor, pneumoniamnist or another name")
    assert line.endswith("or that of an .npz file")


@needs_make
def test_training_of_segmenters() -> None:
    fit = ".venv/bin/encdl fit --recipe"
    assert dry("train-cipher-segmenter")[-1].strip() == f"{fit} segmenter-embedded"
    command = dry("train-cipher-segmenter", "DATA=acdc", "DATA_DIR=/d", "ARGS=--seed_everything 1")[-1]
    assert command == f"{fit} segmenter-acdc --data.init_args.data_dir /d --seed_everything 1"


@needs_make
def test_training_sets_everything_up_first() -> None:
    plan = make("-n", "train-encryptor", "VENV=/tmp/no-such-environment", "PYTHON=pythonX")
    steps = [
        plan.index(step)
        for step in ("pythonX -m venv", "-c constraints.txt -e '.[dev]'", "/tmp/no-such-environment/bin/encdl fit")
    ]
    assert steps == sorted(steps)


@needs_make
def test_what_the_other_targets_run() -> None:
    assert dry("bench-serve", "READER=r.ckpt") == ['.venv/bin/python experiments/bench_serve.py --reader "r.ckpt" ']
    assert "python -m pytest -n 2" in dry("test")[0]
    assert dry("test", "ARGS=-k keys")[0].endswith("-k keys")
    assert len(dry("lint")) == 5
    assert dry("lint")[-1] == ".venv/bin/encdl results --check"
    assert "mkdocs build --strict" in dry("docs")[0]
    evaluating = "\n".join(dry("evaluate", "DATA_DIR=sets"))
    assert "for data in embedded pneumoniamnist brain_tumor acdc" in evaluating
    assert "--force" in evaluating
    assert '--data-dir "sets"' in evaluating


@needs_make
@pytest.mark.parametrize(
    ("store", "shown"),
    [
        (None, "sqlite:///{tmp}/my_runs/mlflow.db"),
        ("sqlite:////other.db", "sqlite:////other.db"),
        ("http://host:5000", None),
    ],
)
def test_the_page_of_runs(
    stand_in: str, tmp_path: Path, store: str | None, shown: str | None, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.delenv("MLFLOW_TRACKING_URI", raising=False)
    if store:
        monkeypatch.setenv("MLFLOW_TRACKING_URI", store)
    venv = Path(stand_in.removeprefix("VENV="))
    (venv / "bin" / "encdl").rename(venv / "bin" / "mlflow")
    told = make("mlflow-ui", stand_in, "-o", f"{venv}/.installed", f"RUNS={tmp_path}/my_runs", "PORT=7")
    if shown is None:
        assert told == "the runs are on a server: open http://host:5000 in a browser\n"
        return
    said, *words = told.splitlines()
    assert said == "the runs will be at http://127.0.0.1:7/#/experiments?workflowType=machine_learning"
    assert words[0] == "server"
    assert words[words.index("--backend-store-uri") + 1] == shown.format(tmp=tmp_path)
    assert words[words.index("--host") + 1] == "127.0.0.1"
    assert words[words.index("--port") + 1] == "7"
    assert (tmp_path / "my_runs").is_dir()  # the data base goes there


def test_the_files_that_it_names_exist() -> None:
    for name in re.findall(r"(?:experiments|tests|docs)/[\w/.-]+\.(?:yaml|py)", MAKEFILE):
        assert (ROOT / name).is_file(), name
    recipes = re.findall(r"--recipe ([a-z_-]+)(?= |$)", MAKEFILE, flags=re.MULTILINE)
    assert len(recipes) >= 3
    for name in recipes:
        assert (ROOT / "experiments" / f"{name}.yaml").is_file(), name


def test_the_check_for_compiled_code_imports_what_is_there() -> None:
    [(module, name)] = re.findall(r"from (encdl\S+) import (\w+); sys\.exit\(not \w+\.available", MAKEFILE)
    assert importlib.import_module(f"{module}.{name}").available() in {True, False}
