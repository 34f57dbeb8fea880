"""How EncDL's processes behave: how they are stopped, what becomes of their memory, how their threads wait.

Ctrl-C, SIGTERM and SIGHUP end a process at once, and it still cleans up. They wait for the end of what must not be
broken off in the middle, such as writing to a data base: an exception in the middle of a transaction leaves it open
for as long as anybody holds the traceback, and whoever then wants to write down how the run ended finds the data base
locked.
"""

from __future__ import annotations

import contextlib
import ctypes
import os
import resource
import signal
import threading
from collections.abc import Iterator, MutableMapping
from typing import Any, Final

PR_SET_DUMPABLE = 4

DEFAULTS: Final = {"GOMP_SPINCOUNT": "2000", "KMP_BLOCKTIME": "1"}
"""Environment variables, one for each OpenMP runtime; see `wait_briefly`."""


class Terminated(KeyboardInterrupt):
    """SIGTERM or the like came; `code` is the exit code that says so."""

    def __init__(self, name: str = "SIGTERM") -> None:
        super().__init__(f"asked to end by {name}")
        self.name, self.code = name, 128 + signal.Signals[name]


def terminate(number: int = signal.SIGTERM, *_: object) -> None:
    """The handler of SIGTERM and the like."""
    interrupt(Terminated(signal.Signals(number).name))


def stop(*_: object) -> None:
    """The handler of Ctrl-C."""
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


def forbid_core_dumps() -> None:
    """Keep keys out of core dumps, and other programs of the same user out of the memory that holds them.

    This process leaves no core dump, and nobody but root attaches a debugger to it or reads its environment.

    RLIMIT_CORE alone does not stop a core dump that goes to a program (`|` in /proc/sys/kernel/core_pattern); prctl(2)
    with PR_SET_DUMPABLE does. Both last until another program is executed. Memory may still be swapped out.
    """
    with contextlib.suppress(OSError, ValueError):
        resource.setrlimit(resource.RLIMIT_CORE, (0, resource.getrlimit(resource.RLIMIT_CORE)[1]))
    with contextlib.suppress(OSError, AttributeError):  # a system without it
        ctypes.CDLL(None).prctl(PR_SET_DUMPABLE, 0, 0, 0, 0)


def wait_briefly(environment: MutableMapping[str, str] = os.environ) -> None:
    """Have threads that wait for others sleep soon, in this process and those that it starts, if the user said nothing.

    GCC's OpenMP runtime, which PyTorch brings on Linux, has a thread that waits for the others spin 300,000 rounds,
    some 10 ms, before it sleeps. Beside programs that take the cores, that is most of the processors' time: a training
    step of 0.19 s alone took 29 s beside five busy programs on 2 cores, and 2.2 s with 2,000 rounds, about as long as
    it takes to wake a sleeping thread, which cost 1 % on an idle machine (never to spin costs a quarter).

    The runtime looks at these once, when it is loaded: call this before torch is imported. Commands do; the library
    leaves alone the environment of whoever imports it.

    Sources: GOMP_SPINCOUNT and OMP_WAIT_POLICY in GCC's manual of libgomp; KMP_BLOCKTIME, the same of Intel's and
    LLVM's runtime (Windows, macOS; milliseconds, not measured here), in "Guide to TensorFlow Runtime Optimizations for
    CPU", Intel 2022.
    """
    if not {"OMP_WAIT_POLICY", "KMP_LIBRARY"} & set(environment):  # one of these says how threads wait
        for name, value in DEFAULTS.items():
            environment.setdefault(name, value)
