"""The search itself: what it could not find would prove nothing."""

from __future__ import annotations

import base64

import numpy as np

from tests.leaks.search import leaks


def test_the_search_finds_every_spelling() -> None:
    """Of 32 bytes anywhere in a text; otherwise the tests above would prove nothing."""
    secret = np.random.default_rng(0).bytes(32)
    texts = [
        secret, secret[::-1], secret.hex(), secret.hex()[::-1], secret.hex().upper(), repr(secret), list(secret),
        int.from_bytes(secret, "big"), tuple(secret), base64.b64encode(b"ab" + secret + b"c"),
        base64.urlsafe_b64encode(b"a" + secret), base64.b64encode(secret[:16]), base64.b32encode(secret), secret[16:],
    ]  # fmt: skip
    for text in texts:
        data = b"before " + (text if isinstance(text, bytes) else str(text).encode()) + b" after"
        assert leaks(data, {"k": secret}), text
        assert not leaks(data, {"k": secret[::2] + secret[1::2]})
