"""Nonces, grants and studies."""

from __future__ import annotations

import io
from typing import Any

import numpy as np
import pytest

from encdl.files.codec import Codec
from encdl.files.container import ContainerReader
from encdl.files.formats import Document
from encdl.files.settings import NONCE_MODES, Settings
from encdl.keys.key import Key
from encdl.keys.planes import PlaneSpec
from encdl.utils.errors import UsageError, WrongKeyError
from tests.files.codec.support import KEY, Array, header_of, noise, same


def test_random_nonces_differ_and_synthetic_ones_follow_content_and_settings(codec: Codec) -> None:
    array = noise((16, 16))

    def encrypt(array: Array = array, opener: Any = KEY, mode: Any = "synthetic", **changes: Any) -> str:
        kind = {name: changes.pop(name) for name in ("layout", "file_format") if name in changes}
        made = codec.encrypt_array(array, opener, Settings(nonce=mode, **changes), **kind)
        return ContainerReader(io.BytesIO(made), opener).header.nonce

    assert encrypt(mode="random") != encrypt(mode="random")
    again = [encrypt() for _ in range(2)]
    changed = array.copy()
    changed[-1, -1] ^= 1
    others = [
        encrypt(changed),
        encrypt(array.reshape(8, 32)),
        encrypt(array.reshape(16, 16, 1)),
        encrypt(array.reshape(16, 1, 16), layout="SHW"),
        encrypt(array.view("<u2")),
        encrypt(file_format="tiff"),
        encrypt(study="S"),
        encrypt(postprocess="both"),
        encrypt(planes=PlaneSpec(map="chacha20")),
        encrypt(opener=Key(bytes(32))),
    ]
    assert again[0] == again[1]
    assert len({again[0], *others}) == 1 + len(others)


def test_the_metadata_belong_to_a_synthetic_nonce(codec: Codec) -> None:
    """Or one key of AES-256-GCM would seal two different texts under one nonce."""

    def nonce(rest: bytes, suffix: str) -> str:
        array = np.zeros((4, 4), np.uint8)
        document = Document(array.shape, array.dtype, "HW", "npy", rest, lambda: iter([array]))
        stream = io.BytesIO()
        return codec.encrypt(document, KEY, stream, Settings(nonce="synthetic"), suffix=suffix).nonce

    assert len({nonce(b"", ""), nonce(b"a", ""), nonce(b"b", ""), nonce(b"", ".npy"), nonce(b"", ".tif")}) == 5


def test_a_synthetic_nonce_is_of_the_pixels_whatever_their_digest_is_said_to_be(codec: Codec) -> None:
    """Or a false digest would encrypt two images under one nonce."""
    arrays = noise((4, 4)), noise((4, 4), seed=1)
    how = Settings(nonce="synthetic")
    right = [header_of(codec.encrypt_array(array, KEY, how)).nonce for array in arrays]
    for array, nonce in zip(arrays, right, strict=True):
        document = Document(array.shape, array.dtype, "HW", "npy", b"", lambda a=array: iter([a]), bytes(32))
        assert codec.encrypt(document, KEY, io.BytesIO(), how, content=bytes(32)).nonce == nonce


def test_one_changed_pixel_changes_all_under_a_synthetic_nonce(codec: Codec) -> None:
    array = noise((4, 32, 32), "uint16")
    changed = array.copy()
    changed[3, 31, 31] ^= 128
    one, two = (
        b"".join(chunk.body for chunk in ContainerReader(io.BytesIO(made), KEY).chunks())
        for made in (codec.encrypt_array(a, KEY, Settings(nonce="synthetic")) for a in (array, changed))
    )
    assert (np.frombuffer(one, np.uint8) != np.frombuffer(two, np.uint8)).mean() > 0.99


def test_study_grants_encrypt_for_their_study_only(codec: Codec) -> None:
    grant = KEY.grant_study("S")
    array = noise((8, 8))
    for nonce in NONCE_MODES:
        made = codec.encrypt_array(array, grant, Settings(study="S", nonce=nonce))
        assert same(codec.decrypt_array(made, KEY), array)
        with pytest.raises(WrongKeyError):
            codec.encrypt_array(array, grant, Settings(study="T", nonce=nonce))
    with pytest.raises(UsageError, match="grant for one file cannot encrypt"):
        codec.encrypt_array(array, KEY.grant_file(bytes(16)))
    for other in (KEY.grant_study("T"), KEY.grant_file(bytes(16), "S"), Key(bytes(32))):
        with pytest.raises(WrongKeyError):
            codec.decrypt_array(made, other)


def test_study_names_are_the_same_however_they_are_typed(codec: Codec) -> None:
    made = codec.encrypt_array(noise((4, 4)), KEY, Settings(study="e\u0301"))
    assert header_of(made).study == "\u00e9"
    codec.decrypt_array(made, KEY.grant_study("e\u0301"))
