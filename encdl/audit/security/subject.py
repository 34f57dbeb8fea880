"""The subject of an audit: one cipher, in every mode that a user can choose."""

from __future__ import annotations

from collections.abc import Callable, Mapping
from dataclasses import dataclass
from typing import Final

from encdl.audit.attacks.targets import MODES, Aes, CipherTarget, FixedXor, Target, cipher_target
from encdl.ciphers import weights
from encdl.ciphers.base import Cipher
from encdl.utils.errors import UsageError

REFERENCES: Final[Mapping[str, Callable[[], Target]]] = {"aes_256_ctr": Aes, "fixed_xor": FixedXor}
"""Known schemes that can be audited like a cipher of ours: one to pass, one to fail."""


@dataclass(frozen=True)
class Subject:
    """The audited cipher.

    Attributes:
        name: Of the cipher.
        weights: Id of its weights; empty for a reference.
        targets: By mode; `default` is there always.
    """

    name: str
    weights: str
    targets: Mapping[str, Target]

    @property
    def cipher(self) -> Cipher | None:
        """The neural cipher; None for a reference."""
        target = self.targets["default"]
        return target.cipher if isinstance(target, CipherTarget) else None


def of_weights(name: str, device: str, sequence: str) -> Subject:
    """The cipher with weights of that name or file, with key planes from the map `sequence`.

    Raises:
        WeightsError: There are no such weights.
    """
    loaded = weights.load(name, device=device)
    targets = {mode: cipher_target(loaded.cipher, mode, sequence) for mode in MODES}
    return Subject(loaded.cipher.name, loaded.id, targets)


def of_reference(name: str) -> Subject:
    """One of `REFERENCES`.

    Raises:
        UsageError: There is none of that name.
    """
    if name not in REFERENCES:
        raise UsageError(f"no reference {name!r}: there are {', '.join(REFERENCES)}")
    return Subject(name, "", {"default": REFERENCES[name]()})
