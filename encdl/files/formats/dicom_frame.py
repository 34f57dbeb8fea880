"""Compressed frames of DICOM, decoded in a process of its own: what they hold is up to whoever made them."""

from __future__ import annotations

from typing import Any

from encdl.files.formats import raw_pixels
from encdl.files.formats.base import Array
from encdl.utils import worker_process
from encdl.utils.errors import ImageFileError

_WHERE = f"{__name__}:decode"


def decoded(where: object, pydicom: Any, frame: bytes, syntax: Any, options: dict[str, Any]) -> Array:
    """A frame's stored values, little-endian.

    Args:
        where: the file, for messages.
        pydicom: the library.
        frame: as it lies in the file.
        syntax: its transfer syntax.
        options: `pydicom.pixels.as_pixel_options` of the file.

    Raises:
        ImageFileError: the decoder crashed or hung; or another one that is not installed may succeed.
        worker_process.RaisedError: the frame is damaged.
    """
    values = options["rows"] * options["columns"] * options["samples_per_pixel"]
    arguments = {"frame": frame, "syntax": str(syntax), "options": options}
    try:
        # Decoders give 16 bits, or 32, where fewer are stored.
        return worker_process.decoded(where, _WHERE, arguments, len(frame), values, 8 * values)
    except worker_process.RaisedError as error:
        missing = "; ".join(pydicom.pixels.get_decoder(syntax).missing_dependencies)
        if error.kind != "RuntimeError" or not missing:  # which means that every decoder at hand failed
            raise
        reason = " ".join(str(error).split(":", 1)[-1].split())[:100]
        raise ImageFileError(
            f"{where}: its pixels are in {syntax.name}, which no decoder installed here could read ({reason}): "
            f"install another one ({missing})"
        ) from None


def decode(frame: bytes, syntax: str, options: dict[str, Any]) -> Array:
    """The same, in the process that may crash."""
    import pydicom.encaps  # noqa: PLC0415
    from pydicom.pixels.decoders.base import get_decoder  # noqa: PLC0415

    pixels = pydicom.encaps.encapsulate([frame], has_bot=False)
    decoder = get_decoder(pydicom.uid.UID(syntax))
    array, _ = decoder.as_array(pixels, index=0, raw=True, **options)
    return raw_pixels.to_little(array)
