"""Round trips for the tests of the formats."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import numpy as np

from encdl.files import formats
from encdl.utils.errors import ImageFileError


def noise(shape: tuple[int, ...], dtype: str = "uint8", seed: int = 0) -> np.ndarray[Any, Any]:
    """Any bit pattern of any type, not-a-number included."""
    kind = np.dtype(dtype)
    if kind == np.bool_:
        return np.random.default_rng(seed).integers(0, 2, shape).astype(bool)
    size = int(np.prod(shape)) * kind.itemsize
    octets = np.random.default_rng(seed).integers(0, 256, size, dtype=np.uint8)
    return octets.view(kind).reshape(shape)


def array_of(document: formats.Document) -> np.ndarray[Any, Any]:
    """All slices, as an array of the document's shape."""
    slices = list(document.slices())
    for array in slices:
        assert array.shape == document.slice_shape
        assert array.dtype == document.dtype
        assert array.dtype.byteorder in "<=|"
    return np.concatenate([array.reshape(-1) for array in slices]).reshape(document.shape)


def there_and_back(path: Path, *, whole: bool = False) -> formats.Document:
    """Load a file, check that it comes back byte for byte, and from other slices than its own; give the document."""
    document = formats.load(path)
    assert formats.is_whole(document) == whole
    assert restored(path, document) == path.read_bytes()
    return document


def restored(path: Path, document: formats.Document) -> bytes:
    """What `write` makes of the document, beside the original file."""
    back = path.with_name(f"back-{path.name}")
    kept = list(document.slices())
    fields = {name: getattr(document, name) for name in ("shape", "dtype", "layout", "format", "rest")}
    formats.write(back, formats.Document(**fields, slices=lambda: iter(kept)), force=True)
    return back.read_bytes()


def refusal(path: Path) -> str:
    """The one line that a file is refused with, when it is loaded or its slices are read; "" if it is not."""
    try:
        for _ in formats.load(path).slices():
            pass
    except ImageFileError as error:
        text = str(error)
        assert text.startswith(f"{path}: ")
        assert "\n" not in text
        assert " at 0x" not in text
        return text
    return ""
