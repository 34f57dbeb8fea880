"""docs/api.md: its code runs, block after block."""

from __future__ import annotations

import re
from pathlib import Path

import pytest

TEXT = (Path(__file__).parents[1] / "docs" / "api.md").read_text()


def test_the_examples_run(tmp_path: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]) -> None:
    monkeypatch.chdir(tmp_path)
    blocks = re.findall(r"^```python\n(.*?)^```$", TEXT, re.DOTALL | re.MULTILINE)
    assert len(blocks) == TEXT.count("```") // 2 == 9
    names: dict[str, object] = {}
    for number, block in enumerate(blocks, 1):
        exec(compile(block, f"docs/api.md, block {number}", "exec"), names)
    out = capsys.readouterr().out
    assert "Key(id=" in out
    assert "slice 3 of 3 was changed after it was written" in out
    assert "(3, 40, 52)" in out
    assert Path("again.npy").read_bytes() == Path("scan.npy").read_bytes()
