"""Training segmenters: what they learn, with and without the key, and what is logged and kept."""

from __future__ import annotations

import os
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
from encdl.data.npz import NpzImages
from encdl.keys.planes import PlaneSpec
from encdl.metrics.segmentation import VolumeDice
from encdl.readers import Backbone, KeyedStem, Stem, read_windows
from encdl.training.panels import overlaid
from encdl.training.tasks.key_planes import fresh_planes
from encdl.training.tasks.segment import SegmentTask, class_weights, mean_mask
from encdl.training.tasks.views import Ciphertext, FixedKey, Keyless, Plaintext, View
from encdl.utils.errors import DataError, UsageError
from tests.reader_checkpoint import resnet, unet
from tests.training.tasks.support import Losses, trainer

SIDE = 32
DATA = Path(os.environ.get("ENCDL_DATA_DIR") or Path(__file__).parents[3].parent / "shared" / "data")
ACDC = DATA / "acdc.npz"


class Boxes(ImageDataModule):
    """Noise with a bright box (class 1) and a dim one (class 2), two slices a volume."""

    def __init__(
        self,
        classes: tuple[str, ...] = ("background", "bright box", "dim box"),
        spacing: tuple[float, float] | None = None,
        masks: bool = True,
        **settings: Any,
    ) -> None:
        super().__init__(**{"batch_size": 16, "eval_batch_size": 24, "crop": 0, "augment": False, **settings})
        self.classes, self.spacing, self.masks = classes, spacing, masks

    @property
    def spec(self) -> DataSpec:
        return DataSpec(1, SIDE, SIDE, classes=self.classes, spacing_mm=self.spacing)

    def samples(self, split: Split) -> Sequence[Sample]:
        random = np.random.default_rng(["train", "val", "test"].index(split))
        samples = []
        for number in range({"train": 96, "val": 24, "test": 16}[split]):
            image = random.integers(0, 50, (1, SIDE, SIDE), dtype=np.uint8)
            mask = np.zeros((1, SIDE, SIDE), dtype=np.uint8)
            for value, level in ((1, 190), (2, 90)):
                top, left, height, width = random.integers((0, 0, 6, 6), (20, 20, 12, 12))
                box = np.s_[:, top : top + height, left : left + width]
                image[box], mask[box] = np.minimum(image[box], 40) + np.uint8(level), value
            samples.append({"image": image, "mask": mask, "volume": number // 2})
            if not self.masks:
                del samples[-1]["mask"]
        return samples


def stem(channels: int) -> Stem:
    return KeyedStem(channels, width=8)


def backbone(channels: int, classes: int) -> Backbone:
    return unet(channels, classes, widths=[8, 16])


def task(view: View | None = None, **settings: Any) -> SegmentTask:
    torch.manual_seed(0)
    return SegmentTask(view or Ciphertext(stem), backbone, **{"learning_rate": 1e-2, **settings})


@pytest.fixture(scope="module")
def trained(tmp_path_factory: pytest.TempPathFactory) -> dict[str, Any]:
    """A small reader of ciphertext after 120 steps."""
    folder, losses, learnt = tmp_path_factory.mktemp("segment"), Losses(), task()
    before = {name: value.clone() for name, value in learnt.cipher.state_dict().items()}
    fitting = trainer(folder, 120, losses)
    fitting.fit(learnt, Boxes())
    fitting.save_checkpoint(folder / "last.ckpt")
    metrics = {name: float(value) for name, value in fitting.callback_metrics.items()}
    return {
        "task": learnt, "before": before, "losses": losses, "metrics": metrics, "checkpoint": folder / "last.ckpt"
    }  # fmt: skip


def test_it_reads_with_the_key_and_not_without(trained: dict[str, Any]) -> None:
    metrics = trained["metrics"]
    assert metrics["val/dice/ciphertext"] > 0.9
    assert metrics["val/hd95_px/ciphertext"] < 4
    assert metrics["val/dice/empty_mask"] == 0
    assert 0.1 < metrics["val/dice/mean_mask"] < 0.4
    assert metrics["val/dice/wrong_key"] <= metrics["val/dice/mean_mask"] + 0.02


def test_a_keyless_reader_stays_at_the_floor(tmp_path: Path) -> None:
    fitting = trainer(tmp_path, 60)
    fitting.fit(task(Keyless()), Boxes())
    metrics = fitting.callback_metrics
    assert metrics["val/dice/keyless"] <= metrics["val/dice/mean_mask"] + 0.02


@pytest.mark.filterwarnings("ignore::encdl.keys.planes.LeakyExpansionWarning")
def test_any_key_serves(trained: dict[str, Any]) -> None:
    """Keys, maps and even expansions that training has not seen."""
    learnt: SegmentTask = trained["task"].eval()
    samples = Boxes().samples("test")
    image = torch.from_numpy(np.stack([sample["image"] for sample in samples]))
    truth = torch.from_numpy(np.stack([sample["mask"] for sample in samples]))
    for spec in (PlaneSpec(), PlaneSpec(map="chacha20"), PlaneSpec(expansion="coprime", period=7)):
        planes = fresh_planes(spec, image.shape, seed=99, rank=0, purpose="unseen", step=3)
        ciphertext = learnt.cipher.encrypt(image, planes)
        with torch.no_grad():
            logits = learnt.reader(ciphertext, learnt.cipher.field(ciphertext, planes))
        dice = VolumeDice(3)
        dice.update(logits.argmax(1, keepdim=True), truth)
        assert dice.compute() > 0.9, spec


def test_metrics(trained: dict[str, Any], tmp_path: Path) -> None:
    names = {name.removeprefix("val/") for name in trained["metrics"] if name.startswith("val/")}
    rows = {f"dice/{row}" for row in ("ciphertext", "wrong_key", "empty_mask", "mean_mask")}
    details = {"dice_class/bright_box", "dice_class/dim_box", "hd95_px", "hd95_px/ciphertext"}
    details |= {"hd95_px_class/bright_box", "hd95_px_class/dim_box"}
    assert names == {"loss", "dice"} | rows | details
    metrics = trained["metrics"]
    assert metrics["val/dice"] == metrics["val/dice/ciphertext"]
    by_class = [metrics[f"val/dice_class/{name}"] for name in ("bright_box", "dim_box")]
    assert metrics["val/dice"] == pytest.approx(sum(by_class) / 2)
    [figures] = trainer(tmp_path, 1).test(trained["task"], Boxes(), verbose=False)
    assert set(figures) == {f"test/{name}" for name in names}


def test_dice_is_that_of_volumes_however_they_are_batched(trained: dict[str, Any], tmp_path: Path) -> None:
    """Of fixed masks: keys, and so the reader's errors, change with the batch."""
    figures = [
        trainer(tmp_path, 1).test(trained["task"], Boxes(eval_batch_size=size), verbose=False)[0]["test/dice/mean_mask"]
        for size in (1, 3, 16)
    ]  # fmt: skip
    samples, mean = Boxes().samples("test"), trained["task"].mean_mask
    dices = []
    for first, second in zip(samples[::2], samples[1::2], strict=True):
        truth, guess = np.stack([first["mask"], second["mask"]]), np.stack([mean.numpy()] * 2)
        right = [(truth == guess) & (truth == value) for value in (1, 2)]
        sizes = [(truth == value).sum() + (guess == value).sum() for value in (1, 2)]
        dices.append([2 * common.sum() / size for common, size in zip(right, sizes, strict=True)])
    assert figures == pytest.approx([np.mean(dices)] * 3)


def test_distances_are_in_millimetres_where_pixels_have_a_size(trained: dict[str, Any], tmp_path: Path) -> None:
    figures = {}
    for spacing in (None, (1.5, 1.5)):
        again = task()
        [found] = trainer(tmp_path, 1).test(
            again, Boxes(spacing=spacing), ckpt_path=trained["checkpoint"], verbose=False
        )
        figures[spacing] = found
    assert "test/hd95_mm" not in figures[None]
    assert figures[1.5, 1.5]["test/hd95_mm"] == pytest.approx(1.5 * figures[None]["test/hd95_px"])


def test_the_loss_falls_and_the_cipher_stays(trained: dict[str, Any]) -> None:
    losses: Losses = trained["losses"]
    assert losses.mean("train/loss", slice(-10, None)) < 0.5 * losses.mean("train/loss", slice(10))
    for name, value in trained["task"].cipher.state_dict().items():
        assert torch.equal(value, trained["before"][name]), name


def test_a_checkpoint_gives_reader_and_cipher(trained: dict[str, Any]) -> None:
    loaded, learnt = readers.load(trained["checkpoint"]), trained["task"].eval()
    assert loaded.classes == ("background", "bright box", "dim box")
    assert loaded.size == (SIDE, SIDE)
    assert loaded.weights_id == weights.load(trained["checkpoint"]).id == weights.load("default").id
    image = torch.randint(0, 256, (2, 1, SIDE, SIDE), dtype=torch.uint8)
    assert torch.equal(loaded.reader(image, image), learnt.reader(image, image))
    state = torch.load(trained["checkpoint"], weights_only=True)["state_dict"]
    assert "mean_mask" not in state


def test_testing_from_a_checkpoint(trained: dict[str, Any], tmp_path: Path) -> None:
    [figures] = trainer(tmp_path, 1).test(task(), Boxes(), ckpt_path=trained["checkpoint"], verbose=False)
    [expected] = trainer(tmp_path, 1).test(trained["task"], Boxes(), verbose=False)
    assert figures == pytest.approx(expected)


def test_larger_images_are_read_in_windows(
    trained: dict[str, Any], tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    windows = []
    monkeypatch.setattr(
        "encdl.training.tasks.segment.read_windows", lambda *given: windows.append(given[3]) or read_windows(*given)
    )
    fitting = trainer(tmp_path, 120)
    fitting.fit(task(), Boxes(crop=24))
    assert set(windows) == {(24, 24)}
    assert fitting.callback_metrics["val/dice/ciphertext"] > 0.85


@pytest.mark.parametrize(
    ("view", "rows"), [(Plaintext, {"plaintext", "decrypt_then_infer"}), (FixedKey, {"fixed_key", "wrong_key"})]
)
def test_rows_to_compare_with(view: Callable[[], View], rows: set[str], tmp_path: Path) -> None:
    fitting = trainer(tmp_path, 120 if view is Plaintext else 2)
    fitting.fit(task(view()), Boxes())
    metrics = {name: float(value) for name, value in fitting.callback_metrics.items()}
    judged = {name.rpartition("/")[2] for name in metrics if name.startswith("val/dice/")}
    assert judged == rows | {"empty_mask", "mean_mask"}
    if view is Plaintext:
        assert metrics["val/dice/plaintext"] > 0.9
        assert metrics["val/dice/plaintext"] == metrics["val/dice/decrypt_then_infer"]


def test_the_mean_mask() -> None:
    """Each pixel's commonest foreground class, down to the threshold with the best Dice coefficient."""
    first, second = [1, 1, 0.4, 0.6, 0.01], [0, 0, 0.5, 0.05, 0]
    frequencies = torch.tensor([[1 - a - b for a, b in zip(first, second, strict=True)], first, second])
    # Class 2 only where it wins; 0.6 is worth taking, 0.01 is not.
    assert mean_mask(frequencies.view(3, 1, 5)).tolist() == [[[1, 1, 2, 1, 0]]]
    nothing = torch.tensor([1.0, 0.0]).view(2, 1, 1)
    assert mean_mask(nothing).tolist() == [[[0]]]


def test_class_frequencies_of_masks_of_any_size() -> None:
    class Odd(Boxes):
        def samples(self, split: Split) -> Sequence[Sample]:
            large = np.repeat(np.array([[[0, 1]]], dtype=np.uint8), 50, axis=1)
            return [{"mask": large}, {"mask": np.zeros((1, SIDE, SIDE), np.uint8)}]

    found = Odd().mask_frequencies()
    assert found.shape == (3, SIDE, SIDE)
    assert torch.equal(found[1, 0], torch.tensor([0.0, 0.5]).repeat_interleave(SIDE // 2))
    assert torch.equal(found.sum(0), torch.ones(SIDE, SIDE))


def test_classes_that_are_rare_weigh_more(tmp_path: Path) -> None:
    shares = torch.tensor([0.64, 0.32, 0.04, 0.0]).view(4, 1, 1).expand(4, 3, 3)
    inverse = torch.tensor([1 / 0.8, 1 / 0.32**0.5, 1 / 0.2])
    assert torch.allclose(class_weights(shares), torch.cat([inverse / inverse.mean(), torch.ones(1)]))
    assert class_weights(torch.ones(1, 2, 2)).tolist() == [1]
    logits = torch.zeros(1, 3, SIDE, SIDE)
    logits[:, 0] = 9
    losses = []
    for balanced in (True, False):
        one = task(balanced=balanced)
        trainer(tmp_path, 1).fit(one, Boxes())
        mask = torch.zeros(1, 1, SIDE, SIDE, dtype=torch.uint8)
        mask[..., :3] = 1
        losses.append(float(one.loss(logits, {"image": mask, "mask": mask})))
    assert losses[0] > 1.2 * losses[1]


def test_one_class_in_the_foreground(tmp_path: Path) -> None:
    class OneBox(Boxes):
        def samples(self, split: Split) -> Sequence[Sample]:
            return [{**sample, "mask": sample["mask"] % 2} for sample in super().samples(split)]

    fitting = trainer(tmp_path, 2)
    fitting.fit(task(), OneBox(("background", "box")))
    names = {name.removeprefix("val/") for name in fitting.callback_metrics if name.startswith("val/dice")}
    rows = ("ciphertext", "wrong_key", "empty_mask", "mean_mask")
    assert names == {"dice"} | {f"dice/{row}" for row in rows}


def test_a_split_without_any_foreground_has_no_dice(tmp_path: Path) -> None:
    class Blank(Boxes):
        def samples(self, split: Split) -> Sequence[Sample]:
            blank = 0 if split == "test" else 1
            return [{**sample, "mask": sample["mask"] * np.uint8(blank)} for sample in super().samples(split)]

    [figures] = trainer(tmp_path, 1).test(task(), Blank(), verbose=False)
    assert np.isnan([figures["test/dice"], figures["test/hd95_px"], figures["test/dice/mean_mask"]]).all()


def test_a_mask_over_a_image() -> None:
    image = torch.full((1, 3, 1, 4), 100, dtype=torch.uint8)
    drawn = overlaid(image, torch.tensor([0, 1, 2, 8]).view(1, 1, 1, 4))
    assert (drawn.shape, drawn.dtype) == ((1, 3, 1, 4), torch.uint8)
    assert drawn[0, :, 0, 0].tolist() == [100, 100, 100]
    assert drawn[0, :, 0, 1].tolist() == [168, 96, 40]  # 0.4 of the image, 0.6 of the colour
    assert not torch.equal(drawn[..., 1], drawn[..., 2])
    assert torch.equal(drawn[..., 1], drawn[..., 3])  # seven colours
    assert torch.equal(overlaid(image[:, :1], torch.zeros(1, 1, 1, 4)), image)


@pytest.mark.parametrize("view", [Ciphertext(stem), Plaintext()], ids=["keyed", "plain"])
def test_half_precision(view: View, tmp_path: Path) -> None:
    fitting = trainer(tmp_path, 3, precision="bf16-mixed")
    fitting.fit(task(view), Boxes(crop=24))
    assert all(value.isfinite() for value in fitting.callback_metrics.values())


@pytest.mark.skipif(not ACDC.is_file(), reason=f"{ACDC.name} is not beside the project: set ENCDL_DATA_DIR")
def test_the_floor_of_real_hearts(tmp_path: Path) -> None:
    """Hearts lie in the middle of these images: the mean mask is much better than the empty one."""
    names = ["background", "right ventricle", "myocardium", "left ventricle"]
    data = NpzImages(ACDC.name, str(ACDC.parent), names, eval_batch_size=32)
    weighed = class_weights(data.mask_frequencies())
    assert weighed[0] < 0.3 < 1.1 < weighed[1:].min()
    fitting = trainer(tmp_path, 1, limit_val_batches=2)
    [figures] = fitting.validate(task(), data, verbose=False)
    assert 0.2 < figures["val/dice/mean_mask"] < 0.5
    assert figures["val/dice/wrong_key"] < figures["val/dice/mean_mask"]


def test_panel(trained: dict[str, Any]) -> None:
    image = torch.randint(0, 256, (2, 1, SIDE, SIDE), dtype=torch.uint8)
    mask = torch.zeros_like(image)
    mask[:, :, 4:8] = 2
    panel: dict[str, Tensor] = trained["task"].panel({"image": image, "mask": mask})
    assert list(panel) == ["plain", "ciphertext", "truth", "prediction", "prediction, wrong key"]
    assert not torch.equal(panel["ciphertext"], image)
    assert torch.equal(panel["truth"], overlaid(image, mask))
    assert all(column.dtype == torch.uint8 for column in panel.values())


def test_what_does_not_fit_is_refused(tmp_path: Path) -> None:
    with pytest.raises(DataError, match="Boxes has training images without a mask: segmentation needs"):
        trainer(tmp_path, 1).fit(task(), Boxes(masks=False))
    with pytest.raises(DataError, match="Boxes has a mask with class 2, and 2 classes"):
        trainer(tmp_path, 1).fit(task(), Boxes(("background", "box")))
    with pytest.raises(UsageError, match="ResNet is for classification: give a segmenter"):
        trainer(tmp_path, 1).fit(SegmentTask(Ciphertext(), resnet), Boxes())
