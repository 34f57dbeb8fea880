"""All that a file holds beside its pixels, as bytes: how it was laid out (JSON), and pieces of the file as they are.

`form` (1 byte: 1 as it is, 2 deflated by zlib), then: length of the JSON (4 bytes, little-endian), the JSON, the pieces
one after the other. The JSON's field `pieces` tells how long they are.
"""

from __future__ import annotations

import json
import struct
import zlib
from collections.abc import Mapping
from typing import Any

from encdl.files.formats.base import MAX_REST_BYTES
from encdl.utils.errors import ImageFileError

_LENGTH = struct.Struct("<I")
_PLAIN, _DEFLATED = b"\x01", b"\x02"
_MAX_UNPACKED = 2**30


def pack(where: object, recipe: Mapping[str, Any], *pieces: bytes, deflate: bool = True) -> bytes:
    """Put recipe and pieces together.

    Args:
        where: the file's name, for errors.
        recipe: what JSON can hold.
        pieces: parts of the file.
        deflate: whether to try to make it smaller; useless where the pieces are compressed already.

    Raises:
        ImageFileError: it is more than a container takes.
    """
    text = json.dumps({**recipe, "pieces": [len(piece) for piece in pieces]}, separators=(",", ":")).encode()
    size = _LENGTH.size + len(text) + sum(map(len, pieces))
    if size <= _MAX_UNPACKED:
        plain = b"".join((_LENGTH.pack(len(text)), text, *pieces))
        small = zlib.compress(plain, 6) if deflate else plain
        packed = _DEFLATED + small if len(small) < len(plain) else _PLAIN + plain
        size = len(packed)
    if size > MAX_REST_BYTES:
        what = "as it is compressed, and a container keeps a compressed file whole: save it uncompressed"
        if recipe["kind"] != "whole":
            what = "beside its pixels: take the largest of them out first"
        raise ImageFileError(f"{where}: holds {size:,} bytes (limit {MAX_REST_BYTES:,}) {what}")
    return packed


def unpack(rest: bytes) -> tuple[dict[str, Any], list[bytes]]:
    """Undo `pack`.

    Raises:
        ValueError: these are no bytes from `pack`.
    """
    data = rest[1:]
    if rest[:1] == _DEFLATED:
        inflater = zlib.decompressobj()
        try:
            data = inflater.decompress(data, _MAX_UNPACKED)
        except zlib.error as error:
            raise ValueError(str(error)) from None
        if not inflater.eof or inflater.unused_data:
            raise ValueError("it does not end where it should")
    elif rest[:1] != _PLAIN:
        raise ValueError("unknown form")
    if len(data) < _LENGTH.size:
        raise ValueError("it is cut")
    start = _LENGTH.size + _LENGTH.unpack_from(data)[0]
    recipe = json.loads(data[_LENGTH.size : start])
    if not isinstance(recipe, dict) or not isinstance(recipe.get("kind"), str):
        raise ValueError("it is no recipe")
    lengths = recipe.pop("pieces", None)
    if not isinstance(lengths, list) or not all(type(length) is int and length >= 0 for length in lengths):
        raise ValueError("it is no recipe")
    if start + sum(lengths) != len(data):
        raise ValueError("it is cut")
    pieces = []
    for length in lengths:
        pieces.append(data[start : start + length])
        start += length
    return recipe, pieces
