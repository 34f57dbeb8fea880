"""The reading layer: what hosts without a key read, and what its maker put in."""

from __future__ import annotations

import io
from pathlib import Path
from typing import Any

import numpy as np
import pytest

from encdl.ciphers.reading_layer import reading_mask
from encdl.files import formats
from encdl.files.codec import Codec
from encdl.files.container import ContainerReader, PublicReader
from encdl.files.levels import Levels
from encdl.files.reading import Readable, ReadingLayer, level_bits_of
from encdl.files.rekeying import rekey
from encdl.files.scans.headers import image_of
from encdl.files.settings import Settings
from encdl.keys.key import Key
from encdl.utils.errors import ContainerError, UsageError
from tests.files.codec.support import KEY, Array, noise, same
from tests.files.scans.phantom import write_series
from tests.stub_cipher import StubCipher

CODEC = Codec(StubCipher(), "0" * 16)


def layer(array: Array, layout: str | None = None, **how: Any) -> tuple[ReadingLayer, Array]:
    """The layer as a host without a key takes it from a file, and its levels as the key's holder does."""
    made = CODEC.encrypt_array(array, KEY, Settings(readable=Readable(**how)), layout=layout)
    assert same(CODEC.decrypt_array(made, KEY), array)
    found = ReadingLayer.from_bytes(PublicReader(io.BytesIO(made)).section("reading") or b"")
    return found, found.levels(ContainerReader(io.BytesIO(made), KEY).image_keys)


@pytest.mark.parametrize("bits", [16, 32])
def test_a_layer_holds_the_means_of_areas(bits: int) -> None:
    array = noise((2, 60, 90, 3))
    found, levels = layer(array, "SHWC", side=30, bits=bits)
    assert (found.bits, found.level_bits, found.words.shape) == (bits, {16: 8, 32: 12}[bits], (2, 3, 20, 30))
    means = array.reshape(2, 20, 3, 30, 3, 3).mean((2, 4)).transpose(0, 3, 1, 2)
    np.testing.assert_array_equal(levels, np.rint(means / 255 * (2**found.level_bits - 1)))
    assert 0.4 < (found.words >> (bits - 1)).mean() < 0.6  # masked: uniform words, whatever the levels


def test_areas_that_do_not_divide_the_image_overlap_and_a_small_image_stays_as_it_is() -> None:
    array = noise((5, 7))
    _, levels = layer(array, side=3)
    assert levels.shape == (1, 1, 2, 3)
    assert levels[0, 0, 1, 2] == round(array[2:5, 4:7].mean() / 255 * 4095)
    _, levels = layer(array, side=512)
    np.testing.assert_array_equal(levels[0, 0], np.rint(array / 255 * 4095))


def test_values_are_taken_from_a_window() -> None:
    array = np.array([[-1000, 0, 40, 80, 3000]], np.int16)
    assert layer(array, side=9, window=(40, 80))[1].tolist() == [[[[0, 0, 2048, 4095, 4095]]]]
    assert layer(array, side=9)[1].ravel()[[0, 4]].tolist() == [0, 4095]
    assert layer(array, side=9, window="brain")[1].tolist() == layer(array, side=9, window=(40, 80))[1].tolist()
    odd = np.array([[np.nan, np.inf, 1, 2, -np.inf]])
    assert layer(odd, side=9)[1].tolist() == [[[[0, 4095, 0, 4095, 0]]]]
    assert layer(np.full((2, 2), 7, np.int32), side=9)[1].tolist() == [[[[0, 0], [0, 0]]]]


@pytest.mark.parametrize("photometric", ["MONOCHROME1", "MONOCHROME2"])
@pytest.mark.parametrize("window", ["lung", (40, 400), None])
def test_a_layer_has_the_levels_that_readers_learn_from(tmp_path: Path, photometric: str, window: Any) -> None:
    """Rescaled, windowed and turned about as `Levels` does it."""
    path = write_series(tmp_path, shape=(1, 20, 16), PhotometricInterpretation=photometric)[0]
    document, stream = formats.load(path), io.BytesIO()
    CODEC.encrypt(document, KEY, stream, Settings(readable=Readable(512, window=window)))
    reader = ContainerReader(stream, KEY)
    levels = ReadingLayer.from_bytes(reader.section("reading") or b"").levels(reader.image_keys)
    [values] = document.slices()
    stored = image_of(path, document)[0]
    assert (stored.slope, stored.intercept) != (1, 0)
    rule = Levels(percentiles=(0, 100)) if window is None else Levels(window=window)
    np.testing.assert_allclose(levels.reshape(20, 16) / 4095, rule.unit(values, stored), atol=0.6 / 4095)


