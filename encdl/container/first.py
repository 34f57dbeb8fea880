"""Version 1 of the container, which is only read: one picture, one chunk, one tag, and no sealed metadata."""

from __future__ import annotations

from encdl.container.header import Header, bad_field, exact_fields, parse_canonical, tupled
from encdl.container.metadata import Metadata

VERSION = 1
FORMATS = ("png", "tiff", "npy")
DTYPES = ("uint8", "uint16", "int16")
LAYOUTS = ("HW", "HWC")
_FIELDS = [
    "body_bytes", "cipher", "dtype", "format", "key_id", "layout", "nonce", "planes", "postprocess", "shape",
    "study", "weights",
]  # fmt: skip


def parse(encoded: bytes) -> tuple[Header, Metadata]:
    """Decode the JSON of a header of version 1, which names the picture's format in the clear.

    Raises:
        ContainerError: not canonical JSON; or a field is missing, unknown, of a wrong type or range.
    """
    values = exact_fields(parse_canonical(encoded), _FIELDS)
    file_format, body_bytes = values.pop("format"), values.pop("body_bytes")
    for name, value, allowed in (
        ("format", file_format, FORMATS),
        ("dtype", values["dtype"], DTYPES),
        ("layout", values["layout"], LAYOUTS),
    ):
        if not isinstance(value, str) or value not in allowed:
            raise bad_field(name, value)
    shape = tupled(values["shape"])
    # The picture is one chunk; a shape that is none is refused by the header.
    tile = shape[:2] if isinstance(shape, tuple) else shape
    header = Header(**{**values, "shape": shape}, tile=tile, sealed_bytes=0, version=VERSION)
    if type(body_bytes) is not int or body_bytes != header.body_bytes:
        raise bad_field("body_bytes", body_bytes)
    return header, Metadata(file_format, f".{file_format}")
