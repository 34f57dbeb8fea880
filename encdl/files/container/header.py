"""A container's first bytes: which file it is, and its header, in the clear: read from untrusted bytes and checked."""

from __future__ import annotations

import re
import struct
from collections.abc import Mapping
from dataclasses import dataclass, field, fields
from functools import cached_property
from typing import Any, BinaryIO, Final

import numpy as np

from encdl.files.container import aes_wrap, parity
from encdl.files.container.chunk_grid import DTYPES, MAX_BODY_BYTES, MAX_CHUNK_BYTES, Grid, is_layout
from encdl.keys.derivation import check_study
from encdl.keys.planes import PlaneSpec
from encdl.keys.secret_files import CONTAINER_MARK
from encdl.utils import canonical_json
from encdl.utils.errors import ContainerError, EncdlError, UsageError

SUFFIX: Final = ".encdl"
COPY: Final = "get an intact copy"
SALVAGE: Final = f"{COPY}, or try --salvage"
"""What to do about a file of which something may be left."""
MAGIC = CONTAINER_MARK + b"\r\n"
VERSION = 3
"""Versions 1 and 2 were those of EncDL 0.1, whose cipher this version does not have."""
OLD_VERSIONS: Final = (1, 2)
PREFIX = struct.Struct("<8sHI")
"""Magic, version and length of the header: what tags and signature cover before it."""
FRONT = struct.Struct("<I")
LOCATOR = struct.Struct("<I18s")
"""Between the prefix and the header: how far the parity reaches, and parity of prefix and that number."""
MAX_HEADER_BYTES = 64 * 1024
TAG_BYTES = 32

_NAME = re.compile(r"[a-z0-9][a-z0-9_.-]{0,63}")
_ID = re.compile(r"[0-9a-f]{16}")
_WEIGHTS = re.compile(r"[0-9a-f]{16}|[0-9a-f]{32}")
_NONCE = re.compile(r"[0-9a-f]{32}")
_LETTERS = re.compile(r"([RLAPSI]{3})?")
_OPTIONAL = "reading"
_PATTERNS = {"cipher": _NAME, "weights": _WEIGHTS, "nonce": _NONCE, "postprocess": _NAME, "key_id": _ID}


