"""A container's first bytes: which file it is, and its header."""

from __future__ import annotations

from typing import BinaryIO, Final

from encdl.files.container import aes_wrap
from encdl.files.container.header import LOCATOR, MAGIC, MAX_HEADER_BYTES, PREFIX, VERSION, Header
from encdl.keys.secret_files import CONTAINER_MARK
from encdl.utils.errors import ContainerError, EncdlError

SUFFIX: Final = ".encdl"
COPY: Final = "get an intact copy"
SALVAGE: Final = f"{COPY}, or try --salvage"
"""What to do about a file of which something may be left."""
OLD_VERSIONS: Final = (1, 2)


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
    if aes_wrap.is_wrapped(prefix):
        raise ContainerError(
            f"{where}: is wrapped in AES-256-GCM: only with its key can be read what it says about itself"
        )
    if prefix.startswith((CONTAINER_MARK + b"\n", CONTAINER_MARK + b"\r\r")):
        raise ContainerError(f"{where}: was copied as text, which changes its bytes: copy it again as binary")
    known = ", or try --salvage, as its first bytes may be damaged" if where.lower().endswith(SUFFIX) else ""
    raise ContainerError(f"{where}: is not an EncDL file: give a file made by `encdl encrypt`{known}")
