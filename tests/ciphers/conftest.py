from __future__ import annotations

from pathlib import Path

import pytest

from encdl.ciphers import weights
from tests.ciphers.weights_files import small


@pytest.fixture
def saved(tmp_path: Path) -> Path:
    """A file of small weights."""
    path = tmp_path / "small.pt"
    weights.save(small(), path, {"steps": 3})
    return path
