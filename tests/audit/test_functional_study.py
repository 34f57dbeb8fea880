"""The study of functional keys: its attacks break what they must, and a small one runs to its record."""

from __future__ import annotations

import json
from pathlib import Path

import numpy as np
import pytest
import torch
from torch import Tensor

from encdl.audit.functional import decoders, plan
from encdl.audit.functional.device_dataset import Resident
from encdl.audit.functional.training import Budget, divergence, task_loss, train_reader
from encdl.cli import main as encdl
from encdl.data.base import Split
from encdl.keys.functional_map import centred
from encdl.readers import FunctionalStem, MonaiNet, PlainStem, Reader
from encdl.training.device_augment import augmented
from encdl.utils.errors import UsageError
from tests.mni import mni_slice

RESNET = {"block": "basic", "layers": [1, 1, 1, 1], "block_inplanes": [4, 4, 4, 4]}
RECIPES = sorted(Path("experiments").glob("functional-*.yaml"))


def slices(first: int, count: int, side: int = 32) -> Tensor:
    return torch.cat([mni_slice(first + 3 * number, side, side) for number in range(count)])


def all_pixels(side: int = 32) -> FunctionalStem:
    """A stem that gives every pixel away."""
    stem = FunctionalStem(1, (side, side), outputs=1, kernel=1, stride=1)
    stem.map.latent.data.fill_(1.0)
    return stem.eval()


def test_attacks_break_a_map_that_gives_every_pixel_away() -> None:
    stem, test = all_pixels(), slices(61, 4)
    train, val = slices(60, 14), slices(62, 4)
    start = train.float().mean(0, keepdim=True).expand(test.shape)
    mean, _ = decoders.likeness(start, test)
    solved = decoders.box_least_squares(stem, test, start)
    assert decoders.likeness(solved, test)[0] == 60.0  # every level, to the cap
    rebuilt = {"ridge": decoders.ridge(stem.seen, train, val, test)}
    budget = Budget(steps=60, batch=8, learning_rate=5e-3)
    made = plan.Plan("f", "dice", {"name": "MonaiNet"}, [{}], unet=[8] * 6)
    for kind in ("residual", "unet"):
        rebuilt[kind] = decoders.network(kind, stem, made.unet_of, (train, val, test), budget, seed=0)
    found = {name: decoders.likeness(each, test)[0] for name, each in rebuilt.items()}
    assert min(found.values()) > mean + 1, (found, mean)


def test_box_keeps_to_what_was_seen() -> None:
    torch.manual_seed(0)
    stem, test = (FunctionalStem(1, (32, 32), outputs=2, kernel=8, stride=8).requires_grad_(False), slices(70, 3))
    solved = decoders.box_least_squares(stem, test, torch.full(test.shape, 100.0))
    assert 0 <= float(solved.min()) <= float(solved.max()) <= 255
    gap = (stem.map(solved) - stem.map(test)).abs().mean() / stem.map(test).abs().mean()
    assert float(gap) < 0.01


def test_exact_algebra() -> None:
    whole = decoders.algebra(all_pixels(8).map.frozen())
    assert whole == {"rank": 64, "determined_pixels": 64}
    torch.manual_seed(0)
    stem = FunctionalStem(1, (10, 9), outputs=2, kernel=4, stride=3)
    function = stem.map.frozen()
    image = np.random.default_rng(0).integers(0, 256, (1, 1, 10, 9))
    numbers = decoders.matrix(function) @ image.ravel()
    assert np.array_equal(numbers, centred(function.apply(image)).ravel())
    found = decoders.algebra(function)
    assert found["rank"] <= function.numbers < 90
    assert found["determined_pixels"] == 0


def test_references() -> None:
    images = slices(70, 3)
    assert decoders.likeness(decoders.thumbnail(32 * 32, images), images)[0] == 60.0
    fewer = [decoders.likeness(decoders.thumbnail(count, images), images)[0] for count in (16, 64, 256)]
    assert fewer == sorted(fewer)


