"""docs/tutorial.md: its commands, typed one after the other in one folder; and the cells of the notebook beside it."""

from __future__ import annotations

import csv
import json
import re
from pathlib import Path

import numpy as np
import pytest

from encdl.cli import VERBS
from encdl.cli import main as encdl
from encdl.files import images
from tests.audit.security.tiny import shrink
from tests.pages.typed import TRAINING, commands
from tests.test_makefile import TARGETS

ROOT = Path(__file__).parents[2]
TEXT = (ROOT / "docs" / "tutorial.md").read_text()
NOTEBOOK = json.loads((ROOT / "docs" / "notebook.ipynb").read_text())
LABELS = ("container", "chunk", "interleave", "reading", "signature")
"""What keys are derived for or signed, in docs/container.md, looks like a verb."""
QUICK = {
    "evaluate": ["--images", "1", "--exact-images", "1", "--tune-images", "0", "--jobs", "1"],
    "audit": ["--no-tracking"],
}


def test_the_commands(tmp_path: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]) -> None:
    monkeypatch.chdir(tmp_path)
    shrink(monkeypatch)
    (tmp_path / "experiments").symlink_to(ROOT / "experiments")
    checkpoint, done = "", []
    for number, command in enumerate(commands(TEXT)):
        program, verb, *words = command.words
        if program == "make":
            assert verb in TARGETS
        if program != "encdl" or verb == "report":  # which needs tracked runs: tests/audit/report has them
            continue
        words = [checkpoint if "RUN" in word else word for word in words] + QUICK.get(verb, [])
        if verb == "fit":
            root = tmp_path / f"run-{number}"
            classifies = "classifier" in command.text
            crop = TRAINING.index("--data.crop")
            settings = TRAINING[:crop] + TRAINING[crop + 2 :] if classifies else TRAINING
            words += [*settings, "--trainer.default_root_dir", str(root)]
        code = encdl([verb, *words])
        # An audit is carried out; what a few images and attacks say of the cipher does not matter here.
        assert code in ({0, 1} if verb == "audit" else {0}), (command.text, capsys.readouterr().err)
        if verb == "fit":
            checkpoint = str(next(root.rglob("*.ckpt")))
        done.append(verb)
    assert set(done) == {
        "samples", "keygen", "encrypt", "inspect", "decrypt", "grant", "keyinfo", "fit", "predict", "export",
        "evaluate", "audit",
    }  # fmt: skip
    originals = sorted((tmp_path / "my" / "images").rglob("*.png"))
    assert len(originals) == 40
    for path in originals:
        again = tmp_path / "my" / "restored" / path.relative_to(tmp_path / "my" / "images")
        np.testing.assert_array_equal(images.read(again), images.read(path), strict=True)
    rows = list(csv.DictReader((tmp_path / "my" / "predicted.csv").read_text().splitlines()))
    assert len(rows) == 40
    assert {row["predicted"] for row in rows} <= {"no-lesion", "synthetic-lesion"}


@pytest.mark.parametrize("page", sorted((ROOT / "docs").rglob("*.md")), ids=lambda page: page.stem)
def test_verbs_and_targets_that_a_page_names_exist(page: Path) -> None:
    text = page.read_text()
    assert set(re.findall(r"`encdl ([a-z]+(?:-[a-z]+)*)[^`]*`", text)) <= {*VERBS, *LABELS}
    assert set(re.findall(r"`make ([a-z-]+)[^`]*`", text)) <= set(TARGETS)
    for command in commands(text):
        if command.words[0] == "encdl" and not command.words[1].isupper():
            assert command.words[1] in VERBS, command.text


def test_the_notebook(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """Cell after cell, as Jupyter runs them; its plots are drawn, and shown to nobody."""
    import matplotlib

    matplotlib.use("agg")
    monkeypatch.chdir(tmp_path)
    cells = ["".join(cell["source"]) for cell in NOTEBOOK["cells"] if cell["cell_type"] == "code"]
    assert len(cells) >= 6
    assert all(not cell.get("outputs") for cell in NOTEBOOK["cells"])
    names: dict[str, object] = {}
    for number, cell in enumerate(cells):
        exec(compile(cell, f"docs/notebook.ipynb, cell {number}", "exec"), names)
    assert names["exact"] is True
    assert float(str(names["repaired_db"])) > float(str(names["damaged_db"])) + 5
    assert float(str(names["difference"])) < 1e-4
