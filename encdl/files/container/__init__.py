"""The `.encdl` file, version 3: header, sealed metadata, and the ciphertext in chunks. See docs/container.md.

    magic 8 | version 3 | header length 4 | header (JSON) | tag 32 | table of sections | tag 32 | sections...

The sections are the sealed metadata, the pixels (chunks of ciphertext, each with a tag for every 4 KiB behind it), and
what else there is. Nothing of a chunk is handed out before its tags are found right, except by a `ContainerReader` that
is told to be `tolerant`. No torch is needed here.
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
    opened_without_key,
    read_header,
    read_wrapping,
    verify,
)
from encdl.files.container.read import Chunk, ContainerReader, PublicReader
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
    "PublicReader",
    "check_size",
    "choose_tile",
    "chunk_keys",
    "key_id_of",
    "opened",
    "opened_without_key",
    "read_header",
    "read_wrapping",
    "sealed_length",
    "verify",
]
