"""The folder of a run that may be stopped."""

from __future__ import annotations

from pathlib import Path

import pytest

from encdl.training.run_folder import KEY, run_key
from encdl.utils.errors import UsageError


def test_a_folder_keeps_its_key(tmp_path: Path) -> None:
    first = run_key(tmp_path / "a" / "b")
    assert len(first) == 32
    assert run_key(tmp_path / "a" / "b") == first
    assert run_key(tmp_path / "c") != first


def test_a_key_that_is_none(tmp_path: Path) -> None:
    (tmp_path / KEY).write_text("' OR 1=1")
    with pytest.raises(UsageError, match=r"run-key: holds no key of a run: remove it, or give another folder"):
        run_key(tmp_path)


def test_a_folder_that_cannot_be(tmp_path: Path) -> None:
    (tmp_path / "file").write_text("x")
    with pytest.raises(UsageError, match=r"file/x: cannot keep a run's place there: .* \(--resume\)"):
        run_key(tmp_path / "file" / "x")
