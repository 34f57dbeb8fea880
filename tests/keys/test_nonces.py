from __future__ import annotations

import hmac

import numpy as np
import pytest

from encdl.keys import Key, random_nonce, synthetic_nonce
from encdl.utils.errors import WrongKeyError

KEY = Key(bytes(range(32)))
IMAGE = np.arange(60, dtype=np.uint8).reshape(3, 4, 5)


def test_random_nonces() -> None:
    nonces = {random_nonce() for _ in range(100)}
    assert len(nonces) == 100
    assert {len(nonce) for nonce in nonces} == {16}


def test_definition() -> None:
    message = (3).to_bytes(8, "little") + b"ctx" + (60).to_bytes(8, "little") + IMAGE.tobytes()
    expected = hmac.digest(KEY.nonce_secret("s"), message, "sha256")[:16]
    assert synthetic_nonce(KEY, IMAGE.tobytes(), b"ctx", "s") == expected
    assert synthetic_nonce(KEY, IMAGE.data, b"ctx", "s") == expected
    assert synthetic_nonce(KEY, bytearray(IMAGE.tobytes()), b"ctx", "s") == expected
    assert synthetic_nonce(KEY.grant_study("s"), IMAGE.data, b"ctx", "s") == expected


def test_everything_counts() -> None:
    plain = IMAGE.tobytes()
    changed = bytes([plain[0] ^ 1]) + plain[1:]
    nonces = [
        synthetic_nonce(KEY, plain, b"ctx"),
        synthetic_nonce(KEY, changed, b"ctx"),
        synthetic_nonce(KEY, plain, b"ct"),
        synthetic_nonce(KEY, plain[1:], b"ctx" + plain[:1]),
        synthetic_nonce(KEY, b"", b"ctx"),
        synthetic_nonce(KEY, np.empty((0, 4), np.uint8).data, b"ctx\0"),
        synthetic_nonce(KEY, plain, b"ctx", "s"),
        synthetic_nonce(Key(bytes(32)), plain, b"ctx"),
    ]
    assert len(set(nonces)) == len(nonces)


def test_a_file_grant_makes_none() -> None:
    with pytest.raises(WrongKeyError, match="cannot encrypt others"):
        synthetic_nonce(KEY.grant_file(bytes(16)), b"image", b"")
