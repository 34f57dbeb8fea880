"""SIGTERM ends a training as Ctrl-C does: at once, at any time, and its MLflow run says so."""

from __future__ import annotations

import contextlib
import signal
import threading
from collections.abc import Iterator
from typing import Any

from lightning.pytorch import Callback, LightningModule, Trainer

from encdl.utils.interrupts import interrupt


class Terminated(KeyboardInterrupt):
    """SIGTERM came. Lightning takes it for Ctrl-C: it closes the run, and ends the processes that it started."""


def terminate(*_: object) -> None:
    """What is done on SIGTERM."""
    interrupt(Terminated("asked to end by SIGTERM"))


def stop(*_: object) -> None:
    """What is done on Ctrl-C."""
    interrupt(KeyboardInterrupt())


@contextlib.contextmanager
def terminable() -> Iterator[None]:
    """While entered, SIGTERM raises `Terminated`, and Ctrl-C `KeyboardInterrupt` as ever; both let `held` end first.

    A process that was started so as to ignore one of them ignores it.
    """
    usual: dict[signal.Signals, tuple[Any, Any]] = {
        signal.SIGTERM: (signal.SIG_DFL, terminate),
        signal.SIGINT: (signal.default_int_handler, stop),
    }
    here = threading.current_thread() is threading.main_thread()  # no other may set handlers
    taken = {each: how for each, how in usual.items() if here and signal.getsignal(each) == how[0]}
    try:
        for each, (_, handler) in taken.items():
            signal.signal(each, handler)
        yield
    finally:
        for each, (default, _) in taken.items():
            signal.signal(each, default)


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
