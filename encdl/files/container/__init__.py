"""The `.encdl` file, version 3: header, sealed metadata, and the ciphertext in chunks. See docs/container.md.

    magic 8 | version 3 | header length 4 | header (JSON) | tag 32 | table of sections | tag 32 | sections...

The sections are the sealed metadata, the pixels (chunks of ciphertext, each with a tag for every 4 KiB behind it), and
what else there is. Nothing of a chunk is handed out before its tags are found right, except by a `ContainerReader` that
is told to be `tolerant`. No torch is needed here.
"""

from encdl.files.container.chunk_grid import Grid, choose_tile
from encdl.files.container.header import MAGIC, SUFFIX, VERSION, Header
from encdl.files.container.metadata import Metadata
from encdl.files.container.on_disk import (
    REPORT,
    file_bytes,
    key_id_of,
    opened,
    opened_without_key,
    read_header,
    read_wrapping,
    recipients_of,
    verify,
)
from encdl.files.container.read import Chunk, ContainerReader, PublicReader, verified_header
from encdl.files.container.sections import chunk_keys
from encdl.files.container.write import ContainerWriter

__all__ = [
    "MAGIC",
    "REPORT",
    "SUFFIX",
    "VERSION",
    "Chunk",
    "ContainerReader",
    "ContainerWriter",
    "Grid",
    "Header",
    "Metadata",
    "PublicReader",
    "choose_tile",
    "chunk_keys",
    "file_bytes",
    "key_id_of",
    "opened",
    "opened_without_key",
    "read_header",
    "read_wrapping",
    "recipients_of",
    "verified_header",
    "verify",
]
