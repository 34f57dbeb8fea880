from __future__ import annotations

import pytest

from encdl import compiled
from encdl.postprocess.diffusion import REVISION


@pytest.fixture(params=["compiled", "PyTorch"])
def way(request: pytest.FixtureRequest, monkeypatch: pytest.MonkeyPatch) -> str:
    """How the passes of diffusion run."""
    if request.param == "PyTorch":
        monkeypatch.setattr(compiled, "library", lambda *_: None)
    elif compiled.library("encdl_diffusion_revision", REVISION) is None:
        pytest.skip("no compiled code here: no C compiler")
    return str(request.param)
