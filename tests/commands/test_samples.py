"""`encdl samples`: images for who has none, and none that hides that its lesion is synthetic."""

from __future__ import annotations

from pathlib import Path

import numpy as np
import pytest

from encdl.commands import samples
from encdl.data.class_folder import ClassFolder
from encdl.files import images
from tests.commands.conftest import Run


def written(folder: str) -> list[Path]:
    return sorted(Path(folder).rglob("*.png"))


def test_pairs_that_differ_in_a_lesion(run: Run) -> None:
    code, out, err = run("samples", "new/images")
    assert (code, err) == (0, "")
    assert "8 images" in out
    assert "4 with a SYNTHETIC lesion" in out
    healthy, drawn = written("new/images/no-lesion"), written("new/images/synthetic-lesion")
    assert len(healthy) == len(drawn) == 4
    for without, path in zip(healthy, drawn, strict=True):
        assert path.name == f"{without.stem}-synthetic-lesion.png"  # also when taken out of its folder
        before, after = images.read(without), images.read(path)
        assert before.shape == after.shape == (96, 80)
        assert 10 <= (np.abs(before.astype(int) - after) > 20).sum() <= 600


@pytest.mark.parametrize(("count", "lesions"), [(1, 0), (3, 1), (40, 20)])
def test_as_many_as_asked_for(run: Run, count: int, lesions: int) -> None:
    assert run("samples", "some", "--count", count)[0] == 0
    assert (len(written("some")), len(written("some/synthetic-lesion"))) == (count, lesions)


def test_the_folder_has_the_classes(run: Run) -> None:
    assert run("samples", "some")[0] == 0
    assert ClassFolder(folder="some").spec.classes == samples.FOLDERS


def test_nothing_is_replaced_unasked(run: Run) -> None:
    assert run("samples", "some", "--count", 1)[0] == 0
    [first] = written("some")
    first.write_bytes(b"mine")
    code, _, err = run("samples", "some", "--count", 3)
    assert code == 2
    assert err.startswith(f"encdl: error: {first}: exists already")
    assert first.read_bytes() == b"mine"
    assert written("some") == [first]
    assert run("samples", "some", "--count", 3, "--force")[0] == 0
    assert len(written("some")) == 3


@pytest.mark.parametrize("count", [-1, 0, 41])
def test_a_count_out_of_range(run: Run, count: int) -> None:
    assert run("samples", "some", "--count", count)[::2] == (
        2,
        f"encdl: error: --count {count}: must be from 1 to 40\n",
    )
    assert not Path("some").exists()


def test_a_file_in_the_folders_place(run: Run) -> None:
    code, _, err = run("samples", "scan.png")
    assert code == 2
    assert err.startswith("encdl: error: scan.png")
    assert err.count("\n") == 1


def test_without_nilearn(run: Run, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr("encdl.data.embedded.find_spec", lambda name: None)
    code, _, err = run("samples", "some")
    assert code == 2
    assert err.startswith("encdl: error: the embedded brain is a file of nilearn, which is not installed here")
    assert err.count("\n") == 1
    assert not Path("some").exists()
