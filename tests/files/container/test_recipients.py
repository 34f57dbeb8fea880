"""The block behind a container: who is in it opens the file, and nobody changes it without the file's secret."""

from __future__ import annotations

import io
import random

import numpy as np
import pytest

import encdl
from encdl.files.container import ContainerReader, PublicReader, parity
from encdl.files.container.recipients import MAX_RECIPIENTS
from encdl.keys.key import NO_KEY, Key, Opener
from encdl.keys.recipients import RecipientKey
from encdl.keys.signing import SigningKey
from encdl.utils.errors import ContainerError, UsageError, WrongKeyError

KEY, SIGNER = Key(bytes(range(32))), SigningKey(bytes(32))
ONE, TWO, OTHER = (RecipientKey(bytes([number]) * 32) for number in range(3))
ARRAY = np.arange(35, dtype=np.uint8).reshape(5, 7)
PLAIN = encdl.encrypt(ARRAY, KEY, signer=SIGNER)
MADE = {
    "with a key": encdl.encrypt(ARRAY, KEY, recipients=[ONE.public, TWO.public], signer=SIGNER),
    "in AES": encdl.encrypt(ARRAY, KEY, recipients=[ONE.public, TWO.public], wrap="aes"),
    "alone": encdl.encrypt(ARRAY, recipients=[ONE.public, TWO.public]),
}
LENGTH = 2 * 88 + 32
BLOCK = LENGTH + 2 * 64 + 24


def opened(data: bytes, opener: Opener = ONE) -> ContainerReader:
    return ContainerReader(io.BytesIO(data), opener, "a.encdl")


def changed(data: bytes, add: list[RecipientKey], remove: list[RecipientKey], opener: Opener = ONE) -> bytes:
    reader = opened(data, opener)
    block = reader.readdressed([key.public for key in add], [key.key_id for key in remove])
    return data[: reader.end] + (block.to_bytes() if block else b"")


@pytest.mark.parametrize("how", MADE)
def test_every_recipient_opens_it_and_nobody_else(how: str) -> None:
    data = MADE[how]
    for key in (ONE, TWO) if how == "alone" else (ONE, TWO, KEY):
        np.testing.assert_array_equal(encdl.decrypt(data, key), ARRAY)
    with pytest.raises(WrongKeyError, match=f"not for recipient {OTHER.key_id}: its recipients are {ONE.key_id}, "):
        opened(data, OTHER)
    if how == "alone":
        assert opened(data).header.key_id == NO_KEY
        with pytest.raises(WrongKeyError, match="for its recipients alone"):
            opened(data, KEY)
    with pytest.raises(WrongKeyError, match="it has no recipients"):
        opened(PLAIN)


@pytest.mark.parametrize("how", MADE)
def test_every_changed_byte_of_the_block_is_refused(how: str) -> None:
    data, opener = MADE[how], TWO if how == "alone" else KEY
    for place in range(len(data) - BLOCK, len(data)):
        bad = bytearray(data)
        bad[place] ^= 1
        with pytest.raises((ContainerError, WrongKeyError)) as caught:
            opened(bytes(bad), opener)
        assert "\n" not in str(caught.value)
    content, foot = data[-BLOCK:][:LENGTH], data[-24:]
    content = content[88:176] + content[:88] + content[176:]
    swapped = data[:-BLOCK] + content + parity.encoded(content) + foot
    for forged in (swapped, data[:-BLOCK] + MADE["with a key" if how == "alone" else "alone"][-BLOCK:], data[:-100]):
        with pytest.raises((ContainerError, WrongKeyError)):
            opened(forged, opener)


def test_recipients_change_and_all_before_them_stays() -> None:
    public = SIGNER.public
    for data, opener in ((PLAIN, KEY), *((data, TWO) for data in MADE.values())):
        more = changed(data, [OTHER, TWO], [], opener)
        np.testing.assert_array_equal(encdl.decrypt(more, OTHER), ARRAY)
        fewer = changed(more, [], [ONE, TWO], OTHER)
        assert opened(fewer, OTHER).recipients.ids == (OTHER.key_id,)  # type: ignore[union-attr]
        with pytest.raises(WrongKeyError):
            opened(fewer, TWO)
        end = opened(data, opener).end
        assert fewer[:end] == more[:end] == data[:end]
        assert len(fewer) == end + 88 + 32 + 64 + 24
    PublicReader(io.BytesIO(changed(MADE["with a key"], [OTHER], [ONE]))).check_signature(public)
    assert changed(changed(PLAIN, [ONE], [], KEY), [], [ONE]) == PLAIN


def test_nobody_locks_everybody_out() -> None:
    with pytest.raises(UsageError, match="without a recipient nobody could"):
        changed(MADE["alone"], [], [ONE, TWO])
    with pytest.raises(UsageError, match="nobody could open the files"):
        encdl.encrypt(ARRAY)
    rng = random.Random(0)
    with pytest.raises(UsageError, match=f"{MAX_RECIPIENTS:,} recipients at the most"):
        changed(PLAIN, [RecipientKey(rng.randbytes(32)) for _ in range(MAX_RECIPIENTS + 1)], [], KEY)


def test_a_recipient_opens_what_is_damaged_too() -> None:
    damaged = bytearray(encdl.encrypt(np.zeros((90, 100), np.uint8), KEY, recipients=[ONE.public]))
    damaged[2000] ^= 1
    found = encdl.salvage(bytes(damaged), ONE, restore=False)
    assert found.damaged == [0]
