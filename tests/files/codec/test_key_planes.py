"""Key planes: what the header says of them, and that none serves twice."""

from __future__ import annotations

import io
import warnings

import numpy as np
import pytest
import torch

from encdl.ciphers.postprocess import NAMES
from encdl.files.codec import Codec
from encdl.files.container import ContainerReader
from encdl.files.container.chunk_grid import cut
from encdl.files.settings import Settings
from encdl.keys.planes import PlaneSpec
from tests.files.codec.support import KEY, header_of, noise, same


@pytest.mark.filterwarnings("ignore::encdl.keys.LeakyExpansionWarning")
@pytest.mark.parametrize("spec", [PlaneSpec(expansion="coprime", period=16), PlaneSpec(map="chacha20")])
def test_the_key_planes_of_the_header_count(codec: Codec, spec: PlaneSpec) -> None:
    array = noise((40, 40))
    made = codec.encrypt_array(array, KEY, Settings(spec))
    assert header_of(made).planes == spec
    assert same(codec.decrypt_array(made, KEY), array)


def test_no_two_chunks_share_a_key_plane(codec: Codec) -> None:
    """The slices are equal, and the stub adds the key planes alone: equal planes would give equal ciphertexts."""
    made = codec.encrypt_array(np.zeros((9, 32, 32), np.uint8), KEY, layout="SHW")
    bodies = [chunk.body for chunk in ContainerReader(io.BytesIO(made), KEY).chunks()]
    assert len(bodies) == len(set(bodies)) == 9
    for one in range(9):
        for two in range(one):
            different = np.frombuffer(bodies[one], np.uint8) != np.frombuffer(bodies[two], np.uint8)
            assert different.mean() > 0.97


def test_the_channels_of_a_chunk_do_not_share_key_planes(codec: Codec) -> None:
    made = codec.encrypt_array(np.zeros((32, 32, 4), np.float64), KEY, layout="HWC")
    (chunk,) = ContainerReader(io.BytesIO(made), KEY).chunks()
    planes = np.frombuffer(chunk.body, np.uint8).reshape(32, -1)
    assert len({plane.tobytes() for plane in planes}) == 32


def test_the_leaky_expansion_warns(codec: Codec) -> None:
    with pytest.warns(UserWarning, match="periodic"):
        codec.encrypt_array(noise((9, 9)), KEY, Settings(PlaneSpec(expansion="periodic", period=4)))
    with warnings.catch_warnings():
        warnings.simplefilter("error")
        codec.encrypt_array(noise((9, 9)), KEY)


@pytest.mark.parametrize("postprocess", NAMES)
@pytest.mark.parametrize("dtype", ["uint8", "int16"])
def test_ciphertext_and_mask_differ_by_the_image(agile: Codec, postprocess: str, dtype: str) -> None:
    array = noise((2, 9, 8, 3), dtype)
    made = agile.encrypt_array(array, KEY, Settings(postprocess=postprocess, study="S"))
    header = header_of(made)
    for opener in (KEY, KEY.grant_study("S"), KEY.grant_file(header.nonce_bytes, "S")):
        slices = list(agile.cipher_slices(ContainerReader(io.BytesIO(made), opener)))
        assert len(slices) == 2
        for number, found in enumerate(slices):
            assert found.ciphertext.dtype == found.mask.dtype == torch.uint8
            planes = cut(array[number], header.grid.place(number))
            assert torch.equal(found.ciphertext - found.mask, torch.from_numpy(planes)[None])
            if postprocess == "none":
                assert torch.equal(found.ciphertext[0], torch.from_numpy(found.body))
