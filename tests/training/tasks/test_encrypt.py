"""Training a cipher: losses, figures, panels, checkpoints and resumed runs."""

from __future__ import annotations

import dataclasses
from pathlib import Path
from typing import Any

import pytest
import torch
from lightning.pytorch import Trainer
from lightning.pytorch.callbacks import ModelCheckpoint
from torch import Tensor

from encdl import ciphers
from encdl.ciphers import ThesisCipher, weights
from encdl.ciphers.damage import DAMAGES
from encdl.ciphers.losses import LEVEL_LOSSES
from encdl.ciphers.nn.decryption import Repaired
from encdl.keys.planes import LeakyExpansionWarning, PlaneSpec
from encdl.metrics.quality import PSNR_CAP_DB, mean_psnr_db
from encdl.training.tasks.encrypt import EncryptTask, LossWeights
from encdl.utils.errors import UsageError
from tests.mni import mni_slice
from tests.training.tasks.support import FewSlices, Losses, tiny_cipher, tiny_task, trainer

FIGURES = {
    "loss",
    "exact_fraction",
    "wrong_key_psnr_db",
    "mean_image_psnr_db",
    "entropy_bits",
    *(f"restored_psnr_db/{name}" for name in DAMAGES),
    *(f"unrestored_psnr_db/{name}" for name in DAMAGES),
}
ALL_LOSSES = LossWeights(*(1.0 for _ in dataclasses.fields(LossWeights)))
NAMES = ["agile", "keystream", "coupled", "thesis"]
KEYED = {"agile", "keystream"}


def figures_of(name: str) -> set[str]:
    """What is measured of a cipher."""
    more = FIGURES if name in KEYED else FIGURES | {"content_activity"}
    return more if name == "thesis" else more | {"unhit_unchanged_fraction"}


def losses_of(name: str, pairs: bool = True) -> set[str]:
    """The losses that a cipher can be trained by, without those that compare two images if there is one."""
    repairing = {"level"} if name == "thesis" else {"level", "replacement", "hit", "mixture"}
    if name in KEYED:
        return repairing
    shaping = {"activity", "uniformity", "autocorrelation", "adversary", "wrong_key"}
    if not pairs:
        shaping -= {"activity", "wrong_key"}
    return shaping | repairing


@pytest.fixture(scope="module", params=NAMES)
def trained(request: pytest.FixtureRequest, tmp_path_factory: pytest.TempPathFactory) -> dict[str, Any]:
    """A tiny cipher after 60 steps on four slices, with what was logged."""
    folder = tmp_path_factory.mktemp(request.param)
    losses, task = Losses(), tiny_task(request.param)
    fitting = trainer(folder, 60, losses)
    fitting.fit(task, FewSlices())
    fitting.save_checkpoint(folder / "last.ckpt")
    metrics = {name: float(value) for name, value in fitting.callback_metrics.items()}
    return {"task": task, "losses": losses, "metrics": metrics, "checkpoint": folder / "last.ckpt"}


def test_loss_falls(trained: dict[str, Any]) -> None:
    losses: Losses = trained["losses"]
    for name in ("train/loss", "train/level"):
        assert losses.mean(name, slice(-8, None)) < 0.75 * losses.mean(name, slice(8)), name


def test_validation_logs_the_agreed_figures(trained: dict[str, Any]) -> None:
    metrics, cipher = trained["metrics"], trained["task"].cipher
    found = {name.removeprefix("val/") for name in metrics if name.startswith("val/")}
    assert found == figures_of(cipher.name)
    assert metrics["val/exact_fraction"] == float(cipher.exact)
    assert 0 <= metrics["val/entropy_bits"] <= 8
    assert 0 <= metrics.get("val/content_activity", 0.0) <= 2
    assert 0 <= metrics.get("val/unhit_unchanged_fraction", 0.0) <= 1
    assert all(0 < metrics[f"val/restored_psnr_db/{name}"] <= PSNR_CAP_DB for name in DAMAGES)
    assert metrics["val/wrong_key_psnr_db"] < PSNR_CAP_DB


