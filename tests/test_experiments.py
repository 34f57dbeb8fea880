"""Every recipe in experiments/ is parsed by the real command line and runs for two steps."""

from __future__ import annotations

import json
import re
from pathlib import Path
from typing import Any

import nibabel
import numpy as np
import pytest
import torch
import yaml
from mlflow import MlflowClient

from encdl import readers
from encdl.ciphers import weights
from encdl.cli import main as encdl
from encdl.data.registry import DATA_SETS
from encdl.files import images
from encdl.utils.recipes import read
from tests.stores import make_store

EXPERIMENTS = Path(__file__).parents[1] / "experiments"
RECIPES = sorted(
    path
    for path in EXPERIMENTS.rglob("*.yaml")
    if not path.name.startswith(("evaluate-", "audit", "functional-", "readers-"))
)
"""Of trainings."""


RUNNABLE = [pytest.param(recipe, id=recipe.stem) for recipe in RECIPES]
SMALLER: dict[str, dict[str, int]] = {
    f"{name}Cipher": {"width": 4, "blocks": 1} for name in ("Agile", "Coupled", "Keystream", "Thesis")
}
SMALLER_READER: dict[str, dict[str, Any]] = {
    "ResNet": {"block_inplanes": [4] * 4},
    "UNet": {"channels": [4, 4], "strides": [2]},
    "BasicUNet": {"features": [4] * 6},
}
"""Settings that save time: the rest of a recipe is run as it is."""
SHOWN = {
    "EncryptTask": ["restored after gaussian 2"],
    "ClassifyTask": ["accuracy, ciphertext", "accuracy, wrong key", "accuracy, majority class", "AUROC, ciphertext"],
    "SegmentTask": [
        "Dice, ciphertext",
        "Dice, wrong key",
        "Dice, empty mask",
        "Dice, mean mask",
        "Hausdorff distance (95 %), ciphertext",
    ],
}
"""Rows of the table that a task's run ends with."""


@pytest.mark.parametrize("recipe", RECIPES, ids=lambda path: path.stem)
def test_a_stopped_training_has_kept_most_of_it(recipe: Path) -> None:
    """Checkpoints are kept when a model is validated: not only at the end of a long run."""
    content = read(recipe)
    steps, every = (content["trainer"].get(key) for key in ("max_steps", "val_check_interval"))
    assert every is None or recipe.stem == "losses" or 5 * every <= steps


