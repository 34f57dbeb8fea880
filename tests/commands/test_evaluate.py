"""`encdl evaluate`: the record, its refusals before any work, and every kind of data."""

from __future__ import annotations

import json
from pathlib import Path
from typing import Any

import cv2
import numpy as np
import pytest

from encdl import evaluation, images
from encdl.damage import DAMAGES
from encdl.data import named
from tests.commands.conftest import Run
from tests.mni import mni_slice

QUICK = ("--seeds", 1, "--images", 1, "--exact-images", 1)
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

    monkeypatch.setattr(evaluation.Evaluation, "figures", begun)
    monkeypatch.setattr(named, "test_images", begun)
    monkeypatch.setattr("encdl.commands.evaluate.load_cipher", begun)


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
    out, err = evaluate(run, "--weights", agile, "--data", npz, "--seeds", 2, "-o", "r.json", "--map", "tent")
    content = record()
    assert (content["name"], content["task"], content["seeds"]) == ("r", "evaluate", [0, 1])
    assert content["dataset"] == "small.npz, 1 test images"
    assert (content["cipher"], content["planes"]["map"]) == ("agile", "tent")
    assert {"wall_s", "device", "versions", "commit", "date", "config", "weights", "training"} <= set(content)
    metrics = content["metrics"]
    assert metrics["exact_fraction"] == 1.0
    for name in ("wrong_key_psnr_db", "mean_image_psnr_db", "content_activity"):
        assert isinstance(metrics[name], float)
    assert set(metrics["restored_psnr_db"]) == set(DAMAGES)
    for name in ("entropy_bits", "adjacent_correlation", "npcr_pct", "uaci_pct"):
        assert list(metrics[name]) == ROWS
        for row in ROWS:
            entry = metrics["per_seed"][name][row]
            assert entry["mean"] == metrics[name][row]
            assert len(entry["values"]) == 2
    for words in (
        "decrypted exactly",
        "100.0% of images",
        "restored after crop 25 %",
        "record: r.json",
        "NPCR",
    ):
        assert words in out
    assert err.count("seed 0: ") == err.count("seed 1: ") == 2 + len(ROWS)


def test_the_same_figures_twice(run: Run, agile: Path, npz: str) -> None:
    evaluate(run, "--weights", agile, "--data", npz, "-o", "a.json")
    evaluate(run, "--weights", agile, "--data", npz, "-o", "b.json")
    assert record("a.json")["metrics"] == record("b.json")["metrics"]


def test_without_an_output_nothing_is_written(run: Run, folder: Path, agile: Path, npz: str) -> None:
    before = set(folder.iterdir())
    out, _ = evaluate(run, "--weights", agile, "--data", npz)
    assert set(folder.iterdir()) == before
    assert out.startswith("agile (weights ")


def test_embedded_is_the_default(run: Run, agile: Path) -> None:
    evaluate(run, "--weights", agile, "-o", "r.json")
    assert record()["dataset"] == "embedded, 1 test images"


def test_a_folder_of_pictures(run: Run, folder: Path, agile: Path) -> None:
    generator = np.random.default_rng(0)
    (folder / "pictures").mkdir()
    for name, shape in {
        "one.png": (1, 1),
        "grey.tif": (30, 40),
        "colour.png": (20, 300, 3),
        "b.npy": (9, 9),
    }.items():
        images.write(folder / "pictures" / name, generator.integers(0, 256, shape, dtype=np.uint8))
    images.write(folder / "pictures" / "constant.png", np.zeros((12, 12), np.uint8))
    evaluate(run, "--weights", agile, "--data", "pictures", "-o", "r.json")
    assert record()["metrics"]["exact_fraction"] == 1.0


@pytest.mark.parametrize("shape", [(1, 1), (1, 1, 3), (2, 9)], ids=str)
@pytest.mark.parametrize("level", [0, 200])
def test_tiny_constant_pictures(
    run: Run, folder: Path, agile: Path, shape: tuple[int, ...], level: int
) -> None:
    picture = np.full((2, *shape), level, np.uint8)
    np.savez(folder / "t.npz", train_images=picture, val_images=picture, test_images=picture)
    evaluate(run, "--weights", agile, "--data", "t.npz", "-o", "r.json", "--panel", "p.png", "--images", 2)
    assert record()["metrics"]["mean_image_psnr_db"] == 100.0


def test_panel(run: Run, agile: Path, npz: str) -> None:
    out, _ = evaluate(run, "--weights", agile, "--data", npz, "--panel", "p.png")
    assert "panel: p.png" in out
    drawn = cv2.imread("p.png")
    assert drawn is not None
    assert drawn.shape[1] == 7 * 200


def test_the_baseline(run: Run, npz: str) -> None:
    evaluate(run, "--weights", "thesis", "--data", npz, "-o", "r.json")
    content = record()
    assert content["cipher"] == "thesis"
    assert 0 <= content["metrics"]["exact_fraction"] <= 1


@pytest.mark.usefixtures("untouched")
@pytest.mark.parametrize("option", ["-o", "--panel"])
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
@pytest.mark.parametrize("option", ["--seeds", "--images", "--exact-images"])
def test_numbers_out_of_range(run: Run, option: str) -> None:
    for value in ("0", "-3"):
        assert f"{option} must be at least 1, got {value}" in evaluate(run, option, value, code=2)[1]
    for value in ("many", "1.5"):
        assert f"invalid int value: '{value}'" in evaluate(run, option, value, code=2)[1]


@pytest.mark.usefixtures("untouched")
def test_one_file_for_two_outputs(run: Run) -> None:
    _, err = evaluate(run, "-o", "r", "--panel", "./r", code=2)
    assert "r: is named twice" in err


def test_bad_arguments(run: Run, folder: Path, agile: Path) -> None:
    np.savez(folder / "odd.npz", something=np.zeros(3))
    (folder / "broken.npz").write_bytes(b"PK\3\4 no zip")
    (folder / "empty").mkdir()
    cases = {
        ("--data", "none"): "none: no such data: give embedded, lesions, tissue, a folder of images",
        ("--data", "scan.png"): "scan.png: no such data",
        ("--data", "none.npz"): "none.npz: no such file",
        ("--data", "broken.npz"): "broken.npz: is not a readable .npz file",
        ("--data", "odd.npz"): "odd.npz: it has no `train_images`",
        ("--data", "empty"): "empty: holds no pictures",
        ("--map", "henon"): "henon",
        ("--weights", "none.pt"): "none.pt: no such weights file",
        ("--weights", "scan.png"): "scan.png: not a weights file",
        ("--data",): "expected one argument",
    }
    for words, said in cases.items():
        first = () if "--weights" in words else ("--weights", agile)
        code, _, err = run("evaluate", *QUICK, *first, *words, "-o", "r.json")
        assert (code, said in err) == (2, True), (words, err)
