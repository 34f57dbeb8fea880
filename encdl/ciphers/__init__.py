"""Ciphers behind one contract, by name."""

from __future__ import annotations

from typing import Any

from encdl.ciphers.agile import AgileCipher
from encdl.ciphers.base import Cipher
from encdl.ciphers.coupled import CoupledCipher
from encdl.ciphers.keystream import KeystreamCipher
from encdl.ciphers.thesis import ThesisCipher
from encdl.utils.errors import WeightsError

CIPHERS: dict[str, type[Cipher]] = {
    cipher.name: cipher for cipher in (AgileCipher, KeystreamCipher, CoupledCipher, ThesisCipher)
}


def create(name: str, config: dict[str, Any]) -> Cipher:
    """A cipher by name, with random weights, from the plain values that its `config()` gave.

    Raises:
        WeightsError: No such cipher, or arguments that it does not take.
    """
    if name not in CIPHERS:
        raise WeightsError(f"unknown cipher {name!r}: this version knows {', '.join(CIPHERS)}")
    try:
        return CIPHERS[name](**config)
    except (TypeError, ValueError) as error:
        raise WeightsError(f"cipher {name!r} does not take these settings: {error}") from None


__all__ = [
    "CIPHERS",
    "AgileCipher",
    "Cipher",
    "CoupledCipher",
    "KeystreamCipher",
    "ThesisCipher",
    "create",
]
