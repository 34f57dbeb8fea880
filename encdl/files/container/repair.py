"""Hits before a container's pixels undone by its parity, for readers that take damaged files."""

from __future__ import annotations

import io
from typing import BinaryIO, Final, cast

from encdl.files.container import parity
from encdl.files.container.header import FRONT, LOCATOR, MAGIC, MAX_HEADER_BYTES, PREFIX, located
from encdl.files.container.sections import MAX_SECTION_BYTES

MAX_FRONT_BYTES: Final = MAX_HEADER_BYTES + MAX_SECTION_BYTES + 4096
"""Header, table and metadata; more is no front."""


def repaired(stream: BinaryIO) -> tuple[BinaryIO, bool]:
    """A container with its beginning as it was written, as far as its parity tells, and whether that had been hit.

    Nothing of it is authentic: the tags say what is.

    Memory: that part of the file, which is as long as header and metadata.
    """
    stream.seek(0)
    start = stream.read(PREFIX.size + LOCATOR.size)
    size = PREFIX.size + FRONT.size
    prefix = parity.corrected(start[:size], start[size:].ljust(size, b"\0"), size, size) if start[size:] else None
    if prefix is None or not prefix.startswith(MAGIC):
        return stream, False
    [length] = FRONT.unpack(prefix[PREFIX.size :])
    if not 0 < length <= MAX_FRONT_BYTES:
        return stream, False
    front, their = stream.read(length), stream.read(parity.parity_length(length))
    whole = None
    if len(front) == length and their:
        whole = parity.corrected(front, their.ljust(parity.parity_length(length), b"\0"))
    fixed = prefix[: PREFIX.size] + located(prefix[: PREFIX.size], length) + (whole or front)
    if whole is not None:
        fixed += parity.encoded(whole)
    if fixed == (start + front + their)[: len(fixed)]:
        return stream, False
    return cast(BinaryIO, io.BufferedReader(parity.Patched(stream, fixed))), True