@pytest.mark.parametrize("shape", [(1, 1, 224, 224), (9, 3, 224, 224), (1, 1, 512, 512), (1, 4, 512, 512)])
def test_no_map_of_a_slice_with_weights_up_to_7_wraps(shape: tuple[int, ...]) -> None:
    bits = level_bits_of(shape, 32)
    pixels = int(np.prod(shape[1:]))
    assert 7 * pixels * (2**bits - 1) < 2**31
    assert bits == 12 or 7 * pixels * (2 ** (bits + 1) - 1) >= 2**31


def test_a_host_and_a_key_server_make_an_integer_map_together() -> None:
    found, levels = layer(noise((40, 50), "uint16"), side=20)
    weights = np.random.default_rng(1).integers(-7, 8, (5, levels.size))
    keys = KEY.image_keys(bytes(16))
    again = ReadingLayer.of(levels, found.level_bits, keys)
    mask = reading_mask([keys], levels.shape, 32)[0]
    difference = (weights @ again.words.ravel() - weights @ mask.ravel()).astype(np.int32)
    np.testing.assert_array_equal(difference, weights @ levels.ravel().astype(np.int64))


def test_what_cannot_be_a_layer_is_refused() -> None:
    for how in ({"side": 0}, {"side": 513}, {"side": 9, "bits": 8}, {"side": 9, "window": (3.0, 0.0)}):
        with pytest.raises(UsageError):
            Readable(**how)  # type: ignore[arg-type]
    with pytest.raises(UsageError, match="complex"):
        layer(np.zeros((2, 2), np.complex64), side=9)
    with pytest.raises(UsageError, match="more than a file holds"):
        layer(np.zeros((70, 512, 512), np.uint8), side=512)
    with pytest.raises(UsageError, match="--wrap aes"):
        Settings(wrap="aes", readable=Readable(9))
    good = ReadingLayer(8, np.zeros((1, 1, 2, 3), np.uint16)).to_bytes()
    assert ReadingLayer.from_bytes(good).words.shape == (1, 1, 2, 3)
    bad = [b"", good[:-1], good + b"\0", b"\x08" + good[1:], good[:1] + b"\x0d" + good[2:], good[:2] + bytes(28)]
    for content in bad:
        with pytest.raises(ContainerError, match="reading layer is damaged"):
            ReadingLayer.from_bytes(content)


def test_rekeying_masks_the_same_levels_anew() -> None:
    array, new = noise((33, 20), "int16"), Key(bytes(32))
    made = CODEC.encrypt_array(array, KEY, Settings(readable=Readable(16)))
    stream = io.BytesIO()
    reader = ContainerReader(io.BytesIO(made), KEY)
    rekey(CODEC, reader, new, stream)
    old, fresh = reader.section("reading"), ContainerReader(stream, new).section("reading")
    assert old is not None
    assert fresh not in (None, old)
    keys = ContainerReader(stream, new).image_keys
    assert same(
        ReadingLayer.from_bytes(fresh or b"").levels(keys), ReadingLayer.from_bytes(old).levels(reader.image_keys)
    )


def test_the_settings_of_a_layer_belong_to_a_synthetic_nonce() -> None:
    """Or two layers of one shape and mask would show where they differ."""
    array = noise((9, 9), "int16")
    hows = [None, Readable(4), Readable(4, 16), Readable(4, window=(0, 9)), Readable(5)]
    made = [CODEC.encrypt_array(array, KEY, Settings(nonce="synthetic", readable=how)) for how in hows * 2]
    assert len({PublicReader(io.BytesIO(each)).header.nonce for each in made}) == len(set(made)) == len(hows)
