"""The study of hit files: it runs to its record, and a reader reads hit files as it reads intact ones."""

from __future__ import annotations

import json
from pathlib import Path

import numpy as np
import pytest

from encdl.audit.functional import hit_files
from encdl.cli import main as encdl
from tests.audit.test_functional_study import slices


@pytest.mark.parametrize(("rate", "same"), [(0.01, 1.0), (0.2, 0.0)])
def test_a_small_study_runs_to_its_record(
    rate: float, same: float, tmp_path: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    monkeypatch.setattr(hit_files, "RATE", rate)
    images = slices(60, 18, 28)[:, 0].numpy()
    np.savez(tmp_path / "set.npz", images=images, split=np.arange(18) % 3, labels=np.arange(18) % 2)
    (tmp_path / "functional-t.yaml").write_text(
        "file: set.npz\nmetric: accuracy\nbackbone: {name: StridedNet, settings: {widths: [4, 4]}}\n"
        "settings: [{outputs: 2, kernel: 7, stride: 7}]\nbudget: {steps: 2, batch: 4}\n"
    )
    output = tmp_path / "hit.json"
    words = ["experiment", "hit-files", "--config", str(tmp_path / "functional-t.yaml"), "--data-dir", str(tmp_path)]
    assert encdl([*words, "--settings", "1", "--output", str(output)]) == 2
    assert "the study has 0 to 0" in capsys.readouterr().err
    assert encdl([*words, "--seeds", "2", "--output", str(output)]) == 0
    [row] = json.loads(output.read_text())["metrics"]["settings"]
    assert row["same"]["values"] == [same, same]
    assert row["refused"]["mean"] == 1 - same
    assert (row["difference"]["values"] == [0.0, 0.0]) or rate > 0.01
