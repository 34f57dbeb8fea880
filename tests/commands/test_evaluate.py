"""`encdl evaluate`: the record, its refusals before any work, and every kind of data."""

from __future__ import annotations

import json
from pathlib import Path
from typing import Any

import cv2
import numpy as np
import pytest

from encdl.audit import evaluation
from encdl.ciphers.damage import DAMAGES
from encdl.files import images
from tests.commands.conftest import Run
from tests.mni import mni_slice

QUICK = ("--exact-images", 1, "--statistics-images", 1, "--tune-images", 0, "--jobs", 1, "--images", 1)
ROWS = ["network", "confusion", "diffusion", "synthetic_nonce"]


@pytest.fixture
def npz(folder: Path) -> str:
    """Three small slices, one a split."""
    arrays = [mni_slice(index, 28, 28)[0].numpy() for index in (70, 90, 110)]
    splits = {f"{split}_images": array for split, array in zip(("train", "val", "test"), arrays, strict=True)}
    np.savez(folder / "small.npz", **splits)
    return "small.npz"


@pytest.fixture
def untouched(monkeypatch: pytest.MonkeyPatch) -> None:
    """Fails if any work begins."""

    def begun(*_: object, **__: object) -> None:
        raise AssertionError("the work has begun")

    monkeypatch.setattr(evaluation, "evaluate", begun)


def record(path: str = "r.json") -> dict[str, Any]:
    def refuse(word: str) -> None:
        raise AssertionError(f"the record holds {word}")

    content: dict[str, Any] = json.loads(Path(path).read_text(), parse_constant=refuse)
    return content


def evaluate(run: Run, *words: object, code: int = 0) -> tuple[str, str]:
    found, out, err = run("evaluate", *QUICK, *words)
    assert found == code, err
    return out, err


def test_record(run: Run, agile: Path, npz: str) -> None:
    words = ("--weights", agile, f"second={agile}", "--data", npz, "--map", "tent", "--tune-images", 1)
    out, err = evaluate(run, *words, "-o", "r.json")
    content = record()
    assert (content["name"], content["task"], content["seeds"]) == ("r", "evaluate", [0])
    assert content["dataset"] == "small.npz, test split: 1 image"
    assert (content["cipher"], content["planes"]["map"]) == ("agile", "tent")
    assert content["config"]["weights"] == [str(agile), f"second={agile}"]
    assert list(content["weights"]) == ["agile", "second"]
    assert content["data"]["validation"]["images"] == 1
    assert list(content["metrics"]) == ["agile", "second", "references"]
    row = content["metrics"]["agile"]
    assert row["exact_fraction"] == 1.0
    assert set(DAMAGES) <= set(row)
    assert set(row["gaussian_2"]) == {"none", "restored", "median", "bm3d"}
    assert set(row["gaussian_2"]["bm3d"]) == {"mean", "low", "high", "values"}
    for name in ("entropy_bits", "adjacent_correlation", "npcr_pct", "uaci_pct"):
        assert list(row[name]) == ROWS
    for words_ in ("decrypted exactly", "100.0% of images", "a quarter lost", "record: r.json", "NPCR"):
        assert words_ in out
    assert "small.npz, test split: 1 image" in err
    assert "agile: gaussian_8: 1 images, weights 1 of 1" in err
    assert err.count("encdl: warning: map 'tent' alone is worth 94 bits") == 1


def test_a_file_of_settings(run: Run, agile: Path, npz: str) -> None:
    Path("e.yaml").write_text(f"weights: {{mine: [{agile}, {agile}]}}\ndata: {npz}\nrepairs: [telea]\n")
    evaluate(run, "--config", "e.yaml", "-o", "r.json")
    content = record()
    assert content["config"] == "e.yaml"
    assert content["settings"]["data"] == npz
    assert content["seeds"] == [0, 1]
    found = content["metrics"]["mine"]["quarter_lost"]
    assert list(found) == ["none", "restored", "telea"]
    assert len(found["restored"]["values"]) == 2


