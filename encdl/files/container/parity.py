"""Reed-Solomon parity over what stands before the pixels, and over the reading layer, so that hits there are undone.

Codewords of 255 bytes: of the beginning 64 are parity and any 32 may be hit, for one hit too many there loses the
file; of a reading layer, which is larger, 32 and 16. Codeword j of n takes the bytes j, j + n, j + 2n, ... so that a
hit stretch is shared among all. Encoding is a table in numpy, decoding that of `reedsolo`.
"""

from __future__ import annotations

import io
from functools import cache
from typing import BinaryIO, Final

import numpy as np
import numpy.typing as npt

from encdl.files.container.place import Placed

DATA_BYTES: Final = 191
PARITY_BYTES: Final = 64
LAYER: Final = (223, 32)
"""Bytes and parity of a reading layer's codewords: where 1 % of all bytes is hit, one in 10^9 has more than 16 hits."""

_AT_ONCE: Final = 128
_POLYNOMIAL: Final = 0x11D
Octets = npt.NDArray[np.uint8]


@cache
def _field() -> tuple[Octets, Octets]:
    """Powers of 2 and products in GF(256)."""
    import reedsolo  # noqa: PLC0415 - nobody but who encrypts or repairs needs it

    reedsolo.init_tables(_POLYNOMIAL)
    exponents, logarithms = np.array(reedsolo.gf_exp, np.uint8), np.array(reedsolo.gf_log, np.int64)
    product = exponents[logarithms[:, None] + logarithms[None, :]]
    product[0] = product[:, 0] = 0
    return exponents[:255], product


@cache
def _table(data: int, parity: int) -> npt.NDArray[np.uint64]:
    """Parity of a codeword of one byte v at place r, [256 r + v, 8 bytes a word]; the code's roots are 2^0, 2^1, ..."""
    import reedsolo  # noqa: PLC0415 - as above

    product = _field()[1]
    generator = np.array(reedsolo.rs_generator_poly(parity), np.uint8)[1:]
    rows = np.zeros((data, -(-parity // 8) * 8), np.uint8)
    row = generator
    for place in reversed(range(data)):
        rows[place, :parity] = row
        row = np.append(row[1:], np.uint8(0)) ^ product[row[0], generator]
    table = product[np.arange(256)[None, :, None], rows[:, None, :]]
    return table.reshape(256 * data, -1).view(np.uint64)


@cache
def _powers(size: int, parity: int) -> Octets:
    """By what each byte of a codeword counts in each syndrome."""
    return _field()[0][np.outer(np.arange(parity), np.arange(size)[::-1]) % 255]


def encoded(content: bytes, data: int = DATA_BYTES, parity: int = PARITY_BYTES) -> bytes:
    """The parity of bytes, `parity_length` of it; other sizes of codewords are for what stands in one alone."""
    words = _words(content, data)
    table, places, found = _table(data, parity), np.arange(0, 256 * data, 256)[:, None], []
    for start in range(0, words.shape[1], _AT_ONCE):
        some = table.take(places + words[:, start : start + _AT_ONCE], axis=0)
        found.append(np.bitwise_xor.reduce(some, axis=0).view(np.uint8)[:, :parity])
    return np.concatenate(found).T.tobytes()


def parity_length(length: int, data: int = DATA_BYTES, parity: int = PARITY_BYTES) -> int:
    """Bytes of parity for so many."""
    return -(-length // data) * parity


def corrected(content: bytes, found: bytes, data: int = DATA_BYTES, parity: int = PARITY_BYTES) -> bytes | None:
    """Undo hits on bytes and their parity; None where a codeword has too many.

    What comes out may still be wrong, with a small probability: authenticate it.
    """
    own = encoded(content, data, parity)
    if own == found:
        return content
    words = _words(content, data).copy()
    mine, theirs = (np.frombuffer(each, np.uint8).reshape(parity, -1) for each in (own, found))
    for column in np.flatnonzero((mine != theirs).any(axis=0)):
        word = _decoded(np.concatenate([words[:, column], theirs[:, column]]), parity)
        if word is None:
            return None
        words[:, column] = word[:data]
    return words.tobytes()[: len(content)]


def _decoded(word: Octets, parity: int) -> Octets | None:
    """A codeword without its hits; None if there are too many. The library does the same with slower syndromes."""
    import reedsolo  # noqa: PLC0415 - as above

    powers, product = _powers(len(word), parity), _field()[1]
    try:
        syndromes = [0, *np.bitwise_xor.reduce(product[powers, word], axis=1).tolist()]
        locator = reedsolo.rs_find_error_locator(syndromes[1:], parity)
        places = reedsolo.rs_find_errors(locator[::-1], len(word))
        fixed = np.frombuffer(reedsolo.rs_correct_errata(bytearray(word.tobytes()), syndromes, places), np.uint8)
    except (reedsolo.ReedSolomonError, ZeroDivisionError):
        return None
    return None if np.bitwise_xor.reduce(product[powers, fixed], axis=1).any() else fixed


def _words(content: bytes, data: int) -> Octets:
    """Codewords as columns, filled up with zeros."""
    count = -(-len(content) // data)
    return np.frombuffer(content.ljust(count * data, b"\0"), np.uint8).reshape(data, count)


class Patched(Placed):
    """A stream that can seek, with other bytes at its beginning; what lies under them is as long."""

    def __init__(self, stream: BinaryIO, start: bytes) -> None:
        super().__init__()
        self._stream, self._start = stream, start

    def length(self) -> int:
        """That of the stream."""
        return self._stream.seek(0, io.SEEK_END)

    def part(self, place: int, most: int) -> bytes:
        """Of the other bytes, or behind them of the stream."""
        if found := self._start[place : place + most]:
            return found
        self._stream.seek(place)
        return self._stream.read(most)
