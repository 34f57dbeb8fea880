"""How large a compressed frame claims to be, asked before a decoder allocates that much."""

from __future__ import annotations

_START = b"\xff\xd8"
_FRAME_HEADERS = {*range(0xC0, 0xD0), 0xF7} - {0xC4, 0xC8, 0xCC}
"""SOF markers (ITU-T T.81, table B.1), and that of JPEG-LS."""
_SIZ = b"\xff\x4f\xff\x51"


def rows_and_columns(frame: bytes) -> tuple[int, int] | None:
    """Size of a JPEG, JPEG-LS or JPEG 2000 image; None if it is none of them, or damaged."""
    if frame.startswith(_START):
        return _jpeg(frame)
    # ITU-T T.800, A.5.1; a JP2 file has boxes before its codestream.
    start = frame.find(_SIZ, 0, 2**16)
    if start < 0 or len(frame) < start + 24:
        return None
    width, height, left, top = (int.from_bytes(frame[at : at + 4], "big") for at in range(start + 8, start + 24, 4))
    return height - top, width - left


def _jpeg(frame: bytes) -> tuple[int, int] | None:
    place = 2
    while place + 9 <= len(frame) and frame[place] == 0xFF:
        marker = frame[place + 1]
        if marker in _FRAME_HEADERS:
            return int.from_bytes(frame[place + 5 : place + 7], "big"), int.from_bytes(
                frame[place + 7 : place + 9], "big"
            )
        filler = marker == 0xFF
        place += 1 if filler else 2 + int.from_bytes(frame[place + 2 : place + 4], "big")
    return None
