"""Every documented setting of tasks, data, callbacks, loggers and trainer acts."""

from __future__ import annotations

import inspect
import re
from collections.abc import Mapping
from pathlib import Path
from typing import Any

import lightning.pytorch.loggers
import numpy as np
import pytest
import torch
import yaml
from lightning.pytorch.loggers import CSVLogger
from mlflow import MlflowClient

from encdl.ciphers import weights
from encdl.data.mixture import Mixture
from encdl.training import cli
from encdl.training.tasks.classify import ClassifyTask
from encdl.training.tasks.encrypt import EncryptTask
from encdl.utils.errors import UsageError
from tests.stores import make_store

THESIS = {"class_path": "encdl.ciphers.ThesisCipher", "init_args": {"width": 4, "blocks": 1}}
COUPLED = {"class_path": "encdl.ciphers.CoupledCipher", "init_args": {"width": 4, "blocks": 1}}
SMALL = {"block": "basic", "layers": [1] * 4, "block_inplanes": [4] * 4}
RESNET = {"network": "ResNet", "arguments": SMALL}
DENSENET = {"network": "DenseNet", "arguments": {"init_features": 4, "growth_rate": 2, "block_config": [1, 1]}}
ENCRYPT: dict[str, Any] = {
    "model": {
        "class_path": "encdl.training.tasks.encrypt.EncryptTask",
        "init_args": {
            "cipher": {"class_path": "encdl.ciphers.AgileCipher", "init_args": {"width": 4, "blocks": 1}}
        },
    },
    "data": {
        "class_path": "encdl.data.mixture.Mixture",
        "init_args": {
            "parts": {"embedded": 1.0}, "batch_size": 4, "crop": 32, "batches": 2, "judged_images": 1, "smaller": 0.5
        },
    },
    "trainer": {
        "accelerator": "cpu", "max_steps": 2, "logger": False, "enable_progress_bar": False,
        "enable_model_summary": False, "enable_checkpointing": False, "limit_val_batches": 0,
    },
}  # fmt: skip
READ = {
    **ENCRYPT,
    "model": {
        "class_path": "encdl.training.tasks.classify.ClassifyTask",
        "init_args": {"view": "Ciphertext", "backbone": {"class_path": "encdl.readers.MonaiNet", "init_args": RESNET}},
    },
    "data": {"class_path": "tests.tiny_task.FiveLabelled", "init_args": {"batch_size": 5, "crop": 0, "augment": False}},
}