def test_only_losses_that_count_are_taken(trained: dict[str, Any]) -> None:
    name = trained["task"].cipher.name
    losses = {each.removeprefix("train/") for each in trained["losses"].steps[0] if each.startswith("train/")}
    expected = losses_of(name) & (
        {"level", "replacement", "hit", "mixture"} | ({"activity"} if name == "coupled" else set())
    )
    assert losses == {"loss"} | expected


def test_encryption_is_trained_only_where_it_can_be(trained: dict[str, Any]) -> None:
    task: EncryptTask = trained["task"]
    fresh = tiny_cipher(task.cipher.name)
    changed = weights.weights_id(task.cipher) != weights.weights_id(fresh)
    assert changed == (task.cipher.name not in KEYED)


def test_figures_of_the_test_split(trained: dict[str, Any], tmp_path: Path) -> None:
    testing = trainer(tmp_path, 1)
    [figures] = testing.test(trained["task"], FewSlices(), verbose=False)
    assert set(figures) == {f"test/{name}" for name in figures_of(trained["task"].cipher.name)}
    assert [figures] == trainer(tmp_path, 1).test(trained["task"], FewSlices(), verbose=False)


def test_panel(trained: dict[str, Any]) -> None:
    task: EncryptTask = trained["task"]
    image = torch.cat([mni_slice(90, 33, 48), mni_slice(70, 33, 48)])
    panel = task.panel({"image": image})
    hit, lost = "5 % hit", "a quarter lost"
    assert list(panel) == [
        "plain", "ciphertext", "wrong key",
        hit, f"{hit}:\nmedian", f"{hit}:\nrestored",
        lost, f"{lost}:\nbiharmonic", f"{lost}:\nrestored",
    ]  # fmt: skip
    assert {(column.shape, column.dtype) for column in panel.values()} == {(image.shape, torch.uint8)}
    assert not torch.equal(panel["wrong key"], image)
    if task.cipher.keyed_mask:  # a hit pixel hits no other
        same = (panel[hit] == image).float().mean()
        assert float(same) == pytest.approx(0.95, abs=0.02)
        assert mean_psnr_db(panel[f"{hit}:\nmedian"], image) > mean_psnr_db(panel[hit], image) + 3
        assert mean_psnr_db(panel[f"{lost}:\nbiharmonic"], image) > mean_psnr_db(panel[lost], image) + 8
    again = task.panel({"image": image})
    assert all(torch.equal(panel[name], again[name]) for name in panel)


def test_checkpoint_is_a_weights_file(trained: dict[str, Any]) -> None:
    task: EncryptTask = trained["task"]
    torch.load(trained["checkpoint"], weights_only=True)
    loaded = weights.load(trained["checkpoint"])
    assert (loaded.cipher.name, loaded.cipher.config()) == (task.cipher.name, task.cipher.config())
    assert loaded.id == weights.weights_id(task.cipher)
    assert not loaded.cipher.training
    assert loaded.training["steps"] == 60
    assert {"commit", "versions", "device", "date"} <= set(loaded.training)
    image, planes = mni_slice(90, 31, 45), torch.full((1, 1, 31, 45), 255, dtype=torch.uint8)
    assert torch.equal(loaded.cipher.encrypt(image, planes), task.cipher.encrypt(image, planes))
    assert torch.equal(loaded.cipher.restore(image, planes), task.cipher.restore(image, planes))


def test_checkpoint_with_an_attacker_is_a_weights_file(tmp_path: Path) -> None:
    fitting = trainer(tmp_path, 1)
    fitting.fit(tiny_task("coupled", loss_weights=ALL_LOSSES), FewSlices())
    fitting.save_checkpoint(tmp_path / "last.ckpt")
    assert any("attacker" in name for name in fitting.model.state_dict())  # type: ignore[union-attr]
    state = weights.load(tmp_path / "last.ckpt").cipher.state_dict()
    assert not any("attacker" in name for name in state)


