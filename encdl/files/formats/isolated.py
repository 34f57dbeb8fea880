"""Decoders of libraries in a process of its own: what pixels they are given is up to whoever made the file."""

from __future__ import annotations

from typing import Any

from encdl.files.formats.base import Array
from encdl.utils import worker_process
from encdl.utils.errors import ImageFileError

SECONDS = 60.0
"""What decoding an image may take, and a second more for each million of values."""


def decoded(where: object, target: str, arguments: dict[str, Any], values: int, limit: int) -> Array:
    """What a function of a module makes of foreign bytes.

    Args:
        where: the file, for messages.
        target: "module:function".
        arguments: of the function, by name.
        values: how many it decodes, at a guess.
        limit: of the array's bytes.

    Raises:
        ImageFileError: the function raised one, crashed or hung.
        MemoryError: it had too little memory.
        worker_process.RaisedError: it raised another error.
    """
    try:
        return worker_process.array_from(target, arguments, SECONDS + values / 1e6, limit)
    except worker_process.CrashedError as error:
        raise ImageFileError(
            f"{where}: the decoder of its pixels came to no end ({error}): it is damaged, or made to do harm; export "
            "it again"
        ) from None
    except worker_process.RaisedError as error:
        if error.kind == ImageFileError.__name__:
            raise ImageFileError(str(error)) from None
        if "MemoryError" in error.kind:
            raise MemoryError from None
        raise
