"""Where a verb takes its key from: a file or the environment, and the passphrase if it is locked with one."""

from __future__ import annotations

import argparse
import getpass
import os
import warnings
from collections.abc import Sequence
from dataclasses import dataclass, replace
from pathlib import Path
from typing import TYPE_CHECKING, Any

from encdl.keys.key import Grant, Key, load_opener, parse_opener
from encdl.keys.passphrases import MAX_BYTES, Passphrase
from encdl.utils.errors import UsageError

if TYPE_CHECKING:
    from argparse import _MutuallyExclusiveGroup as Group


@dataclass(frozen=True)
class PassphraseSource:
    """Where a passphrase comes from; a terminal, unless one of these is set.

    Attributes:
        env: name of an environment variable that holds it.
        fd: number of an open file descriptor whose first line it is.
    """

    env: str | None = None
    fd: int | None = None

    def get(self, what: str) -> Passphrase:
        """The passphrase of `what`.

        Raises:
            UsageError: there is none, or nobody to ask.
        """
        if self.env is not None:
            return Passphrase(_variable(self.env))
        if self.fd is not None:
            return Passphrase(_line_of(self.fd))
        return _asked(f"Passphrase for {what}: ")

    def get_new(self, what: str) -> Passphrase:
        """A new passphrase for `what`; a terminal asks twice.

        Raises:
            UsageError: as `get`; or it is too short, or the two differ.
        """
        if self != PassphraseSource():
            return self.get(what).check_new()
        first = _asked(f"New passphrase for {what}: ").check_new()
        if first != _asked("Once more: "):
            raise UsageError("the two passphrases differ: try again")
        return first


@dataclass(frozen=True)
class KeySource:
    """Where a key or grant comes from: exactly one of `path` and `env`.

    Attributes:
        path: its file.
        env: name of an environment variable that holds what its file would hold.
        passphrase: where the passphrase comes from; None if the command line does not say.
    """

    path: Path | None = None
    env: str | None = None
    passphrase: PassphraseSource | None = None

    @property
    def files(self) -> tuple[Path, ...]:
        """The file that it is read from, if it is one."""
        return () if self.path is None else (self.path,)

    def __str__(self) -> str:
        return f"environment variable {self.env}" if self.path is None else str(self.path)

    def load(self) -> Key | Grant:
        """Load the key or grant; a locked one asks at the terminal if the command line did not say more.

        Raises:
            UsageError: the variable is not set, or the passphrase cannot be had.
            KeyFileError: it is none, or damaged, or the passphrase is wrong.
        """
        if self.path is not None:
            return load_opener(self.path, self.ask)
        return parse_opener(str(self), os.fsencode(_variable(self.env or "")), self.ask)

    def ask(self) -> Passphrase:
        """The passphrase that it is locked with."""
        return (self.passphrase or PassphraseSource()).get(str(self))


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
        """Set the part; an option without a value sets its `const`."""
        source: KeySource = getattr(namespace, self.dest) or KeySource()
        value: Any = self.const if self.nargs == 0 else values
        setattr(namespace, self.dest, replace(source, **{self.part: value}))


def add_key_options(parser: argparse.ArgumentParser, text: str, prefix: str = "") -> None:
    """Add `--key`, `--key-env` and where the passphrase comes from; all of it ends up in one `KeySource`.

    Args:
        parser: of the verb.
        text: what the key is for.
        prefix: "new-" for the options of a second key; the argument is then `new_key`.
    """
    dest = f"{prefix}key".replace("-", "_")
    place = parser.add_mutually_exclusive_group(required=True)
    metavar = "N" if prefix else "K"
    place.add_argument(
        f"--{prefix}key", dest=dest, action=Part, part="path", type=Path, metavar=metavar, help=text
    )
    place.add_argument(
        f"--{prefix}key-env",
        dest=dest,
        action=Part,
        part="env",
        metavar="NAME",
        help="environment variable that holds what the file would hold",
    )
    add_passphrase(parser, "the passphrase, if the key is locked with one (default: ask)", prefix)


def add_key_file(parser: argparse.ArgumentParser, text: str) -> None:
    """Add a key file as the verb's main argument; gives `key`, a `KeySource`."""
    parser.add_argument(dest="key", action=Part, part="path", type=Path, metavar="FILE", help=text)


def add_passphrase(parser: argparse.ArgumentParser, text: str, prefix: str = "") -> Group:
    """Add `--passphrase-env` and `--passphrase-fd`, into the same `KeySource`; more may go into the group."""
    dest = f"{prefix}key".replace("-", "_")
    group = parser.add_mutually_exclusive_group()
    group.add_argument(
        f"--{prefix}passphrase-env",
        dest=dest,
        action=Part,
        part="passphrase",
        type=_from_variable,
        metavar="NAME",
        help=f"environment variable that holds {text}",
    )
    group.add_argument(
        f"--{prefix}passphrase-fd",
        dest=dest,
        action=Part,
        part="passphrase",
        type=_from_descriptor,
        metavar="FD",
        help="open file descriptor whose first line is that passphrase",
    )
    return group


def _from_variable(name: str) -> PassphraseSource:
    return PassphraseSource(env=name)


def _from_descriptor(number: str) -> PassphraseSource:
    return PassphraseSource(fd=int(number))


def _variable(name: str) -> str:
    value = os.environ.get(name)
    if not value:
        raise UsageError(f"there is no environment variable {name}, or it is empty: set it, and export it")
    return value


def _line_of(descriptor: int) -> str:
    try:
        with open(descriptor, "rb", closefd=False) as stream:
            line = stream.readline(MAX_BYTES + 2)
        return line.decode("utf-8").removesuffix("\n").removesuffix("\r")
    except (OSError, ValueError) as error:  # ValueError: a negative number, or no UTF-8
        reason = getattr(error, "strerror", None) or "not a line of UTF-8"
        raise UsageError(
            f"file descriptor {descriptor}: no passphrase can be read from it ({reason})"
        ) from None


def _asked(prompt: str) -> Passphrase:
    try:
        with warnings.catch_warnings():
            warnings.simplefilter("error", getpass.GetPassWarning)  # it would echo what is typed
            return Passphrase(getpass.getpass(prompt))
    except (getpass.GetPassWarning, EOFError, OSError):
        raise UsageError(
            "the key is locked with a passphrase and there is no terminal to ask for it: give --passphrase-env "
            "or --passphrase-fd"
        ) from None
