"""Today's code gives yesterday's bits."""

from __future__ import annotations

import json

import pytest

from tests.keys.golden import FOLDER, GOLDEN


@pytest.mark.parametrize("name", tuple(GOLDEN))
def test_golden_vectors(name: str) -> None:
    assert GOLDEN[name]() == json.loads((FOLDER / f"{name}.json").read_text())
