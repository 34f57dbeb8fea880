from __future__ import annotations

import dataclasses
from typing import Any

import numpy as np
import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st

from encdl import ciphers
from encdl.codec import NONCE_MODES, Codec, from_tensor, to_tensor
from encdl.errors import ContainerError, ImageFileError, UsageError, WeightsError, WrongKeyError
from encdl.keys.key import Key
from encdl.keys.planes import PlaneSpec
from encdl.postprocess import NAMES
from tests.stub_cipher import StubCipher

KEY = Key(bytes(range(32)))
WEIGHTS = "0123456789abcdef"
PLANES = PlaneSpec()
DTYPES = ("uint8", "uint16", "int16")


@pytest.fixture(autouse=True, scope="module")
def one_thread() -> None:
    """Threads that wait for each other on a busy machine make tiny pictures forty times slower."""
    torch.set_num_threads(1)


@pytest.fixture(scope="module")
def codec() -> Codec:
    return Codec(StubCipher(), WEIGHTS)


@pytest.fixture(scope="module")
def agile() -> Codec:
    torch.manual_seed(0)
    return Codec(ciphers.create("agile", {}).eval(), WEIGHTS)


def noise(shape: tuple[int, ...], dtype: str = "uint8", seed: int = 0) -> np.ndarray[Any, Any]:
    info = np.iinfo(dtype)
    return np.random.default_rng(seed).integers(info.min, info.max, shape, dtype=dtype, endpoint=True)


SHAPES = st.lists(st.integers(1, 9), min_size=2, max_size=3).map(tuple)


@settings(max_examples=60, deadline=None)
@given(
    SHAPES,
    st.sampled_from(DTYPES),
    st.sampled_from(NAMES),
    st.sampled_from(NONCE_MODES),
    st.text("ab", max_size=3),
)
def test_round_trip(codec: Codec, shape: Any, dtype: str, postprocess: str, nonce: Any, study: str) -> None:
    array = noise(shape, dtype)
    header, body = codec.encrypt_array(
        array, KEY, planes=PLANES, postprocess=postprocess, nonce=nonce, study=study, file_format="npy"
    )
    assert len(body) == header.body_bytes == array.nbytes
    np.testing.assert_array_equal(codec.decrypt_array(header, body, KEY), array, strict=True)
    grant = KEY.grant_file(header.nonce_bytes, study)
    np.testing.assert_array_equal(codec.decrypt_array(header, body, grant), array, strict=True)


@pytest.mark.parametrize("dtype", DTYPES)
@pytest.mark.parametrize("shape", [(1, 1), (1, 7), (6, 1), (5, 6), (5, 6, 1), (7, 9, 3), (2, 2, 4)], ids=str)
def test_round_trip_with_the_network(agile: Codec, shape: tuple[int, ...], dtype: str) -> None:
    array = noise(shape, dtype)
    header, body = agile.encrypt_array(array, KEY, planes=PLANES, postprocess="both")
    np.testing.assert_array_equal(agile.decrypt_array(header, body, KEY), array, strict=True)


@pytest.mark.filterwarnings("ignore::encdl.keys.LeakyExpansionWarning")
@pytest.mark.parametrize("expansion", [PlaneSpec(expansion="coprime", period=16), PlaneSpec(map="chacha20")])
def test_the_key_planes_of_the_header_count(codec: Codec, expansion: PlaneSpec) -> None:
    array = noise((40, 40))
    header, body = codec.encrypt_array(array, KEY, planes=expansion)
    assert header.plane_spec() == expansion
    np.testing.assert_array_equal(codec.decrypt_array(header, body, KEY), array)
    other = dataclasses.replace(header, planes=PLANES.to_dict())
    assert (codec.decrypt_array(other, body, KEY) != array).mean() > 0.9


def test_16_bit_values_are_low_bytes_then_high_bytes() -> None:
    array = np.array([[[0x1234, -1]]], np.int16)
    tensor = to_tensor(array)
    assert tensor.flatten().tolist() == [0x34, 0xFF, 0x12, 0xFF]
    assert tensor.shape == (1, 4, 1, 1)
    assert to_tensor(noise((4, 5, 3))).shape == (1, 3, 4, 5)


@settings(max_examples=40, deadline=None)
@given(SHAPES, st.sampled_from(DTYPES))
def test_layout_round_trip(codec: Codec, shape: Any, dtype: str) -> None:
    array = noise(shape, dtype)
    header, _ = codec.encrypt_array(array, KEY, planes=PLANES)
    np.testing.assert_array_equal(from_tensor(to_tensor(array), header), array, strict=True)


def test_arrays_in_other_orders_are_the_same_picture(codec: Codec) -> None:
    array = noise((6, 8, 3), "uint16")
    for same in (np.asfortranarray(array), array.astype(">u2"), array[::-1][::-1]):
        header, body = codec.encrypt_array(same, KEY, planes=PLANES, nonce="synthetic")
        assert (header, body) == codec.encrypt_array(array, KEY, planes=PLANES, nonce="synthetic")


