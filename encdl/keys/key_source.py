"""Where a key comes from: a file, the environment, a program or a PKCS#11 token; and the passphrase that locks it.

Each gives the line of a key file.
"""

from __future__ import annotations

import getpass
import os
import shlex
import subprocess
import warnings
from dataclasses import dataclass
from pathlib import Path
from typing import Any, Final, Protocol
from urllib.parse import unquote

from encdl.keys import secret_files
from encdl.keys.key import AnyOpener, Grant, opener_in_line
from encdl.keys.passphrases import MAX_BYTES, Asked, Passphrase
from encdl.keys.recipients import RecipientKey
from encdl.utils.errors import KeyFileError, UsageError

REQUEST: Final = b"protocol=encdl-1\nwant=key\n\n"
"""The request to a key command, on its standard input; see docs/keys.md."""
TIMEOUT: Final = "ENCDL_KEY_COMMAND_TIMEOUT"
DEFAULT_TIMEOUT_S: Final = 60.0
TOKEN_TEXT: Final = b"encdl master key v1"
"""A token's HMAC-SHA256 of it is the master key."""

_LARGEST: Final = 65_536


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
        command: a program that gives it (`Command`).
        token: URI of a PKCS#11 token and its key (`Token`); its PIN is the passphrase.
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
    def places(self) -> list[object]:
        """The places that are given; should be one."""
        return [place for place in (self.path, self.env, self.command, self.token) if place is not None]

    @property
    def provider(self) -> Provider | None:
        """What gives it, if no file does."""
        if self.env is not None:
            return Environment(self.env)
        if self.command is not None:
            return Command(self.command)
        return None if self.token is None else Token(self.token)

    def __str__(self) -> str:
        return str(self.path or self.provider or self.recipient or "the key")

    def recipient_key(self, asked: Asked = None) -> RecipientKey | None:
        """The recipient's key, if one is given; `asked` and errors as of `load`."""
        asked = self.ask if self.passphrase is not None or asked is None else asked
        return None if self.recipient is None else RecipientKey.load(self.recipient, asked)

    def open(self, asked: Asked = None, *, expired: bool = False) -> AnyOpener:
        """Load the key or grant.

        Args:
            asked: the passphrase, or what asks for it, if `passphrase` does not say.
            expired: take a grant whose time is over too.

        Raises:
            UsageError: none or several places are given, the variable is not set, or the passphrase cannot be had.
            KeyFileError: it is none, or damaged, or the passphrase is wrong.
            ExpiredGrantError: it is a grant whose time is over.
        """
        if len(self.places) != 1:
            raise UsageError("a key comes from one place: give exactly one of path, env, command and token")
        asked = asked if self.passphrase is None else self.ask
        recipient = None if self.recipient is None else self.recipient_key(asked)
        if self.path is not None:
            opener = opener_in_line(self.path, secret_files.read(self.path), asked, recipient)
        else:
            provider = self.provider
            assert provider is not None
            opener = opener_in_line(str(provider), provider.read(asked), asked, recipient)
        if isinstance(opener, Grant) and not expired:
            opener.check_expiry()
        return opener

    def ask(self) -> Passphrase:
        """The passphrase that it is locked with, from a terminal if nothing else was said."""
        return (self.passphrase or PassphraseSource()).get(str(self))


AnyKey = AnyOpener | str | os.PathLike[str]
"""A key, grant or recipient's key, or the path of its file."""


def opened(key: AnyKey) -> AnyOpener:
    """The key itself, or what its file holds; errors as `KeySource.open`."""
    return key if isinstance(key, AnyOpener) else KeySource(key).open()


def files_of(key: AnyKey | None) -> tuple[Path, ...]:
    """The file of a key that was given by its path, which nothing may replace."""
    return () if key is None or isinstance(key, AnyOpener) else (Path(key),)


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


class Provider(Protocol):
    """Gives one key, grant or recipient's key; what it is called in messages is its `str`."""

    def read(self, asked: Asked) -> str:
        """The line of a key file.

        Args:
            asked: the passphrase or PIN, or what asks for it, in case that the provider needs one.

        Raises:
            KeyFileError: there is no key.
            UsageError: it cannot be asked.
        """
        ...


@dataclass(frozen=True)
class Environment:
    """A variable of the environment that holds what the file would hold."""

    name: str

    def __str__(self) -> str:
        return f"environment variable {self.name}"

    def read(self, asked: Asked) -> str:
        """Read the variable; as `Provider.read`."""
        return secret_files.only_line(str(self), os.fsencode(variable(self.name)))


