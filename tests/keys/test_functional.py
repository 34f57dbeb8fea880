"""Functional keys: what they give away, what they are bound to, and their file."""

from __future__ import annotations

import dataclasses
import hashlib
from datetime import UTC, datetime, timedelta
from pathlib import Path

import numpy as np
import pytest

from encdl.keys import Key
from encdl.keys.functional import FunctionalKey, pixel_noise
from encdl.keys.functional_map import FunctionalMap, centred
from encdl.keys.signing import SigningKey
from encdl.utils.errors import ExpiredGrantError, KeyFileError, UsageError, WrongKeyError

RANDOM = np.random.default_rng(0)
FUNCTION = FunctionalMap(RANDOM.integers(-7, 8, (3, 1, 6, 6), dtype=np.int8), 4, (20, 24))
IMAGE = RANDOM.integers(0, 256, (2, 1, 20, 24), dtype=np.uint32)
MASK = RANDOM.integers(0, 2**32, IMAGE.shape, dtype=np.uint32)
KEYS = Key(bytes(32)).image_keys(bytes(16))
HEADER = hashlib.sha256(b"a header").digest()
SERVER = SigningKey(bytes(range(32)))


def issued(signed: bool = True, noise: float = 0.0, expires: datetime | None = None) -> FunctionalKey:
    server = SERVER if signed else None
    return FunctionalKey.issue(FUNCTION, MASK, KEYS, HEADER, noise=noise, signing_key=server, expires=expires)


@pytest.mark.parametrize("bits", [8, 16, 32])
def test_it_gives_w_of_the_image_and_no_more(bits: int) -> None:
    function = dataclasses.replace(FUNCTION, bits=bits)
    ring = 2**bits
    mask = MASK.astype(np.int64) % ring
    found = FunctionalKey.issue(function, mask, KEYS, HEADER)
    assert np.array_equal(found.seen(function, (IMAGE + mask) % ring), function.apply(IMAGE))
    assert (found.count, found.given_bits) == (2 * 3 * 5 * 6, 2 * 3 * 5 * 6 * bits)


@pytest.mark.parametrize("signed", [True, False])
@pytest.mark.parametrize("expires", [None, datetime(2100, 1, 31, 12, tzinfo=UTC)])
def test_its_file_comes_back_whole_and_private(tmp_path: Path, signed: bool, expires: datetime | None) -> None:
    path, key = tmp_path / "scan.fkey", issued(signed, 2.0, expires)
    key.save(path)
    assert path.stat().st_mode & 0o777 == 0o600
    again = FunctionalKey.load(path)
    again.check(FUNCTION, HEADER, SERVER.public if signed else None)
    assert np.array_equal(again.numbers, key.numbers)
    assert again.to_bytes() == path.read_bytes()
    assert (again.noise, again.expires) == (2.0, expires)
    assert again.signer == (SERVER.public.id if signed else "")


def test_what_it_is_not_for() -> None:
    key, server, other = issued(), SERVER.public, SigningKey.generate().public
    key.check(FUNCTION, HEADER, server)
    with pytest.raises(WrongKeyError, match="is for reader"):
        key.check(dataclasses.replace(FUNCTION, stride=3), HEADER, server)
    with pytest.raises(WrongKeyError, match="is for another file"):
        key.check(FUNCTION, bytes(32), server)
    with pytest.raises(WrongKeyError, match="was not made by the key server"):
        key.check(FUNCTION, HEADER, other)
    with pytest.raises(WrongKeyError, match="is not signed"):
        issued(signed=False).check(FUNCTION, HEADER, server)
    changed = dataclasses.replace(key, numbers=key.numbers + np.uint32(1))
    with pytest.raises(WrongKeyError, match="was changed"):
        changed.check(FUNCTION, HEADER, server)
    with pytest.raises(ExpiredGrantError):
        issued(expires=datetime.now(UTC) - timedelta(seconds=2)).check(FUNCTION, HEADER, server)


@pytest.mark.parametrize("signed", [True, False])
def test_damaged_files_are_refused(signed: bool) -> None:
    whole = issued(signed).to_bytes()
    for cut in (0, 7, 13, 40, len(whole) // 2, len(whole) - 1):
        with pytest.raises(KeyFileError):
            FunctionalKey.from_bytes(whole[:cut])
    with pytest.raises(KeyFileError):
        FunctionalKey.from_bytes(whole + b"\0")
    for place in range(0, len(whole), 7):
        bad = bytearray(whole)
        bad[place] ^= 1
        with pytest.raises((KeyFileError, WrongKeyError)):
            FunctionalKey.from_bytes(bytes(bad)).check(FUNCTION, HEADER, SERVER.public if signed else None)


def test_noise_is_one_draw_a_slice_for_every_reader() -> None:
    noisy = centred(issued(noise=4.0).seen(FUNCTION, (IMAGE + MASK).astype(np.uint32)))
    other = dataclasses.replace(FUNCTION, weights=-FUNCTION.weights)
    key = FunctionalKey.issue(other, MASK, KEYS, HEADER, noise=4.0)
    assert np.array_equal(centred(key.seen(other, (IMAGE + MASK).astype(np.uint32))), -noisy)
    draw = np.concatenate([pixel_noise(KEYS, (1, 1, 20, 24), 4.0, number) for number in range(2)])
    assert abs(np.corrcoef(draw[0].ravel(), draw[1].ravel())[0, 1]) < 0.15
    assert np.array_equal(noisy, centred(FUNCTION.apply(((IMAGE + draw) % 2**32).astype(np.uint32))))
    again = pixel_noise(Key(bytes(32)).image_keys(bytes([1] * 16)), (1, 1, 20, 24), 4.0)
    assert abs(np.corrcoef(draw[0].ravel(), again.ravel())[0, 1]) < 0.15
    assert 3.7 < draw.std() < 4.3
    with pytest.raises(UsageError, match="noise"):
        issued(noise=-1.0)


def test_it_shows_no_numbers() -> None:
    assert str(int(issued().numbers.ravel()[0])) not in repr(issued())
