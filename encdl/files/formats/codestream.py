"""What a compressed frame claims to be, asked before a decoder allocates memory for it."""

from __future__ import annotations

_START = b"\xff\xd8"
_JPEG_LS = 0xF7
_LOSSLESS = (0xC3, 0xC7, 0xCB, 0xCF)
_FRAME_HEADERS = {*range(0xC0, 0xD0), _JPEG_LS} - {0xC4, 0xC8, 0xCC}
"""SOF markers (ITU-T T.81, table B.1), and that of JPEG-LS."""
_SIZ = b"\xff\x4f\xff\x51"


def rows_and_columns(frame: bytes) -> tuple[int, int] | None:
    """Size of a JPEG, JPEG-LS or JPEG 2000 image; None if it is none of them, or damaged."""
    if frame.startswith(_START):
        header = _frame_header(frame)
        return header and header[2:]
    # ITU-T T.800, A.5.1; a JP2 file has boxes before its codestream.
    start = frame.find(_SIZ, 0, 2**16)
    if start < 0 or len(frame) < start + 24:
        return None
    width, height, left, top = (int.from_bytes(frame[at : at + 4], "big") for at in range(start + 8, start + 24, 4))
    return height - top, width - left


def uncommon_jpeg(data: bytes) -> str:
    """What a JPEG file is that is neither baseline nor progressive with 8 bits; "" for those, and damaged ones."""
    header = _frame_header(data)
    if header is None:
        return ""
    marker, bits, _, _ = header
    kind = "JPEG-LS" if marker == _JPEG_LS else "lossless JPEG" if marker in _LOSSLESS else "JPEG"
    return "" if (kind, bits) == ("JPEG", 8) else f"{kind} of {bits} bits"


def _frame_header(frame: bytes) -> tuple[int, int, int, int] | None:
    """Marker, bits, rows and columns of a JPEG image."""
    place = 2
    while place + 9 <= len(frame) and frame[place] == 0xFF:
        marker = frame[place + 1]
        if marker in _FRAME_HEADERS:
            rows, columns = (int.from_bytes(frame[at : at + 2], "big") for at in (place + 5, place + 7))
            return marker, frame[place + 4], rows, columns
        filler = marker == 0xFF
        place += 1 if filler else 2 + int.from_bytes(frame[place + 2 : place + 4], "big")
    return None