@pytest.fixture(autouse=True)
def _folder(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.chdir(tmp_path)
    monkeypatch.delenv("MLFLOW_TRACKING_URI", raising=False)


def trained(recipe: Mapping[str, Any], *words: str, **model: Any) -> cli.TrainingCLI:
    """A training of two steps, with other settings of the task."""
    _write({**recipe, "model": {**recipe["model"], "init_args": {**recipe["model"]["init_args"], **model}}})
    return cli.run(["fit", "--config", "recipe.yaml", *words])


def _write(recipe: Mapping[str, Any]) -> None:
    Path("recipe.yaml").write_text(yaml.safe_dump(dict(recipe)))


def result(run: cli.TrainingCLI) -> list[float]:
    """What hangs on everything that a training does: its weights."""
    return [float(value.detach().double().sum()) for value in run.model.parameters() if value.requires_grad]


TASK: dict[str, tuple[dict[str, Any], dict[str, Any]]] = {
    "cipher": ({}, {"cipher": {"class_path": "encdl.ciphers.AgileCipher", "init_args": {"width": 8, "blocks": 1}}}),
    "planes": ({"cipher": COUPLED}, {"planes": {"expansion": "periodic", "period": 4}}),
    "loss": ({}, {"loss": "l1"}),
    "emphasis": ({}, {"emphasis": 1.5}),
    "loss_weights": ({}, {"loss_weights": {"hit": 9.0}}),
    "damage": ({}, {"damage": {"gaussian": 0.0}}),
    "activity_target": ({"cipher": COUPLED, "loss_weights": {"activity": 5.0}}, {"activity_target": 0.1}),
    "adversary_strength": ({"cipher": THESIS, "loss_weights": {"adversary": 5.0}}, {"adversary_strength": 9.0}),
    "learning_rate": ({}, {"learning_rate": 0.01}),
    "warm_up": ({}, {"warm_up": 0.6}),
    "weight_decay": ({}, {"weight_decay": 0.5}),
    "precision": ({}, {"precision": "bf16"}),
    "seed": ({}, {"seed": 3}),
}  # fmt: skip
"""Setting of `EncryptTask` to the settings under which it acts, and another value of it."""
ELSEWHERE = {"compile", "start"}
"""Those that have a test below."""
READING: dict[str, Any] = {
    "view": "Plaintext",
    "backbone": {"class_path": "encdl.readers.MonaiNet", "init_args": DENSENET},
    "weights": "thesis",
    "planes": {"map": "tent+chacha20"},
    "balanced": False,
    "augmentation": {"strength": 1.0},
    "label_smoothing": 0.3,
    "learning_rate": 0.01,
    "weight_decay": 0.5,
    "seed": 3,
}  # fmt: skip


def settings_of(kind: type) -> set[str]:
    return set(inspect.signature(kind).parameters)


def test_no_setting_is_left_out() -> None:
    assert set(TASK) | ELSEWHERE == settings_of(EncryptTask)
    assert set(READING) == settings_of(ClassifyTask)
    assert set(DATA) | {"repeats"} == settings_of(Mixture)


@pytest.mark.filterwarnings("ignore:expansion 'periodic'")
@pytest.mark.parametrize("name", TASK)
def test_a_setting_of_training_a_cipher(name: str) -> None:
    before, change = TASK[name]
    assert result(trained(ENCRYPT, **before)) != result(trained(ENCRYPT, **before | change))


@pytest.mark.parametrize("name", READING)
def test_a_setting_of_training_a_reader(name: str) -> None:
    before = {"view": "Keyless"} if name in {"weights", "planes", "seed"} else {}  # with the key, all are read alike
    assert result(trained(READ, **before)) != result(trained(READ, **before, **{name: READING[name]}))


def test_training_goes_on_from_other_weights() -> None:
    run = trained(ENCRYPT)
    run.trainer.save_checkpoint("kept.ckpt")
    again = trained(ENCRYPT, "--trainer.max_steps", "0", start="kept.ckpt")
    assert weights.load("kept.ckpt").id == weights.weights_id(again.model.cipher)  # type: ignore[arg-type]
    assert result(again) == result(run)


@pytest.mark.parametrize("wanted", [False, True])
def test_compiling(wanted: bool, monkeypatch: pytest.MonkeyPatch) -> None:
    """On a GPU alone; what is compiled has its own tests."""
    asked: list[object] = []
    compile_training = "encdl.ciphers.nn.decryption.DecryptionNetwork.compile_training"

    def note(network: object) -> None:
        asked.append(network)

    monkeypatch.setattr(compile_training, note)
    task = trained(ENCRYPT, compile=wanted).model
    assert not asked
    monkeypatch.setattr(EncryptTask, "device", torch.device("cuda"))
    task.on_fit_start()
    assert bool(asked) == wanted


def test_a_precision_that_would_not_act_is_refused() -> None:
    with pytest.raises(UsageError, match=r"set model\.precision"):
        trained(ENCRYPT, "--trainer.precision", "bf16-mixed")


DATA: dict[str, Any] = {
    "parts": {"embedded": 1.0, "other": 1.0},
    "data_dir": "there",
    "batch_size": 3,
    "eval_batch_size": 1,
    "crop": 16,
    "batches": 3,
    "smaller": 1.0,
    "least_scale": 0.9,
    "judged_images": 2,
    "num_workers": 1,
    "augment": False,
    "seed": 5,
}


def shown(settings: Mapping[str, Any]) -> list[Any]:
    """Size and sum of every training and validation batch, and how many processes make them."""
    data = Mixture(**{"parts": {"other": 1.0}, "batch_size": 4, "crop": 24, "batches": 2, **settings})
    data.setup("fit")
    loaders = (data.train_dataloader(), data.val_dataloader())
    batches = [[(batch["image"].shape, int(batch["image"].sum())) for batch in loader] for loader in loaders]
    return [*batches, loaders[0].num_workers]


@pytest.mark.parametrize("name", DATA)
def test_a_setting_of_the_data(name: str) -> None:
    for place, seed in (("data", 0), ("there", 1)):
        Path(place).mkdir()
        images = np.random.default_rng(seed).integers(0, 256, (9, 40, 40), dtype=np.uint8)
        np.savez(Path(place, "other.npz"), images=images, split=np.arange(9) % 3)
    assert shown({}) == shown({})
    assert shown({}) != shown({name: DATA[name]})


TINY: dict[str, Any] = {
    **ENCRYPT,
    "model": {"class_path": "tests.tiny_task.TinyTask", "init_args": {}},
    "data": {"class_path": "tests.tiny_task.TinyData", "init_args": {"batch_size": 4, "crop": 8}},
    "trainer": {"accelerator": "cpu", "max_epochs": 2, "enable_progress_bar": False},
}


def found(folder: str) -> list[Any]:
    client = MlflowClient(f"sqlite:///{Path(folder).absolute()}/mlflow.db")
    return list(client.search_runs([each.experiment_id for each in client.search_experiments()]))


def test_runs_go_where_they_are_asked_to() -> None:
    make_store(Path("mine"))
    trained(TINY, "--trainer.default_root_dir", "mine")
    [run] = found("mine")
    assert run.info.artifact_uri.startswith(Path("mine").absolute().as_uri())
    assert list(Path("mine/encdl", run.info.run_id, "checkpoints").glob("last.ckpt"))
    assert not Path("runs").exists()


def test_the_loggers_own_folder_counts_more() -> None:
    make_store(Path("own"))
    words = ("--trainer.default_root_dir", "mine", "--trainer.logger.init_args.root", "own")
    trained(TINY, *words)
    assert len(found("own")) == 1
    assert not Path("mine/mlflow.db").exists()


def test_without_a_logger_too() -> None:
    trained(TINY, "--trainer.default_root_dir", "mine", "--trainer.logger", "false")
    made = {path.name for path in Path("mine").rglob("*.*")}
    assert {"config.yaml", "last.ckpt", "step-00000002.png"} <= made
    assert not Path("runs").exists()


def test_the_trackers_settings() -> None:
    make_store(Path("runs"))
    words = ("--trainer.logger.init_args.run_name", "mine", "--trainer.logger.init_args.experiment_name", "those")
    run = trained(TINY, *words, "--trainer.logger.init_args.keep_reader", "false")
    [made] = found("runs")
    assert (made.info.run_name, run.trainer.logger.name) == ("mine", "those")  # type: ignore[union-attr]
    assert not run.trainer.logger.keep_reader  # type: ignore[union-attr]
    store = f"sqlite:///{Path('runs/mlflow.db').absolute()}"
    trained(TINY, "--trainer.logger.init_args.tracking_uri", store, "--trainer.default_root_dir", "other")
    assert len(found("runs")) == 2
    trained(TINY, "--trainer.logger.init_args.run_id", made.info.run_id)
    assert len(found("runs")) == 2


@pytest.mark.parametrize("recipe", [ENCRYPT, READ], ids=["cipher", "reader"])
def test_short_names_and_those_of_earlier_versions(recipe: dict[str, Any]) -> None:
    text = yaml.safe_dump(recipe)
    short = re.sub(r"\bencdl(\.[a-z_]+)+\.", "", text)
    old = text.replace("encdl.training.tasks", "encdl.tasks")
    logger = {"class_path": "encdl.tracking.RunLogger", "init_args": {"experiment": "a", "log_model": False}}
    averaging = [{"class_path": "encdl.callbacks.AveragedWeights", "init_args": {"decay": 0.5}}]
    older = yaml.safe_load(old)
    older["trainer"] |= {"logger": logger, "callbacks": averaging}
    if recipe is ENCRYPT:
        older["model"]["init_args"]["weights"] = {"level": 1.0}
    parsed = []
    for name, content in (("long", text), ("short", short), ("old", old), ("older", yaml.safe_dump(older))):
        Path(f"{name}.yaml").write_text(content)
        parsed.append(cli.check(["fit", "--config", f"{name}.yaml"]).as_dict()["fit"])
    assert short != text != old
    assert parsed[0]["model"] == parsed[1]["model"] == parsed[2]["model"] == parsed[3]["model"]
    assert parsed[0]["data"] == parsed[1]["data"]
    assert parsed[3]["trainer"]["logger"]["init_args"]["experiment_name"] == "a"
    assert parsed[3]["trainer"]["callbacks"][0]["class_path"] == "encdl.training.callbacks.AveragedWeights"


@pytest.mark.parametrize("name", ["Mixture", "encdl.data.mixture.Mixture", "encdl.data.folder.ImageFolder"])
def test_names_on_the_command_line(name: str) -> None:
    _write(ENCRYPT)
    more = ["--data.init_args.folder", "x"] if name.endswith("Folder") else []
    config = cli.check(["fit", "--config", "recipe.yaml", "--data", name, *more])
    assert config.fit.data.class_path.rpartition(".")[2] == name.rpartition(".")[2]
    task = cli.check(["fit", "--config", "recipe.yaml", "--model.class_path=encdl.tasks.encrypt.EncryptTask"])
    assert task.fit.model.class_path == "encdl.training.tasks.encrypt.EncryptTask"


@pytest.mark.parametrize("logger", ["WandbLogger", "TensorBoardLogger", "CSVLogger", "MLFlowLogger", "CometLogger"])
def test_another_logger_gets_no_settings_of_ours(logger: str) -> None:
    """Of what both take, all means the same there: it is jsonargparse's way to hand that over."""
    _write(TINY)
    kind = getattr(lightning.pytorch.loggers, logger)
    words = ["--trainer.logger.save_dir", "there"] if logger in {"TensorBoardLogger", "CSVLogger"} else []
    own = ["--trainer.logger.init_args.experiment_name", "mine"]
    config = cli.check(["fit", "--config", "recipe.yaml", *own, "--trainer.logger", logger, *words])
    given = dict(config.fit.trainer.logger.init_args)
    known = {name: each.default for name, each in inspect.signature(kind).parameters.items()}
    changed = {name: value for name, value in given.items() if name in known and value != known[name]}
    assert set(given) <= set(known) | {"kwargs"} or logger in {"WandbLogger", "CometLogger", "TensorBoardLogger"}
    assert changed == ({"save_dir": "there"} if words else {"experiment_name": "mine"} if "MLFlow" in logger else {})


def test_what_another_logger_leaves_lies_in_its_folder_or_that_of_runs() -> None:
    trained(TINY, "--trainer.logger", "CSVLogger", "--trainer.logger.save_dir", "there")
    made = {str(path.relative_to("there/lightning_logs/version_0")) for path in Path("there").rglob("*.*")}
    assert {"checkpoints/last.ckpt", "metrics.csv", "config.yaml", "panels/step-00000002.png"} <= made
    words = ("--trainer.logger", "tests.training.test_settings.Elsewhere", "--trainer.default_root_dir", "mine")
    trained(TINY, *words)
    assert list(Path("mine/lightning_logs").rglob("last.ckpt"))
    assert {path.name for path in Path().iterdir()} == {"there", "mine", "recipe.yaml"}


class Elsewhere(CSVLogger):
    """Writes into the working directory unless told otherwise, as W&B's logger does."""

    def __init__(self, save_dir: str = ".") -> None:
        super().__init__(save_dir)