def test_random_nonces_differ_and_synthetic_ones_follow_picture_and_settings(codec: Codec) -> None:
    array = noise((16, 16))

    def encrypt(array: Any = array, opener: Any = KEY, **settings: Any) -> str:
        return codec.encrypt_array(array, opener, **{"planes": PLANES, **settings})[0].nonce

    assert encrypt() != encrypt()
    again = [encrypt(nonce="synthetic") for _ in range(2)]
    changed = array.copy()
    changed[-1, -1] ^= 1
    others = [
        encrypt(changed, nonce="synthetic"),
        encrypt(array.reshape(8, 32), nonce="synthetic"),
        encrypt(array.reshape(16, 16, 1), nonce="synthetic"),
        encrypt(array.view("<u2"), nonce="synthetic"),
        encrypt(nonce="synthetic", study="S"),
        encrypt(nonce="synthetic", postprocess="both"),
        encrypt(nonce="synthetic", planes=PlaneSpec(map="chacha20")),
        encrypt(nonce="synthetic", opener=Key(bytes(32))),
    ]
    assert again[0] == again[1]
    assert len({again[0], *others}) == 1 + len(others)


def test_one_changed_pixel_changes_all_under_a_synthetic_nonce(codec: Codec) -> None:
    array = noise((64, 64))
    changed = array.copy()
    changed[63, 63] ^= 128
    one, two = (
        np.frombuffer(codec.encrypt_array(a, KEY, planes=PLANES, nonce="synthetic")[1], np.uint8)
        for a in (array, changed)
    )
    assert (one != two).mean() > 0.99


def test_wrong_keys_give_noise_and_wrong_grants_errors(codec: Codec) -> None:
    array = noise((32, 32))
    header, body = codec.encrypt_array(array, KEY, planes=PLANES, study="S")
    wrong = codec.decrypt_array(header, body, Key(bytes(32)))  # the container refuses it before this
    assert (wrong != array).mean() > 0.98
    for grant in (KEY.grant_study("T"), KEY.grant_file(bytes(16), "S")):
        with pytest.raises(WrongKeyError):
            codec.decrypt_array(header, body, grant)


def test_study_grants_encrypt_for_their_study_only(codec: Codec) -> None:
    grant = KEY.grant_study("S")
    array = noise((8, 8))
    for nonce in NONCE_MODES:
        header, body = codec.encrypt_array(array, grant, planes=PLANES, study="S", nonce=nonce)
        np.testing.assert_array_equal(codec.decrypt_array(header, body, KEY), array)
        with pytest.raises(WrongKeyError):
            codec.encrypt_array(array, grant, planes=PLANES, study="T", nonce=nonce)
    with pytest.raises(UsageError, match="grant for one file cannot encrypt"):
        codec.encrypt_array(array, KEY.grant_file(bytes(16)), planes=PLANES)


def test_study_names_are_the_same_however_they_are_typed(codec: Codec) -> None:
    header, body = codec.encrypt_array(noise((4, 4)), KEY, planes=PLANES, study="e\u0301")
    assert header.study == "\u00e9"
    codec.decrypt_array(header, body, KEY.grant_study("e\u0301"))


@pytest.mark.parametrize(
    "array",
    [
        np.full((4, 4), np.nan), np.zeros((4, 4), np.float32), np.zeros((4, 4), bool), np.zeros((4, 4), np.int64),
        np.zeros(4, np.uint8), np.zeros((0, 4), np.uint8), np.zeros((1, 2, 3, 4), np.uint8), np.array("x"),
    ],
    ids=lambda array: f"{array.dtype}{array.shape}",
)  # fmt: skip
def test_arrays_that_are_refused(codec: Codec, array: Any) -> None:
    with pytest.raises(ImageFileError, match=r"^array: "):
        codec.encrypt_array(array, KEY, planes=PLANES)


def test_settings_that_are_refused(codec: Codec) -> None:
    array = noise((4, 4))
    wrong: list[dict[str, Any]] = [{"postprocess": "more"}, {"nonce": "fixed"}, {"study": "a\nb"}]
    for settings_ in wrong:
        with pytest.raises(UsageError):
            codec.encrypt_array(array, KEY, planes=PLANES, **settings_)
    with pytest.raises(ContainerError, match="format"):
        codec.encrypt_array(array, KEY, planes=PLANES, file_format="exe")


def test_other_weights_lengths_and_post_processings_are_told(codec: Codec) -> None:
    header, body = codec.encrypt_array(noise((4, 4)), KEY, planes=PLANES)
    other = Codec(StubCipher(), "f" * 16)
    for read in (other.decrypt_array, lambda h, b, k: other.salvage_array(h, b, np.zeros(16, bool), k)):
        with pytest.raises(
            WeightsError, match=f"weights {WEIGHTS}, loaded are 'stub' with {'f' * 16}.*--weights"
        ):
            read(header, body, KEY)
    with pytest.raises(ContainerError, match="15 bytes, the header says 16"):
        codec.decrypt_array(header, body[:-1], KEY)
    with pytest.raises(ContainerError, match="newer EncDL"):
        codec.decrypt_array(dataclasses.replace(header, postprocess="folding"), body, KEY)
    with pytest.raises(ContainerError, match="loss map"):
        codec.salvage_array(header, body, np.zeros(3, bool), KEY)


