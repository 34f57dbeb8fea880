"""docs/extending: each page's class is written, tried as the page tries it, and trained by the page's command."""

from __future__ import annotations

import sys
from collections.abc import Iterator
from pathlib import Path

import pytest

from encdl.cli import main as encdl
from tests.pages.typed import TRAINING, commands, python_blocks

ROOT = Path(__file__).parents[2]
PAGES = {path.stem: path.read_text() for path in sorted((ROOT / "docs" / "extending").glob("*.md"))}


@pytest.fixture
def folder(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Iterator[Path]:
    """An empty working folder on Python's path, whose modules are forgotten afterwards."""
    monkeypatch.chdir(tmp_path)
    monkeypatch.syspath_prepend(str(tmp_path))
    (tmp_path / "experiments").symlink_to(ROOT / "experiments")
    yield tmp_path
    for file in tmp_path.glob("*.py"):
        sys.modules.pop(file.stem, None)


def write(page: str, folder: Path) -> list[str]:
    """Write the files of a page; gives its other blocks."""
    blocks = list(python_blocks(PAGES[page]))
    for title, code in blocks:
        if title:
            (folder / title).write_text(code)
    return [code for title, code in blocks if not title]


def trained(page: str, folder: Path) -> Path:
    """The checkpoint of the page's training command, after one step."""
    [command] = [each for each in commands(PAGES[page]) if "fit" in each.words]
    path, program, *words = command.words
    assert (path, program) == ("PYTHONPATH=.", "encdl")
    crop = TRAINING.index("--data.crop")  # of ciphers alone: classifiers read whole images
    settings = TRAINING if page == "cipher" else TRAINING[:crop] + TRAINING[crop + 2 :]
    assert encdl([*words, *settings, "--trainer.default_root_dir", str(folder / "runs")]) == 0
    return next((folder / "runs").rglob("*.ckpt"))


def test_the_pages() -> None:
    assert list(PAGES) == ["attack", "backbone", "cipher", "data-set"]


@pytest.mark.parametrize("page", PAGES)
def test_the_code_runs(page: str, folder: Path) -> None:
    blocks = write(page, folder)
    assert blocks
    assert all("assert" in block for block in blocks)
    names: dict[str, object] = {}
    for number, block in enumerate(blocks):
        exec(compile(block, f"docs/extending/{page}.md, block {number}", "exec"), names)


def test_a_data_set_trains(folder: Path) -> None:
    write("data-set", folder)
    assert trained("data-set", folder).stat().st_size > 0


def test_a_cipher_trains_and_is_not_exported_yet(folder: Path, capsys: pytest.CaptureFixture[str]) -> None:
    write("cipher", folder)
    checkpoint = trained("cipher", folder)
    assert encdl(["export", str(checkpoint), "-o", "odd.pt"]) == 2
    assert "unknown cipher" in capsys.readouterr().err
    assert '"unknown\ncipher"' in PAGES["cipher"]


def test_a_backbone_trains_and_does_not_predict_yet(folder: Path, capsys: pytest.CaptureFixture[str]) -> None:
    write("backbone", folder)
    checkpoint = trained("backbone", folder)
    assert encdl(["samples", "images", "--count", "1"]) == encdl(["keygen", "k.key"]) == 0
    assert encdl(["encrypt", "images", "--key", "k.key", "--output", "safe"]) == 0
    assert encdl(["predict", "safe", "--key", "k.key", "--reader", str(checkpoint)]) == 2
    assert "and no reader" in capsys.readouterr().err
    assert "cipher and no reader" in PAGES["backbone"]
