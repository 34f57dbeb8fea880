"""`encdl experiment`: a whole small study, its record, and how it goes on after an end."""

from __future__ import annotations

import json
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from mlflow import MlflowClient

from encdl.audit.studies import cost, files
from encdl.audit.studies.run import is_tracked, means
from encdl.ciphers.damage import DAMAGES
from encdl.cli import main

ROWS = {"plaintext", "ciphertext", "decrypt_then_infer", "wrong_key", "keyless", "fixed_key", "hardened"}
RECIPE = """
model:
  class_path: encdl.training.tasks.classify.ClassifyTask
  init_args:
    view: {class_path: encdl.training.tasks.views.Ciphertext}
    backbone:
      class_path: MonaiNet
      init_args:
        network: ResNet
        arguments: {block: basic, layers: [1, 1, 1, 1], block_inplanes: [4, 4, 4, 4]}
data:
  class_path: encdl.data.npz.NpzImages
  init_args: {file: bars.npz, data_dir: DIR, batch_size: 8, augment: false}
trainer:
  max_steps: 3
  accelerator: cpu
  logger: false
  enable_progress_bar: false
  enable_model_summary: false
"""


@pytest.fixture(scope="module")
def study(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A folder with a recipe and its data."""
    folder = tmp_path_factory.mktemp("study")
    random = np.random.default_rng(0)
    arrays = {
        f"{split}_{kind}": random.integers(0, 256, (12, 16, 16), dtype=np.uint8)
        if kind == "images"
        else np.arange(12)[:, None] % 2
        for split in ("train", "val", "test")
        for kind in ("images", "labels")
    }
    np.savez(folder / "bars.npz", **arrays)
    (folder / "classifier-bars.yaml").write_text(RECIPE.replace("DIR", "elsewhere"))
    return folder


def words(study: Path, *more: str) -> list[str]:
    return [
        *("experiment", "ciphertext-readers", "--config", str(study / "classifier-bars.yaml")),
        *("--data-dir", str(study), "--seeds", "1", "--work", str(study / "work")),
        *("--rows", "plaintext", "ciphertext", "keyless", "fixed_key", "hardened"),
        *("--output", str(study / "readers-bars.json"), *more),
    ]


@pytest.fixture(scope="module")
def record(study: Path) -> dict[str, Any]:
    with pytest.MonkeyPatch.context() as patch:
        patch.setattr(cost, "ROUNDS", 1)
        assert main(words(study, "--jobs", "2")) == 0
    content: dict[str, Any] = json.loads((study / "readers-bars.json").read_text())
    return content


@pytest.mark.slow
def test_the_record_has_every_row(record: dict[str, Any]) -> None:
    metrics = record["metrics"]
    assert set(metrics) >= ROWS | {"majority_class", "robustness", "leakage_psnr_db", "cost"}
    for row in ROWS:
        for figure in ("accuracy", "auroc"):
            assert set(metrics[row][figure]) == {"mean", "std", "values"}
            assert len(metrics[row][figure]["values"]) == 1
    decrypted = metrics["decrypt_then_infer"]  # calibration is measured of a reader's own view alone
    assert {*decrypted} == {*metrics["plaintext"]} - {"ece"}
    assert {name: metrics["plaintext"][name] for name in decrypted} == decrypted
    assert set(metrics["robustness"]) == set(DAMAGES)
    for rows in metrics["robustness"].values():
        assert set(rows) == {"plaintext", "decrypt_then_infer", "restore_then_infer", "ciphertext", "hardened"}
    leaks = metrics["leakage_psnr_db"]
    assert set(leaks["ciphertext"]) == {"stem", "bn1", *(f"layer{n}" for n in range(1, 5)), "mean_picture"}
    assert leaks["ciphertext"]["stem"]["mean"] > leaks["ciphertext_wrong_key"]["stem"]["mean"] + 3
    assert record["seeds"] == [0]
    assert record["commit"]
    assert record["dataset"] == "bars (NpzImages)"


@pytest.mark.slow
def test_plaintext_and_ciphertext_start_alike_and_stay_alike(record: dict[str, Any]) -> None:
    """Same seed, same weights, same order: reading ciphertext is reading plaintext, up to rounding."""
    plain, cipher = (record["metrics"][row]["auroc"]["mean"] for row in ("plaintext", "ciphertext"))
    assert plain == pytest.approx(cipher, abs=0.03)


@pytest.mark.slow
def test_an_ended_study_goes_on(
    study: Path, record: dict[str, Any], monkeypatch: pytest.MonkeyPatch, capfd: pytest.CaptureFixture[str]
) -> None:
    monkeypatch.setattr(cost, "ROUNDS", 1)
    (study / "work" / "keyless-0.json").unlink()
    before = (study / "work" / "plaintext-0.json").read_bytes()
    assert main(words(study, "--force")) == 0
    told = capfd.readouterr().err
    assert "4 of 5 trainings are there already" in told
    assert "[5/5] keyless-0: balanced_accuracy" in told
    assert (study / "work" / "plaintext-0.json").read_bytes() == before
    again = json.loads((study / "readers-bars.json").read_text())
    assert again["metrics"]["keyless"] == record["metrics"]["keyless"]  # the same on every run


@pytest.mark.parametrize(
    ("change", "said"),
    [
        (("--rows", "keyless"), "plaintext must be there"),
        (("--rows", "plaintext", "ciphers"), "no row ciphers"),
        (("--seeds", "0"), "--seeds must be at least 1, got 0"),
        (
            ("--config", "gone.yaml"),
            "gone.yaml: no such recipe: `encdl experiment --recipe` lists EncDL's own (--config)",
        ),
        pytest.param(("--data-dir", "gone", "--work", "{tmp}"), "gone/bars.npz: no such file", marks=pytest.mark.slow),
        pytest.param(
            ("--set", "trainer.speed=9", "--work", "{tmp}"), "arguments: --trainer.speed=9", marks=pytest.mark.slow
        ),
    ],
)
def test_mistakes_are_told_in_one_line(
    study: Path, change: tuple[str, ...], said: str, capfd: pytest.CaptureFixture[str], tmp_path: Path
) -> None:
    filled = [word.replace("{tmp}", str(tmp_path / "w")) for word in change]
    assert main(words(study, *filled, "--output", str(tmp_path / "r.json"))) == 2
    last = capfd.readouterr().err.strip().splitlines()[-1]
    assert said in last
    assert last.startswith("encdl: error: ")


@pytest.mark.slow
def test_a_record_is_not_overwritten(study: Path, capsys: pytest.CaptureFixture[str], record: dict[str, Any]) -> None:
    assert main(words(study)) == 2
    assert "readers-bars.json" in capsys.readouterr().err


def test_costs_are_timed_and_recorded(study: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """In a size that saves time; the data set of the recipe is not read, and nothing is left behind."""
    for module in (cost, files):
        monkeypatch.setattr(module, "ROUNDS", 2)
    monkeypatch.setattr(cost, "SIZES", (32,))
    monkeypatch.setattr(cost, "batches", lambda device: (1,))
    target = tmp_path / "readers-cost.json"
    recipe = str(study / "classifier-bars.yaml")
    told = ["experiment", "reader-cost", "--config", recipe, "--work", str(tmp_path / "w"), "--device", "cpu"]
    assert main([*told, "--output", str(target)]) == 0
    record = json.loads(target.read_text())
    assert (record["task"], record["config"]) == ("reader-cost", recipe)
    assert record["metrics"]["memory"]["32px_batch1"]["keyed_to_plain"] > 0
    assert record["metrics"]["files"]["32px"]["wall"]["ciphertext_to_decrypt_then_infer"] > 0
    assert record["metrics"]["files"]["32px"]["own"]["functional_to_plain"] > 0
    assert record["reader"]["backbone"] == "MonaiNet"
    assert not list((tmp_path / "w").iterdir())
    assert main([*told, "--output", str(target)]) == 2


@pytest.mark.parametrize(
    ("words", "said"),
    [
        (["--config", "experiments/encryptor.yaml"], "experiments/encryptor.yaml: is no recipe of a reader"),
        (["--config", "gone.yaml"], "gone.yaml: no such recipe"),
        (["--config", "experiments/classifier-npz.yaml", "--rows", "plaintext"], "unrecognized arguments: --rows"),
    ],
)
def test_mistakes_about_costs(
    words: list[str], said: str, tmp_path: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    monkeypatch.chdir(Path(__file__).parents[2])
    try:
        code = main(["experiment", "reader-cost", *words, "--output", str(tmp_path / "r.json")])
    except SystemExit as stop:
        code = stop.code  # type: ignore[assignment]
    assert code == 2
    assert said in capsys.readouterr().err.strip().splitlines()[-1]


@pytest.mark.parametrize(
    ("logger", "settings", "tracked"),
    [
        ("logger: false", [], False),
        ("logger: true", [], True),
        ("max_epochs: 1", [], True),
        ("max_epochs: 1", ["trainer.logger=false"], False),
        ("logger: false", ["trainer.logger=encdl.training.tracking.RunLogger"], True),
    ],
)
def test_whether_a_studyis_tracked(tmp_path: Path, logger: str, settings: list[str], tracked: bool) -> None:
    recipe = tmp_path / "r.yaml"
    recipe.write_text(f"trainer:\n  {logger}\n")
    assert is_tracked(recipe, settings) is tracked


@pytest.mark.slow
def test_means_have_the_names_of_single_runs(record: dict[str, Any]) -> None:
    found = dict(means(record["metrics"]))
    assert found["test/accuracy/ciphertext"] == record["metrics"]["ciphertext"]["accuracy"]["mean"]
    assert found["test/auroc/wrong_key/std"] == 0
    assert all(isinstance(value, float) for value in found.values())
    assert not any("robustness" in name or "cost" in name for name in found)


@pytest.mark.slow
def test_the_seeds_of_a_study_are_runs_below_one(study: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.chdir(tmp_path)
    monkeypatch.delenv("MLFLOW_TRACKING_URI", raising=False)
    monkeypatch.setattr(cost, "ROUNDS", 1)
    recipe = tmp_path / "classifier-bars.yaml"
    recipe.write_text((study / "classifier-bars.yaml").read_text().replace("  logger: false\n", ""))
    command = ["experiment", "ciphertext-readers", "--config", str(recipe), "--data-dir", str(study)]
    command += ["--rows", "plaintext", "ciphertext", "--output", "readers-bars.json"]
    for seeds in ("1", "2"):  # the second call goes on with the first one's run
        assert main([*command, "--seeds", seeds, "--force"]) == 0
    client = MlflowClient(f"sqlite:///{tmp_path / 'runs' / 'mlflow.db'}")
    experiment = client.get_experiment_by_name("ciphertext-readers")
    assert experiment is not None
    runs = client.search_runs([experiment.experiment_id])
    [parent] = [run for run in runs if run.data.tags.get("kind") == "group"]
    children = [run for run in runs if run is not parent]
    assert {run.data.tags["mlflow.parentRunId"] for run in children} == {parent.info.run_id}
    seen = sorted((run.data.tags["view"], run.data.tags["seed"]) for run in children)
    assert seen == [(view, seed) for view in ("Ciphertext", "Plaintext") for seed in "01"]
    assert {run.info.status for run in runs} == {"FINISHED"}
    assert len({run.data.tags["config_hash"] for run in children}) == 2
    record = json.loads(Path("readers-bars.json").read_text())
    mean = record["metrics"]["ciphertext"]["accuracy"]["mean"]
    assert parent.data.metrics["test/accuracy/ciphertext"] == pytest.approx(mean)
    assert [file.path for file in client.list_artifacts(parent.info.run_id)] == ["readers-bars.json"]


LOSSES_RECIPE = """
model:
  class_path: encdl.training.tasks.encrypt.EncryptTask
  init_args:
    cipher: {class_path: encdl.ciphers.AgileCipher, init_args: {width: 4, blocks: 1}}
data:
  class_path: encdl.data.mixture.Mixture
  init_args: {parts: {bars: 1.0, dots: 1.0}, data_dir: DIR, batch_size: 2, crop: 16, batches: 2}
trainer:
  max_epochs: 1
  accelerator: cpu
  logger: false
  enable_progress_bar: false
  enable_model_summary: false
  callbacks: [{class_path: encdl.training.callbacks.AveragedWeights, init_args: {decay: 0.5}}]
"""


@pytest.mark.slow
def test_a_study_of_losses(tmp_path: Path, capfd: pytest.CaptureFixture[str]) -> None:
    for name, size in (("bars", 16), ("dots", 20)):
        images = np.random.default_rng(0).integers(0, 256, (6, size, size), dtype=np.uint8)
        np.savez(tmp_path / f"{name}.npz", images=images, split=np.arange(6) % 3)
    (tmp_path / "losses.yaml").write_text(LOSSES_RECIPE)
    command = ["experiment", "losses", "--config", str(tmp_path / "losses.yaml"), "--data-dir", str(tmp_path)]
    command += ["--rows", "l1", "likelihood", "--seeds", "2", "--work", str(tmp_path / "work")]
    assert main([*command, "--output", str(tmp_path / "losses.json")]) == 0
    record = json.loads((tmp_path / "losses.json").read_text())
    assert (record["task"], record["seeds"], record["best"] in {"l1", "likelihood"}) == ("losses", [0, 1], True)
    assert record["dataset"] == "Mixture bars+dots"
    for loss in ("l1", "likelihood"):
        assert set(record["metrics"][loss]) == {"bars", "dots"}
        for sets in record["metrics"][loss].values():
            assert set(sets["restored_psnr_db"]) == set(DAMAGES)
            assert len(sets["restored_psnr_db"]["quarter_lost"]["values"]) == 2
    assert "best over all cells" in capfd.readouterr().out


def test_a_loss_that_there_is_not(tmp_path: Path, capfd: pytest.CaptureFixture[str]) -> None:
    (tmp_path / "losses.yaml").write_text(LOSSES_RECIPE)
    words = ["experiment", "losses", "--config", str(tmp_path / "losses.yaml"), "--rows", "l2"]
    assert main(words) == 2
    assert "no row l2: there are likelihood, l1, mse, charbonnier" in capfd.readouterr().err
