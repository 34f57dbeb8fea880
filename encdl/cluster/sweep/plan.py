"""Sweeps, and the folders that keep them."""

from __future__ import annotations

import json
from dataclasses import asdict, dataclass
from pathlib import Path
from typing import Self

from encdl.cluster.grid import Trial, words
from encdl.utils.atomic import write_bytes
from encdl.utils.errors import EncdlError

RECORD = "sweep.json"


@dataclass(frozen=True)
class Sweep:
    """One sweep.

    Attributes:
        name: What it is called.
        folder: Absolute; holds record, study, logs, and each training's place.
        config: The recipe, absolute.
        settings: The same for all trainings.
        metric: What is looked for, such as `val/loss`: its last value counts.
        maximize: Whether more of it is better.
        searcher: How the settings are chosen.
        total: How many trainings there are.
        parent: Id of the MLflow run that sums them up.
        store: URI of the MLflow store.
        resume_every: As `encdl fit --resume_every`.
    """

    name: str
    folder: str
    config: str
    settings: Trial
    metric: str
    maximize: bool
    searcher: str
    total: int
    parent: str
    store: str
    resume_every: int = 0

    def place(self, number: int) -> Path:
        """Folder where one training keeps its place; the same as that of a job in this folder."""
        return Path(self.folder, "trials", str(number))

    def command(self, number: int, trial: Trial) -> list[str]:
        """The words of `encdl` that train one point."""
        every = ["--resume_every", str(self.resume_every)] if self.resume_every else []
        place = ["--resume", str(self.place(number)), *every]
        return ["fit", "--config", self.config, *words(self.settings), *words(trial), *place]

    def write(self) -> None:
        """Keep it in its folder."""
        write_bytes(Path(self.folder, RECORD), json.dumps(asdict(self), indent=1).encode(), force=True)

    @classmethod
    def read(cls, folder: Path) -> Self:
        """The sweep of a folder.

        Raises:
            EncdlError: There is no readable record.
        """
        file = folder / RECORD
        try:
            content = json.loads(file.read_text())
            content["settings"] = tuple((key, value) for key, value in content["settings"])
            return cls(**content)
        except (OSError, ValueError, KeyError, TypeError) as error:
            raise EncdlError(f"{file}: not a record of a sweep ({type(error).__name__})") from error