@dataclass(frozen=True)
class Header:
    """The header of a container: readable by anyone, changeable by no one without the key.

    Attributes:
        cipher: name of the cipher class.
        weights: id of the cipher's weights: 32 hex digits, or 16 of a cipher whose mask no weights decide.
        shape: shape of the array.
        dtype: name of its type, see `encdl.files.container.chunk_grid.DTYPES`.
        layout: one letter an axis, see `encdl.files.container.chunk_grid`.
        nonce: 32 hex digits; makes this file's keys differ from every other file's.
        postprocess: name of the post-processing.
        planes: how the key planes are made.
        study: name of the study, "" for none.
        key_id: id of the master key, 16 hex digits; says nothing about the key itself.
        tile: rows and columns of a chunk.
        reading: of a reading layer that is one volume `size`, slices, rows and columns; `orientation`, letters as of
            `encdl.files.scans.Geometry`; and `spacing`, millimetres along each. Files without one have no such field.
    """

    cipher: str
    weights: str
    shape: tuple[int, ...]
    dtype: str
    layout: str
    nonce: str
    postprocess: str
    planes: PlaneSpec
    study: str
    key_id: str
    tile: tuple[int, int]
    reading: Mapping[str, Any] = field(default_factory=dict)

    def __post_init__(self) -> None:
        """Check every field; raise `ContainerError` on the first that is wrong."""
        for name, pattern in _PATTERNS.items():
            value = getattr(self, name)
            if not isinstance(value, str) or not pattern.fullmatch(value):
                raise bad_field(name, value)
        if not isinstance(self.dtype, str) or self.dtype not in DTYPES:
            raise bad_field("dtype", self.dtype)
        try:
            valid = isinstance(self.study, str) and check_study(self.study) == self.study
        except UsageError:
            valid = False
        if not valid:
            raise bad_field("study", self.study)
        if not _sizes(self.shape):
            raise bad_field("shape", self.shape)
        if not is_layout(self.layout, self.shape):
            raise bad_field("layout", self.layout)
        if not _sizes(self.tile) or len(self.tile) != 2:
            raise bad_field("tile", self.tile)
        try:
            grid = self.grid
        except ContainerError as error:
            raise ContainerError(f"the header's field 'shape' is not valid ({error})") from None
        rows, columns = self.tile
        if rows > grid.height or columns > grid.width or rows * columns * grid.planes > MAX_CHUNK_BYTES:
            raise bad_field("tile", self.tile)
        if self.reading != {} and not _is_placed(self.reading):
            raise bad_field("reading", self.reading)

    @cached_property
    def grid(self) -> Grid:
        """How the array is cut into chunks."""
        return Grid(self.shape, self.layout, np.dtype(self.dtype).itemsize, self.tile)

    @property
    def nonce_bytes(self) -> bytes:
        """The nonce as 16 bytes."""
        return bytes.fromhex(self.nonce)

    def fields(self) -> dict[str, Any]:
        """The stored fields, as plain values."""
        plain = {"shape": list(self.shape), "tile": list(self.tile), "planes": self.planes.to_dict()}
        stored = {each.name: getattr(self, each.name) for each in fields(self) if each.name != _OPTIONAL} | plain
        return stored | ({_OPTIONAL: dict(self.reading)} if self.reading else {})

    def to_bytes(self) -> bytes:
        """Magic, version, and the header as canonical JSON; in a file a locator stands before the JSON.

        Raises:
            ContainerError: the header would be longer than 64 KiB.
        """
        encoded = canonical_json.encoded(self.fields())
        if len(encoded) > MAX_HEADER_BYTES:
            raise ContainerError(f"the header would be {len(encoded):,} bytes, more than {MAX_HEADER_BYTES:,}")
        return PREFIX.pack(MAGIC, VERSION, len(encoded)) + encoded

    @classmethod
    def from_bytes(cls, encoded: bytes) -> Header:
        """Decode the JSON of a header that comes from an untrusted file.

        Raises:
            ContainerError: not canonical JSON; or a field is missing, unknown, of a wrong type or range.
        """
        names = [each.name for each in fields(cls)]
        values = parse_canonical(encoded, names, optional=_OPTIONAL)
        if values.get(_OPTIONAL, True) == {}:
            raise bad_field(_OPTIONAL, {})
        listed = {name: values[name] for name in ("shape", "tile") if isinstance(values[name], list)}
        try:
            planes = PlaneSpec.from_dict(values["planes"])
        except UsageError as error:
            raise ContainerError(f"the header's field 'planes' is not valid ({error})") from None
        return cls(**values | {name: tuple(value) for name, value in listed.items()} | {"planes": planes})


def read_head(stream: BinaryIO, where: str, *, locator: bool = True) -> tuple[Header, bytes, bytes]:
    """Read and check magic, version and header, and leave the stream behind them.

    Args:
        stream: stands at their beginning.
        where: what errors call the file.
        locator: whether there is a locator before the header, as in files; of them parity may be left.

    Returns:
        The header; magic, version and header as they were read; and the locator, unchecked.

    Raises:
        ContainerError: not an EncDL file, of a newer version, cut within the header, or a damaged header.
    """
    advice = SALVAGE if locator else COPY
    prefix = stream.read(PREFIX.size)
    _check_magic(where, prefix)
    if len(prefix) < PREFIX.size:
        raise ContainerError(f"{where}: is cut: {len(prefix)} bytes are no whole header: {COPY}")
    _, version, length = PREFIX.unpack(prefix)
    if version > VERSION:
        raise ContainerError(
            f"{where}: is of container version {version}, this EncDL reads up to {VERSION}: update EncDL, or "
            "try --salvage if it may be damaged"
        )
    if version in OLD_VERSIONS:
        raise ContainerError(
            f"{where}: was made by EncDL 0.1 (container version {version}), which this version does not open: decrypt "
            "it with EncDL 0.1, and encrypt it again"
        )
    if version < VERSION or not 1 <= length <= MAX_HEADER_BYTES:
        raise ContainerError(f"{where}: the header is damaged (version {version}, {length:,} bytes): {advice}")
    between = stream.read(LOCATOR.size) if locator else b""
    encoded = stream.read(length)
    if len(encoded) < length:
        raise ContainerError(f"{where}: is cut in its header ({len(encoded)} of {length:,} bytes): {COPY}")
    try:
        return Header.from_bytes(encoded), prefix + encoded, between
    except EncdlError as error:
        raise ContainerError(f"{where}: {error}: it is damaged: {advice}") from None


