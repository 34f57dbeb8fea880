"""Medical and image files as documents, and back: pixels for the cipher, all the rest as sealed bytes.

```python
document = formats.load(Path("scan.dcm"))
for image in document.slices():
    ...
formats.write(Path("back.dcm"), document)
```
What comes back of each format is written down in docs/formats.md.
"""

from __future__ import annotations

from encdl.files.formats import raw_pixels
from encdl.files.formats.base import Array, Document, Format
from encdl.files.formats.registry import (
    FORMATS,
    ending_of,
    file_head,
    has_dicom_mark,
    is_image,
    is_whole,
    load,
    restore,
    same_rest,
    suffix_of,
    write,
)

__all__ = [
    "FORMATS",
    "Array",
    "Document",
    "Format",
    "ending_of",
    "file_head",
    "has_dicom_mark",
    "is_image",
    "is_whole",
    "load",
    "raw_pixels",
    "restore",
    "same_rest",
    "suffix_of",
    "write",
]
