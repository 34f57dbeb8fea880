"""A short name for the content of a split: it changes when an image, a label, a mask or their order does."""

from __future__ import annotations

import hashlib
import os
from collections.abc import Iterable, Mapping
from pathlib import Path
from typing import Any

import numpy as np
from torch import Tensor

WHOLE_BYTES = 2**20
END_BYTES = 2**16
DIGITS = 32
"""MLflow keeps 36."""


def digest(samples: Iterable[Mapping[str, Any]]) -> str:
    """32 hex digits of the SHA-256 over samples.

    Arrays count with type, shape and every element. A file counts with its name and size and with its content, of
    files over 1 MiB only the first and last 64 KiB, so that a data set of many gigabytes takes seconds; its folder
    does not count, so that a copy of the data set has the same digest.

    Args:
        samples: As `ImageDataModule.samples` gives them: dictionaries of arrays, numbers, texts and paths.
    """
    total, files = hashlib.sha256(), dict[str, bytes]()
    for sample in samples:
        for name in sorted(sample):
            total.update(f"\0{name}\0".encode())
            total.update(_part(sample[name], files))
    return total.hexdigest()[:DIGITS]


def _part(value: Any, files: dict[str, bytes]) -> bytes:
    if isinstance(value, Tensor):
        value = value.detach().cpu().numpy()
    if isinstance(value, np.ndarray):
        head = f"{value.dtype.str}{value.shape}".encode()
        return hashlib.sha256(head + np.ascontiguousarray(value).tobytes()).digest()
    if isinstance(value, Mapping):
        return b"".join(_part(key, files) + _part(value[key], files) for key in sorted(value, key=str))
    if isinstance(value, list | tuple):
        return b"[" + b"".join(_part(each, files) for each in value) + b"]"
    if isinstance(value, str | os.PathLike) and Path(value).is_file():
        path = os.fspath(value)
        if path not in files:
            files[path] = _file(Path(path))
        return files[path]
    return f"{type(value).__name__} {value}\0".encode()


def _file(path: Path) -> bytes:
    size = path.stat().st_size
    content = hashlib.sha256(f"{path.name} {size}\0".encode())
    with path.open("rb") as stream:
        if size <= WHOLE_BYTES:
            content.update(stream.read())
        else:
            content.update(stream.read(END_BYTES))
            stream.seek(-END_BYTES, os.SEEK_END)
            content.update(stream.read())
    return content.digest()