def test_data_by_name(run: Run, folder: Path, agile: Path, npz: str) -> None:
    (folder / "sets").mkdir()
    Path(npz).rename("sets/pneumoniamnist.npz")
    out, _ = evaluate(run, "--weights", agile, "--data", "pneumoniamnist", "--data-dir", "sets")
    assert out.startswith("pneumoniamnist, test split: 1 image; PSNR in dB")


def test_the_same_figures_twice(run: Run, agile: Path, npz: str) -> None:
    evaluate(run, "--weights", agile, "--data", npz, "-o", "a.json")
    evaluate(run, "--weights", agile, "--data", npz, "-o", "b.json")
    assert record("a.json")["metrics"] == record("b.json")["metrics"]


def test_without_an_output_nothing_is_written(run: Run, folder: Path, agile: Path, npz: str) -> None:
    before = set(folder.iterdir())
    out, _ = evaluate(run, "--weights", agile, "--data", npz)
    assert set(folder.iterdir()) == before
    assert out.startswith("small.npz, test split: 1 image; PSNR in dB")


def test_embedded_is_the_default(run: Run, agile: Path) -> None:
    evaluate(run, "--weights", agile, "-o", "r.json")
    assert record()["dataset"] == "embedded, test split: 1 image (of 10)"


def test_a_folder_of_images(run: Run, folder: Path, agile: Path) -> None:
    """All of them, each at its own size."""
    generator = np.random.default_rng(0)
    (folder / "scans" / "deep").mkdir(parents=True)
    shapes = {
        "one.png": (1, 1),
        "grey.tif": (30, 40),
        "colour.png": (20, 70, 3),
        "b.npy": (9, 9),
        "deep/c.png": (33, 8),
        "d.png": (5, 28),
    }
    for name, shape in shapes.items():
        images.write(folder / "scans" / name, generator.integers(0, 256, shape, dtype=np.uint8))
    images.write(folder / "scans" / "constant.png", np.zeros((12, 12), np.uint8))
    quick = ("--exact-images", 1, "--statistics-images", 1, "--jobs", 1)
    code, out, err = run("evaluate", *quick, "--weights", agile, "--data", "scans", "-o", "r.json")
    assert code == 0, err
    assert out.startswith("scans: 7 images; ")
    content = record()
    assert content["metrics"]["agile"]["exact_fraction"] == 1.0
    assert (content["data"]["images"], content["data"]["validation"]) == (7, None)
    assert len(content["per_image"]["agile"]["gaussian_2"]["none"]) == 7
    out, _ = evaluate(run, "--weights", agile, "--data", "scans/grey.tif")
    assert out.startswith("scans/grey.tif: 1 image; ")
    assert "no interval from one" in out


@pytest.mark.parametrize("shape", [(1, 1), (1, 1, 3), (2, 9)], ids=str)
@pytest.mark.parametrize("level", [0, 200])
def test_tiny_constant_images(run: Run, folder: Path, agile: Path, shape: tuple[int, ...], level: int) -> None:
    image = np.full((2, *shape), level, np.uint8)
    np.savez(folder / "t.npz", train_images=image, val_images=image, test_images=image)
    words = ("--weights", agile, "--data", "t.npz", "-o", "r.json", "--panel", "p.png", "--images", 2)
    evaluate(run, *words, "--tune-images", 2, "--figure", "f.png")
    assert record()["metrics"]["agile"]["mean_image_psnr_db"] == 60.0


def test_panel_and_figure(run: Run, agile: Path, npz: str) -> None:
    out, _ = evaluate(run, "--weights", agile, "--data", npz, "--panel", "p.png", "--figure", "f.png")
    for name, width in (("p.png", 4 * 200), ("f.png", 900)):
        assert f": {name}" in out
        drawn = cv2.imread(name)
        assert drawn is not None
        assert drawn.shape[1] == width


