"""Tasks come back from their checkpoints by Lightning's own `load_from_checkpoint`."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import pytest
import torch
import yaml
from lightning.pytorch import LightningModule

from encdl.ciphers import AgileCipher, weights
from encdl.keys.planes import PlaneSpec
from encdl.readers import KeyedStem
from encdl.training import cli
from encdl.training.tasks.classify import ClassifyTask
from encdl.training.tasks.encrypt import EncryptTask
from encdl.training.tasks.hyper_parameters import describe
from encdl.training.tasks.random_damage import RandomDamage
from encdl.training.tasks.segment import SegmentTask
from encdl.training.tasks.views import Ciphertext
from tests.training.tasks.support import FewSlices, trainer
from tests.training.tasks.test_classify import Bars, backbone, stem
from tests.training.test_settings import ENCRYPT, READ

UNET = {"network": "UNet", "arguments": {"channels": [4, 4], "strides": [2]}}
SEGMENT: dict[str, Any] = {
    **READ,
    "model": {
        "class_path": "SegmentTask",
        "init_args": {"view": "Keyless", "backbone": {"class_path": "MonaiNet", "init_args": UNET}},
    },
    "data": {
        "class_path": "EmbeddedTissue",
        "init_args": {"batch_size": 2, "eval_batch_size": 2, "crop": 32, "augment": False},
    },
}


def same(found: LightningModule, trained: LightningModule, left_out: str = "nothing") -> bool:
    kept = {name: value for name, value in trained.state_dict().items() if not name.startswith(left_out)}
    again = found.state_dict()
    return kept.keys() == again.keys() and all(torch.equal(again[name], value) for name, value in kept.items())


@pytest.mark.parametrize(
    ("kind", "recipe"),
    [(EncryptTask, ENCRYPT), (ClassifyTask, READ), (SegmentTask, SEGMENT)],
    ids=["cipher", "classifier", "segmenter"],
)
def test_a_task_of_the_command_line(
    kind: type[LightningModule], recipe: dict[str, Any], tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.chdir(tmp_path)
    Path("recipe.yaml").write_text(yaml.safe_dump(recipe))
    run = cli.run(["fit", "--config", "recipe.yaml", "--model.init_args.learning_rate", "0.004"])
    run.trainer.save_checkpoint("last.ckpt", weights_only=False)
    found = kind.load_from_checkpoint("last.ckpt")
    assert found.hparams["learning_rate"] == found.learning_rate == 0.004
    assert same(found, run.model, "criterion.")
    run.trainer.limit_val_batches = 1
    [judged] = run.trainer.validate(found, run.datamodule, verbose=False)
    assert {"val/loss"} <= set(judged)


def test_a_cipher_trained_in_python(tmp_path: Path) -> None:
    settings = {"planes": PlaneSpec(map="tent+chacha20"), "damage": RandomDamage(gaussian=0.0), "emphasis": 0.3}
    task = EncryptTask(AgileCipher(width=8, blocks=1), **settings)
    fitting = trainer(tmp_path, 2)
    fitting.fit(task, FewSlices())
    fitting.save_checkpoint(tmp_path / "last.ckpt", weights_only=False)
    found = EncryptTask.load_from_checkpoint(tmp_path / "last.ckpt")
    assert same(found, task)
    assert {name: getattr(found, name) for name in settings} == settings
    again = EncryptTask(AgileCipher(width=8, blocks=1), start=str(tmp_path / "last.ckpt"))
    assert again.hparams["start"] is None
    assert weights.weights_id(again.cipher) == weights.weights_id(task.cipher)


def test_a_reader_trained_in_python(tmp_path: Path) -> None:
    task = ClassifyTask(Ciphertext(stem), backbone, balanced=False)
    fitting = trainer(tmp_path, 2)
    fitting.fit(task, Bars())
    fitting.save_checkpoint(tmp_path / "last.ckpt", weights_only=False)
    kept = torch.load(tmp_path / "last.ckpt", weights_only=True)["hyper_parameters"]
    assert "view" not in kept
    assert "backbone" not in kept
    found = ClassifyTask.load_from_checkpoint(tmp_path / "last.ckpt", view=Ciphertext(stem), backbone=backbone)
    assert same(found, task)
    assert not found.balanced


def test_what_can_be_described() -> None:
    assert describe(KeyedStem) == {"class_path": "encdl.readers.stems.KeyedStem"}
    assert describe(backbone) is None
    assert describe({"a": (1, None)}) == {"a": [1, None]}
