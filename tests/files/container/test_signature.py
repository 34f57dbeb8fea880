"""Signatures: whoever has the public key tells a changed file, with no other key, and cannot forge one."""

from __future__ import annotations

import hashlib
import io
import random

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from encdl.files.container import ContainerReader, PublicReader
from encdl.files.container.sections import HashTree
from encdl.keys.signing import PublicKey, SigningKey
from encdl.utils.errors import ContainerError
from tests.files.container.support import KEY, header, make

SIGNER, OTHER = SigningKey(bytes(range(32))), SigningKey(bytes(32))
BEHIND = {"reading": bytes(range(200))}
SIGNED = make(behind=BEHIND, signer=SIGNER)


def check(data: bytes, public: PublicKey = SIGNER.public) -> None:
    PublicReader(io.BytesIO(data), "a.encdl").check_signature(public)


def root(blocks: list[bytes]) -> bytes:
    """As RFC 6962 defines it."""
    if len(blocks) == 1:
        return hashlib.sha256(b"\0" + blocks[0]).digest()
    half = 1 << (len(blocks) - 1).bit_length() - 1
    return hashlib.sha256(b"\1" + root(blocks[:half]) + root(blocks[half:])).digest()


@settings(max_examples=40, deadline=None)
@given(st.integers(0, 40_000), st.integers(0, 2**32))
def test_the_tree_is_the_documented_one_however_the_bytes_come(size: int, number: int) -> None:
    rng = random.Random(number)
    data, tree, place = rng.randbytes(size), HashTree(), 0
    while place < size:
        step = rng.choice((1, 100, 4096, 10_000))
        tree.update(data[place : place + step])
        place += step
    assert tree.root() == root([data[i : i + 4096] for i in range(0, size, 4096)] or [b""])


def test_a_signed_file_is_taken_as_it_is_and_under_its_own_key_alone() -> None:
    check(SIGNED)
    ContainerReader(io.BytesIO(SIGNED), KEY).verify()
    with pytest.raises(ContainerError, match=f"a.encdl: says it was signed with {SIGNER.public.id}"):
        check(SIGNED, OTHER.public)
    with pytest.raises(ContainerError, match="is not signed"):
        check(make())
    large = make(header(shape=(2, 150, 90), tile=(150, 90)), signer=SIGNER)
    check(large)
    assert len(large) - len(make(header(shape=(2, 150, 90), tile=(150, 90)))) == 24 + 104


def test_every_changed_byte_that_is_signed_is_noticed_without_a_key() -> None:
    """Header, metadata, pixels with their tags, reading layer; tags of header and table are the key's."""
    head = 22 + len(header().to_bytes())
    tags = {*range(head, head + 32), *range(head + 34 + 6 * 24, head + 66 + 6 * 24)}
    unsigned = tags | set(range(len(SIGNED) - 32, len(SIGNED)))
    for place in range(len(SIGNED)):
        damaged = bytearray(SIGNED)
        damaged[place] ^= 1
        if place in unsigned:
            check(bytes(damaged))
            with pytest.raises(ContainerError):
                ContainerReader(io.BytesIO(damaged), KEY).verify()
            continue
        with pytest.raises(ContainerError) as caught:
            check(bytes(damaged))
        assert "\n" not in str(caught.value)


def test_whoever_only_reads_cannot_sign() -> None:
    """With the file's key, but not the owner's: another's signature does not pass for the owner's, nor an old one."""
    forged = make(header(study="other"), behind=BEHIND, signer=OTHER)
    with pytest.raises(ContainerError, match="says it was signed"):
        check(forged)
    relabelled = bytearray(forged)
    relabelled[-104:-96] = bytes.fromhex(SIGNER.public.id)
    for signature in (relabelled[-104:], SIGNED[-104:]):
        with pytest.raises(ContainerError, match="was changed after it was signed"):
            check(forged[:-104] + signature)
