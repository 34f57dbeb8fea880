"""The sealed section: what a file holds beside its pixels, in AES-256-GCM and never in the clear."""

from __future__ import annotations

import hmac
import re
import struct
import unicodedata
from dataclasses import dataclass, field, replace

from encdl.files.container.header import bad_field, parse_canonical
from encdl.files.container.sections import MAX_SECTION_BYTES
from encdl.utils import canonical_json
from encdl.utils.errors import ContainerError

_LENGTH = struct.Struct("<I")
_MAX_FIELDS_BYTES = 16 * 1024
_LEAST_BYTES = 384
_TAG_BYTES = 16
"""Of AES-256-GCM."""
_FORMAT = re.compile(r"[a-z0-9][a-z0-9_.-]{0,63}")
_SUFFIX = re.compile(r"(?:\.[A-Za-z0-9]{1,16}){0,2}")
"""Without a slash: a suffix leads into no other folder, whoever wrote the file."""
_DIGEST = re.compile(r"(?:[0-9a-f]{64})?")
_MARK = re.compile(r"[0-9a-f]{32}")
_NO_MARK = "0" * 32
MAX_IDENTITY_BYTES = 1024
ONCE = bytes(12)
"""The nonce of AES-256-GCM. Its key is used for one section alone, so there is nothing to tell apart."""


def padded_length(length: int) -> int:
    """The bytes that a section of this length is padded to: its length tells less of it then.

    Padmé (Nikitin et al., PoPETs 2019(4)): as many significant bits as a floating-point number of that exponent's
    size would have, so that all lengths up to L have O(log log L) bits to tell, at the cost of 12 % at most; and no
    fewer than 384 bytes, within which all images of plain formats lie.
    """
    length = max(length, _LEAST_BYTES)
    exponent = length.bit_length() - 1
    unit = 1 << (exponent - exponent.bit_length())
    return -(-length // unit) * unit


@dataclass(frozen=True)
class Metadata:
    """The metadata of a file: all beside its pixels, and all of it secret.

    Attributes:
        format: of the original file, and of what decryption writes: "png", "dicom", ...
        suffix: the ending of the original file's name, such as ".nii.gz"; "" for none.
        content: SHA-256 of the array in hexadecimal, see `encdl.files.formats.base.ArrayDigest`; "" if not known.
        rest: everything else that the original file held, in a form that its format knows.
        identity: what the owner calls the file, "" for nothing; up to 1,024 bytes without control characters.
        mark: by which the owner knows that all of this was written with the key of the study, and for this file.
    """

    format: str
    suffix: str = ""
    content: str = field(default="", repr=False)
    rest: bytes = field(default=b"", repr=False)
    identity: str = field(default="", repr=False)
    mark: str = field(default=_NO_MARK, repr=False, compare=False)

    def __post_init__(self) -> None:
        """Check every field; raise `ContainerError` on the first that is wrong."""
        for name, pattern in (("format", _FORMAT), ("suffix", _SUFFIX), ("content", _DIGEST), ("mark", _MARK)):
            value = getattr(self, name)
            if not isinstance(value, str) or not pattern.fullmatch(value):
                raise bad_field(name, value, "metadata")
        if not isinstance(self.identity, str) or not is_identity(self.identity):
            raise bad_field("identity", self.identity, "metadata")

    def marked(self, owner: bytes, nonce: bytes) -> Metadata:
        """The same with its mark.

        Args:
            owner: of `Opener.owner_secret`; the holder of one file's secret cannot make it.
            nonce: the file's.
        """
        content = nonce + self._fields(_NO_MARK) + self.rest
        return replace(self, mark=hmac.digest(owner, content, "sha256")[: len(_NO_MARK) // 2].hex())

    def _fields(self, mark: str) -> bytes:
        plain = {name: getattr(self, name) for name in ("content", "format", "identity", "suffix")}
        return canonical_json.encoded(plain | {"mark": mark, "rest": len(self.rest)})

    def to_bytes(self) -> bytes:
        """The length of the JSON as 4 bytes, the JSON of all fields with the length of `rest`, `rest`, and zeros.

        Raises:
            ContainerError: longer than 64 MiB.
        """
        fields = self._fields(self.mark)
        length, most = _LENGTH.size + len(fields) + len(self.rest), MAX_SECTION_BYTES - _TAG_BYTES
        if length > most:
            raise ContainerError(
                f"{len(self.rest):,} bytes beside the pixels are more than a file holds "
                f"({MAX_SECTION_BYTES:,}): take the largest of them out of the original first"
            )
        padding = bytes(min(padded_length(length), most) - length)
        return b"".join((_LENGTH.pack(len(fields)), fields, self.rest, padding))

    @classmethod
    def from_bytes(cls, data: bytes) -> Metadata:
        """Undo `to_bytes`; raise `ContainerError` if that did not make it."""
        length = _LENGTH.unpack_from(data)[0] if len(data) >= _LENGTH.size else _MAX_FIELDS_BYTES + 1
        if length > min(_MAX_FIELDS_BYTES, len(data) - _LENGTH.size):
            raise ContainerError("the metadata is damaged")
        end = _LENGTH.size + length
        names = ["content", "format", "identity", "mark", "rest", "suffix"]
        values = parse_canonical(data[_LENGTH.size : end], names, "metadata")
        size = values["rest"]
        if type(size) is not int or not 0 <= size <= len(data) - end or data[end + size :].strip(b"\0"):
            raise bad_field("rest", size, "metadata")
        return cls(**values | {"rest": data[end : end + size]})


def is_identity(text: str) -> bool:
    """Whether a text can be what a file is called: in Unicode normal form C, short, without control characters."""
    plain = not any(unicodedata.category(character) in {"Cc", "Cs"} for character in text)
    return plain and unicodedata.normalize("NFC", text) == text and len(text.encode()) <= MAX_IDENTITY_BYTES
