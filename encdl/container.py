"""The `.encdl` file, version 1: header, ciphertext and authentication tag. See docs/container.md.

    magic 8 | version 2 | header length 4 | header (JSON) | body | tag 32

The tag is HMAC-SHA256 over every byte before it, under a sub-key of the image's key. Nothing of the body is
handed out before the tag is found right, except by `read_damaged`, which says so in its name.
"""

from __future__ import annotations

import hashlib
import hmac
import json
import math
import os
import re
import struct
from collections.abc import Mapping
from dataclasses import asdict, dataclass, fields
from pathlib import Path
from typing import Any, BinaryIO

import numpy as np
import numpy.typing as npt

from encdl import atomic
from encdl.errors import ContainerError, EncdlError, UsageError, WrongKeyError
from encdl.keys.derive import ImageKeys, check_study
from encdl.keys.key import Opener
from encdl.keys.planes import PlaneSpec

MAGIC = b"\x89ENCDL\r\n"
VERSION = 1
PREFIX = struct.Struct("<8sHI")
MAX_HEADER_BYTES = 64 * 1024
MAX_BODY_BYTES = 2**30
MAX_SIDE = 2**26
MAX_CHANNELS = 1024
NONCE_BYTES = 16
TAG_BYTES = 32
SUFFIX = ".encdl"

ITEM_BYTES = {"uint8": 1, "uint16": 2, "int16": 2}
LAYOUTS = {"HW": 2, "HWC": 3}
FORMATS = ("png", "tiff", "npy")

_NAME = re.compile(r"[a-z0-9][a-z0-9_.-]{0,63}")
_ID = re.compile(r"[0-9a-f]{16}")
_NONCE = re.compile(r"[0-9a-f]{32}")


@dataclass(frozen=True)
class Header:
    """What a container says about itself; readable by anyone, changeable by no one without the key.

    Attributes:
        cipher: name of the cipher class.
        weights: id of the cipher's weights, 16 hex digits.
        shape: shape of the picture's array, (H, W) or (H, W, C).
        dtype: "uint8", "uint16" or "int16".
        layout: "HW" or "HWC".
        nonce: 32 hex digits; makes this image's keys differ from every other image's.
        postprocess: name of the post-processing.
        planes: how the key planes are made, `PlaneSpec.to_dict()`.
        study: name of the study, "" for none.
        key_id: id of the master key, 16 hex digits; says nothing about the key itself.
        format: in which format to write the decrypted picture: "png", "tiff" or "npy".
        body_bytes: length of the ciphertext, equal to the array's size in bytes.
    """

    cipher: str
    weights: str
    shape: tuple[int, ...]
    dtype: str
    layout: str
    nonce: str
    postprocess: str
    planes: Mapping[str, Any]
    study: str
    key_id: str
    format: str
    body_bytes: int

    def __post_init__(self) -> None:
        """Check every field; raise `ContainerError` on the first that is wrong."""
        for name, pattern in _PATTERNS.items():
            value = getattr(self, name)
            if not isinstance(value, str) or not pattern.fullmatch(value):
                raise _bad(name, value)
        for name, allowed in (("dtype", ITEM_BYTES), ("layout", LAYOUTS), ("format", FORMATS)):
            value = getattr(self, name)
            if not isinstance(value, str) or value not in allowed:
                raise _bad(name, value)
        self._check_study()
        self._check_shape()
        self.plane_spec()

    def _check_study(self) -> None:
        try:
            valid = isinstance(self.study, str) and check_study(self.study) == self.study
        except UsageError:
            valid = False
        if not valid:
            raise _bad("study", self.study)

    def _check_shape(self) -> None:
        shape = self.shape
        if not isinstance(shape, tuple) or len(shape) != LAYOUTS[self.layout]:
            raise _bad("shape", shape)
        limits = (MAX_SIDE, MAX_SIDE, MAX_CHANNELS)
        for size, limit in zip(shape, limits, strict=False):
            if type(size) is not int or not 1 <= size <= limit:
                raise _bad("shape", shape)
        expected = math.prod(shape) * ITEM_BYTES[self.dtype]
        if type(self.body_bytes) is not int or self.body_bytes != expected or expected > MAX_BODY_BYTES:
            raise _bad("body_bytes", self.body_bytes)

    def plane_spec(self) -> PlaneSpec:
        """Return `planes` as the object that makes key planes; raise `ContainerError` if it is not valid."""
        if not isinstance(self.planes, Mapping):
            raise _bad("planes", self.planes)
        try:
            return PlaneSpec.from_dict(dict(self.planes))
        except UsageError as error:
            raise ContainerError(f"the header's field 'planes' is not valid ({error})") from None

    @property
    def nonce_bytes(self) -> bytes:
        """The nonce as 16 bytes."""
        return bytes.fromhex(self.nonce)

    def to_bytes(self) -> bytes:
        """Encode as canonical JSON: UTF-8, keys sorted, no spaces.

        Raises:
            ContainerError: the header would be longer than 64 KiB.
        """
        encoded = _canonical({**asdict(self), "shape": list(self.shape), "planes": dict(self.planes)})
        if len(encoded) > MAX_HEADER_BYTES:
            raise ContainerError(
                f"the header would be {len(encoded):,} bytes, more than {MAX_HEADER_BYTES:,}"
            )
        return encoded

    @classmethod
    def from_bytes(cls, encoded: bytes) -> Header:
        """Decode a header that comes from an untrusted file.

        Raises:
            ContainerError: not canonical JSON; or a field is missing, unknown, of a wrong type or range.
        """
        try:
            # Canonical form alone is accepted: no duplicate fields, no floats in disguise.
            values = json.loads(encoded.decode("utf-8"))
            canonical = _canonical(values) == encoded
        except (ValueError, RecursionError):
            canonical = False
        if not canonical or not isinstance(values, dict):
            raise ContainerError("the header is not canonical JSON")
        names = {field.name for field in fields(cls)}
        for name in sorted(names - set(values)):
            raise ContainerError(f"the header's field {name!r} is missing")
        for name in sorted(set(values) - names):
            raise ContainerError(f"the header has an unknown field {_short(name)}")
        shape = values["shape"]
        return cls(**{**values, "shape": tuple(shape) if isinstance(shape, list) else shape})