def test_augmentation_moves_masks_with_images() -> None:
    images = slices(70, 4)
    masks = (images[:, 0] > 80).long()
    draw = torch.Generator().manual_seed(0)
    moved, targets = augmented(images, masks, draw, strength=1.0, flip=True)
    assert moved.shape == images.shape
    assert torch.equal(moved, moved.round())
    assert not torch.equal(moved, images.float())
    agreement = ((moved[:, 0] > 80).long() == targets).float().mean()
    assert float(agreement) > 0.85
    still, same = augmented(images, masks, draw, strength=0.0, flip=False)
    assert torch.equal(still, images.float())
    assert torch.equal(same, masks)


def test_losses() -> None:
    targets = torch.randint(0, 3, (2, 8, 8), generator=torch.Generator().manual_seed(0))
    right = torch.nn.functional.one_hot(targets, 3).movedim(-1, 1).float() * 20
    assert float(task_loss(right, targets, None, 0.0)) < 1e-3 < float(task_loss(-right, targets, None, 0.0))
    assert float(divergence(right, right)) == pytest.approx(0, abs=1e-6)
    assert float(divergence(right, -right)) > 1


@pytest.mark.parametrize("recipe", RECIPES, ids=lambda path: path.stem)
def test_recipes_are_read(recipe: Path) -> None:
    found = plan.read(recipe, {"seeds": None})
    assert found.seeds == 5
    assert len(found.settings) >= 3


def test_what_is_no_plan(tmp_path: Path) -> None:
    path = tmp_path / "p.yaml"
    for text in ("file: a.npz", "metric: auroc\nfile: a\nbackbone: {name: Net}\nsettings: [{}]", "file: 3\nnone: 1"):
        path.write_text(text)
        with pytest.raises(UsageError):
            plan.read(path, {})


@pytest.mark.parametrize("metric", ["auroc", "dice"])
def test_a_small_study_runs_to_its_record_and_goes_on(
    tmp_path: Path, metric: str, capsys: pytest.CaptureFixture[str]
) -> None:
    random, images = np.random.default_rng(0), slices(60, 18)[:, 0].numpy()
    truth = {"masks": (images > 90).astype(np.uint8)} if metric == "dice" else {"labels": random.integers(0, 2, 18)}
    np.savez(tmp_path / "set.npz", images=images, split=np.arange(18) % 3, **truth)
    network = (
        "BasicUNet, arguments: {features: [4, 4, 4, 4, 4, 4]}"
        if metric == "dice"
        else "ResNet, arguments: {block: basic, layers: [1, 1, 1, 1], block_inplanes: [4, 8, 8, 8]}"
    )
    backbone = f"{{name: MonaiNet, settings: {{network: {network}}}}}"
    (tmp_path / "functional-set.yaml").write_text(
        f"file: set.npz\nmetric: {metric}\nbackbone: {backbone}\nunet: [4, 4, 4, 4, 4, 4]\ndistil: 0.3\n"
        "budget: {steps: 3, batch: 4}\ndecoder_budget: {steps: 3, batch: 4}\n"
        "attacked: 1\nsettings:\n  - {outputs: 2, kernel: 8, stride: 8, adversary: 0.1, noise: 9}\n"
        "  - {outputs: 1, kernel: 4, stride: 4, form: ciphertext}\n"
    )
    words = ["experiment", "functional-keys", "--config", str(tmp_path / "functional-set.yaml"), "--seeds", "2"]
    words += ["--data-dir", str(tmp_path), "--work", str(tmp_path / "work"), "--output", str(tmp_path / "r.json")]
    assert encdl(words) == 0
    record = json.loads((tmp_path / "r.json").read_text())
    first, second = record["metrics"]["settings"]
    assert (first["numbers"], first["pixels"], first["metric"]) == (2 * 16, 32 * 32, metric)
    assert (first["bits"], second["bits"]) == (32 * 32, 64 * 8)
    assert len(first["functional"]["values"]) == len(first["plaintext"]["values"]) == 2
    assert first["decoder_psnr_db"] == max(first["decoders"].values())
    assert {"ridge", "residual", "unet", "box_from_unet"} <= set(first["decoders"])
    assert "box_from_unet" not in second["decoders"]
    assert first["attacked_seeds"] == 1
    assert first["rank"] <= first["numbers"]
    further = first["further"]
    assert further["host_and_server_psnr_db"] == 60.0
    assert {"prior", "prior_two_readers"} == set(further["rebuilt"])
    assert set(further["damaged"]) == {"intact", "run_1pct", "bytes_1pct"}
    assert set(further["attributes"]) == {"mirrored"}
    assert "prior_psnr_db" in record["metrics"]["references"]
    # From kept files alone, of an older study stems, the same is found.
    kept = tmp_path / "work/0-0.pt"
    state = torch.load(kept, weights_only=True)
    torch.save({name.removeprefix("stem."): value for name, value in state.items() if name.startswith("stem.")}, kept)
    again = ["experiment", "functional-further", *words[2:8], "--work", str(tmp_path / "work")]
    assert encdl([*again, "--record", str(tmp_path / "r.json")]) == 0
    found = json.loads((tmp_path / "r.json").read_text())["metrics"]["settings"][0]["further"]
    assert found["rebuilt"] == further["rebuilt"]
    assert "damaged" not in found
    assert first["two_readers_psnr_db"] > 0
    assert "mean image" in capsys.readouterr().out
    assert encdl([*words, "--force"]) == 0
    assert "2 of 2 trainings are there already" in capsys.readouterr().err


