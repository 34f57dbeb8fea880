"""Names of DICOM series that tell nothing but which files belong together: keyed hashes of SeriesInstanceUID.

The section `series` of a container holds the tag and the InstanceNumber: tag 8 | number 4. Every file has it,
of whatever format, so that the table of sections shows no format: those in no series have a tag of their own.
"""

from __future__ import annotations

import hashlib
import hmac
import struct
from collections.abc import Callable
from dataclasses import dataclass
from pathlib import Path
from typing import Final

from encdl.files import container
from encdl.files.formats.base import Document
from encdl.keys.derivation import ImageKeys, hkdf
from encdl.keys.key import Opener
from encdl.utils.errors import ContainerError, UsageError, WrongKeyError

TAG_BYTES: Final = 8
_INFO: Final = b"encdl series of one file"
_ALONE: Final = 1
"""The number of a file that shows no series; most single images have it as their InstanceNumber."""
_SECTION: Final = struct.Struct(f"<{TAG_BYTES}sI")


@dataclass(frozen=True)
class SeriesTag:
    """The public tag of a file's series.

    Attributes:
        tag: 16 hexadecimal digits, the same for all files of a series in a study under one key.
        number: InstanceNumber, 0 if there is none; 1 of a file that shows no series.
    """

    tag: str
    number: int

    @classmethod
    def from_bytes(cls, content: bytes) -> SeriesTag:
        """Of the section's content; `ContainerError` if it is something else."""
        if len(content) != _SECTION.size:
            raise ContainerError("its series tag is damaged")
        tag, number = _SECTION.unpack(content)
        return cls(tag.hex(), number)


def section_of(document: Document, opener: Opener, study: str, keys: ImageKeys, shown: bool) -> bytes:
    """The section of a file.

    Args:
        document: what it holds.
        opener: the key, or a grant for the study.
        study: the file's.
        keys: the file's sub-keys.
        shown: whether the series of a DICOM file may show.
    """
    if shown and document.format == "dicom":
        from encdl.files.scans import series_of  # noqa: PLC0415 - of DICOM files alone

        if found := series_of(document):
            return _SECTION.pack(_tag(opener, found[0], study), found[1])
    return _SECTION.pack(hkdf(keys.authentication, _INFO)[:TAG_BYTES], _ALONE)


def shows_series(content: bytes | None, keys: ImageKeys) -> bool:
    """Whether a file's section shows its series to those without the key."""
    return content is not None and content[:TAG_BYTES] != hkdf(keys.authentication, _INFO)[:TAG_BYTES]


def name_of(opener: Opener) -> Callable[[str, Path], str]:
    """A function that names series for output files, with a file of each: tags, or under a file's grant hashes."""

    def name(series: str, path: Path) -> str:
        wrapping = container.read_wrapping(path)
        study = container.read_header(path).study if wrapping is None else wrapping.study
        try:
            return _tag(opener, series, study).hex()
        except (WrongKeyError, UsageError):  # a grant for one file, or a recipient's key
            return hashlib.sha256(series.encode()).hexdigest()[: 2 * TAG_BYTES]

    return name


def _tag(opener: Opener, series: str, study: str) -> bytes:
    secret = hkdf(opener.nonce_secret(study), b"encdl series")
    return hmac.digest(secret, series.encode(), hashlib.sha256)[:TAG_BYTES]
