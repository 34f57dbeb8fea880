"""Damaged containers: intact slices open, and others are restored or left blank."""

from __future__ import annotations

import io
from unittest import mock

import numpy as np
import pytest
import torch
from torch import Tensor

from encdl.ciphers import names, weights
from encdl.ciphers.compiled_ciphers import FixedMask, available
from encdl.ciphers.postprocess import NAMES
from encdl.files.codec import Codec
from encdl.files.container import ContainerReader, PublicReader
from encdl.files.formats.base import array_of
from encdl.files.settings import Salvage, Settings
from encdl.utils.errors import ContainerError, UsageError
from tests.files.codec.support import BEHIND, KEY, damaged, noise, same


def test_intact_slices_of_a_damaged_file_open(codec: Codec) -> None:
    array = noise((6, 16, 16), "uint16")
    reader = damaged(codec.encrypt_array(array, KEY), 1, 4)
    for restore in (True, False):
        salvage = Salvage(restore)
        opened = array_of(codec.decrypt(reader, salvage))
        assert salvage.damaged == [1, 4]
        for number in (0, 2, 3, 5):
            assert same(opened[number], array[number])
        if restore:  # the stub restores all but what is known to be lost
            assert (opened[1] != array[1]).sum() == 1
        else:
            assert not opened[[1, 4]].any()
    with pytest.raises(UsageError, match="salvage"):
        codec.decrypt(reader)


def test_a_strict_reader_stops_at_the_first_damaged_slice(codec: Codec) -> None:
    array = noise((6, 16, 16))
    stream = damaged(codec.encrypt_array(array, KEY), 2)._stream
    stream.seek(0)
    strict = ContainerReader(stream, KEY)
    given = []
    with pytest.raises(ContainerError, match="slice 3 of 6 was changed"):
        given.extend(codec.decrypt(strict).slices())
    assert len(given) <= 2


@pytest.mark.parametrize("postprocess", NAMES)
@pytest.mark.parametrize("dtype", ["uint8", "uint16", "float32"])
def test_known_losses_reach_the_restorer_where_they_belong(codec: Codec, postprocess: str, dtype: str) -> None:
    array = noise((40, 50, 2), dtype)
    made = codec.encrypt_array(array, KEY, Settings(postprocess=postprocess))
    tags = 16 * -(-array.nbytes // 4096)
    cut = ContainerReader(io.BytesIO(made[: -100 - tags - BEHIND]), KEY, tolerant=True)
    salvaged = array_of(codec.decrypt(cut, Salvage()))
    right = salvaged.view(np.uint8) == array.view(np.uint8)
    share = (4000 if postprocess in {"diffusion", "both"} else 100) / array.nbytes
    assert 1 - share <= right.mean() < 1


def test_salvage_with_the_network(agile: Codec) -> None:
    array = np.tile(np.arange(48, dtype=np.uint8) * 5, (3, 32, 1))
    made = agile.encrypt_array(array, KEY, layout="SHW")
    reader = ContainerReader(io.BytesIO(made[: -16 - 32 * 24 - BEHIND]), KEY, tolerant=True)
    salvage = Salvage()
    salvaged = array_of(agile.decrypt(reader, salvage))
    assert salvage.damaged == [2]
    assert same(salvaged[:2], array[:2])
    assert salvaged[2].any()
    gone = ContainerReader(io.BytesIO(made[: -2 * (32 * 48 + 16) + 100 - BEHIND]), KEY, tolerant=True)
    salvaged = array_of(agile.decrypt(gone, salvage))
    assert salvage.damaged == [1, 2]
    assert not salvaged[2].any()  # nothing of it is left, and nothing is made up


def test_lost_metadata_leave_the_pixels(codec: Codec) -> None:
    array = noise((5, 6))
    made = bytearray(codec.encrypt_array(array, KEY, file_format="tiff"))
    start = PublicReader(io.BytesIO(bytes(made)))._starts["metadata"]
    end = len(made) - 30 - 16 - BEHIND
    made[start:end] = bytes(end - start)  # and their parity
    opened = codec.decrypt(ContainerReader(io.BytesIO(bytes(made)), KEY, tolerant=True), Salvage())
    assert (opened.format, opened.rest) == ("npy", b"")
    assert same(array_of(opened), array)


@pytest.mark.parametrize("postprocess", ["interleave", "none", "confusion"])
@pytest.mark.parametrize("content", [bytes(4096), noise((4096,)).tobytes()], ids=["holes", "noise"])
def test_loss_is_known_to_blocks_and_the_rest_stays_exact(agile: Codec, postprocess: str, content: bytes) -> None:
    """A block is overwritten and another has one flipped byte: the first alone is told to be lost."""
    rows, columns = np.mgrid[0:128, 0:128]
    array = (rows + columns).astype(np.uint8)
    made = bytearray(agile.encrypt_array(array, KEY, Settings(postprocess=postprocess)))
    start = len(made) - 128 * 128 - 4 * 16 - BEHIND
    made[start + 4096 : start + 8192] = content
    made[start + 9000] ^= 64
    told = []

    def restore(ciphertext: Tensor, key_planes: Tensor, lost: Tensor) -> Tensor:
        told.append(int(lost.sum()))
        return torch.from_numpy(array)[None, None] + 3  # a network that sees through all damage, nearly

    reader = ContainerReader(io.BytesIO(bytes(made)), KEY, tolerant=True)
    with mock.patch.object(agile.cipher, "restore", restore):
        found = array_of(agile.decrypt(reader, Salvage()))
    assert told == ([4096] if content == bytes(4096) else [0, 4096])
    assert (found != array).sum() == 8192  # the two blocks; the rest is decrypted


@pytest.mark.skipif(not available(), reason="no compiled code for this processor")
@pytest.mark.parametrize("postprocess", NAMES)
def test_compiled_code_gives_what_the_network_gives(postprocess: str) -> None:
    whole = Codec(weights.load("default").cipher, names.FIXED["default"][1])
    alone = Codec(FixedMask("agile"), whole.weights_id, whole=lambda: whole.cipher)
    array = noise((2, 33, 20), "uint16")
    made = [each.encrypt_array(array, KEY, Settings(postprocess=postprocess)) for each in (whole, alone)]
    for data in made:
        assert all(same(each.decrypt_array(data, KEY), array) for each in (whole, alone))
        slices = [list(each.cipher_slices(ContainerReader(io.BytesIO(data), KEY))) for each in (whole, alone)]
        for one, two in zip(*slices, strict=True):
            assert torch.equal(one.ciphertext, two.ciphertext)
            assert torch.equal(one.mask, two.mask)


def test_the_decryption_network_is_loaded_when_something_is_damaged() -> None:
    whole = Codec(weights.load("default").cipher, names.FIXED["default"][1])
    array = np.tile(np.arange(48, dtype=np.uint8) * 5, (32, 1))
    made = bytearray(whole.encrypt_array(array, KEY))
    made[-1000:-900] = noise((100,)).tobytes()
    lazy = Codec(FixedMask("agile"), whole.weights_id, whole=lambda: weights.load("default").cipher)
    reader = ContainerReader(io.BytesIO(bytes(made)), KEY, tolerant=True)
    one, two = (array_of(codec.decrypt(reader, Salvage())) for codec in (whole, lazy))
    assert same(one, two)