def _check_magic(where: str, prefix: bytes) -> None:
    if not prefix:
        raise ContainerError(f"{where}: is empty (0 bytes): {COPY}")
    if prefix[: len(MAGIC)] == MAGIC[: len(prefix)]:
        return
    if prefix.startswith(aes_wrap.MAGIC):
        raise ContainerError(
            f"{where}: is wrapped in AES-256-GCM: only with its key can be read what it says about itself"
        )
    if prefix.startswith((CONTAINER_MARK + b"\n", CONTAINER_MARK + b"\r\r")):
        raise ContainerError(f"{where}: was copied as text, which changes its bytes: copy it again as binary")
    known = ", or try --salvage, as its first bytes may be damaged" if where.lower().endswith(SUFFIX) else ""
    raise ContainerError(f"{where}: is not an EncDL file: give a file made by `encdl encrypt`{known}")


def located(prefix: bytes, front: int) -> bytes:
    """The locator behind a file's prefix.

    Args:
        prefix: the 14 bytes before.
        front: bytes from behind the locator up to the end of the metadata.
    """
    content = prefix + FRONT.pack(front)
    return content[PREFIX.size :] + parity.encoded(content, len(content), len(content))


def parse_canonical(encoded: bytes, names: list[str], what: str = "header", optional: str = "") -> dict[str, Any]:
    """Parse untrusted JSON; raise `ContainerError` unless it is canonical and an object of exactly these fields.

    The one that is `optional` may be missing.
    """
    try:
        values = canonical_json.decoded(encoded)
    except ValueError:
        raise ContainerError(f"the {what} is not canonical JSON") from None
    for name in sorted(set(names) - set(values) - {optional}):
        raise ContainerError(f"the {what}'s field {name!r} is missing")
    for name in sorted(set(values) - set(names)):
        raise ContainerError(f"the {what} has an unknown field {_short(name)}")
    return values


def bad_field(name: str, value: object, what: str = "header") -> ContainerError:
    """The error about a field's value."""
    return ContainerError(f"the {what}'s field {name!r} is not valid ({_short(value)})")


def _sizes(value: object) -> bool:
    """Whether a value is sizes: the largest of them still prints in a line."""
    return (
        isinstance(value, tuple)
        and bool(value)
        and all(type(size) is int and 1 <= size <= MAX_BODY_BYTES for size in value)
    )


def _is_placed(value: object) -> bool:
    """Whether a value says of what form a reading layer is, and how it lies."""
    if not isinstance(value, Mapping) or set(value) != {"size", "orientation", "spacing"}:
        return False
    size, spacing, letters = value["size"], value["spacing"], value["orientation"]
    lists = isinstance(size, list) and isinstance(spacing, list) and len(size) == 3 and len(spacing) in {0, 3}
    lengths = lists and all(type(length) is float and 0 <= length < 2**16 for length in spacing)
    return lengths and _sizes(tuple(size)) and isinstance(letters, str) and bool(_LETTERS.fullmatch(letters))


def _short(value: object) -> str:
    """Show a value from an untrusted file: escaped, and never long."""
    text = ascii(value)
    return text if len(text) <= 60 else text[:57] + "..."