_PATTERNS = {
    "cipher": _NAME,
    "weights": _ID,
    "nonce": _NONCE,
    "postprocess": _NAME,
    "key_id": _ID,
}


def _canonical(values: object) -> bytes:
    text = json.dumps(values, sort_keys=True, separators=(",", ":"), ensure_ascii=False, allow_nan=False)
    return text.encode("utf-8")


def _short(value: object) -> str:
    """Show a value from an untrusted file: escaped, and never long."""
    text = ascii(value)
    return text if len(text) <= 60 else text[:57] + "..."


def _bad(name: str, value: object) -> ContainerError:
    return ContainerError(f"the header's field {name!r} is not valid ({_short(value)})")


def write(
    path: str | os.PathLike[str],
    header: Header,
    body: bytes | memoryview,
    keys: ImageKeys,
    *,
    force: bool = False,
) -> None:
    """Write a container, whole or not at all.

    Args:
        path: the file to write.
        header: what to say about the body; its `nonce` must be the one that `keys` were made from.
        body: the ciphertext, `header.body_bytes` long.
        keys: the image's sub-keys.
        force: whether an existing file may be replaced.

    Raises:
        ContainerError: header, body and keys do not belong together.
        OutputExistsError: the file exists and `force` is not set.
    """
    if len(body) != header.body_bytes:
        raise ContainerError(f"{path}: the body is {len(body)} bytes, the header says {header.body_bytes}")
    if keys.nonce != header.nonce_bytes:
        raise ContainerError(f"{path}: the keys were made from another nonce than the header's")
    head = _head(header)
    atomic.write_bytes(path, head, body, _tag(keys, head, body), force=force)


def read_header(path: str | os.PathLike[str]) -> Header:
    """Read what a container says about itself, without a key and therefore unverified.

    Raises:
        ContainerError: not an EncDL file, of a newer version, cut within the header, or a damaged header.
    """
    with _opened(path) as stream:
        return _read_head(Path(path), stream)[0]


def check_size(path: str | os.PathLike[str]) -> Header:
    """Read the header, and check that the file is as long as it says.

    Raises:
        ContainerError: as `read_header`; or the file is cut, or has bytes after its end.
    """
    with _opened(path) as stream:
        header, head = _read_head(Path(path), stream)
        _check_length(Path(path), len(head) + header.body_bytes + TAG_BYTES, _size(stream))
        return header


def read(path: str | os.PathLike[str], opener: Opener) -> tuple[Header, bytes]:
    """Read a container and verify it.

    Args:
        path: the file.
        opener: the key, or a grant for the file or its study.

    Returns:
        The header and the ciphertext, both authenticated.

    Raises:
        ContainerError: as `check_size`; or the bytes were changed since the file was written.
        WrongKeyError: the file was made with another key, or the grant is for something else.
    """
    where = Path(path)
    with _opened(where) as stream:
        header, head = _read_head(where, stream)
        _check_length(where, len(head) + header.body_bytes + TAG_BYTES, _size(stream))
        keys = _image_keys(where, header, opener)
        body = stream.read(header.body_bytes)
        tag = stream.read(TAG_BYTES + 1)
    if len(body) != header.body_bytes or not hmac.compare_digest(tag, _tag(keys, head, body)):
        raise ContainerError(
            f"{where}: was changed after it was written (its authentication tag does not fit): "
            "get an intact copy, or try --salvage"
        )
    return header, body


