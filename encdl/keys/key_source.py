"""Where a key comes from: one of the providers, and the passphrase if it is locked with one."""

from __future__ import annotations

import getpass
import os
import warnings
from dataclasses import dataclass
from pathlib import Path

from encdl.keys.key import AnyOpener, Grant, opener_in_line
from encdl.keys.passphrases import MAX_BYTES, Asked, Passphrase
from encdl.keys.providers import Command, Environment, File, Provider, Token, variable
from encdl.keys.recipients import RecipientKey
from encdl.utils.errors import UsageError


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
            return Passphrase(variable(self.env))
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
    """Where a key or grant comes from: one of `path`, `env`, `command` and `token`.

    Attributes:
        path: its file.
        env: name of an environment variable that holds what its file would hold.
        passphrase: where the passphrase comes from; None if it was not said.
        recipient: file of the recipient's key that a grant is sealed to.
        command: a program that gives it (`encdl.keys.providers.Command`).
        token: URI of a PKCS#11 token and its key (`encdl.keys.providers.Token`); its PIN is the passphrase.
    """

    path: str | os.PathLike[str] | None = None
    env: str | None = None
    passphrase: PassphraseSource | None = None
    recipient: str | os.PathLike[str] | None = None
    command: str | None = None
    token: str | None = None

    @property
    def files(self) -> tuple[Path, ...]:
        """The files that it is read from, if there are any."""
        return tuple(Path(path) for path in (self.path, self.recipient) if path is not None)

    @property
    def given(self) -> bool:
        """Whether any place was given."""
        return bool(self._providers)

    @property
    def _providers(self) -> list[Provider]:
        found: list[Provider] = [] if self.path is None else [File(self.path)]
        found += [] if self.env is None else [Environment(self.env)]
        found += [] if self.command is None else [Command(self.command)]
        return found + ([] if self.token is None else [Token(self.token)])

    def __str__(self) -> str:
        return str(self._providers[0] if self._providers else self.recipient or "the key")

    def load(self, asked: Asked = None) -> AnyOpener:
        """Load the key or grant, also a grant whose time is over.

        Args:
            asked: the passphrase, or what asks for it, if `passphrase` does not say.

        Raises:
            UsageError: none or several places are given, the variable is not set, or the passphrase cannot be had.
            KeyFileError: it is none, or damaged, or the passphrase is wrong.
        """
        if len(self._providers) != 1:
            raise UsageError("a key comes from one place: give exactly one of path, env, command and token")
        [provider] = self._providers
        asked = asked if self.passphrase is None else self.ask
        return opener_in_line(str(provider), provider.read(asked), asked, self.recipient_key(asked))

    def recipient_key(self, asked: Asked = None) -> RecipientKey | None:
        """The recipient's key, if one is given; `asked` and errors as of `load`."""
        asked = self.ask if self.passphrase is not None or asked is None else asked
        return None if self.recipient is None else RecipientKey.load(self.recipient, asked)

    def open(self, asked: Asked = None) -> AnyOpener:
        """Load what opens files; as `load`.

        Raises:
            ExpiredGrantError: it is a grant whose time is over.
        """
        opener = self.load(asked)
        if isinstance(opener, Grant):
            opener.check_expiry()
        return opener

    def ask(self) -> Passphrase:
        """The passphrase that it is locked with, from a terminal if nothing else was said."""
        return (self.passphrase or PassphraseSource()).get(str(self))


def _line_of(descriptor: int) -> str:
    try:
        with open(descriptor, "rb", closefd=False) as stream:
            line = stream.readline(MAX_BYTES + 2)
        return line.decode("utf-8").removesuffix("\n").removesuffix("\r")
    except (OSError, ValueError) as error:  # ValueError: a negative number, or no UTF-8
        reason = getattr(error, "strerror", None) or "not a line of UTF-8"
        raise UsageError(f"file descriptor {descriptor}: no passphrase can be read from it ({reason})") from None


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