@pytest.mark.parametrize("postprocess", NAMES)
@pytest.mark.parametrize("dtype", ["uint8", "uint16"])
def test_known_losses_reach_the_restorer_where_they_belong(
    codec: Codec, postprocess: str, dtype: str
) -> None:
    array = noise((40, 50, 2), dtype)
    header, body = codec.encrypt_array(array, KEY, planes=PLANES, postprocess=postprocess)
    lost = np.zeros(len(body), bool)
    lost[-100:] = True
    damaged = body[:-100] + bytes(100)
    salvaged = codec.salvage_array(header, damaged, lost, KEY)
    right = salvaged.view(np.uint8) == array.view(np.uint8)
    share = {"none": 100, "confusion": 100, "diffusion": 4000, "both": 4000}[postprocess] / len(body)
    assert 1 - share <= right.mean() < 1
    np.testing.assert_array_equal(codec.salvage_array(header, body, ~lost & lost, KEY), array, strict=True)


def test_salvage_with_the_network(agile: Codec) -> None:
    array = np.tile(np.arange(48, dtype=np.uint8) * 5, (32, 1))
    header, body = agile.encrypt_array(array, KEY, planes=PLANES)
    lost = np.arange(len(body)) >= len(body) // 2
    salvaged = agile.salvage_array(header, body[: len(body) // 2].ljust(len(body), b"\0"), lost, KEY)
    assert (salvaged.shape, salvaged.dtype) == (array.shape, array.dtype)


def test_large_pictures_go_some_channels_at_a_time(agile: Codec, monkeypatch: pytest.MonkeyPatch) -> None:
    array = noise((7, 6, 3), "uint16")
    header, body = agile.encrypt_array(array, KEY, planes=PLANES, nonce="synthetic", postprocess="both")
    lost = np.arange(len(body)) >= len(body) - 9
    salvaged = agile.salvage_array(header, body, lost, KEY)
    monkeypatch.setattr("encdl.codec.PIXELS_AT_ONCE", 90)
    assert agile.encrypt_array(array, KEY, planes=PLANES, nonce="synthetic", postprocess="both") == (
        header,
        body,
    )
    np.testing.assert_array_equal(agile.decrypt_array(header, body, KEY), array, strict=True)
    np.testing.assert_array_equal(agile.salvage_array(header, body, lost, KEY), salvaged, strict=True)


@pytest.mark.parametrize(
    ("error", "told"),
    [
        (torch.OutOfMemoryError("CUDA out of memory"), UsageError),
        (
            RuntimeError("DefaultCPUAllocator: can't allocate memory: you tried to allocate 9 bytes"),
            MemoryError,
        ),
        (RuntimeError("another"), RuntimeError),
    ],
)
def test_running_out_of_memory_is_told(
    codec: Codec, monkeypatch: pytest.MonkeyPatch, error: Exception, told: type[Exception]
) -> None:
    def full(image: torch.Tensor, key_planes: torch.Tensor) -> torch.Tensor:
        raise error

    monkeypatch.setattr(codec.cipher, "encrypt", full)
    with pytest.raises(told):
        codec.encrypt_array(noise((4, 4)), KEY, planes=PLANES)


@pytest.mark.parametrize("postprocess", NAMES)
@pytest.mark.parametrize("dtype", DTYPES)
def test_ciphertext_and_mask_differ_by_the_picture(agile: Codec, postprocess: str, dtype: str) -> None:
    array = noise((9, 8, 3), dtype)
    header, body = agile.encrypt_array(array, KEY, planes=PLANES, postprocess=postprocess, study="S")
    for opener in (KEY, KEY.grant_study("S"), KEY.grant_file(header.nonce_bytes, "S")):
        ciphertext, mask = agile.ciphertext_and_mask(header, body, opener)
        assert ciphertext.dtype == mask.dtype == torch.uint8
        assert torch.equal(ciphertext - mask, to_tensor(array))
    changed = Key(bytes(range(1, 33)))
    assert (agile.ciphertext_and_mask(header, body, changed)[1] != mask).double().mean() > 0.9


def test_ciphertext_and_mask_of_something_else(agile: Codec, codec: Codec) -> None:
    header, body = agile.encrypt_array(noise((5, 6)), KEY, planes=PLANES)
    with pytest.raises(WeightsError, match="made by cipher 'agile'"):
        codec.ciphertext_and_mask(header, body, KEY)
    with pytest.raises(ContainerError, match="the body is 29 bytes"):
        agile.ciphertext_and_mask(header, body[:-1], KEY)
    with pytest.raises(WrongKeyError):
        agile.ciphertext_and_mask(header, body, KEY.grant_study("S"))
