"""Nonces: 16 public bytes that give each image its own keys."""

from __future__ import annotations

import hmac
import secrets
from typing import Final

from encdl.keys.derivation import NONCE_BYTES
from encdl.keys.key import Opener

Buffer = bytes | bytearray | memoryview

_LENGTH_BYTES: Final = 8


def random_nonce() -> bytes:
    """A nonce from the operating system's generator: encrypting an image twice gives unrelated files."""
    return secrets.token_bytes(NONCE_BYTES)


def synthetic_nonce(opener: Opener, plaintext: Buffer, context: bytes, study: str = "") -> bytes:
    """A nonce from a keyed hash of the plaintext: one changed pixel changes every sub-key.

    The same image under the same key and study gives the same nonce, so that whoever sees two files can tell
    that they hold the same image; nothing else shows. Modelled on SIV (P. Rogaway and T. Shrimpton,
    EUROCRYPT 2006).

    Args:
        opener: the key, or a grant for the study.
        plaintext: the image's bytes, C-contiguous.
        context: all else that tells images apart (shape, dtype, layout, ...), encoded without ambiguity.
        study: the study that the file belongs to.

    Returns:
        The first 16 bytes of HMAC-SHA256 over context and plaintext, each after its length as 8 bytes, the
        low byte first.

    Raises:
        WrongKeyError: the grant is for another study, or for one file.
    """
    view = memoryview(plaintext)
    digest = hmac.new(opener.nonce_secret(study), digestmod="sha256")
    digest.update(len(context).to_bytes(_LENGTH_BYTES, "little") + context)
    digest.update(view.nbytes.to_bytes(_LENGTH_BYTES, "little"))
    digest.update(view.cast("B") if view.nbytes else b"")
    return digest.digest()[:NONCE_BYTES]
