"""The `.encdl` file, version 3: header, sealed metadata, and the ciphertext in chunks. See docs/container.md.

    magic 8 | version 3 | header length 4 | header (JSON) | tag 32 | sealed metadata | (chunk | tag 32)... | tag 32

Nothing of a chunk is handed out before its tag, HMAC-SHA256 under a sub-key of the file's key, is found right, except
by a `ContainerReader` that is told to be `tolerant`. No torch is needed here.
"""

from encdl.files.container.chunk_grid import Grid, Place, choose_tile
from encdl.files.container.header import MAGIC, TAG_BYTES, VERSION, Header
from encdl.files.container.metadata import Metadata, sealed_length
from encdl.files.container.on_disk import (
    REPORT,
    SUFFIX,
    check_size,
    key_id_of,
    opened,
    read_header,
    read_wrapping,
    verify,
)
from encdl.files.container.read import Chunk, ContainerReader
from encdl.files.container.tags import chunk_keys
from encdl.files.container.write import ContainerWriter

__all__ = [
    "MAGIC",
    "REPORT",
    "SUFFIX",
    "TAG_BYTES",
    "VERSION",
    "Chunk",
    "ContainerReader",
    "ContainerWriter",
    "Grid",
    "Header",
    "Metadata",
    "Place",
    "check_size",
    "choose_tile",
    "chunk_keys",
    "key_id_of",
    "opened",
    "read_header",
    "read_wrapping",
    "sealed_length",
    "verify",
]
