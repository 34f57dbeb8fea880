from __future__ import annotations

import pytest

from encdl.ciphers.postprocess.diffusion import REVISION
from tests.ways import take


@pytest.fixture(params=["compiled", "PyTorch"])
def way(request: pytest.FixtureRequest, monkeypatch: pytest.MonkeyPatch) -> str:
    """How the passes of diffusion run."""
    return take(request.param, "encdl_diffusion_revision", REVISION, monkeypatch)
