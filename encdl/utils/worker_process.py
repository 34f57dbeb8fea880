"""Calls functions on strangers' bytes in a process of its own, which alone may crash, spin or fill its memory.

What the process answers is checked and never unpickled, and it gets neither the environment nor any open file: a
decoder that hostile bytes have taken over finds no key there.
"""

from __future__ import annotations

import atexit
import contextlib
import importlib
import json
import math
import os
import pickle
import resource
import select
import signal
import struct
import subprocess
import sys
import threading
from collections.abc import Callable
from pathlib import Path
from typing import IO, Any

import numpy as np
import numpy.typing as npt

from encdl.utils.errors import ImageFileError
from encdl.utils.messages import plain

MEMORY = 6 * 2**30
"""Bytes of address space of the process."""
KEPT = ("PATH", "LD_LIBRARY_PATH", "LANG", "LC_ALL", "TMPDIR")
"""Variables of the environment that the process gets."""
SECONDS, VALUES_A_SECOND, BYTES_A_SECOND = 10.0, 1e7, 2e5
"""Of computing: what decoding an image may take in any case, and what decoders surpass on slow machines."""
CROWDED = 6
"""Times as long may it take by the clock, where others compute too."""
QUIET_S = 2.0
"""Who sits at a terminal is told of what takes longer."""
_LENGTH = struct.Struct("<Q")
_MOST_TOLD = 2**16


class CrashedError(Exception):
    """The process ended before it answered: the text says how."""


class RaisedError(Exception):
    """The function raised an error; its text is that of the error.

    Attributes:
        kind: name of its class.
    """

    def __init__(self, kind: str, text: str) -> None:
        super().__init__(text or kind)
        self.kind = kind


def array_from(
    target: str, arguments: dict[str, Any], seconds: float, limit: int, slow: Callable[[], None] = lambda: None
) -> npt.NDArray[Any]:
    """Call a function in a process that is kept for the next call.

    Args:
        target: "module:function"; it gives an array.
        arguments: of the function, by name; they are pickled.
        seconds: how long it may compute, and a `CROWDED` part of what it may take.
        limit: of the array's bytes.
        slow: is called if it takes more than `QUIET_S`.

    Raises:
        RaisedError: the function raised an error.
        CrashedError: the process crashed, took too long, or answered nonsense.
    """
    with _lock:
        worker = _idle.pop() if _idle else None
    worker = worker or _Worker()
    try:
        array = worker.ask(target, arguments, seconds, limit, slow)
    except RaisedError:
        with _lock:
            _idle.append(worker)
        raise
    except BaseException:
        worker.end(kill=True)
        raise
    with _lock:
        _idle.append(worker)
    return array


def decoded(
    where: object, target: str, arguments: dict[str, Any], size: int, values: int, limit: int
) -> npt.NDArray[Any]:
    """The array that a function of a module decodes from foreign bytes.

    Args:
        where: the file, for messages.
        target: "module:function".
        arguments: of the function, by name.
        size: of what it decodes, bytes.
        values: how many it claims to hold.
        limit: of the array's bytes.

    Raises:
        ImageFileError: the function raised one, crashed or hung.
        MemoryError: it had too little memory.
        RaisedError: it raised another error.
    """
    try:
        seconds = SECONDS + values / VALUES_A_SECOND + size / BYTES_A_SECOND
        return array_from(target, arguments, seconds, limit, lambda: _tell(where))
    except CrashedError as error:
        raise ImageFileError(
            f"{where}: the decoder of its pixels came to no end ({error}): it is damaged, or made to do harm; export "
            "it again"
        ) from None
    except RaisedError as error:
        if error.kind == ImageFileError.__name__:
            raise ImageFileError(str(error)) from None
        if "MemoryError" in error.kind:
            raise MemoryError from None
        raise


def _tell(where: object) -> None:
    """Of each file in a row once, however many frames it has."""
    if sys.stderr.isatty() and str(where) != _told.pop():
        from tqdm import tqdm  # noqa: PLC0415

        tqdm.write(plain(f"decoding {where} ..."), file=sys.stderr)  # leaves bars whole
    _told[:] = [str(where)]


