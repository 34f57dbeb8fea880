"""Class paths of recipes that name modules of the working directory."""

from __future__ import annotations

import os
import sys
from pathlib import Path

import pytest

from encdl.training.cli import check
from encdl.training.recipe_code import OPTION
from encdl.utils.errors import UsageError
from encdl.utils.registry import PLUGINS
from tests.runs import DRAWING

LOCAL = """from pathlib import Path
from lightning.pytorch import Callback
Path("IMPORTED").touch()
class Nothing(Callback): ...
"""
FIT = ["fit", "--config", "tiny.yaml"]
WAYS = {
    "a recipe": ["fit", "--config", "evil.yaml"],
    "a word": [*FIT, "--trainer.callbacks+=evil_module.Nothing"],
    "a part of its own": ["fit", "--config", "tiny.yaml", "--trainer", "part.yaml"],
    "a package": [*FIT, "--trainer.callbacks+=evil_package.inner.Nothing"],
}


@pytest.fixture
def here(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    """A working directory with code in it, which Python looks into as it does with `python -m encdl`."""
    monkeypatch.chdir(tmp_path)
    monkeypatch.setattr(sys, "path", ["", *sys.path])
    for name in [name for name in sys.modules if name.startswith("evil_")]:
        monkeypatch.delitem(sys.modules, name)
    Path("evil_package").mkdir()
    for file in ("evil_module.py", "evil_package/inner.py"):
        Path(file).write_text(LOCAL)
    Path("tiny.yaml").write_text(DRAWING % 0)
    callbacks = "  callbacks:\n    - class_path: evil_module.Nothing\n"
    Path("evil.yaml").write_text(DRAWING % 0 + callbacks)
    Path("part.yaml").write_text("max_epochs: 1\n" + callbacks.replace("\n  ", "\n").removeprefix("  "))
    return tmp_path


@pytest.mark.parametrize("way", WAYS)
def test_no_recipe_imports_from_the_working_directory(here: Path, way: str) -> None:
    with pytest.raises(UsageError, match="evil_"):
        check(WAYS[way])
    assert not Path("IMPORTED").exists()
    Path("evil.yaml").write_text(Path("evil.yaml").read_text() + "local_classes: true\n")
    with pytest.raises(UsageError):
        check(WAYS[way])
    assert not Path("IMPORTED").exists()


@pytest.mark.parametrize("how", ["option", "variable", "path"])
def test_who_wants_them_says_so(here: Path, how: str, monkeypatch: pytest.MonkeyPatch) -> None:
    if how == "variable":
        monkeypatch.setenv(PLUGINS, "evil_module")
    elif how == "path":
        monkeypatch.setenv("PYTHONPATH", f"{here}{os.pathsep}/elsewhere")
    check([*WAYS["a recipe"], *([OPTION] if how == "option" else [])])
    assert Path("IMPORTED").exists()


def test_the_reason_is_told(here: Path) -> None:
    with pytest.raises(UsageError, match=f"working directory .* a recipe is code.*{OPTION}"):
        check(WAYS["a word"])
