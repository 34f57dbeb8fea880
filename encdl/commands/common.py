"""Options of several verbs, and what is done with them: keys, ciphers, names of files; warnings."""

from __future__ import annotations

import argparse
import contextlib
import warnings
from collections.abc import Iterator, Sequence
from dataclasses import replace
from pathlib import Path
from typing import TYPE_CHECKING, Any, Final

from encdl.files import stores
from encdl.keys.key import AnyOpener, Key
from encdl.keys.key_source import KeySource, PassphraseSource
from encdl.keys.planes import KEY_BITS
from encdl.keys.sequences import DEFAULT_MAP, MAPS
from encdl.utils.messages import warn

if TYPE_CHECKING:
    from argparse import _MutuallyExclusiveGroup as Group

Options = dict[str, Any]
"""Arguments of `add_argument`."""
RECORDS = Path("experiments", "results")
"""Where result records go, below the working directory."""
PKCS11_HELP = "pkcs11:token=NAME;object=LABEL?module-path=LIBRARY: a token computes the key; the passphrase is its PIN"


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


def at_least_one(text: str) -> int:
    """The type of numbers of things."""
    count = int(text)
    if count < 1:
        raise argparse.ArgumentTypeError("give 1 or more")
    return count


def not_empty(text: str) -> str:
    """The type of names; an empty one, which most often comes from a variable that is not set, would mean another."""
    if not text:
        raise argparse.ArgumentTypeError("the name is empty: give one, and check the variable that it comes from")
    return text


_WEAK = ", ".join(f"{name} {source.attack_bits}" for name, source in MAPS.items() if source.attack_bits < KEY_BITS)

# What options have in common wherever they stand; a verb adds what its own is for.
PATHS: Final[Options] = {
    "type": file_or_address,
    "nargs": "+",
    "metavar": "PATH",
    "help": ".encdl files, or folders: every .encdl file in them and below",
}
JOBS: Final[Options] = {
    "type": at_least_one,
    "default": 1,
    "metavar": "N",
    "help": "files to work on at the same time (default: 1); each takes up to 1 GB of memory",
}
OUTPUT: Final[Options] = {"type": file_name, "metavar": "OUT"}
FORCE: Final[Options] = {"action": "store_true", "help": "replace the output if it exists"}
WEIGHTS: Final[Options] = {
    "type": not_empty,
    "metavar": "W",
    "help": "name or file of the cipher's weights (default: those that the file names, if they come with EncDL)",
}
DEVICE: Final[Options] = {
    "choices": ("auto", "cpu", "cuda"),
    "default": "auto",
    "help": "where to compute (default: auto); exact ciphers give the same bytes everywhere",
}
MAP: Final[Options] = {
    "choices": tuple(MAPS),
    "help": f"sequence behind the key planes (default: {DEFAULT_MAP}); a chaotic map alone is worth fewer bits than "
    f"the key's {KEY_BITS}: {_WEAK}",
}
RECIPIENTS: Final[Options] = {
    "dest": "recipients", "type": file_name, "action": "append", "default": [], "metavar": "P"
}  # fmt: skip
"""Of `--recipient`, several times: files of public keys (`encdl keygen --recipient`)."""


class Part(argparse.Action):
    """Puts an option's value into its part of one `KeySource`, so that a verb sees a single argument.

    Args:
        args: as any action's.
        part: name of the attribute.
        kwargs: as any action's.
    """

    def __init__(self, *args: Any, part: str, **kwargs: Any) -> None:
        super().__init__(*args, **kwargs)
        self.part = part

    def __call__(
        self,
        parser: argparse.ArgumentParser,
        namespace: argparse.Namespace,
        values: str | Sequence[Any] | None,
        option_string: str | None = None,
    ) -> None:
        """Set the part; an option without a value sets its `const`, an argument that may be left out nothing."""
        if values is None:
            return
        source: KeySource = getattr(namespace, self.dest) or KeySource()
        value: Any = self.const if self.nargs == 0 else values
        setattr(namespace, self.dest, replace(source, **{self.part: value}))


def add_key(
    parser: argparse.ArgumentParser, text: str = "key or grant file", prefix: str = "", *, required: bool = True
) -> Group:
    """Add `--key` and the other places of keys, and that of the passphrase; all of it ends up in one `KeySource`.

    Args:
        parser: of the verb.
        text: what the key is for.
        prefix: "new-" for the options of a second key; the argument is then `new_key`.
        required: whether one must be given; the argument is None otherwise.

    Returns:
        The group of which one option must be given; another that stands for a key may go into it.
    """
    dest = f"{prefix}key".replace("-", "_")
    place = parser.add_mutually_exclusive_group(required=required)
    for option, part, kind, metavar, about in (
        ("key", "path", file_name, "N" if prefix else "K", text),
        ("key-env", "env", not_empty, "NAME", "environment variable that holds what the file would hold"),
        ("key-command", "command", not_empty, "CMD", "program that prints key=..., as git's credential helpers do"),
        ("key-pkcs11", "token", not_empty, "URI", PKCS11_HELP),
    ):
        place.add_argument(
            f"--{prefix}{option}", dest=dest, action=Part, part=part, type=kind, metavar=metavar, help=about
        )
    add_passphrase(parser, "the passphrase, if the key is locked with one (default: ask)", prefix, recipient=True)
    return place


def add_key_file(parser: argparse.ArgumentParser, text: str, nargs: str | None = None) -> None:
    """Add a key file as the verb's main argument; gives `key`, a `KeySource`."""
    parser.add_argument(dest="key", action=Part, part="path", type=file_name, metavar="FILE", nargs=nargs, help=text)


def add_passphrase(parser: argparse.ArgumentParser, text: str, prefix: str = "", *, recipient: bool = False) -> Group:
    """Add `--passphrase-env` and `--passphrase-fd`, into the same `KeySource`; more may go into the group.

    With `recipient` also `--recipient-key`, for what may be sealed to one.
    """
    dest = f"{prefix}key".replace("-", "_")
    group = parser.add_mutually_exclusive_group()
    for place, kind, metavar, about in (
        ("env", _from_variable, "NAME", f"environment variable that holds {text}"),
        ("fd", _from_descriptor, "FD", "open file descriptor whose first line is that passphrase"),
    ):
        option = f"--{prefix}passphrase-{place}"
        group.add_argument(option, dest=dest, action=Part, part="passphrase", type=kind, metavar=metavar, help=about)
    if recipient:
        parser.add_argument(
            f"--{prefix}recipient-key",
            dest=dest,
            action=Part,
            part="recipient",
            type=file_name,
            metavar="R",
            help="your recipient's key, if the grant is sealed to it",
        )
    return group


def _from_variable(name: str) -> PassphraseSource:
    return PassphraseSource(env=not_empty(name))


def _from_descriptor(number: str) -> PassphraseSource:
    return PassphraseSource(fd=int(number))


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
