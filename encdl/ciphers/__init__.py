"""The ciphers by name: `agile`, the default, and the ablations `keystream`, `coupled` and `thesis`.

They are loaded when they are used: files on a processor are encrypted without PyTorch.
"""

from __future__ import annotations

from typing import TYPE_CHECKING, Any

if TYPE_CHECKING:
    from encdl.ciphers.catalogue import (
        CIPHERS,
        AgileCipher,
        Cipher,
        CoupledCipher,
        KeystreamCipher,
        ThesisCipher,
        create,
    )

__all__ = ["CIPHERS", "AgileCipher", "Cipher", "CoupledCipher", "KeystreamCipher", "ThesisCipher", "create"]


def __getattr__(name: str) -> Any:
    """Load a cipher on first use (PEP 562)."""
    if name not in __all__:
        raise AttributeError(f"module 'encdl.ciphers' has no attribute {name!r}")
    from encdl.ciphers import catalogue  # noqa: PLC0415

    return getattr(catalogue, name)