def test_the_baseline(run: Run, npz: str) -> None:
    evaluate(run, "--weights", "thesis", "--data", npz, "-o", "r.json")
    metrics = record()["metrics"]["thesis"]
    assert 0 <= metrics["exact_fraction"] <= 1
    assert "unhit_unchanged_fraction" not in metrics


@pytest.mark.usefixtures("untouched")
@pytest.mark.parametrize("option", ["-o", "--panel", "--figure"])
def test_an_existing_output_is_refused_before_the_work(run: Run, option: str) -> None:
    Path("there").write_text("precious")
    _, err = evaluate(run, option, "there", code=2)
    assert "there: exists already" in err
    assert "--force" in err
    _, err = evaluate(run, option, "none/r.json", code=2)
    assert "there is no folder none" in err
    _, err = evaluate(run, option, ".", code=2)
    assert "is a folder" in err
    assert Path("there").read_text() == "precious"


def test_force_replaces(run: Run, agile: Path, npz: str) -> None:
    for name in ("r.json", "p.png"):
        Path(name).write_text("old")
    words = ("--weights", agile, "--data", npz, "-o", "r.json", "--panel", "p.png")
    evaluate(run, *words, "--force")
    assert record()["task"] == "evaluate"
    assert cv2.imread("p.png") is not None


@pytest.mark.usefixtures("untouched")
@pytest.mark.parametrize("option", ["--images", "--exact-images", "--statistics-images"])
def test_numbers_out_of_range(run: Run, option: str) -> None:
    for value in ("0", "-3"):
        assert f"{option} must be at least 1, got {value}" in evaluate(run, option, value, code=2)[1]
    for value in ("many", "1.5"):
        assert f"invalid int value: '{value}'" in evaluate(run, option, value, code=2)[1]


@pytest.mark.usefixtures("untouched")
def test_one_file_for_two_outputs(run: Run) -> None:
    for words in (("-o", "r", "--panel", "./r"), ("--figure", "r", "--panel", "./r")):
        assert "r: is named twice" in evaluate(run, *words, code=2)[1]


def test_bad_arguments(run: Run, folder: Path, agile: Path) -> None:
    np.savez(folder / "odd.npz", something=np.zeros(3))
    (folder / "broken.npz").write_bytes(b"PK\3\4 no zip")
    (folder / "empty").mkdir()
    cases = {
        (
            "--data",
            "none",
        ): "none: no such data: give embedded, lesions, mednist, tissue, brain_tumor, acdc, a set of MedMNIST",
        ("--data", "none.png"): "none.png: no such data",
        ("--data", "none.npz"): "none.npz: no such file",
        ("--data", "broken.npz"): "broken.npz: is not a readable .npz file",
        ("--data", "odd.npz"): "odd.npz: it has no `train_images`",
        ("--data", "empty"): "empty: holds no images",
        ("--data", "brain_tumor", "--data-dir", "none"): "none/brain_tumor.npz: no such file",
        ("--data", "empty", "--data-dir", "none"): "--data-dir says where sets",
        ("--map", "henon"): "henon",
        ("--postprocess", "shuffle"): "shuffle",
        ("--repairs", "bm4d"): "--repairs: there is no bm4d",
        ("--group", "patient"): "invalid choice: 'patient'",
        ("--config", "none.yaml"): "none.yaml: no such file",
        ("--weights",): "expected at least one argument",
        ("--weights", "none.pt"): "none.pt: no such weights file",
        ("--weights", "scan.png"): "scan.png: not a weights file",
        ("--data",): "expected one argument",
    }
    for words, said in cases.items():
        first = () if "--weights" in words else ("--weights", agile)
        code, _, err = run("evaluate", *QUICK, *first, *words, "-o", "r.json")
        assert (code, said in err) == (2, True), (words, err)
