"""Which functions of the package one file passes through: `python -m tests.trace [--list]`.

For each of `encdl encrypt`, `decrypt` and `predict` on a 64x64 PNG, the functions and files of `encdl` that are entered
between the command line and its exit code, and how often the trace changes from one file to another. Module and class
bodies are no functions; neither are comprehensions. Functions that run while a module is imported do count.
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
from dataclasses import dataclass, field
from pathlib import Path
from types import CodeType, FrameType
from typing import Any

import numpy as np
from PIL import Image

import encdl
from encdl.cli import main

PACKAGE = Path(encdl.__file__).parent
NO_FUNCTIONS = ("<listcomp>", "<setcomp>", "<dictcomp>", "<genexpr>")


@dataclass
class Trace:
    """What was entered.

    Attributes:
        functions: each once, in the order of their first calls.
        changes: how often the main thread went from one file of the package to another.
    """

    functions: dict[CodeType, None] = field(default_factory=dict)
    changes: int = 0
    _last: str = ""

    @property
    def files(self) -> dict[str, None]:
        """The files that the functions are in."""
        return dict.fromkeys(code.co_filename for code in self.functions)

    def __call__(self, frame: FrameType, event: str, _: Any) -> None:
        """Take in one event of `sys.setprofile`."""
        code = frame.f_code
        if event != "call" or not code.co_filename.startswith(str(PACKAGE)):
            return
        if not code.co_flags & inspect.CO_OPTIMIZED or code.co_name in NO_FUNCTIONS:
            return
        self.functions.setdefault(code)
        if threading.current_thread() is threading.main_thread():
            self.changes += code.co_filename != self._last
            self._last = code.co_filename


@contextlib.contextmanager
def traced() -> Iterator[Trace]:
    """Trace what runs within, in every thread that begins there."""
    trace = Trace()
    threading.setprofile(trace)
    sys.setprofile(trace)
    try:
        yield trace
    finally:
        sys.setprofile(None)
        threading.setprofile(None)  # type: ignore[arg-type]  # the stub lacks None


def trace(folder: Path) -> dict[str, Trace]:
    """Trace the three verbs one after the other; files go to `folder`."""
    from tests import reader_checkpoint as readers

    key, image, scan, reader = (str(folder / name) for name in ("my.key", "a.png", "a.encdl", "reader.ckpt"))
    levels = np.random.default_rng(0).integers(0, 256, (64, 64), dtype=np.uint8)
    Image.fromarray(levels).save(image)
    readers.save_reader(Path(reader), readers.tiny_reader(readers.ResNet18), size=[64, 64])
    run("keygen", key)
    found = {}
    for verb, words in {
        "encrypt": [image, "--key", key, "-o", scan],
        "decrypt": [scan, "--key", key, "-o", str(folder / "b.png")],
        "predict": [scan, "--key", key, "--reader", reader],
    }.items():
        with traced() as found[verb]:
            run(verb, *words)
    return found


def run(*words: str) -> None:
    """Run one verb, quietly, on the CPU."""
    device = [] if words[0] == "keygen" else ["--device", "cpu"]
    with contextlib.redirect_stdout(io.StringIO()):
        code = main([*words, *device])
    if code:
        raise SystemExit(code)


def report(found: dict[str, Trace], every: bool) -> Iterator[str]:
    """The lines to print."""
    for verb, one in found.items():
        yield f"{verb}: {len(one.functions)} functions, {len(one.files)} files, {one.changes} changes of file"
        for file in one.files if every else ():
            names = [code.co_qualname for code in one.functions if code.co_filename == file]
            yield f"  {Path(file).relative_to(PACKAGE)} ({len(names)}): {', '.join(names)}"


def command(argv: Sequence[str] | None = None) -> None:
    """Trace and print."""
    parser = argparse.ArgumentParser(description="Count the functions that one file passes through.")
    parser.add_argument("--list", action="store_true", help="name them, file by file")
    args = parser.parse_args(argv)
    with tempfile.TemporaryDirectory() as folder:
        print("\n".join(report(trace(Path(folder)), args.list)))


if __name__ == "__main__":
    command()
