"""Which loss trains the decryption network best: the same recipe with each, judged on test images after each damage."""

from __future__ import annotations

import time
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass
from typing import Any

from encdl.audit.studies.parts import Part, Trained, origin
from encdl.audit.studies.rows import over_seeds
from encdl.ciphers.damage import DAMAGES
from encdl.ciphers.losses import LEVEL_LOSSES
from encdl.data.base import ImageDataModule
from encdl.data.mixture import Mixture
from encdl.training.tracking.names import data_name

LOSSES = tuple(LEVEL_LOSSES)
UNHIT = "unhit_unchanged_fraction"


@dataclass(frozen=True)
class LossPart(Part):
    """One training of a cipher; the row is one of `LOSSES`."""

    def words(self) -> list[str]:
        """The command line of `encdl` that trains it."""
        return self.fitting("--model.init_args.loss", self.row)

    def run(self, fit: Callable[[list[str]], Trained]) -> dict[str, Any]:
        """Train, judge on the test images of every data set, and keep.

        Args:
            fit: Runs a command line of `encdl fit`.

        Returns:
            `row`, `seed`, `figures` (by data set: `restored_psnr_db` and `unrestored_psnr_db` by damage, and
            `unhit_unchanged_fraction`), and how it came about.
        """
        started = time.monotonic()
        trained = fit(self.words())
        task, trainer = trained.model, trained.trainer
        steps, fit_s = trainer.global_step, time.monotonic() - started
        device = str(trainer.strategy.root_device)
        figures = {
            name: _figures(trainer.test(task, data, verbose=False)[0])
            for name, data in _sets(trained.datamodule).items()
        }
        trainer.save_checkpoint(self.checkpoint, weights_only=True)
        content = {"figures": figures, **origin(task, steps, fit_s, device), "dataset": data_name(trained.datamodule)}
        return self.keep(content, started)


def _sets(data: ImageDataModule) -> dict[str, ImageDataModule]:
    """The data sets that are judged apart, by name."""
    return dict(data.each()) if isinstance(data, Mixture) else {data_name(data): data}


def _figures(logged: Mapping[str, float]) -> dict[str, Any]:
    """The values that a test logged under `test/FIGURE/DAMAGE`, by figure and damage."""
    found: dict[str, Any] = {
        figure: {damage: logged[f"test/{figure}/{damage}"] for damage in DAMAGES}
        for figure in ("restored_psnr_db", "unrestored_psnr_db")
    }
    return found | {UNHIT: logged[f"test/{UNHIT}"]}


def assemble(parts: Sequence[Mapping[str, Any]]) -> dict[str, Any]:
    """The metrics of a record: `{LOSS: {SET: {FIGURE: {DAMAGE: summary}}}}`.

    Args:
        parts: What `LossPart.run` gave, one for each loss and seed.
    """
    losses = dict.fromkeys(part["row"] for part in parts)
    return {loss: over_seeds([part["figures"] for part in parts if part["row"] == loss]) for loss in losses}


def best(metrics: Mapping[str, Any]) -> str:
    """The loss with the highest mean over data sets and damages."""

    def mean(loss: str) -> float:
        cells: list[float] = [
            cell["mean"] for of_set in metrics[loss].values() for cell in of_set["restored_psnr_db"].values()
        ]
        return sum(cells) / len(cells)

    return max(metrics, key=mean)


def table(metrics: Mapping[str, Any]) -> str:
    """PSNR in dB, mean and standard deviation over seeds, as aligned text: a block for each data set."""
    lines = []
    for name in next(iter(metrics.values())):
        lines.append(f"{name:<16}" + "".join(f"{damage:>20}" for damage in DAMAGES) + f"{'unhit kept':>14}")
        for loss, sets in metrics.items():
            cells = [sets[name]["restored_psnr_db"][damage] for damage in DAMAGES]
            told = "".join(f"{cell['mean']:>13.2f} ± {cell['std']:<4.2f}" for cell in cells)
            lines.append(f"  {loss:<14}{told}{sets[name][UNHIT]['mean']:>14.3%}")
    return "\n".join([*lines, f"best over all cells: {best(metrics)}"])
