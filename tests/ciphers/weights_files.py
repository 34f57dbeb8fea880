"""Small weights and checkpoints for tests."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import torch

from encdl import ciphers
from encdl.ciphers import Cipher
from encdl.ciphers.weights import CHECKPOINT_KEY, SETTINGS_KEY

SMALL = {"planes": 8, "width": 4, "blocks": 1}


def small(seed: int = 0, name: str = "agile") -> Cipher:
    torch.manual_seed(seed)
    return ciphers.create(name, dict(SMALL))


def small_keystream() -> Cipher:
    return small(name="keystream")


def small_coupled(seed: int = 0) -> Cipher:
    return small(seed, "coupled")


def small_thesis() -> Cipher:
    torch.manual_seed(0)
    return ciphers.create("thesis", {"planes": 2, "width": 4, "blocks": 1})


def content(path: Path) -> dict[str, Any]:
    loaded = torch.load(path, weights_only=True)
    assert isinstance(loaded, dict)
    return loaded


def checkpoint(cipher: Cipher, **changes: Any) -> dict[str, Any]:
    """What a training run writes, as far as `load` looks at it."""
    state = {f"cipher.{key}": value for key, value in cipher.state_dict().items()}
    origin = {"cipher": cipher.name, "config": cipher.config(), "training": {"steps": 7}}
    return {
        CHECKPOINT_KEY: origin,
        SETTINGS_KEY: {"files": ["a.yaml"]},
        "state_dict": state | {"adversary.attacker.0.weight": torch.zeros(2), "other": torch.zeros(1)},
        "epoch": 1,
        "optimizer_states": [{"step": torch.tensor(3)}],
    } | changes
