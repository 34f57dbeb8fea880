"""Options of verbs that read with a network: the reader's own, and those of several spellings."""

from __future__ import annotations

import argparse
import contextlib
import math
from abc import abstractmethod
from collections.abc import Sequence
from pathlib import Path
from typing import TYPE_CHECKING, Any

from encdl.commands.common import DEVICE, WEIGHTS
from encdl.utils.errors import UsageError

if TYPE_CHECKING:
    from encdl.readers.predictor import Predictor


def add_reader(parser: argparse.ArgumentParser) -> None:
    """Add how a reader reads: `--any-size`, `--window`, `--weights` and `--device`."""
    parser.add_argument(
        "--any-size",
        action="store_true",
        help="let a classifier read images of another size than it was trained on, less reliably",
    )
    parser.add_argument(
        "--window",
        action=Window,
        metavar="C,W",
        help="levels from centre and width in Hounsfield units (40,400 or 40 400), or by name: brain, lung, … "
        "(docs/scans.md); default: as the reader was trained, which is best",
    )
    weights = "of the files; default: that the reader was trained on"
    parser.add_argument("--weights", **WEIGHTS | {"help": f"name or file of the cipher's weights ({weights})"})
    device = "where to compute (default: auto); a reader's answers differ between devices in their last digits"
    parser.add_argument("--device", **DEVICE | {"help": device})


def reader_of(args: argparse.Namespace, checkpoint: Path) -> Predictor:
    """The reader in a checkpoint, to read as the arguments say; imports torch."""
    from encdl.api.reading import load_reader  # noqa: PLC0415
    from encdl.files.levels import Levels  # noqa: PLC0415 - NumPy

    window = window_of(args.window)
    levels = None if window is None else Levels(window=window)
    return load_reader(checkpoint, weights=args.weights, device=args.device, any_size=args.any_size, levels=levels)


class _Joined(argparse.Action):
    """An option whose value `encdl.cli` puts together of the words behind it, as `joined` says."""

    @abstractmethod
    def joined(self, words: Sequence[str]) -> tuple[str | None, int]:
        """Of the words behind the option its value, and how many they are."""

    def __call__(self, parser: Any, namespace: argparse.Namespace, values: Any, option_string: Any = None) -> None:
        """Keep the value."""
        setattr(namespace, self.dest, values)


class Window(_Joined):
    """One word, or two that are numbers."""

    def joined(self, words: Sequence[str]) -> tuple[str | None, int]:
        """As of any such option."""
        if not words or (words[0].startswith("-") and not _is_number(words[0].partition(",")[0])):
            return None, 0
        count = 2 if len(words) > 1 and all(map(_is_number, words[:2])) else 1
        return ",".join(words[:count]), count


class Choice(_Joined):
    """An option with or without one of its choices, which leaves a file that follows alone."""

    def joined(self, words: Sequence[str]) -> tuple[str | None, int]:
        """As of any such option."""
        given = bool(words) and words[0] in (self.choices or ())
        return (words[0], 1) if given else (str(self.const), 0)


def _is_number(text: str) -> bool:
    with contextlib.suppress(ValueError):
        return math.isfinite(float(text))
    return False


def window_of(text: str | None) -> tuple[float, float] | str | None:
    """The window that `--window` asks for: centre and width, or a name."""
    if text is None or "," not in text:
        if text is not None and _is_number(text):
            raise UsageError(f"--window takes a centre and a width, or a name, not {text} alone")
        return text
    try:
        centre, width = map(float, text.split(","))
    except ValueError:
        raise UsageError(f"--window takes a centre and a width, or a name, not {text}") from None
    return centre, width
