"""Containers made by hand, and signed anew after a change as only the owner of the key could."""

from __future__ import annotations

import io
import json
import struct
from collections.abc import Callable
from typing import Any

import numpy as np

from encdl.files import container
from encdl.files.container import ContainerReader, ContainerWriter, Header, Metadata
from encdl.files.container.header import PREFIX
from encdl.files.container.tags import ChunkTags, sealing_key
from encdl.keys.key import Key, Opener
from encdl.keys.planes import PlaneSpec

SECRET = bytes(range(100, 132))
KEY = Key(SECRET)
NONCE = bytes(range(16))
METADATA = Metadata("png", ".png", "ab" * 32, b"PatientName=Doe")
TAG = 32


def header(metadata: Metadata = METADATA, **changes: Any) -> Header:
    """The header of a volume of three slices of 4x5, two bytes a value, in tiles of up to 3x5: six chunks."""
    fields: dict[str, Any] = {
        "cipher": "agile",
        "weights": "0123456789abcdef",
        "shape": (3, 4, 5),
        "dtype": "uint16",
        "layout": "SHW",
        "nonce": NONCE.hex(),
        "postprocess": "none",
        "planes": PlaneSpec("logistic+chacha20", "full", 8, 0).to_dict(),
        "study": "",
        "key_id": KEY.id,
        "tile": (3, 5),
        "sealed_bytes": container.sealed_length(metadata),
    }
    return Header(**{**fields, **changes})


def bodies(made: Header) -> list[bytes]:
    """Different bytes for every chunk."""
    rng = np.random.default_rng(0)
    return [rng.bytes(made.grid.chunk_bytes(index)) for index in range(made.grid.count)]


def make(made: Header | None = None, metadata: Metadata = METADATA, key: Key = KEY) -> bytes:
    """A whole container."""
    made = made or header(metadata)
    stream = io.BytesIO()
    writer = ContainerWriter(stream, made, metadata, key.image_keys(made.nonce_bytes, made.study))
    for body in bodies(made):
        writer.chunk(body)
    writer.close()
    return stream.getvalue()


def read(data: bytes, opener: Opener = KEY, **options: Any) -> tuple[Header, Metadata | None, list[bytes]]:
    """Everything in a container."""
    reader = ContainerReader(io.BytesIO(data), opener, **options)
    return reader.header, reader.metadata, [chunk.body for chunk in reader.chunks()]


def parts(data: bytes) -> tuple[bytes, bytes, bytes, list[bytes], bytes]:
    """Head, its tag, sealed section, chunks with their tags, and end of an intact container."""
    head = data[: PREFIX.size + struct.unpack("<I", data[10:14])[0]]
    made = Header.from_bytes(head[PREFIX.size :])
    place = len(head) + TAG
    sealed, place = data[place : place + made.sealed_bytes], place + made.sealed_bytes
    chunks = []
    for index in range(made.grid.count):
        size = made.grid.chunk_bytes(index) + TAG
        chunks.append(data[place : place + size])
        place += size
    return head, data[len(head) : len(head) + TAG], sealed, chunks, data[place:]


def canonical(values: object) -> bytes:
    return json.dumps(values, sort_keys=True, separators=(",", ":"), ensure_ascii=False).encode()


def resign(
    data: bytes, change: Callable[[dict[str, Any]], Any], key: Key = KEY, metadata: bytes | None = None
) -> bytes:
    """Change the header (or the plain metadata) of a container, and sign it anew with the keys of `NONCE`."""
    head, _, _, chunks, _ = parts(data)
    values = json.loads(head[PREFIX.size :])
    values = change(values) or values
    encoded = values if isinstance(values, bytes) else canonical(values)
    head = PREFIX.pack(container.MAGIC, container.VERSION, len(encoded)) + encoded
    keys = key.image_keys(NONCE)
    tags = ChunkTags(keys, head)
    from cryptography.hazmat.primitives.ciphers.aead import AESGCM

    plain = METADATA.to_bytes() if metadata is None else metadata
    sealed = AESGCM(sealing_key(keys)).encrypt(bytes(12), plain, head)
    signed = [body[:-TAG] + tags.chunk(index, body[:-TAG]) for index, body in enumerate(chunks)]
    import hashlib

    every = hashlib.sha256(b"".join(body[-TAG:] for body in signed)).digest()
    return head + tags.header() + sealed + b"".join(signed) + tags.end(len(signed), sealed, every)