def test_a_region_is_seen_alone_and_attacked_where_it_lies() -> None:
    torch.manual_seed(0)
    region = [[8, 24], [4, 28]]
    stem = FunctionalStem(1, (32, 32), outputs=3, kernel=4, stride=4, adversary=0.1, region=region)
    images, function = slices(60, 3), stem.map.frozen()
    rows = torch.from_numpy(decoders.matrix(function))
    seen = stem.map(images).flatten(1).double()
    assert torch.equal(images.flatten(1).double() @ rows.T, seen)
    assert torch.equal(torch.from_numpy(centred(function.apply(images.numpy()))).flatten(1).double(), seen)
    other = images.clone()
    other[..., :8, :] = other[..., 24:, :] = other[..., :4] = other[..., 28:] = 77
    assert function.numbers == 3 * 4 * 6
    assert torch.equal(stem.map(other).flatten(1).double(), seen)
    features = stem.eval()(images)
    assert features.shape == (3, 16, 32, 32)
    assert stem.rebuilt(images).shape == images.shape
    decoder = decoders.ProjectedDecoder(stem, plan.Plan("f", "dice", {"name": "MonaiNet"}, [{}], unet=[8] * 6).unet_of)
    assert decoder(stem.seen(images)).shape == images.shape
    copy = FunctionalStem(1, **stem.settings())
    copy.load_state_dict(stem.state_dict())
    assert copy.map.frozen().id == function.id != FunctionalStem(1, (32, 32), 3, 4, 4).map.frozen().id
    with pytest.raises(UsageError, match="first and end of each axis within 32x32"):
        FunctionalStem(1, (32, 32), region=[[0, 33], [0, 32]])


def test_readers_keep_a_running_mean_of_their_weights() -> None:
    def weights(average: float) -> Tensor:
        torch.manual_seed(0)
        reader = Reader(PlainStem(1, 4), MonaiNet(4, 2, "ResNet", RESNET))
        images = slices(60, 8)
        split = Resident(images, torch.arange(8) % 2, None)
        data: dict[Split, Resident] = {"train": split, "val": split, "test": split}
        train_reader(reader, data, "auroc", Budget(steps=6, batch=4, average=average), seed=0)
        return torch.cat([each.flatten() for each in reader.state_dict().values()])

    assert torch.equal(weights(0.9), weights(0.9))
    assert not torch.equal(weights(0.9), weights(0.0))
