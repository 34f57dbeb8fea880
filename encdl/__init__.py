"""EncDL: neural ciphers for medical images, and networks that read the ciphertext.

The names below are loaded when they are used, so that `import encdl` itself needs neither torch nor MONAI.
"""

# ruff: noqa: F405 - names of encdl.api
from __future__ import annotations

import importlib
from typing import TYPE_CHECKING, Any

if TYPE_CHECKING:
    from encdl.api import *  # noqa: F403 - those of its names that are in `__all__` here too
    from encdl.keys.key import Grant, Key
    from encdl.transforms import Decrypt, Decryptd, EncdlReader, Encrypt, Encryptd, KeyRef
    from encdl.utils.errors import EncdlError

__version__ = "0.2.0.dev0"

__all__ = [
    "Decrypt",
    "Decryptd",
    "EncdlError",
    "EncdlReader",
    "Encrypt",
    "Encryptd",
    "Grant",
    "Key",
    "KeyRef",
    "Salvaged",
    "__version__",
    "convert_folder",
    "decrypt",
    "decrypt_file",
    "decrypt_slice",
    "decryption",
    "encrypt",
    "encrypt_file",
    "encryption",
    "evaluate",
    "grant",
    "grant_functional",
    "load_functional_reader",
    "load_reader",
    "open_key",
    "place_mask",
    "predict",
    "predict_functional",
    "read_header",
    "readable_for",
    "rekey_file",
    "rekeying",
    "salvage",
    "segment",
]

_PLACES = {
    "EncdlError": "encdl.utils.errors",
    "Grant": "encdl.keys.key",
    "Key": "encdl.keys.key",
    **dict.fromkeys(("Decrypt", "Decryptd", "EncdlReader", "Encrypt", "Encryptd", "KeyRef"), "encdl.transforms"),
}
"""Modules of the names above that are not in `encdl.api`."""


def __getattr__(name: str) -> Any:
    """Load a public name on first use (PEP 562)."""
    if name not in __all__:
        raise AttributeError(f"module 'encdl' has no attribute {name!r}")
    return getattr(importlib.import_module(_PLACES.get(name, "encdl.api")), name)


def __dir__() -> list[str]:
    return sorted({*globals(), *__all__})
