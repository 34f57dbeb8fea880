"""How a process is stopped: Ctrl-C, SIGTERM, SIGHUP and the like end it at once, and it still cleans up.

They wait for the end of what must not be broken off in the middle, such as writing to a data base.

An exception in the middle of a transaction leaves it open for as long as anybody holds the traceback: whoever then
wants to write down how the run ended finds the data base locked.
"""

from __future__ import annotations

import contextlib
import signal
import threading
from collections.abc import Iterator
from typing import Any


class Terminated(KeyboardInterrupt):
    """SIGTERM or the like came; `code` is the exit code that says so."""

    def __init__(self, name: str = "SIGTERM") -> None:
        super().__init__(f"asked to end by {name}")
        self.name, self.code = name, 128 + signal.Signals[name]


def terminate(number: int = signal.SIGTERM, *_: object) -> None:
    """What is done on SIGTERM and the like."""
    interrupt(Terminated(signal.Signals(number).name))


def stop(*_: object) -> None:
    """What is done on Ctrl-C."""
    interrupt(KeyboardInterrupt())


_NAMES = ("SIGTERM", "SIGHUP", "SIGQUIT", "SIGXCPU", "SIGALRM", "SIGUSR1", "SIGUSR2")
"""What ends a process by default and may be awaited: from users, terminals, schedulers, limits."""
_TERMINATING = tuple(signal.Signals[name] for name in _NAMES if hasattr(signal, name))


@contextlib.contextmanager
def terminable() -> Iterator[None]:
    """While entered, SIGTERM and the like raise `Terminated`, and Ctrl-C `KeyboardInterrupt`; `held` delays them.

    A process that was started so as to ignore one of them ignores it.
    """
    usual: dict[signal.Signals, tuple[Any, Any]] = dict.fromkeys(_TERMINATING, (signal.SIG_DFL, terminate))
    usual[signal.SIGINT] = (signal.default_int_handler, stop)
    here = threading.current_thread() is threading.main_thread()  # no other may set handlers
    taken = {each: how for each, how in usual.items() if here and signal.getsignal(each) == how[0]}
    try:
        for each, (_, handler) in taken.items():
            signal.signal(each, handler)
        yield
    finally:
        for each, (default, _) in taken.items():
            signal.signal(each, default)


_depth = 0
_waiting: BaseException | None = None


def interrupt(error: BaseException) -> None:
    """Raise `error`, called by the handler of a signal; within `held` only at its end, unless one waits already."""
    global _waiting  # noqa: PLW0603 - signals are the process's
    if _depth and _waiting is None:
        _waiting = error
        return
    raise error


@contextlib.contextmanager
def held() -> Iterator[None]:
    """While entered in the main thread, `interrupt` waits. A second one does not: what is entered may hang."""
    global _depth, _waiting  # noqa: PLW0603
    if threading.current_thread() is not threading.main_thread():
        yield
        return
    _depth += 1
    try:
        yield
    finally:
        _depth -= 1
        if not _depth and _waiting is not None:
            error, _waiting = _waiting, None
            raise error


class Held:
    """Another object, whose methods are run within `held`."""

    def __init__(self, inner: Any) -> None:
        self._inner = inner

    def __getattr__(self, name: str) -> Any:
        if name.startswith("__") or name == "_inner":
            raise AttributeError(name)
        found = getattr(self._inner, name)
        if not callable(found):
            return found

        def call(*args: Any, **kwargs: Any) -> Any:
            with held():
                return found(*args, **kwargs)

        return call