def tiny_file(name: str, task: str) -> None:
    """An .npz file of noise, in place of a data set that cannot be shipped."""
    shape = (12, 16, 16, 16) if name.endswith("3d.npz") else (12, 32, 32)
    noise = np.random.default_rng(0).integers(0, 256, shape, dtype=np.uint8)
    truth = {"masks": noise // 64} if task == "SegmentTask" else {"labels": np.arange(12) % 2}
    Path("data").mkdir(exist_ok=True)
    np.savez(Path("data", name), images=noise, split=np.arange(12) % 3, **truth)


def tiny_decathlon(task: str) -> None:
    """Volumes of noise in the layout of the Medical Segmentation Decathlon."""
    random, folder, pairs = np.random.default_rng(0), Path("data", task), []
    for number in range(10):
        image = random.integers(-200, 300, (40, 36, 4)).astype(np.int16)
        for part, voxels in (("imagesTr", image), ("labelsTr", (image > 200).astype(np.uint8))):
            (folder / part).mkdir(parents=True, exist_ok=True)
            nibabel.save(nibabel.Nifti1Image(voxels, np.diag([1, 1, 5, 1])), folder / part / f"v_{number}.nii.gz")
        pairs.append({part: f"./{part}sTr/v_{number}.nii.gz" for part in ("image", "label")})
    content = {"modality": {"0": "CT"}, "labels": {"0": "background", "1": "spleen"}, "training": pairs}
    (folder / "dataset.json").write_text(json.dumps(content | {"test": []}))


def tiny_folder(path: Path) -> None:
    """A folder of noise by class, in place of another."""
    for number in range(12):
        noise = np.random.default_rng(number).integers(0, 256, (32, 40), dtype=np.uint8)
        folder = path / "ab"[number % 2]
        folder.mkdir(parents=True, exist_ok=True)
        images.write(folder / f"{number}.png", noise)


def tiny_masks(path: Path) -> None:
    """A folder of noise and of masks."""
    for number in range(12):
        noise = np.random.default_rng(number).integers(0, 256, (32, 40), dtype=np.uint8)
        for name, content in (("images", noise), ("masks", (noise > 128).astype(np.uint8))):
            (path / name).mkdir(parents=True, exist_ok=True)
            images.write(path / name / f"{number}.png", content)


def tiny_data(settings: dict[str, Any], task: str) -> None:
    """What the data section of a recipe asks for."""
    for part in set(settings.get("parts", ())) - set(DATA_SETS):
        tiny_file(f"{part}.npz", task)
    if "task" in settings:
        tiny_decathlon(settings["task"])
    elif "file" in settings or "name" in settings:
        tiny_file(settings.get("file") or f"{settings['name']}.npz", task)
    elif "folder" in settings and task == "SegmentTask":
        tiny_masks(Path(settings["folder"]))
    elif "folder" in settings or "download" in settings:
        tiny_folder(Path(settings.get("folder") or "data/MedNIST"))


def quick(recipe: Path, *more: str) -> list[str]:
    """The recipe's command line, cut to two steps and one small validation."""
    settings: dict[str, Any] = read(recipe)
    words = [
        "--data.init_args.batch_size", "2", "--data.init_args.eval_batch_size", "1",
        "--data.init_args.num_workers", "0",
        "--trainer.max_steps", "2", "--trainer.limit_train_batches", "2", "--trainer.limit_val_batches", "1",
        "--trainer.num_sanity_val_steps", "0", "--trainer.accelerator", "cpu",
        "--trainer.enable_progress_bar", "false",
    ]  # fmt: skip
    if int(settings["trainer"].get("val_check_interval", 1)) > 2:
        words += ["--trainer.val_check_interval", "2"]
    if "check_val_every_n_epoch" in settings["trainer"]:
        words += ["--trainer.check_val_every_n_epoch", "1"]
    if "crop" in settings["data"]["init_args"]:
        words += ["--data.init_args.crop", "32"]
    model = settings["model"]["init_args"]
    if "cipher" in model:
        for name, value in SMALLER[model["cipher"]["class_path"]].items():
            words += [f"--model.init_args.cipher.init_args.{name}", json.dumps(value)]
    else:
        backbone = model["backbone"]["init_args"]
        if "network" not in backbone:  # StridedNet is small
            return ["--config", str(recipe), *words, *more]
        smaller = {**backbone["arguments"], **SMALLER_READER[backbone["network"]]}
        words += ["--model.init_args.backbone.init_args.arguments", json.dumps(smaller)]
    return ["--config", str(recipe), *words, *more]


@pytest.fixture(autouse=True)
def _folder(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.chdir(tmp_path)
    monkeypatch.delenv("MLFLOW_TRACKING_URI", raising=False)


def test_the_recipes_are_there() -> None:
    names = {recipe.name for recipe in RECIPES}
    embedded = {"classifier-embedded.yaml", "segmenter-embedded.yaml"}
    assert {"encryptor.yaml", "encryptor-thesis.yaml"} | embedded <= names


@pytest.mark.parametrize("recipe", RECIPES, ids=lambda recipe: recipe.stem)
def test_a_recipe_says_how_to_run_it(recipe: Path) -> None:
    first = recipe.read_text().splitlines()[0]
    assert first.startswith("# ")
    assert read(recipe)["seed_everything"] == 0


@pytest.mark.parametrize("recipe", sorted(EXPERIMENTS.glob("readers-*.yaml")), ids=lambda path: path.stem)
def test_recipes_of_studies_are_parsed(recipe: Path, capsys: pytest.CaptureFixture[str]) -> None:
    """With the first view of the study, whose settings replace those of the row `functional`."""
    with pytest.raises(SystemExit) as stop:
        encdl(["fit", "--config", str(recipe), "--model.init_args.view", "Plaintext", "--print_config"])
    assert not stop.value.code
    printed = yaml.safe_load(capsys.readouterr().out)
    assert printed["model"]["init_args"]["view"]["class_path"].endswith(".Plaintext")
    assert printed["trainer"]["precision"] == "bf16-mixed"


@pytest.mark.parametrize("recipe", RUNNABLE)
def test_parsed_as_it_is(recipe: Path, capsys: pytest.CaptureFixture[str]) -> None:
    """Without any overriding: the whole configuration is printed, and nothing runs."""
    with pytest.raises(SystemExit) as stop:
        encdl(["fit", "--config", str(recipe), "--print_config"])
    assert not stop.value.code
    printed = yaml.safe_load(capsys.readouterr().out)
    written = read(recipe)
    assert "." not in written["model"]["class_path"]
    assert printed["model"]["class_path"].endswith(f".{written['model']['class_path']}")
    assert _within(written, printed)


def _within(part: Any, whole: Any) -> bool:
    if isinstance(part, dict):
        return all(key in whole and _within(value, whole[key]) for key, value in part.items())
    if isinstance(part, list):
        return len(part) == len(whole) and all(map(_within, part, whole))
    return bool(part == whole) or str(whole).endswith(f".{str(part).rpartition('.')[2]}")


@pytest.mark.parametrize("recipe", RUNNABLE)
def test_two_steps(recipe: Path, capsys: pytest.CaptureFixture[str]) -> None:
    settings = read(recipe)
    task = settings["model"]["class_path"].rpartition(".")[2]
    tiny_data(settings["data"]["init_args"], task)
    assert encdl(["fit", *quick(recipe, "--trainer.logger", "false", "--trainer.default_root_dir", "here")]) == 0
    out = capsys.readouterr().out
    assert re.search(rf"^{task}(, SYNTHETIC lesions)?: 2 steps in", out, re.MULTILINE)
    assert ("SYNTHETIC lesions" in out) == ("Lesion" in settings["data"]["class_path"])
    two_party = settings["model"]["init_args"].get("view", {}).get("class_path") == "TwoParty"
    assert all(row in out for row in (["accuracy, two party"] if two_party else SHOWN[task]))
    [last] = Path("here").rglob("last.ckpt")
    loaded = weights.load(last)
    assert loaded.training["steps"] == 2
    assert loaded.training["files"] == [recipe.name]
    assert len(list(Path("here/panels").glob("step-00000002.png"))) == 1


@pytest.mark.parametrize(
    ("name", "more"), [("classifier-embedded", []), ("segmenter-embedded", ["--data.init_args.crop", "0"])]
)
def test_a_recipe_trains_a_reader_for_hosts_without_a_key(name: str, more: list[str]) -> None:
    words = ["--trainer.logger", "false", "--trainer.default_root_dir", "here", *more]
    words += ["--model.init_args.view", "Functional", "--model.init_args.view.outputs", "3"]
    assert encdl(["fit", *quick(EXPERIMENTS / f"{name}.yaml", *words)]) == 0
    [last] = Path("here").rglob("last.ckpt")
    loaded = readers.load(last)
    assert loaded.view == "Functional"
    assert isinstance(loaded.reader.stem, readers.FunctionalStem)
    assert loaded.reader.stem.map.frozen().weights.shape == (3, 1, 8, 8)
    assert len(list(Path("here/panels").glob("step-00000002.png"))) == 1


def test_the_default_recipe_as_a_tracked_run(capsys: pytest.CaptureFixture[str]) -> None:
    recipe = EXPERIMENTS / "encryptor.yaml"
    make_store(Path("runs"))
    assert encdl(["fit", *quick(recipe)]) == 0
    out = capsys.readouterr().out
    client = MlflowClient(f"sqlite:///{Path('runs').absolute()}/mlflow.db")
    [run] = client.search_runs([each.experiment_id for each in client.search_experiments()])
    assert run.info.status == "FINISHED"
    assert run.info.run_id in out
    assert (run.data.tags["task"], run.data.tags["data"]) == ("EncryptTask", "Mixture embedded")
    assert run.data.params["model.init_args.loss"] == read(recipe)["model"]["init_args"]["loss"]
    assert run.data.metrics["val/exact_fraction"] == 1.0
    assert {"val/restored_psnr_db/quarter_lost", "val/unhit_unchanged_fraction"} <= set(run.data.metrics)
    folder = Path(run.info.artifact_uri.removeprefix("file://"))
    assert (folder / "config.yaml").is_file()
    assert (folder / "panels" / "step-00000002.png").is_file()
    [last] = Path("runs").rglob("last.ckpt")
    torch.load(last, weights_only=True)

    resumed = quick(EXPERIMENTS / "encryptor.yaml", "--trainer.max_steps", "4", "--trainer.max_epochs", "3")
    assert encdl(["fit", *resumed, "--ckpt_path", str(last)]) == 0
    [again] = client.search_runs([run.info.experiment_id])
    assert (again.info.run_id, again.info.status) == (run.info.run_id, "FINISHED")
    assert weights.load(last).training["steps"] == 4

    assert encdl(["export", str(last), "-o", "mine.pt"]) == 0
    assert weights.load("mine.pt").id == weights.load(last).id


@pytest.mark.parametrize("verb", ["validate", "test"])
def test_the_default_recipe_with_every_other_verb(verb: str, tmp_path: Path) -> None:
    batches = f"--trainer.limit_{'val' if verb == 'validate' else verb}_batches"
    settings = ["--trainer.logger", "false", "--trainer.enable_progress_bar", "false", batches, "1"]
    settings += ["--trainer.default_root_dir", str(tmp_path), "--data.init_args.eval_batch_size", "1"]
    assert encdl([verb, "--config", str(EXPERIMENTS / "encryptor.yaml"), *settings]) == 0
    assert bool(list(tmp_path.glob("panels/*.png"))) == (verb == "validate")


@pytest.mark.parametrize("name", ["encryptor", "encryptor-thesis", "classifier-embedded", "segmenter-embedded"])
def test_the_last_step_of_a_default_recipe_is_validated_and_kept(name: str) -> None:
    """An epoch ends with a validation and a checkpoint; a run that ended between two would lose its last steps."""
    trainer = read(EXPERIMENTS / f"{name}.yaml")["trainer"]
    assert {"max_epochs", "limit_train_batches"} <= set(trainer)
    assert not {"max_steps", "val_check_interval", "check_val_every_n_epoch"} & set(trainer)


def test_another_view_brings_its_own_stem(capsys: pytest.CaptureFixture[str]) -> None:
    recipe, words = EXPERIMENTS / "classifier-embedded.yaml", ["--trainer.logger", "false"]
    words += ["--model.init_args.view", "Plaintext", "--trainer.default_root_dir", "here"]
    assert encdl(["fit", *quick(recipe, *words)]) == 0
    assert "accuracy, decrypt then infer" in capsys.readouterr().out
    [last] = Path("here").rglob("last.ckpt")
    assert type(readers.load(last).reader.stem).__name__ == "PlainStem"
