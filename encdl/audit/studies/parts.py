"""One training of a study: fit, test, probe; its figures are kept in a file, so that an ended study can go on."""

from __future__ import annotations

import hashlib
import json
import time
from abc import ABC, abstractmethod
from collections.abc import Callable
from dataclasses import dataclass
from pathlib import Path
from typing import Any, Protocol

from lightning.pytorch import Trainer

from encdl.audit.studies.leakage import leakage
from encdl.audit.studies.rows import FURTHER_VIEWS, VIEWS, by_row, with_main
from encdl.ciphers.damage import DAMAGES
from encdl.ciphers.weights import weights_id
from encdl.data.base import ImageDataModule
from encdl.data.batch import ImageBatch
from encdl.training.judged_units import by_unit
from encdl.training.tasks.base import CipherTask
from encdl.training.tasks.read import BatchKeys, ReadTask
from encdl.training.tasks.views import Sight
from encdl.utils import records
from encdl.utils.atomic import write_bytes

PROBED_IMAGES = 200


class Trained(Protocol):
    """A run that has ended: what Lightning's command line is afterwards."""

    trainer: Trainer
    model: Any
    datamodule: Any


@dataclass(frozen=True)
class Part(ABC):
    """One row and seed of a study.

    Attributes:
        config: The recipe, a YAML file.
        row: What of the study it is about; subclasses say more.
        seed: Of weights, keys, order and augmentation alike.
        folder: The study's folder; files of this part begin with `name`.
        settings: Further words for `encdl fit`, the same for all parts.
    """

    config: str
    row: str
    seed: int
    folder: str
    settings: tuple[str, ...] = ()

    @property
    def name(self) -> str:
        """The name of this part's files and runs."""
        return f"{self.row}-{self.seed}"

    @property
    def result(self) -> Path:
        """Where its figures are kept."""
        return Path(self.folder, f"{self.name}.json")

    @property
    def checkpoint(self) -> Path:
        """Where its trained reader is kept."""
        return Path(self.folder, f"{self.name}.ckpt")

    def digest(self) -> str:
        """Changes with the recipe, the settings and the code."""
        origin = [Path(self.config).read_text(), self.row, self.seed, self.settings, records.commit()]
        return hashlib.sha256(json.dumps(origin).encode()).hexdigest()[:16]

    @abstractmethod
    def words(self) -> list[str]:
        """The command line of `encdl` that trains it."""

    @abstractmethod
    def run(self, fit: Callable[[list[str]], Trained]) -> dict[str, Any]:
        """Train, judge and keep.

        Args:
            fit: Runs a command line of `encdl fit`.

        Returns:
            `row`, `seed`, `figures` and how they came about.
        """

    def known(self) -> dict[str, Any] | None:
        """Its figures, if it has been run as it is now."""
        try:
            content: dict[str, Any] = json.loads(self.result.read_text())
        except (OSError, ValueError):
            return None
        return content if content.get("digest") == self.digest() else None

    def keep(self, content: dict[str, Any], started: float) -> dict[str, Any]:
        """Write what `known` finds.

        Args:
            content: What was found.
            started: Since when, by the monotonic clock.

        Returns:
            The content, with what is known of every part.
        """
        whole = {
            "row": self.row,
            "seed": self.seed,
            **content,
            "wall_s": round(time.monotonic() - started, 1),
            "commit": records.commit(),
            "digest": self.digest(),
        }
        write_bytes(self.result, json.dumps(whole, indent=1).encode(), force=True)
        return whole

    def fitting(self, *words: str) -> list[str]:
        """The command line of `encdl fit` with the recipe, the seed, these words and the settings of all parts."""
        seed = str(self.seed)
        return [
            *("fit", "--config", self.config, "--seed_everything", seed),
            *("--model.init_args.seed", seed, "--data.init_args.seed", seed),
            *("--trainer.default_root_dir", str(Path(self.folder, self.name)), *words, *self.settings),
        ]


@dataclass(frozen=True)
class ReaderPart(Part):
    """One training of a reader; the row is one of `encdl.audit.studies.rows.VIEWS`."""

    def words(self) -> list[str]:
        """The command line of `encdl` that trains it."""
        return self.fitting("--model.init_args.view", (VIEWS | FURTHER_VIEWS)[self.row])

    def run(self, fit: Callable[[list[str]], Trained]) -> dict[str, Any]:
        """Train, judge and keep.

        Args:
            fit: Runs a command line of `encdl fit`.

        Of volumes, damage and leakage are left out: they are those of the slices.

        Returns:
            `row`, `seed`, `figures` (by row), `damaged` (by damage and row), `leakage_psnr_db` (by row and stage),
            `patients` or another of `UNITS` (the main figure of each test volume or image), and how it came about.
        """
        started = time.monotonic()
        trained = fit(self.words())
        task, data, trainer = trained.model, trained.datamodule, trained.trainer
        steps, fit_s = trainer.global_step, time.monotonic() - started
        best = getattr(trainer.checkpoint_callback, "best_model_path", "") or None
        flat = getattr(task, "dimensions", 2) == 2
        task.damages = DAMAGES if flat else {}
        [logged] = trainer.test(task, data, ckpt_path=best, verbose=False, weights_only=True)
        device = trainer.strategy.root_device
        task.to(device)  # a test ends with Lightning moving the task to the CPU
        figures, damaged = by_row(logged, self.row)
        trainer.save_checkpoint(self.checkpoint, weights_only=True)
        content = {
            "figures": figures,
            "damaged": damaged,
            "leakage_psnr_db": _leakage(task, data) if flat else {},
            **by_unit(task, data),
            "reader": task.reader.config(),
            "classes": list(task.classes),
            **origin(task, steps, fit_s, str(device)),
            "dataset": type(data).__name__,
        }
        return self.keep(content, started)


def origin(task: CipherTask, steps: int, fit_s: float, device: str) -> dict[str, Any]:
    """The training of a part: cipher, key planes, steps, seconds and device."""
    return {
        "cipher": {"name": task.cipher.name, "config": task.cipher.config(), "id": weights_id(task.cipher)},
        "planes": task.planes.to_dict(),
        "steps": steps,
        "fit_s": round(fit_s, 1),
        "device": records.device_name(device),
    }


def _leakage(task: ReadTask, data: ImageDataModule) -> dict[str, dict[str, float]]:
    """Probes learn on validation images and are judged on test images."""
    task.eval()

    def rows(batch: ImageBatch, purpose: str, number: int) -> dict[str, Sight]:
        return task.view.rows(task.cipher, batch["image"], BatchKeys(task, batch["image"], purpose, number))

    def batches(loader: Any) -> list[ImageBatch]:
        taken: list[ImageBatch] = []
        for batch in loader:
            taken.append({"image": batch["image"].to(task.device)})
            if sum(len(each["image"]) for each in taken) >= PROBED_IMAGES:
                break
        return taken

    found = leakage(task.reader, rows, batches(data.val_dataloader()), batches(data.test_dataloader()))
    return {with_main(row, task.view.row): stages for row, stages in found.items()}
