"""The options that say where a verb takes its key from; each verb sees one `KeySource`."""

from __future__ import annotations

import argparse
from collections.abc import Sequence
from dataclasses import replace
from typing import TYPE_CHECKING, Any

from encdl.commands.common import file_name
from encdl.keys.key_source import KeySource, PassphraseSource

if TYPE_CHECKING:
    from argparse import _MutuallyExclusiveGroup as Group


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
    metavar = "N" if prefix else "K"
    place.add_argument(
        f"--{prefix}key", dest=dest, action=Part, part="path", type=file_name, metavar=metavar, help=text
    )
    place.add_argument(
        f"--{prefix}key-env",
        dest=dest,
        action=Part,
        part="env",
        metavar="NAME",
        help="environment variable that holds what the file would hold",
    )
    place.add_argument(
        f"--{prefix}key-command",
        dest=dest,
        action=Part,
        part="command",
        metavar="CMD",
        help="program that prints key=..., as git's credential helpers do",
    )
    place.add_argument(
        f"--{prefix}key-pkcs11",
        dest=dest,
        action=Part,
        part="token",
        metavar="URI",
        help="pkcs11:token=NAME;object=LABEL?module-path=LIBRARY: a token computes the key; the passphrase is its PIN",
    )
    add_passphrase(parser, "the passphrase, if the key is locked with one (default: ask)", prefix)
    add_recipient_key(parser, prefix)
    return place


def add_recipient_key(parser: argparse.ArgumentParser, prefix: str = "") -> None:
    """Add `--recipient-key`, into the same `KeySource`."""
    parser.add_argument(
        f"--{prefix}recipient-key",
        dest=f"{prefix}key".replace("-", "_"),
        action=Part,
        part="recipient",
        type=file_name,
        metavar="R",
        help="your recipient's key, if the grant is sealed to it",
    )


def add_recipients(parser: argparse.ArgumentParser, text: str, required: bool = False) -> None:
    """Add `--recipient`, several times; gives `recipients`, files of public keys."""
    parser.add_argument(
        "--recipient",
        dest="recipients",
        type=file_name,
        action="append",
        default=None if required else [],
        required=required,
        metavar="P",
        help=f"public key file (`encdl keygen --recipient`) {text}",
    )


def add_key_file(parser: argparse.ArgumentParser, text: str, nargs: str | None = None) -> None:
    """Add a key file as the verb's main argument; gives `key`, a `KeySource`."""
    parser.add_argument(dest="key", action=Part, part="path", type=file_name, metavar="FILE", nargs=nargs, help=text)


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
