"""The README's figures are those of the records that it names."""

from __future__ import annotations

import json
from pathlib import Path
from typing import Any

import pytest

from encdl.weights import load

ROOT = Path(__file__).parents[1]
README = (ROOT / "README.md").read_text()
RECORDS = sorted((ROOT / "experiments" / "results").glob("*.json"))


def metrics(name: str) -> dict[str, Any]:
    content: dict[str, Any] = json.loads((ROOT / "experiments" / "results" / f"{name}.json").read_text())[
        "metrics"
    ]
    return content


def cells(m: dict[str, Any]) -> dict[str, list[str]]:
    """Beginning of a row's label to what a cipher's cell must hold."""
    restored = m["restored_psnr_db"]
    pairs = {row: [f"{m[kind][row]:.{digits}f}" for kind in ("npcr_pct", "uaci_pct")]
             for row, digits in (("network", 1), ("diffusion", 2), ("synthetic_nonce", 2))}  # fmt: skip
    return {
        "pictures decrypted": [f"{m['exact_fraction']:.0%}".replace("%", " %")],
        "restored, 1 %": [f"{restored['salt_pepper_1pct']:.1f}"],
        "restored, 5 %": [f"{restored['salt_pepper_5pct']:.1f}"],
        "restored, Gaussian": [f"{restored['gaussian_2']:.1f}", f"{restored['gaussian_8']:.1f}"],
        "restored, a quarter": [f"{restored['crop_25pct']:.1f}"],
        "of the other": [f"{m['crop_25pct_exact_of_rest']:.0%}".replace("%", " %")],
        "wrong key": [f"{m['wrong_key_psnr_db']:.1f}"],
        "content activity": [f"{m['content_activity']:.2f}"],
        "entropy": [f"{m['entropy_bits']['network']:.3f}"],
        "adjacent correlation": [f"{m['adjacent_correlation']['network']:.3f}"],
        "NPCR / UACI, one": pairs["network"],
        "NPCR / UACI, with": pairs["diffusion"],
        "NPCR / UACI, syn": pairs["synthetic_nonce"],
    }


@pytest.mark.parametrize(("record", "column"), [("evaluate-agile", 2), ("evaluate-thesis", 3)])
def test_the_table_quotes_the_record(record: str, column: int) -> None:
    rows = [line.split("|") for line in README.splitlines() if line.startswith("| ")]
    for label, expected in cells(metrics(record)).items():
        row = next(row for row in rows if row[1].strip().startswith(label))
        for text in expected:
            assert text in row[column], (
                f"{label}: {text} is in {record}.json, the README says {row[column].strip()}"
            )


@pytest.mark.parametrize("name", ["agile", "thesis"])
def test_the_package_ships_the_record_beside_the_weights(name: str) -> None:
    shipped = json.loads((ROOT / "encdl" / "weights" / f"{name}.json").read_text())
    assert shipped["metrics"] == metrics(f"evaluate-{name}")
    assert shipped["weights"] == load(name).id
    assert {"commit", "settings", "steps", "files", "device", "versions"} <= set(shipped["training"])


def test_the_mean_image_is_quoted() -> None:
    assert f"guessing the mean grey: {metrics('evaluate-agile')['mean_image_psnr_db']:.1f} dB" in README


@pytest.mark.parametrize("path", RECORDS, ids=lambda path: path.stem)
def test_every_record_says_how_it_came_about_and_is_quoted(path: Path) -> None:
    record = json.loads(path.read_text())
    assert set(record) >= {
        "name", "task", "config", "dataset", "seeds", "metrics", "wall_s", "device", "versions", "commit", "date",
    }  # fmt: skip
    assert record["name"] == path.stem
    assert record["commit"] != "unknown"
    assert not record["commit"].endswith("+changes")
    pages = [README, *(page.read_text() for page in (ROOT / "docs").glob("*.md"))]
    assert any(path.name in page for page in pages), f"no page quotes {path.name}"


def test_golden_ciphertexts_opened_without_a_differing_pixel() -> None:
    found = metrics("exactness-cuda")
    assert len(found["differing_pixels"]) == 5
    assert all(count == 0 for files in found["differing_pixels"].values() for count in files.values())
    assert set(found["exact_fraction"].values()) == {1.0}


def test_what_is_said_of_readers_is_in_their_record() -> None:
    rows, docs = metrics("readers-pneumoniamnist"), (ROOT / "docs" / "readers.md").read_text()
    for row in ("plaintext", "ciphertext", "wrong_key", "keyless", "majority_class"):
        assert f"{rows[row]['accuracy']['mean']:.3f}" in README
    for row in ("plaintext", "decrypt_then_infer", "ciphertext", "wrong_key", "keyless", "fixed_key"):
        accuracy, auroc = rows[row]["accuracy"], rows[row]["auroc"]["mean"]
        assert f"| `{row}` | {accuracy['mean']:.3f} ± {accuracy['std']:.3f} | {auroc:.3f} |" in docs
    for damage in rows["robustness"].values():
        told = [damage[row]["accuracy"]["mean"] for row in ("plaintext", "ciphertext", "restore_then_infer")]
        assert " | ".join(f"{value:.3f}" for value in told) in docs


def test_ciphertext_is_read_as_well_as_plaintext() -> None:
    """Within half a point on the mean over seeds, a plaintext network worth the name, and nothing without the key."""
    rows = metrics("readers-pneumoniamnist")
    for figure, published in (("accuracy", 0.854), ("auroc", 0.944)):
        assert rows["ciphertext"][figure]["mean"] >= rows["plaintext"][figure]["mean"] - 0.005
        assert rows["plaintext"][figure]["mean"] >= published
    for row in ("wrong_key", "keyless"):
        assert rows[row]["accuracy"]["mean"] <= rows["majority_class"]["accuracy"]["mean"]
        assert abs(rows[row]["auroc"]["mean"] - 0.5) < 0.05
