"""Keys of transforms, which go to another process without being written anywhere."""

from __future__ import annotations

import os
from dataclasses import dataclass

from encdl.keys.key import AnyOpener
from encdl.keys.key_source import KeySource, PassphraseSource
from encdl.utils.errors import UsageError


@dataclass(frozen=True)
class KeyRef:
    """The place of a key, not the key: exactly one of `path` and `env`.

    Attributes:
        path: of its file.
        env: name of an environment variable that holds what the file would hold.
        passphrase_env: name of an environment variable that holds its passphrase, if it is locked with one.
    """

    path: str | None = None
    env: str | None = None
    passphrase_env: str | None = None

    def open(self) -> AnyOpener:
        """Load it; errors as `encdl.open_key`."""
        words = None if self.passphrase_env is None else PassphraseSource(env=self.passphrase_env)
        return KeySource(self.path, self.env, passphrase=words).open()


PipelineKey = AnyOpener | KeyRef | str | os.PathLike[str]
"""A key or grant, where one is, or the path of its file."""


class KeyHolder:
    """An opened key, and where it came from. Only the latter is pickled; another process opens it anew.

    Args:
        key: a key that is given itself stays in this process: pickling says so in a `TypeError`.
    """

    def __init__(self, key: PipelineKey) -> None:
        self._ref = None if isinstance(key, AnyOpener) else _ref(key)
        self._opener: AnyOpener | None = key if isinstance(key, AnyOpener) else None
        self.get()  # a wrong path shows at once, not in a worker

    def get(self) -> AnyOpener:
        """The key or grant."""
        if self._opener is None:
            if self._ref is None:
                raise UsageError("the key is gone: make the transform anew")
            self._opener = self._ref.open()
        return self._opener

    def __repr__(self) -> str:
        return repr(self._opener if self._ref is None else self._ref)

    def __copy__(self) -> KeyHolder:
        return self

    def __deepcopy__(self, memo: object) -> KeyHolder:
        return self  # MONAI copies transforms inside one process

    def __getstate__(self) -> dict[str, object]:
        if self._ref is None:
            raise TypeError(
                "a key that is given itself is not pickled, as a worker process or a cache on disk needs it: give the "
                "path of its file, or encdl.KeyRef(env=...)"
            )
        return {"_ref": self._ref, "_opener": None}


def _ref(key: KeyRef | str | os.PathLike[str]) -> KeyRef:
    return key if isinstance(key, KeyRef) else KeyRef(path=os.fspath(key))
