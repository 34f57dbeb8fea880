"""Hits before the pixels, up to what Reed-Solomon parity undoes; and what the container costs."""

from __future__ import annotations

import io
import random
from pathlib import Path

import numpy as np
import pytest
import reedsolo
from hypothesis import given, settings
from hypothesis import strategies as st

import encdl
from encdl.files import container
from encdl.files.container import ContainerReader, PublicReader, parity
from encdl.files.container.header import located
from encdl.keys.key import Key
from encdl.keys.recipients import RecipientKey
from encdl.utils.errors import ContainerError, WrongKeyError
from tests.files.container.damage_trial import trial
from tests.files.container.support import KEY, METADATA, bodies, header, make, parts, read

DATA = make()
MINE = parts(DATA)
BEGINNING = 36 + len(MINE.head) - 14 + 32 + len(MINE.table) + len(MINE.sealed) + len(MINE.parity) - 32


@pytest.mark.parametrize(("data", "over"), [(191, 64), (18, 18), (10, 14), parity.LAYER])
def test_parity_is_that_of_the_library(data: int, over: int) -> None:
    content = random.Random(0).randbytes(data)
    assert parity.encoded(content, data, over) == reedsolo.RSCodec(over, nsize=data + over).encode(content)[data:]


@settings(max_examples=6, deadline=None)
@given(st.integers(1, 600), st.integers(0, 2**32))
def test_32_hits_a_codeword_are_undone_and_more_are_told(size: int, number: int) -> None:
    rng = random.Random(number)
    content = rng.randbytes(size)
    whole = bytearray(content + parity.encoded(content))
    words = -(-size // 191)
    assert len(whole) == size + parity.parity_length(size) == size + 64 * words
    for word in range(words):
        for place in rng.sample(range(word, size, words), min(16, len(range(word, size, words)))):
            whole[place] ^= rng.randrange(1, 256)
        for place in rng.sample(range(64), 16):
            whole[size + place * words + word] ^= rng.randrange(1, 256)
    assert parity.corrected(bytes(whole[:size]), bytes(whole[size:])) == content
    start = rng.randrange(max(1, size - 32 * words))  # a stretch is shared among the codewords
    gone = content[:start] + bytes(min(32 * words, size - start)) + content[start + 32 * words :]
    assert parity.corrected(gone, parity.encoded(content)) == content
    lost = parity.corrected(rng.randbytes(size), parity.encoded(content))
    assert lost is None or lost == content or size < 64


def test_wherever_it_is_hit_a_tolerant_reader_undoes_it(tmp_path: Path) -> None:
    for place in (*range(0, 36, 5), *range(36, BEGINNING, 41)):
        damaged = bytearray(DATA)
        damaged[place] ^= 0x55
        with pytest.raises(Exception, match="data: "):
            read(bytes(damaged))
        (tmp_path / "a.encdl").write_bytes(damaged)
        with pytest.raises((ContainerError, WrongKeyError), match="or try --salvage"):
            container.verify(tmp_path / "a.encdl", KEY)
        reader = ContainerReader(io.BytesIO(damaged), KEY, tolerant=True)
        assert (reader.header, reader.metadata) == (header(), METADATA)
        assert [chunk.body for chunk in reader.chunks() if not chunk.damaged] == bodies(header())
        assert reader.problems == ["its beginning was hit, and repaired from the parity there"]


def test_a_locator_that_lies_is_refused() -> None:
    """Even with parity that fits: its number has to be where the metadata end."""
    for front in (0, 700, 2**32 - 1):
        lie = DATA[:14] + located(DATA[:14], front) + DATA[36:]
        with pytest.raises(ContainerError, match="its beginning is damaged") as caught:
            PublicReader(io.BytesIO(lie), "a.encdl")
        assert "\n" not in str(caught.value)
        assert ContainerReader(io.BytesIO(lie), KEY, tolerant=True).metadata == METADATA


@pytest.mark.parametrize("rest", [0, 4000])
def test_one_per_cent_of_all_bytes_hit_leaves_every_file_restorable(rest: int) -> None:
    assert trial(rest, 0.01, 3) == (3, 3)


@pytest.mark.slow
@pytest.mark.timeout(1500)
@pytest.mark.parametrize("rest", [0, 4000])
def test_200_files_hit_all_over(rest: int) -> None:
    assert trial(rest, 0.01, 200) == (200, 200)


def test_recipients_are_repaired_too() -> None:
    rng, key = np.random.default_rng(0), RecipientKey(bytes(32))
    data = encdl.encrypt(np.zeros((9, 9), np.uint8), recipients=[key.public])
    for _ in range(3):
        damaged = bytearray(data)
        for place in rng.choice(len(data), len(data) // 100, replace=False):
            damaged[place] ^= 1
        assert encdl.salvage(bytes(damaged), key, restore=False).array.shape == (9, 9)


def test_a_mebibyte_grows_by_less_than_two_per_cent() -> None:
    """Padding, reading layer and parity are not counted."""
    image = np.random.default_rng(0).integers(0, 65536, (1024, 512), dtype=np.uint16)
    data = encdl.encrypt(image, Key(bytes(32)))
    reader = ContainerReader(io.BytesIO(data), Key(bytes(32)))
    lengths = {section.name: section.length for section in reader.sections}
    padding = lengths["metadata"] - 16 - 4 - 160 - len(reader.metadata.rest if reader.metadata else b"")
    counted = len(data) - max(0, padding) - lengths["parity"] - image.nbytes
    print(counted / image.nbytes, lengths["parity"] / image.nbytes)
    assert counted <= 0.02 * image.nbytes
    assert lengths["parity"] <= 0.001 * image.nbytes
