"""Which functions of the package one file passes through: `python -m tests.trace [--list]`.

For each of `encdl encrypt`, `decrypt` and `predict` on a 64x64 PNG, each in a process of its own, the functions and
files of `encdl` that are entered between the command line and its exit code, and how often the trace changes from one
file to another. Module and class bodies are no functions; neither are comprehensions. Functions that run while a
module is imported do count.
"""

from __future__ import annotations

import argparse
import contextlib
import inspect
import io
import sys
import tempfile
import threading
from collections.abc import Iterator, Sequence
from concurrent.futures import ProcessPoolExecutor
from dataclasses import dataclass, field
from multiprocessing import get_context
from pathlib import Path
from types import FrameType
from typing import Any

import numpy as np
from PIL import Image

import encdl
from encdl.cli import main

PACKAGE = f"{Path(encdl.__file__).parent}/"
NO_FUNCTIONS = ("<listcomp>", "<setcomp>", "<dictcomp>", "<genexpr>")


@dataclass(frozen=True)
class Function:
    """A function of the package: its file, below the package, its name there, and its line."""

    file: str
    name: str
    line: int


@dataclass
class Trace:
    """What was entered.

    Attributes:
        functions: each once, in the order of their first calls.
        changes: how often the main thread went from one file of the package to another.
    """

    functions: dict[Function, None] = field(default_factory=dict)
    changes: int = 0
    _last: str = ""

    @property
    def files(self) -> list[str]:
        """The files that the functions are in."""
        return list(dict.fromkeys(function.file for function in self.functions))

    def __call__(self, frame: FrameType, event: str, _: Any) -> None:
        """Take in one event of `sys.setprofile`."""
        code = frame.f_code
        if event != "call" or not code.co_filename.startswith(PACKAGE):
            return
        if not code.co_flags & inspect.CO_OPTIMIZED or code.co_name in NO_FUNCTIONS:
            return
        file = code.co_filename.removeprefix(PACKAGE)
        self.functions.setdefault(Function(file, code.co_qualname, code.co_firstlineno))
        if threading.current_thread() is threading.main_thread():
            self.changes += file != self._last
            self._last = file


def run(*words: str) -> Trace:
    """Run one verb quietly, tracing every thread that begins."""
    trace = Trace()
    threading.setprofile(trace)
    sys.setprofile(trace)
    try:
        with contextlib.redirect_stdout(io.StringIO()):
            code = main(words)
    finally:
        sys.setprofile(None)
    if code:
        raise SystemExit(code)
    return trace


def traces(folder: Path) -> dict[str, Trace]:
    """Trace the three verbs; files go to `folder`."""
    from tests import reader_checkpoint as readers

    key, image, scan, reader = (str(folder / name) for name in ("my.key", "a.png", "a.encdl", "reader.ckpt"))
    levels = np.random.default_rng(0).integers(0, 256, (64, 64), dtype=np.uint8)
    Image.fromarray(levels).save(image)
    readers.save_reader(Path(reader), readers.tiny_reader(readers.resnet), size=[64, 64])
    verbs = {
        "keygen": [key],
        "encrypt": [image, "--key", key, "-o", scan, "--device", "cpu"],
        "decrypt": [scan, "--key", key, "-o", str(folder / "b.png"), "--device", "cpu"],
        "predict": [scan, "--key", key, "--reader", reader, "--device", "cpu"],
    }
    found = {}
    for verb, words in verbs.items():
        with ProcessPoolExecutor(1, get_context("spawn")) as pool:
            found[verb] = pool.submit(run, verb, *words).result()
    del found["keygen"]
    return found


def report(found: dict[str, Trace], every: bool) -> Iterator[str]:
    """The lines to print."""
    for verb, one in found.items():
        yield f"{verb}: {len(one.functions)} functions, {len(one.files)} files, {one.changes} changes of file"
        for file in one.files if every else ():
            names = [function.name for function in one.functions if function.file == file]
            yield f"  {file} ({len(names)}): {', '.join(names)}"


def command(argv: Sequence[str] | None = None) -> None:
    """Trace and print."""
    parser = argparse.ArgumentParser(description="Count the functions that one file passes through.")
    parser.add_argument("--list", action="store_true", help="name them, file by file")
    args = parser.parse_args(argv)
    with tempfile.TemporaryDirectory() as folder:
        print("\n".join(report(traces(Path(folder)), args.list)))


if __name__ == "__main__":
    command()
