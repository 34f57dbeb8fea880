"""Training readers: what they learn, with and without the key, and what is logged and kept."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch
from torch import Tensor

from encdl import readers
from encdl.ciphers import weights
from encdl.data.base import DataSpec, ImageDataModule, Sample, Split
from encdl.keys.planes import PlaneSpec
from encdl.readers import Backbone, KeyedStem, Stem
from encdl.training.tasks.classify import ClassifyTask
from encdl.training.tasks.key_planes import fresh_planes
from encdl.training.tasks.read import BatchKeys
from encdl.training.tasks.views import Ciphertext, FixedKey, Keyless, Plaintext, View
from encdl.utils.errors import DataError, UsageError, WeightsError
from tests.reader_checkpoint import resnet, unet
from tests.training.tasks.support import Losses, trainer

SIDE = 16


class Bars(ImageDataModule):
    """Noise with a bright bar: upright (label 1, a third of them) or level (label 0)."""

    def __init__(self, classes: tuple[str, ...] = ("level", "upright"), **settings: Any) -> None:
        super().__init__(**{"batch_size": 32, "eval_batch_size": 40, "crop": 0, "augment": False, **settings})
        self.classes = classes

    @property
    def spec(self) -> DataSpec:
        return DataSpec(channels=1, height=SIDE, width=SIDE, classes=self.classes)

    def samples(self, split: Split) -> Sequence[Sample]:
        random = np.random.default_rng(["train", "val", "test"].index(split))
        samples = []
        for number in range({"train": 192, "val": 80, "test": 60}[split]):
            image, place = (random.integers(0, 60, (1, SIDE, SIDE), dtype=np.uint8), random.integers(2, SIDE - 4))
            upright = number % 3 == 0
            image[:, :, place : place + 3] += np.uint8(140 * upright)
            image[:, place : place + 3] += np.uint8(140 * (not upright))
            samples.append({"image": image, "label": int(upright)})
        return samples


def stem(channels: int) -> Stem:
    return KeyedStem(channels, width=8)


def backbone(channels: int, classes: int) -> Backbone:
    return resnet(channels, classes, width=8, stride=1)


def task(view: View | None = None, **settings: Any) -> ClassifyTask:
    torch.manual_seed(0)
    return ClassifyTask(view or Ciphertext(stem), backbone, **{"learning_rate": 5e-3, **settings})


@pytest.fixture(scope="module")
def trained(tmp_path_factory: pytest.TempPathFactory) -> dict[str, Any]:
    """A small reader of ciphertext after 60 steps."""
    folder, losses, learnt = tmp_path_factory.mktemp("classify"), Losses(), task()
    before = {name: value.clone() for name, value in learnt.cipher.state_dict().items()}
    fitting = trainer(folder, 60, losses)
    fitting.fit(learnt, Bars())
    fitting.save_checkpoint(folder / "last.ckpt")
    metrics = {name: float(value) for name, value in fitting.callback_metrics.items()}
    return {
        "task": learnt, "before": before, "losses": losses, "metrics": metrics, "checkpoint": folder / "last.ckpt"
    }  # fmt: skip


def test_it_reads_with_the_key_and_not_without(trained: dict[str, Any]) -> None:
    metrics = trained["metrics"]
    assert metrics["val/accuracy/ciphertext"] > 0.9
    assert metrics["val/auroc/ciphertext"] > 0.95
    assert metrics["val/accuracy/majority_class"] == pytest.approx(53 / 80)
    assert metrics["val/accuracy/wrong_key"] <= metrics["val/accuracy/majority_class"] + 0.05
    assert abs(metrics["val/auroc/wrong_key"] - 0.5) < 0.2  # 80 images: chance is 0.5 +- 0.07


@pytest.mark.filterwarnings("ignore::encdl.keys.planes.LeakyExpansionWarning")
def test_any_key_serves(trained: dict[str, Any]) -> None:
    """Keys, maps and even expansions that training has not seen."""
    reader: ClassifyTask = trained["task"].eval()
    samples = Bars().samples("test")
    image = torch.from_numpy(np.stack([sample["image"] for sample in samples]))
    label = torch.tensor([sample["label"] for sample in samples])
    for spec in (PlaneSpec(), PlaneSpec(map="chacha20"), PlaneSpec(expansion="coprime", period=7)):
        planes = fresh_planes(spec, image.shape, seed=99, rank=0, purpose="unseen", step=3)
        ciphertext = reader.cipher.encrypt(image, planes)
        with torch.no_grad():
            found = reader.reader(ciphertext, reader.cipher.field(ciphertext, planes)).argmax(1)
        assert (found == label).float().mean() > 0.9, spec


def test_metrics(trained: dict[str, Any], tmp_path: Path) -> None:
    names = {name.removeprefix("val/") for name in trained["metrics"] if name.startswith("val/")}
    told = ("accuracy", "balanced_accuracy", "auroc")
    kinds = {f"{kind}/{row}" for kind in told for row in ("ciphertext", "wrong_key")} | {"ece/ciphertext"}
    assert names == {"loss", "ece", *told, "accuracy/majority_class"} | kinds
    assert trained["metrics"]["val/accuracy"] == trained["metrics"]["val/accuracy/ciphertext"]
    [figures] = trainer(tmp_path, 1).test(trained["task"], Bars(), verbose=False)
    assert set(figures) == {f"test/{name}" for name in names}
    assert [figures] == trainer(tmp_path, 1).test(trained["task"], Bars(eval_batch_size=40), verbose=False)
    images, task = len(Bars().samples("test")), trained["task"]
    assert task.confusion.sum() == len(task.right) == task.reliability[:, 0].sum() == images
    assert task.confusion.trace() == task.right.sum() == round(figures["test/accuracy"] * images)
    assert task.test_panel().startswith(b"\x89PNG")


def test_the_loss_falls_and_the_cipher_stays(trained: dict[str, Any]) -> None:
    losses: Losses = trained["losses"]
    assert losses.mean("train/loss", slice(-10, None)) < 0.5 * losses.mean("train/loss", slice(10))
    for name, value in trained["task"].cipher.state_dict().items():
        assert torch.equal(value, trained["before"][name]), name


def test_every_batch_and_image_gets_another_key() -> None:
    image = torch.zeros(2, 1, 8, 8, dtype=torch.uint8)
    drawn = task()
    planes = [BatchKeys(drawn, image, stage, step).fresh("key") for stage in ("train", "val") for step in (0, 1)]
    every = torch.cat(planes)
    assert len(torch.unique(every.flatten(1), dim=0)) == 8
    fixed = [BatchKeys(drawn, image, stage, step).fixed("key") for stage in ("train", "val") for step in (0, 1)]
    assert len(torch.unique(torch.cat(fixed).flatten(1), dim=0)) == 1


def test_a_checkpoint_gives_reader_and_cipher(trained: dict[str, Any]) -> None:
    loaded, learnt = readers.load(trained["checkpoint"]), trained["task"].eval()
    cipher = weights.load(trained["checkpoint"])
    assert loaded.classes == ("level", "upright")
    assert loaded.planes == PlaneSpec()
    assert loaded.size == (SIDE, SIDE)
    assert loaded.weights_id == cipher.id == weights.load("default").id
    image = torch.randint(0, 256, (2, 1, SIDE, SIDE), dtype=torch.uint8)
    assert torch.equal(loaded.reader(image, image), learnt.reader(image, image))


def test_a_checkpoint_of_something_else(tmp_path: Path) -> None:
    with pytest.raises(WeightsError, match="no such checkpoint"):
        readers.load(tmp_path / "gone.ckpt")
    for content in (b"", b"rubbish"):
        (tmp_path / "odd.ckpt").write_bytes(content)
        with pytest.raises(WeightsError, match="not a checkpoint of a reader"):
            readers.load(tmp_path / "odd.ckpt")
    torch.save({"state_dict": {}}, tmp_path / "other.ckpt")
    with pytest.raises(WeightsError, match="not a checkpoint of a reader"):
        readers.load(tmp_path / "other.ckpt")


def test_testing_from_a_checkpoint(trained: dict[str, Any], tmp_path: Path) -> None:
    again = trainer(tmp_path, 1)
    [figures] = again.test(task(), Bars(), ckpt_path=trained["checkpoint"], verbose=False)
    [expected] = trainer(tmp_path, 1).test(trained["task"], Bars(), verbose=False)
    assert figures == pytest.approx(expected)


@pytest.mark.parametrize(
    ("view", "rows"),
    [(Plaintext, {"plaintext", "decrypt_then_infer"}), (Keyless, {"keyless"}), (FixedKey, {"fixed_key", "wrong_key"})],
)
def test_rows_to_compare_with(view: Callable[[], View], rows: set[str], tmp_path: Path) -> None:
    fitting = trainer(tmp_path, 60 if view is Plaintext else 2)
    fitting.fit(task(view()), Bars())
    metrics = {name: float(value) for name, value in fitting.callback_metrics.items()}
    judged = {name.rpartition("/")[2] for name in metrics if name.startswith("val/auroc/")}
    assert judged == rows
    if view is Plaintext:
        assert metrics["val/accuracy/plaintext"] > 0.9
        assert metrics["val/accuracy/plaintext"] == metrics["val/accuracy/decrypt_then_infer"]


def test_classes_that_are_rare_weigh_more(tmp_path: Path) -> None:
    balanced, plain = task(), task(balanced=False)
    for one in (balanced, plain):
        trainer(tmp_path, 1).fit(one, Bars())
    assert balanced._class_weights().tolist() == pytest.approx([0.75, 1.5])
    assert plain._class_weights().tolist() == [1.0, 1.0]
    empty = task()
    trainer(tmp_path, 1).fit(empty, Bars(("level", "upright", "none of these")))
    assert empty._class_weights()[:2].tolist() == pytest.approx([0.75, 1.5])


def test_panel(trained: dict[str, Any]) -> None:
    image = torch.randint(0, 256, (2, 1, SIDE, SIDE), dtype=torch.uint8)
    panel: dict[str, Tensor] = trained["task"].panel({"image": image})
    assert list(panel) == ["plain", "ciphertext"]
    assert not torch.equal(panel["ciphertext"], image)


def test_captions(trained: dict[str, Any]) -> None:
    one = trained["task"]
    image = torch.randint(0, 256, (2, 1, SIDE, SIDE), dtype=torch.uint8)
    captions = one.captions({"image": image, "label": torch.tensor([1, 0])})
    assert len(captions) == 2
    assert [caption.splitlines()[0] for caption in captions] == [f"is {one.classes[label]}" for label in (1, 0)]
    rows = [line.split(":")[0] for line in captions[0].splitlines()[1:]]
    assert rows[:2] == ["ciphertext", "wrong key"]
    for line in captions[0].splitlines()[1:]:
        name, share = line.split(": ")[1].rsplit(", ", 1)
        assert name in one.classes
        assert 50 <= int(share.removesuffix("%")) <= 100


def test_what_does_not_fit_is_refused(tmp_path: Path) -> None:
    with pytest.raises(DataError, match="Bars has 0 classes: a reader needs"):
        trainer(tmp_path, 1).fit(task(), Bars(()))
    with pytest.raises(UsageError, match="UNet is for segmentation: give a classifier"):
        trainer(tmp_path, 1).fit(ClassifyTask(Ciphertext(), unet), Bars())
    with pytest.raises(UsageError, match=r"takes 8 key planes, model\.planes\.count is 4"):
        ClassifyTask(Ciphertext(), backbone, planes=PlaneSpec(count=4))
    with pytest.raises(WeightsError, match="no such weights file"):
        ClassifyTask(Ciphertext(), backbone, weights="gone.pt")