def test_a_resumed_run_may_be_longer(tmp_path: Path) -> None:
    """The one-cycle schedule knows its length: it must be planned anew."""
    whole, first, rest = Losses(), Losses(), Losses()
    trainer(tmp_path, 12, whole).fit(tiny_task(), FewSlices())
    short = trainer(tmp_path, 6, first)
    short.fit(tiny_task(), FewSlices())
    short.save_checkpoint(tmp_path / "short.ckpt")
    resumed = trainer(tmp_path, 12, rest)
    resumed.fit(tiny_task(), FewSlices(), ckpt_path=tmp_path / "short.ckpt")
    assert resumed.global_step == 12
    assert first.rates[-1] < first.rates[2]
    assert rest.rates == pytest.approx(whole.rates[6:])


def test_a_resumed_run_may_be_shorter_or_of_the_same_length(tmp_path: Path) -> None:
    short = trainer(tmp_path, 4)
    short.fit(tiny_task(), FewSlices())
    short.save_checkpoint(tmp_path / "short.ckpt")
    for steps in (4, 3):
        resumed = trainer(tmp_path, steps)
        resumed.fit(tiny_task(), FewSlices(), ckpt_path=tmp_path / "short.ckpt")
        assert resumed.global_step == 4


@pytest.mark.filterwarnings("ignore:The dirpath has changed")
@pytest.mark.parametrize("name", NAMES)
def test_a_stopped_run_goes_on_as_if_it_had_not_stopped(tmp_path: Path, name: str) -> None:
    """At the end of an epoch, that is; within one, Lightning warns that the loader starts anew."""

    def trainer_with_checkpoints(folder: str) -> Trainer:
        keep = ModelCheckpoint(tmp_path / folder, filename="{step}", every_n_train_steps=4, save_top_k=-1)
        return trainer(tmp_path, 10, keep, enable_checkpointing=True)

    whole, resumed = tiny_task(name), tiny_task(name)
    trainer_with_checkpoints("whole").fit(whole, FewSlices(batch_size=2))
    again = trainer_with_checkpoints("again")
    again.fit(resumed, FewSlices(batch_size=2), ckpt_path=tmp_path / "whole" / "step=4.ckpt")
    assert again.global_step == 10
    for key, value in whole.state_dict().items():
        assert torch.equal(value, resumed.state_dict()[key]), key


@pytest.mark.parametrize("name", NAMES)
@pytest.mark.parametrize("batch_size", [1, 3])
def test_every_loss_and_any_batch(tmp_path: Path, name: str, batch_size: int) -> None:
    losses, task = Losses(), tiny_task(name, loss_weights=ALL_LOSSES)
    before = {key: value.clone() for key, value in task.cipher.named_parameters()}
    trainer(tmp_path, 3, losses).fit(task, FewSlices(batch_size=batch_size, eval_batch_size=1))
    taken = {one.removeprefix("train/") for one in losses.steps[0]} - {"loss"}
    assert taken == losses_of(name, pairs=batch_size > 1)
    changed = [key for key, value in task.cipher.named_parameters() if not torch.equal(value, before[key])]
    assert len(changed) > len(before) / 2


@pytest.mark.parametrize("loss", LEVEL_LOSSES)
def test_losses_of_levels_by_name(tmp_path: Path, loss: str) -> None:
    losses, task = Losses(), tiny_task(loss=loss)
    assert type(task.level) is LEVEL_LOSSES[loss]
    trainer(tmp_path, 2, losses).fit(task, FewSlices())
    assert losses.steps[-1]["train/level"] > 0


def test_masks_of_other_planes_are_made_from_keys() -> None:
    """Eight full planes make uniform masks, which are drawn; four leave 16 levels, periodic ones repeat."""
    image = torch.zeros(2, 1, 16, 16, dtype=torch.uint8)

    def mask(spec: PlaneSpec) -> Tensor:
        task = EncryptTask(tiny_cipher("keystream", spec.count), spec)
        return task._key_mask(image, "train", 0, task._generator("train", 0))

    assert len(mask(PlaneSpec()).unique()) > 200
    assert len(mask(PlaneSpec(count=4)).unique()) <= 16
    with pytest.warns(LeakyExpansionWarning):
        repeated = mask(PlaneSpec(expansion="periodic", period=8))
    assert torch.equal(repeated[..., :8, :8], repeated[..., 8:, 8:])


