"""SIGTERM ends a training as Ctrl-C does: at once, at any time, and its MLflow run says so."""

from __future__ import annotations

import signal
from typing import Any

from lightning.pytorch import Callback, LightningModule, Trainer

from encdl.utils.processes import terminate


class TakeSignals(Callback):
    """Keeps SIGTERM with `terminable` while the trainer runs.

    Lightning's own handler only takes note: the run goes on to the end of the batch, however long that is, and comes
    to its proper end if that was the last. With several ranks it also exchanges a tensor then and there, in the
    middle of whatever else they exchange.
    """

    def __init__(self) -> None:
        self._taken = False

    def setup(self, trainer: Trainer, pl_module: LightningModule, stage: str) -> None:
        """See whether it is to be kept."""
        self._taken = signal.getsignal(signal.SIGTERM) is terminate

    def on_sanity_check_start(self, trainer: Trainer, pl_module: LightningModule) -> None:
        """Take it back; this and the others are the first hooks after Lightning's handler is there."""
        self._take(terminate)

    on_train_start = on_validation_start = on_test_start = on_predict_start = on_sanity_check_start

    def on_exception(self, trainer: Trainer, pl_module: LightningModule, exception: BaseException) -> None:
        """Let nothing disturb a run that is saying how it ended."""
        self._take(signal.SIG_IGN)

    def _take(self, handler: Any) -> None:
        if self._taken:
            signal.signal(signal.SIGTERM, handler)
