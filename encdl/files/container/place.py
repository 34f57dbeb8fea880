"""A stream to read from at any place, for what makes one stream of another."""

from __future__ import annotations

import io
from abc import abstractmethod


class Placed(io.RawIOBase):
    """Knows its place; a subclass says how long it is, and what stands at a place."""

    _place = 0

    @abstractmethod
    def length(self) -> int:
        """Bytes in all."""

    @abstractmethod
    def part(self, place: int, most: int) -> bytes:
        """From 1 byte to `most` of them from `place` on; none behind the end."""

    def readable(self) -> bool:
        """Yes."""
        return True

    def seekable(self) -> bool:
        """Yes."""
        return True

    def tell(self) -> int:
        """Place in the stream."""
        return self._place

    def seek(self, offset: int, whence: int = io.SEEK_SET) -> int:
        """Move."""
        base = {io.SEEK_SET: 0, io.SEEK_CUR: self._place}.get(whence)
        self._place = max(0, (self.length() if base is None else base) + offset)
        return self._place

    def readinto(self, buffer: bytearray | memoryview) -> int:  # type: ignore[override]
        """Read on, as much as is at hand."""
        target = memoryview(buffer).cast("B")
        found = self.part(self._place, len(target))
        target[: len(found)] = found
        self._place += len(found)
        return len(found)
