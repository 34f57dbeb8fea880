"""Helpers of several verbs: key and cipher loading, checks of names, warnings."""

from __future__ import annotations

import argparse
import contextlib
import math
import warnings
from abc import abstractmethod
from collections.abc import Callable, Iterator, Sequence
from pathlib import Path
from typing import TYPE_CHECKING, Any

from encdl.files import stores
from encdl.keys.key import AnyOpener, Key
from encdl.keys.key_source import KeySource
from encdl.keys.planes import KEY_BITS
from encdl.keys.sequences import DEFAULT_MAP, MAPS
from encdl.utils.devices import usable_device
from encdl.utils.errors import UsageError
from encdl.utils.messages import warn

if TYPE_CHECKING:
    from encdl.readers.predictor import Predictor

RECORDS = Path("experiments", "results")
"""Where result records go, below the working directory."""


def file_name(text: str) -> Path:
    """The type of arguments that name files on this machine; addresses of stores are refused."""
    path = file_or_address(text)
    if address := stores.address_of(path):
        raise argparse.ArgumentTypeError(f"{address} is an address, and this takes files on this machine: copy it here")
    return path


def file_or_address(text: str) -> Path:
    """The type of arguments that name files, by path or address; standard streams, hardly ever meant, are refused."""
    if not_empty(text) == "-":
        raise argparse.ArgumentTypeError("standard input and output are not used: name a file (./- for one named so)")
    for prefix in ("file://", "local://"):
        text = text.removeprefix(prefix)
    return Path(text)


def not_empty(text: str) -> str:
    """The type of names; an empty one, which most often comes from a variable that is not set, would mean another."""
    if not text:
        raise argparse.ArgumentTypeError("the name is empty: give one, and check the variable that it comes from")
    return text


def add_output(parser: argparse.ArgumentParser, default: str, name: Callable[[str], Path] = file_name) -> None:
    """Add `-o` and `--force`; `name` is the type, `file_or_address` where addresses are taken."""
    parser.add_argument(
        "-o", "--output", type=name, metavar="OUT", required=not default, help=default or "file to write"
    )
    parser.add_argument("--force", action="store_true", help="replace the output if it exists")


def add_cipher(
    parser: argparse.ArgumentParser, default: str, devices: str = "exact ciphers give the same bytes everywhere"
) -> None:
    """Add `--weights` and `--device`; `devices` tells how one device differs from another."""
    parser.add_argument(
        "--weights", type=not_empty, metavar="W", help=f"name or file of the cipher's weights ({default})"
    )
    parser.add_argument(
        "--device", choices=("auto", "cpu", "cuda"), default="auto", help=f"where to compute (default: auto); {devices}"
    )


def add_reader(parser: argparse.ArgumentParser) -> None:
    """Add how a reader reads: `--any-size`, `--window`, `--weights` and `--device`."""
    parser.add_argument(
        "--any-size",
        action="store_true",
        help="let a classifier read images of another size than it was trained on, less reliably",
    )
    add_window(
        parser,
        "levels from centre and width in Hounsfield units (40,400 or 40 400), or by name: brain, lung, … "
        "(docs/scans.md); default: as the reader was trained, which is best",
    )
    add_cipher(
        parser,
        "that the files were made with; default: that the reader was trained on",
        devices="a reader's answers differ between devices in their last digits",
    )


def load_reader(args: argparse.Namespace, checkpoint: Path) -> Predictor:
    """The reader in a checkpoint, to read as the arguments say; imports torch."""
    from encdl import api  # noqa: PLC0415
    from encdl.files.levels import Levels  # noqa: PLC0415 - NumPy

    device, window = usable_device(args.device), window_of(args.window)
    levels = None if window is None else Levels(window=window)
    return api.load_reader(checkpoint, weights=args.weights, device=device, any_size=args.any_size, levels=levels)


class _Joined(argparse.Action):
    """An option whose value `encdl.cli` puts together of the words behind it, as `joined` says."""

    @abstractmethod
    def joined(self, words: Sequence[str]) -> tuple[str | None, int]:
        """Of the words behind the option its value, and how many they are."""

    def __call__(self, parser: Any, namespace: argparse.Namespace, values: Any, option_string: Any = None) -> None:
        """Keep the value."""
        setattr(namespace, self.dest, values)


class _Window(_Joined):
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


def add_window(parser: argparse.ArgumentParser, text: str) -> None:
    """Add `--window`."""
    parser.add_argument("--window", action=_Window, metavar="C,W", help=text)


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


def add_map(parser: argparse.ArgumentParser, default: str | None = DEFAULT_MAP) -> None:
    """Add `--map`, the sequence behind the key planes."""
    weak = ", ".join(f"{name} {source.attack_bits}" for name, source in MAPS.items() if source.attack_bits < KEY_BITS)
    parser.add_argument(
        "--map",
        choices=tuple(MAPS),
        default=default,
        help=f"sequence behind the key planes (default: {DEFAULT_MAP}); a chaotic map alone is worth fewer bits than "
        f"the key's {KEY_BITS}: {weak}",
    )


@contextlib.contextmanager
def one_line_warnings(ignore: type[Warning] | None = None) -> Iterator[None]:
    """Show each of Python's warnings once, the way `warn` does; those of category `ignore` not at all.

    Nor those that libraries have for who writes programs with them.
    """
    with warnings.catch_warnings(record=True) as caught:
        warnings.simplefilter("always")
        for unseen in (ignore, DeprecationWarning, PendingDeprecationWarning):
            if unseen is not None:
                warnings.simplefilter("ignore", unseen)
        yield
    for message in dict.fromkeys(str(item.message) for item in caught):
        warn(message)


def open_key(source: KeySource) -> AnyOpener:
    """Load a key, grant or recipient's key; warn if other users of the machine can read its file."""
    opener = source.open(source.ask)
    for path in source.files:
        if not Key.is_private(path):
            warn(f"{path}: other users can read this file: chmod 600 it")
    return opener
