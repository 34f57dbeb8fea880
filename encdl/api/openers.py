"""Keys, grants and what else opens files: where the functions of `encdl.api` take them from."""

from __future__ import annotations

import os
from collections.abc import Callable
from datetime import datetime
from typing import Any, cast

import numpy.typing as npt

from encdl.files import container
from encdl.keys.grant import Grant
from encdl.keys.key import AnyOpener, RecipientKey, parse_opener
from encdl.keys.key_source import AnyKey, KeySource, opened
from encdl.keys.passphrases import Passphrase
from encdl.utils.errors import UsageError

Array = npt.NDArray[Any]
AnyPath = str | os.PathLike[str]


def open_key(
    path: AnyPath | None = None,
    *,
    env: str | None = None,
    content: bytes | None = None,
    command: str | None = None,
    token: str | None = None,
    passphrase: str | Callable[[], str] | None = None,
) -> AnyOpener:
    """Load a key, a grant or a recipient's key from one of these places.

    Args:
        path: its file.
        env: name of an environment variable that holds what the file would hold.
        content: what the file would hold.
        command: a program that gives it (docs/keys.md).
        token: URI of a PKCS#11 token and its key (docs/keys.md); its PIN is the passphrase.
        passphrase: the passphrase, or a function that asks for it, in case the key is locked with one.

    Raises:
        UsageError: none or several places are given, or the variable is not set.
        KeyFileError: it is no key or grant, damaged, or locked with another passphrase.
        ExpiredGrantError: it is a grant whose time is over.
    """
    asked = None if passphrase is None else lambda: Passphrase(passphrase() if callable(passphrase) else passphrase)
    if sum(place is not None for place in (path, env, content, command, token)) != 1:
        raise UsageError("open_key takes exactly one of path, env, content, command and token")
    if content is None:
        return KeySource(path, env, command=command, token=token).open(asked)
    opener = parse_opener("content", content, asked)
    if isinstance(opener, Grant):
        opener.check_expiry()
    return opener


def grant(
    key: AnyKey, *, study: str | None = None, file: AnyPath | None = None, expires: datetime | None = None
) -> Grant:
    """A grant for one study or one file; `Grant.save` writes it to a file.

    Args:
        key: the master key; for one file, a grant for its study serves too.
        study: open every file of this study, those to come included.
        file: open this container only; it is verified first.
        expires: when EncDL begins to refuse the grant, with a time zone. Advisory: its holder can get around it.

    Raises:
        UsageError: not exactly one of study and file, or a time without a zone.
        WrongKeyError: the key is a grant for something else.
        ContainerError: the file was changed.
    """
    if (study is None) == (file is None):
        raise UsageError("grant takes exactly one of study and file")
    opener = opened(key)
    if isinstance(opener, RecipientKey):
        raise UsageError("a recipient's key grants nothing: add the other as a recipient, or ask the owner")
    if file is not None:
        header = container.verify(file, opener)
        return opener.grant_file(header.nonce_bytes, header.study, expires)
    if isinstance(opener, Grant):
        raise UsageError("only the master key can grant a study: ask its owner")
    return opener.grant_study(cast(str, study), expires)
