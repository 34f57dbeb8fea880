from __future__ import annotations

from pathlib import Path

import pytest
import torch

import encdl
from encdl import ciphers
from encdl.ciphers import weights

KEY = encdl.Key(bytes(range(32)))


@pytest.fixture(scope="session")
def small(tmp_path_factory: pytest.TempPathFactory) -> str:
    """Weights of a small untrained cipher: exact all the same, and quick."""
    torch.manual_seed(0)
    path = tmp_path_factory.mktemp("weights") / "small.pt"
    settings = {"width": 4, "blocks": 1}
    weights.save(ciphers.create("agile", settings), path)
    return str(path)


@pytest.fixture
def key(tmp_path: Path) -> Path:
    """The path of a file with `KEY`."""
    KEY.save(tmp_path / "k.key")
    return tmp_path / "k.key"
