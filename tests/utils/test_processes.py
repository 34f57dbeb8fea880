from __future__ import annotations

import os
import subprocess
import sys
from pathlib import Path
from types import SimpleNamespace
from typing import Any

import pytest

from encdl import cli
from encdl.utils.processes import DEFAULTS, wait_briefly

ROOT = Path(__file__).parents[2]
NAMES = ("OMP_WAIT_POLICY", "KMP_LIBRARY", *DEFAULTS)


def child(*words: str, **environment: str) -> subprocess.CompletedProcess[str]:
    """Python, in an environment that says nothing else about waiting threads."""
    kept = {name: value for name, value in os.environ.items() if name not in {*NAMES, "OMP_NUM_THREADS"}}
    return subprocess.run(
        [sys.executable, *words],
        capture_output=True,
        text=True,
        check=True,
        cwd=ROOT,
        env={**kept, "PYTHONPATH": str(ROOT), **environment},
    )


@pytest.mark.parametrize("verb", cli.VERBS)
def test_every_verb_says_how_threads_wait_before_its_code_is_loaded(monkeypatch: pytest.MonkeyPatch, verb: str) -> None:
    seen: list[dict[str, str | None]] = []

    def load(target: str) -> Any:
        seen.append({name: os.environ.get(name) for name in DEFAULTS})
        raise KeyboardInterrupt

    for name in NAMES:
        monkeypatch.setenv(name, "")  # so that it is put back
        monkeypatch.delenv(name)
    monkeypatch.setattr(cli, "pkgutil", SimpleNamespace(resolve_name=load))
    assert cli.main([verb]) == cli.EXIT_INTERRUPTED
    assert seen == [DEFAULTS]


@pytest.mark.parametrize("name", NAMES)
def test_what_the_user_says_is_left(name: str) -> None:
    environment = {name: "anything"}
    wait_briefly(environment)
    assert environment.pop(name) == "anything"
    others = {other: value for other, value in DEFAULTS.items() if other != name}
    assert environment == (others if name in DEFAULTS else {})


@pytest.mark.parametrize("said", [{}, {"GOMP_SPINCOUNT": "77"}], ids=["nothing", "77"])
def test_the_runtime_that_pytorch_loads_hears_of_it(said: dict[str, str]) -> None:
    code = "from encdl.cli import main; main(['inspect', 'none']); import torch; torch.ones(9**5).sum()"
    told = child("-c", code, OMP_DISPLAY_ENV="VERBOSE", **said).stderr
    if "GOMP_SPINCOUNT" not in told:
        pytest.skip("PyTorch's runtime is not GCC's here")
    assert f"GOMP_SPINCOUNT = '{(DEFAULTS | said)['GOMP_SPINCOUNT']}'" in told
