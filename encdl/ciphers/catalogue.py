"""All ciphers by name; loads PyTorch."""

from __future__ import annotations

from typing import Any

from encdl.ciphers.agile import AgileCipher
from encdl.ciphers.base import CIPHERS, Cipher
from encdl.ciphers.coupled import CoupledCipher
from encdl.ciphers.keystream import KeystreamCipher
from encdl.ciphers.thesis import ThesisCipher
from encdl.utils.errors import WeightsError


def create(name: str, config: dict[str, Any]) -> Cipher:
    """A cipher by name, with random weights, from the plain values that its `config()` gave.

    Raises:
        WeightsError: No such cipher, or arguments that it does not take.
        UsageError: The package that brings it cannot be loaded.
    """
    if name not in CIPHERS:
        raise WeightsError(CIPHERS.unknown(name))
    try:
        return CIPHERS[name](**config)
    except (TypeError, ValueError) as error:
        raise WeightsError(f"cipher {name!r} does not take these settings: {error}") from None


__all__ = ["CIPHERS", "AgileCipher", "Cipher", "CoupledCipher", "KeystreamCipher", "ThesisCipher", "create"]