@pytest.mark.parametrize(("noise", "judged"), [(0, [0, 1, 2, 3]), (1, [0, 2, 3])], ids=["a few were hit", "noisy"])
def test_a_replacement_is_judged_where_a_pixel_says_nothing(noise: int, judged: list[int]) -> None:
    """Lost or hit; of a noisy image what wrapped around: 250 stands for -6, where 10 was."""
    image = torch.full((1, 1, 8, 8), 10, dtype=torch.uint8)
    decrypted, lost = image + noise, torch.zeros_like(image, dtype=torch.bool)
    decrypted[..., 0, :4] = torch.tensor([250, 30, 10, 150], dtype=torch.uint8)
    lost[..., 0, 2] = True
    level = torch.full((1, 1, 8, 8), 10 / 245).log().requires_grad_()
    found = Repaired(level, level, level + 1, level)
    losses = tiny_task()._repair_losses(found, decrypted, lost, image)
    gradient = torch.autograd.grad(losses["replacement"], level)[0]
    assert (gradient != 0).nonzero()[:, 3].tolist() == judged


@pytest.mark.parametrize("emphasis", [0.0, -1.0, 2.5])
def test_an_emphasis_out_of_range_is_refused(emphasis: float) -> None:
    with pytest.raises(UsageError, match="emphasis"):
        tiny_task(emphasis=emphasis)


@pytest.mark.parametrize("name", NAMES)
@pytest.mark.parametrize("shape", [(1, 1, 1, 1), (1, 3, 5, 7), (2, 1, 1, 9), (1, 2, 16, 16)], ids=str)
@pytest.mark.parametrize("level", [None, 0, 255])
def test_figures_of_odd_images_are_numbers(name: str, shape: tuple[int, ...], level: int | None) -> None:
    drawn = torch.randint(0, 256, shape, dtype=torch.uint8, generator=torch.Generator().manual_seed(0))
    image = drawn if level is None else torch.full(shape, level, dtype=torch.uint8)
    task = tiny_task(name)
    figures = task._figures(image, "val", 0)
    assert set(figures) == figures_of(name)
    assert all(bool(value.isfinite()) for value in figures.values())
    assert float(figures["exact_fraction"]) == 1.0 or not task.cipher.exact


def test_identical_images_count_with_a_cap() -> None:
    image = torch.zeros(2, 1, 4, 4, dtype=torch.uint8)
    other = image.clone()
    other[1] = 255
    assert float(mean_psnr_db(image, other)) == pytest.approx(PSNR_CAP_DB / 2)


def test_planes_must_fit_the_cipher() -> None:
    with pytest.raises(UsageError, match=r"takes 4 key planes, model\.planes\.count is 8: set both alike"):
        EncryptTask(ThesisCipher(4, width=8, blocks=1), PlaneSpec(count=8))
    EncryptTask(tiny_cipher("agile", 4), PlaneSpec(count=4))


def test_a_run_without_an_end_is_refused(tmp_path: Path) -> None:
    endless = trainer(tmp_path, -1, max_epochs=-1, val_check_interval=1)
    with pytest.raises(UsageError, match=r"set trainer\.max_steps or trainer\.max_epochs"):
        endless.fit(tiny_task(), FewSlices())


def test_weights_to_go_on_from(tmp_path: Path) -> None:
    torch.manual_seed(5)
    trained = ciphers.create("agile", tiny_cipher().config())
    weights.save(trained, tmp_path / "trained.pt")
    task = tiny_task(start=str(tmp_path / "trained.pt"))
    for name, value in trained.state_dict().items():
        assert torch.equal(task.cipher.state_dict()[name], value), name
    assert all(parameter.requires_grad for parameter in task.cipher.parameters())
    with pytest.raises(UsageError, match=r"weights of agile .*: set model\.cipher alike"):
        tiny_task("keystream", start=str(tmp_path / "trained.pt"))