class _Worker:
    def __init__(self) -> None:
        variables = {name: os.environ[name] for name in KEPT if name in os.environ}
        places = [*filter(None, sys.path), str(Path(__file__).parents[2])]
        variables |= {"PYTHONPATH": os.pathsep.join(map(os.path.abspath, places)), "OMP_NUM_THREADS": "1"}
        self._process = subprocess.Popen(
            [sys.executable, "-P", "-c", f"from {__name__} import serve; serve()"],
            stdin=subprocess.PIPE,
            stdout=subprocess.PIPE,
            stderr=subprocess.DEVNULL,  # what libraries print of files may be of patients
            env=variables | {"OPENBLAS_NUM_THREADS": "1"},
            cwd="/",  # not that of the time when it was started
            start_new_session=True,  # Ctrl-C is for the process that waits
        )
        assert self._process.stdin is not None
        assert self._process.stdout is not None
        self._to, self._from = self._process.stdin, self._process.stdout

    def ask(
        self, target: str, arguments: dict[str, Any], seconds: float, limit: int, slow: Callable[[], None]
    ) -> npt.NDArray[Any]:
        try:
            _send(self._to, pickle.dumps((target, arguments, seconds)))
            answer = select.poll()
            answer.register(self._from, select.POLLIN)
            if not answer.poll(1e3 * QUIET_S):
                slow()
            told = json.loads(_receive(self._from, _MOST_TOLD))
            if "raised" in told:
                raise RaisedError(str(told["raised"]), str(told["text"]))
            dtype, shape = np.dtype(str(told["dtype"])), tuple(int(size) for size in told["shape"])
            content = _receive(self._from, limit)
            if dtype.kind not in "buifc" or math.prod(shape) * dtype.itemsize != len(content):
                raise ValueError("not an array")
            return np.frombuffer(content, dtype).reshape(shape)
        except (EOFError, OSError):
            code = self._process.wait()
            how = signal.Signals(-code).name if code < 0 else f"exit code {code}"
            limits = {"SIGPROF": f"{seconds:.0f} s of computing", "SIGALRM": f"{CROWDED * seconds:.0f} s"}
            raise CrashedError(f"did not end within {limits[how]}" if how in limits else how) from None
        except (ValueError, TypeError, LookupError) as error:
            raise CrashedError("gave no array") from error

    def end(self, kill: bool = False) -> None:
        if kill:
            self._process.kill()
        for stream in (self._to, self._from):
            with contextlib.suppress(OSError):
                stream.close()
        with contextlib.suppress(subprocess.TimeoutExpired):
            self._process.wait(timeout=5)


_idle: list[_Worker] = []
_parents: list[_Worker] = []
_told: list[str] = [""]
_lock = threading.Lock()


def _forked() -> None:
    """Leave the processes of the parent to it."""
    global _lock  # noqa: PLW0603 - another thread may have held it
    _lock = threading.Lock()
    _parents.extend(_idle)
    _idle.clear()


@atexit.register
def _end_all() -> None:
    while _idle:
        _idle.pop().end()


os.register_at_fork(after_in_child=_forked)


def serve() -> None:
    """Answer calls until standard input ends. The alarms end the process whatever it is doing, orphaned too."""
    requests, answers = sys.stdin.buffer, os.fdopen(os.dup(1), "wb")
    os.dup2(2, 1)  # what libraries print is no answer
    resource.setrlimit(resource.RLIMIT_AS, (MEMORY, MEMORY))
    resource.setrlimit(resource.RLIMIT_CORE, (0, 0))
    with contextlib.suppress(EOFError):
        while True:
            target, arguments, seconds = pickle.loads(_receive(requests, 2**40))  # noqa: S301 - from who started us
            signal.setitimer(signal.ITIMER_PROF, seconds)
            signal.setitimer(signal.ITIMER_REAL, CROWDED * seconds)
            try:
                module, _, name = target.partition(":")
                array = np.ascontiguousarray(getattr(importlib.import_module(module), name)(**arguments))
                told = {"dtype": array.dtype.str, "shape": array.shape}
            except Exception as error:  # decoders raise anything
                array, told = None, {"raised": type(error).__name__, "text": str(error)[:1000]}
            for alarm in (signal.ITIMER_PROF, signal.ITIMER_REAL):
                signal.setitimer(alarm, 0)
            _send(answers, json.dumps(told).encode())
            if array is not None:
                _send(answers, array.tobytes())


def _send(stream: IO[bytes], content: bytes) -> None:
    stream.write(_LENGTH.pack(len(content)))
    stream.write(content)
    stream.flush()


def _receive(stream: IO[bytes], limit: int) -> bytes:
    head = stream.read(_LENGTH.size)
    if len(head) < _LENGTH.size:
        raise EOFError
    (length,) = _LENGTH.unpack(head)
    if length > limit:
        raise ValueError("too long")
    content = stream.read(length)
    if len(content) < length:
        raise EOFError
    return content
