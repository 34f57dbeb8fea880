"""Submissions: the trainings, the resources that they ask for, and the environment that they run in."""

from __future__ import annotations

import json
import os
import re
import sys
from collections.abc import Mapping, Sequence
from dataclasses import asdict, dataclass, fields
from pathlib import Path
from typing import Any, Self

from encdl.cluster.grid import Trial
from encdl.utils import records
from encdl.utils.atomic import write_bytes
from encdl.utils.errors import EncdlError, UsageError
from encdl.utils.registry import PLUGINS

NAME = re.compile(r"[A-Za-z0-9][\w.-]{0,99}")
DIRECTIVE = re.compile(r"[\w.:/@=,%+*\[\]-]+")
"""Values behind `#SBATCH --option=`: one word that no shell reads anything into."""
NOT_IN_PATHS = set("\"'%\\\n\r\0")
CARRIED = ("MLFLOW_TRACKING_URI", PLUGINS)
"""Variables that a job takes along from where it is submitted."""
RECORD, SCRIPT = "job.json", "job.sbatch"


@dataclass(frozen=True)
class Request:
    """Resources of each training; None leaves one to the cluster's defaults.

    Attributes:
        time: Longest run before it must make room, as Slurm writes it: `HH:MM:SS`, `D-HH`, minutes.
        memory: Of each node, such as `16G`.
        cpus: Cores of each process.
        nodes: How many nodes share one training.
        gpus: GPUs of each node, with one process each; 0 trains on CPUs.
        processes: Processes of each node where there are no GPUs.
        partition: Where it runs.
        account: Who pays.
        at_once: How many trainings of an array run at a time; 0 for all.
        grace_s: Seconds before the end in which a training saves its place.
        requeues: How often one training may go back into the queue.
        options: Further options of sbatch, such as `--constraint=a100`.
    """

    time: str | None = None
    memory: str | None = None
    cpus: int = 1
    nodes: int = 1
    gpus: int = 0
    processes: int = 1
    partition: str | None = None
    account: str | None = None
    at_once: int = 0
    grace_s: int = 120
    requeues: int = 100
    options: tuple[str, ...] = ()

    def __post_init__(self) -> None:
        least = {"cpus": 1, "nodes": 1, "gpus": 0, "processes": 1, "at_once": 0, "grace_s": 1, "requeues": 0}
        for name, number in least.items():
            if getattr(self, name) < number:
                raise UsageError(f"--{name.replace('_', '-')} is {getattr(self, name)}: give {number} or more")
        for name in ("time", "memory", "partition", "account"):
            value = getattr(self, name)
            if value is not None and not DIRECTIVE.fullmatch(value):
                raise UsageError(f"--{name} {value!r}: Slurm takes one word without spaces and quotes there")
        for option in self.options:
            if not option.startswith("--") or not DIRECTIVE.fullmatch(option):
                raise UsageError(f"--sbatch {option!r}: give one word, such as --sbatch=--constraint=a100")

    @classmethod
    def of(cls, settings: Mapping[str, Any]) -> Self:
        """A request whose attributes are among these settings, lists for tuples."""
        given = {each.name: settings[each.name] for each in fields(cls) if each.name in settings}
        return cls(**given | {"options": tuple(given.get("options", ()))})

    @property
    def tasks(self) -> int:
        """Processes of each node."""
        return self.gpus or self.processes


@dataclass(frozen=True)
class Surroundings:
    """The environment that a training runs in.

    Attributes:
        program: The command that stands for `encdl`.
        modules: Environment modules to load.
        venv: A virtual environment to activate.
        container: An image that Apptainer runs.
        setup: Lines of shell before the training starts.
        environment: Variables to set.
    """

    program: tuple[str, ...] = ("encdl",)
    modules: tuple[str, ...] = ()
    venv: str | None = None
    container: str | None = None
    setup: tuple[str, ...] = ()
    environment: tuple[tuple[str, str], ...] = ()

    def __post_init__(self) -> None:
        for line in self.setup:
            if "\n" in line or "\r" in line:
                raise UsageError("--setup takes one line of shell; give it again for the next one")
        for name, _ in self.environment:
            if not re.fullmatch(r"[A-Za-z_]\w*", name):
                raise UsageError(f"--env {name}: that is no name of a variable")