@dataclass(frozen=True)
class Command:
    """A program that is asked as git asks its credential helpers; any vault or KMS serves through one.

    Attributes:
        line: the program and its arguments, split as a shell does, and run without one.
    """

    line: str

    def __str__(self) -> str:
        return f"key command {Path((self._words() or ['']).pop(0)).name}"  # its arguments stay out of messages

    def read(self, asked: Asked) -> str:
        """Run the program with `get`; as `Provider.read`."""
        words, seconds = self._words(), _timeout()
        try:
            process = subprocess.Popen([*words, "get"], stdin=subprocess.PIPE, stdout=subprocess.PIPE)
        except (OSError, ValueError, IndexError) as error:
            reason = getattr(error, "strerror", None) or "not a command line"
            raise UsageError(f"{self}: cannot be run ({reason}): check --key-command") from None
        try:
            told, _ = process.communicate(REQUEST, seconds)
        except subprocess.TimeoutExpired:
            raise UsageError(f"{self}: gave no answer within {seconds:g} s: see {TIMEOUT}") from None
        finally:
            process.kill()
            for pipe in (process.stdin, process.stdout):  # a child of it may hold them open: wait for none
                if pipe is not None:
                    pipe.close()
            process.wait()
        if process.returncode:
            raise KeyFileError(f"{self}: gave no key (exit code {process.returncode}): what it printed says more")
        keys = [line.removeprefix(b"key=") for line in told[:_LARGEST].split(b"\n") if line.startswith(b"key=")]
        if len(keys) != 1:
            raise KeyFileError(f"{self}: its answer has {len(keys)} lines key=..., not one: see the docs on keys")
        return secret_files.only_line(str(self), keys[0])

    def _words(self) -> list[str]:
        try:
            return shlex.split(self.line)
        except ValueError:
            return []


@dataclass(frozen=True)
class Token:
    """A PKCS#11 token, which keeps a secret of its own: what it computes from that is the master key.

    Attributes:
        uri: RFC 7512's, `pkcs11:token=NAME;object=LABEL?module-path=LIBRARY`; the PIN is asked for as a passphrase is.
    """

    uri: str

    def __str__(self) -> str:
        return f"PKCS#11 token {self._parts().get('token', '?')!r}"

    def read(self, asked: Asked) -> str:
        """Have the token compute the master key; as `Provider.read`."""
        parts = self._parts()
        if set(parts) != {"token", "object", "module-path"}:
            raise UsageError(f"{self}: give pkcs11:token=NAME;object=LABEL?module-path=LIBRARY, and nothing else")
        try:
            import pkcs11  # noqa: PLC0415 - an extra
        except ImportError:
            raise UsageError(f"{self}: needs python-pkcs11: pip install 'encdl[pkcs11]'") from None
        if asked is None:
            raise UsageError(f"{self}: needs its PIN: give it where a passphrase is given")
        pin = asked() if callable(asked) else asked
        try:
            token = pkcs11.lib(parts["module-path"]).get_token(token_label=parts["token"])
            with token.open(user_pin=pin.reveal()) as session:
                key: Any = session.get_key(object_class=pkcs11.ObjectClass.SECRET_KEY, label=parts["object"])
                secret = key.sign(TOKEN_TEXT, mechanism=pkcs11.Mechanism.SHA256_HMAC)
        except (pkcs11.PKCS11Error, RuntimeError) as error:
            raise KeyFileError(f"{self}: gives no key ({type(error).__name__}): check token, object and PIN") from None
        return secret_files.make_line([secret_files.KEY_PREFIX], bytes(secret)).decode("ascii").strip()

    def _parts(self) -> dict[str, str]:
        scheme, _, rest = self.uri.partition(":")
        pairs = [pair.partition("=") for pair in rest.replace("?", ";").replace("&", ";").split(";")]
        return {name: unquote(value) for name, _, value in pairs} if scheme == "pkcs11" else {}


def variable(name: str) -> str:
    """The value of a variable of the environment; `UsageError` if there is none."""
    value = os.environ.get(name)
    if not value:
        raise UsageError(f"there is no environment variable {name}, or it is empty: set it, and export it")
    return value


def _timeout() -> float:
    text = os.environ.get(TIMEOUT, "")
    try:
        seconds = float(text) if text else DEFAULT_TIMEOUT_S
    except ValueError:
        seconds = 0.0
    if not 0 < seconds < 86_400:
        raise UsageError(f"{TIMEOUT}: give seconds, above 0 and below a day")
    return seconds
