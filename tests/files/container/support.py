"""Containers made by hand, and signed anew after a change as only the owner of the key could."""

from __future__ import annotations

import io
import json
import math
from collections.abc import Callable
from dataclasses import dataclass, replace
from typing import Any

import numpy as np

from encdl.files import container
from encdl.files.container import ContainerReader, ContainerWriter, Header, Metadata, PublicReader
from encdl.files.container.header import LOCATOR, PREFIX, located
from encdl.files.container.sections import Section, Tags, table_bytes
from encdl.keys.key import Key, Opener
from encdl.keys.planes import PlaneSpec
from encdl.keys.signing import SigningKey

SECRET = bytes(range(100, 132))
KEY = Key(SECRET)
NONCE = bytes(range(16))
METADATA = Metadata("png", ".png", "ab" * 32, b"PatientName=Doe")
TAG = 32


def header(**changes: Any) -> Header:
    """The header of a volume of three slices of 4x5, two bytes a value, in tiles of up to 3x5: six chunks."""
    fields: dict[str, Any] = {
        "cipher": "agile",
        "weights": "0123456789abcdef",
        "shape": (3, 4, 5),
        "dtype": "uint16",
        "layout": "SHW",
        "nonce": NONCE.hex(),
        "postprocess": "none",
        "planes": PlaneSpec("logistic+chacha20", "full", 8, 0),
        "study": "",
        "key_id": KEY.id,
        "tile": (3, 5),
    }
    return Header(**{**fields, **changes})


def bodies(made: Header) -> list[bytes]:
    """Different bytes for every chunk."""
    rng = np.random.default_rng(0)
    return [rng.bytes(math.prod(made.grid.form(index))) for index in range(made.grid.count)]


def make(
    made: Header | None = None,
    metadata: Metadata = METADATA,
    key: Key = KEY,
    behind: dict[str, bytes] | None = None,
    signer: SigningKey | None = None,
) -> bytes:
    """A whole container."""
    made = made or header()
    stream = io.BytesIO()
    behind = behind or {}
    lengths = {name: len(content) for name, content in behind.items()}
    keys = key.image_keys(made.nonce_bytes, made.study)
    metadata = metadata.marked(key.owner_secret(made.study), made.nonce_bytes)
    writer = ContainerWriter(stream, made, metadata, keys, lengths, signer)
    for body in bodies(made):
        writer.chunk(body)
    for name, content in behind.items():
        writer.section(name, content)
    writer.close()
    return stream.getvalue()


def read(data: bytes, opener: Opener = KEY, **options: Any) -> tuple[Header, Metadata | None, list[bytes]]:
    """Everything in a container."""
    reader = ContainerReader(io.BytesIO(data), opener, **options)
    return reader.header, reader.metadata, [chunk.body for chunk in reader.chunks()]


@dataclass
class Parts:
    """An intact container, taken apart."""

    head: bytes
    tag: bytes
    table: bytes
    sealed: bytes
    parity: bytes
    chunks: list[bytes]
    """Each with its tags."""
    behind: bytes
    """The sections behind the pixels."""

    def joined(self) -> bytes:
        prefix, rest = self.head[: PREFIX.size], self.head[PREFIX.size :]
        front = rest + self.tag + self.table + self.sealed
        return b"".join([prefix, located(prefix, len(front)), front, self.parity, *self.chunks, self.behind])


def parts(data: bytes) -> Parts:
    reader = PublicReader(io.BytesIO(data))
    head, grid = reader.header.to_bytes(), reader.header.grid
    lengths = {section.name: section.length for section in reader.sections}
    sealed, parity, pixels = (lengths.get(name, 0) for name in ("metadata", "parity", "pixels"))
    data = data[: PREFIX.size] + data[PREFIX.size + LOCATOR.size :]
    place = len(head) + TAG + 2 + 24 * len(reader.sections) + TAG
    chunks, at = [], place + sealed + parity
    for index in range(grid.count):
        size = math.prod(grid.form(index))
        size += 16 * -(-size // 4096)
        chunks.append(data[at : at + size])
        at += size
    assert at == place + sealed + parity + pixels
    tag, table = data[len(head) :][:TAG], data[len(head) + TAG : place]
    return Parts(head, tag, table, data[place : place + sealed], data[place + sealed :][:parity], chunks, data[at:])


def canonical(values: object) -> bytes:
    return json.dumps(values, sort_keys=True, separators=(",", ":"), ensure_ascii=False).encode()


def resign(
    data: bytes, change: Callable[[dict[str, Any]], Any], key: Key = KEY, metadata: bytes | None = None
) -> bytes:
    """Change the header (or the plain metadata) of a container, and sign it anew with the keys of `NONCE`."""
    old = parts(data)
    values = json.loads(old.head[PREFIX.size :])
    values = change(values) or values
    encoded = values if isinstance(values, bytes) else canonical(values)
    head = PREFIX.pack(container.MAGIC, container.VERSION, len(encoded)) + encoded
    keys = key.image_keys(NONCE)
    tags = Tags(keys, head)
    plain = METADATA.marked(key.owner_secret(), NONCE).to_bytes() if metadata is None else metadata
    sealed = tags.sealing.encrypt(bytes(12), plain, head)
    bodies = [body[: -16 * -(-len(body) // 4112)] for body in old.chunks]
    chunks = [body + tags.blocks(index, body) for index, body in enumerate(bodies)]
    table = table_bytes([Section("metadata", len(sealed), True), Section("pixels", sum(map(len, chunks)), True)])
    return Parts(head, tags.tag("header"), table + tags.tag("sections", table), sealed, b"", chunks, b"").joined()


def with_table(data: bytes, *sections: Section, behind: bytes = b"", signed: bool = True) -> bytes:
    """The container with another table of sections, which the owner of the key signed, and other bytes behind it."""
    old = parts(data)
    table = table_bytes(sections)
    tag = Tags(KEY.image_keys(NONCE), old.head).tag("sections", table) if signed else bytes(TAG)
    return replace(old, table=table + tag, parity=b"", behind=behind).joined()