def surroundings(
    modules: Sequence[str],
    venv: str | None,
    container: str | None,
    setup: Sequence[str],
    environment: Sequence[str],
    more: Mapping[str, str],
) -> Surroundings:
    """The environment of trainings submitted here: by default this Python, with this commit and MLflow store.

    Args:
        modules: as of `Surroundings`.
        venv: as of `Surroundings`.
        container: as of `Surroundings`.
        setup: as of `Surroundings`.
        environment: variables, each as `NAME=VALUE`.
        more: variables that come before them.

    Raises:
        UsageError: one is not of its form.
    """
    variables = {"NO_ALBUMENTATIONS_UPDATE": "1", "MLFLOW_DISABLE_TELEMETRY": "true"}
    variables["ENCDL_COMMIT"] = records.commit()
    variables |= {name: os.environ[name] for name in CARRIED if os.environ.get(name)}
    for word in environment:
        name, equals, value = word.partition("=")
        if not equals:
            raise UsageError(f"--env {name}: give NAME=VALUE")
        variables[name] = value
    own = not (venv or container or modules)
    return Surroundings(
        program=(sys.executable, "-m", "encdl") if own else ("encdl",),
        modules=tuple(modules),
        venv=venv,
        container=container,
        setup=tuple(setup),
        environment=tuple((variables | dict(more)).items()),
    )


@dataclass(frozen=True)
class Job:
    """One submission: a training, or an array of them.

    Attributes:
        name: Of the job, and of its folder.
        folder: Absolute; holds script, record, logs, and each training's place.
        workdir: Where the trainings run, so that relative paths mean what they mean here.
        config: The recipe, a YAML file.
        settings: The same for all trainings.
        trials: What sets each training apart.
        request: What they ask for.
        surroundings: What they run in.
        resume_every: As `encdl fit --resume_every`.
    """

    name: str
    folder: str
    workdir: str
    config: str
    settings: Trial
    trials: tuple[Trial, ...]
    request: Request
    surroundings: Surroundings
    resume_every: int = 0

    def __post_init__(self) -> None:
        if not NAME.fullmatch(self.name):
            raise UsageError(f"--name {self.name!r}: give letters, digits, and . _ - after the first of them")
        for path in (self.folder, self.workdir, self.config):
            if set(path) & NOT_IN_PATHS:
                raise UsageError(f"{path!r}: Slurm and shells trip over quotes, %, \\ and line ends in a path")

    def place(self, trial: int) -> Path:
        """Folder where one training keeps its place."""
        return Path(self.folder, "trials", str(trial))


@dataclass(frozen=True)
class Submitted:
    """A job that the cluster knows.

    Attributes:
        job: What was asked for.
        slurm_id: The cluster's number of it.
        date: When, ISO 8601.
        tracking_uri: The MLflow store that its runs go to, as far as the submitter knew.
    """

    job: Job
    slurm_id: str
    date: str
    tracking_uri: str | None

    def write(self) -> None:
        """Keep it in the job's folder."""
        text = json.dumps(asdict(self), indent=1)
        write_bytes(Path(self.job.folder, RECORD), text.encode(), force=True, mode=0o600)

    @classmethod
    def read(cls, folder: Path) -> Self:
        """The job that was submitted from a folder.

        Raises:
            EncdlError: There is no readable record.
        """
        file = folder / RECORD
        try:
            content = json.loads(file.read_text())
            job = {field.name: content["job"][field.name] for field in fields(Job)}
            job |= {
                "request": _from(Request, job["request"]),
                "surroundings": _from(Surroundings, job["surroundings"]),
                "settings": _tuples(job["settings"]),
                "trials": _tuples(job["trials"]),
            }
            return cls(Job(**job), content["slurm_id"], content["date"], content["tracking_uri"])
        except (OSError, ValueError, KeyError, TypeError) as error:
            raise EncdlError(f"{file}: not a record of a submitted job ({type(error).__name__})") from error


def _from(kind: Any, content: Mapping[str, Any]) -> Any:
    return kind(**{name: _tuples(value) for name, value in content.items()})


def _tuples(value: Any) -> Any:
    """JSON's lists as the tuples that they were."""
    return tuple(_tuples(each) for each in value) if isinstance(value, list) else value