def read_damaged(path: str | os.PathLike[str], opener: Opener) -> tuple[Header, bytes, npt.NDArray[np.bool_]]:
    """Read what is left of a container, UNVERIFIED: anyone may have changed what this returns.

    Args:
        path: the file; its header must still be readable, its body may be cut or changed.
        opener: the key, or a grant for the file or its study.

    Returns:
        The header; the ciphertext, padded with zeros to its length; and bool (body_bytes,), true where a byte
        is known to be missing.

    Raises:
        ContainerError: the header cannot be read, or nothing of the body is left.
        WrongKeyError: the file was made with another key, or the grant is for something else.
    """
    where = Path(path)
    with _opened(where) as stream:
        header, _ = _read_head(where, stream)
        _image_keys(where, header, opener)
        body = stream.read(header.body_bytes)
    if not body:
        raise ContainerError(f"{where}: ends with its header: nothing is left to salvage; get an intact copy")
    lost = np.zeros(header.body_bytes, dtype=np.bool_)
    lost[len(body) :] = True
    return header, body.ljust(header.body_bytes, b"\0"), lost


def _head(header: Header) -> bytes:
    encoded = header.to_bytes()
    return PREFIX.pack(MAGIC, VERSION, len(encoded)) + encoded


def _tag(keys: ImageKeys, *parts: bytes | memoryview) -> bytes:
    mac = hmac.new(keys.authentication, digestmod=hashlib.sha256)
    for part in parts:
        mac.update(part)
    return mac.digest()


def _image_keys(where: Path, header: Header, opener: Opener) -> ImageKeys:
    if opener.key_id != header.key_id:
        raise WrongKeyError(
            f"{where}: was encrypted with key {header.key_id}, yours is {opener.key_id}: give the right key"
        )
    try:
        return opener.image_keys(header.nonce_bytes, header.study)
    except WrongKeyError as error:
        raise WrongKeyError(f"{where}: {error}") from None


def _opened(path: str | os.PathLike[str]) -> BinaryIO:
    where = Path(path)
    try:
        if where.is_dir():
            raise ContainerError(f"{where}: is a folder: give one {SUFFIX} file")
        if where.exists() and not where.is_file():
            raise ContainerError(f"{where}: is no regular file: give a file on disk")
        return where.open("rb")
    except FileNotFoundError:
        raise ContainerError(f"{where}: no such file: check the name") from None
    except (OSError, ValueError) as error:  # ValueError: a null character in the name
        reason = getattr(error, "strerror", None) or error
        raise ContainerError(f"{where}: cannot be read ({reason}): check its permissions") from None


def _size(stream: BinaryIO) -> int:
    return os.fstat(stream.fileno()).st_size


def _read_head(where: Path, stream: BinaryIO) -> tuple[Header, bytes]:
    """Read and check magic, version and header; leave the stream at the body."""
    prefix = stream.read(PREFIX.size)
    _check_magic(where, prefix)
    if len(prefix) < PREFIX.size:
        raise ContainerError(f"{where}: is cut: {len(prefix)} bytes are no whole header: get an intact copy")
    _, version, length = PREFIX.unpack(prefix)
    if version > VERSION:
        raise ContainerError(
            f"{where}: is of container version {version}, this EncDL reads up to {VERSION}: update EncDL"
        )
    if version < 1 or not 1 <= length <= MAX_HEADER_BYTES:
        raise ContainerError(f"{where}: the header is damaged (version {version}, {length:,} bytes): {_COPY}")
    encoded = stream.read(length)
    if len(encoded) < length:
        raise ContainerError(f"{where}: is cut in its header ({len(encoded)} of {length:,} bytes): {_COPY}")
    try:
        return Header.from_bytes(encoded), prefix + encoded
    except EncdlError as error:
        raise ContainerError(f"{where}: {error}: it is damaged: {_COPY}") from None


_COPY = "get an intact copy"


def _check_magic(where: Path, prefix: bytes) -> None:
    if not prefix:
        raise ContainerError(f"{where}: is empty (0 bytes): {_COPY}")
    if prefix[: len(MAGIC)] == MAGIC[: len(prefix)]:
        return
    if prefix.startswith((b"\x89ENCDL\n", b"\x89ENCDL\r\r")):
        raise ContainerError(f"{where}: was copied as text, which changes its bytes: copy it again as binary")
    raise ContainerError(f"{where}: is not an EncDL file: give a file made by `encdl encrypt`")


def _check_length(where: Path, expected: int, actual: int) -> None:
    if actual < expected:
        raise ContainerError(f"{where}: is cut ({actual:,} of {expected:,} bytes): {_COPY}, or try --salvage")
    if actual > expected:
        raise ContainerError(
            f"{where}: has {actual - expected:,} bytes after its end: {_COPY}, or try --salvage"
        )
