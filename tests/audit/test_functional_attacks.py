"""Further attacks on functional keys: each breaks its reference, and says chance where there is nothing to see."""

from __future__ import annotations

from pathlib import Path

import numpy as np
import pytest
import torch
from torch import Tensor

from encdl import api, readers
from encdl.audit.functional import attribute_inference, decoders, inverse_problems, plan
from encdl.audit.functional.attack_suite import damaged, distance, joined_parties
from encdl.audit.functional.device_dataset import Resident
from encdl.audit.functional.training import Budget
from encdl.cli import main as encdl
from encdl.keys import Key
from encdl.keys.functional_map import FunctionalMap
from encdl.readers import FunctionalStem, PlainStem, Reader
from tests.audit.test_functional_study import slices
from tests.reader_checkpoint import resnet, save_reader


def test_linear_programming_finds_an_image_of_many_numbers() -> None:
    images = slices(70, 2, 16)
    weights = np.random.default_rng(0).integers(-7, 8, (3, 1, 2, 2)).astype(np.int8)
    rows = decoders.matrix(FunctionalMap(weights, 2, (16, 16)))
    solved = torch.from_numpy(np.stack([inverse_problems.least_variation(rows, image.numpy()) for image in images]))
    assert 0 <= float(solved.min()) <= float(solved.max()) <= 255
    assert torch.allclose(
        solved.flatten(1) @ torch.from_numpy(rows).T, images.flatten(1).double() @ torch.from_numpy(rows).T, atol=1e-2
    )
    assert decoders.likeness(solved.float(), images)[0] > decoders.likeness(decoders.thumbnail(192, images), images)[0]


def test_the_prior_keeps_to_what_was_seen_and_beats_a_thumbnail() -> None:
    images, train = slices(61, 4, 16), slices(40, 36, 16)
    made = plan.Plan("f", "dice", {"name": "MonaiNet"}, [{}], unet=[16] * 6)
    network = inverse_problems.train_prior(1, made.unet_of, train, Budget(steps=120, batch=12, learning_rate=6e-3))
    rows = inverse_problems.averaging(1, (16, 16), 4)
    blocks = torch.nn.functional.avg_pool2d(images.double(), 4).flatten(1)
    assert torch.allclose(images.flatten(1).double() @ torch.from_numpy(rows).T, blocks)
    assert inverse_problems.averaging(3, (9, 6), 4).shape == (6, 162)
    drawn = inverse_problems.draw(network, rows, images)
    seen = [each.flatten(1).double() @ torch.from_numpy(rows).T for each in (drawn, images.float())]
    assert float((seen[0] - seen[1]).abs().mean()) < 2
    thumbnail = decoders.likeness(decoders.thumbnail(len(rows), images), images)[0]
    assert decoders.likeness(drawn, images)[0] > thumbnail


def nothing(images: Tensor) -> Tensor:
    return torch.ones(len(images), 5)


def test_reidentification_of_pixels_and_of_nothing() -> None:
    train, test = slices(40, 12), slices(60, 12)
    share, chance = attribute_inference.reidentified(attribute_inference.pixels, train, test, None)
    assert share >= 0.75 > chance == pytest.approx(1 / 12)
    assert attribute_inference.reidentified(nothing, train, test, None)[0] <= 0.25
    # Neighbours are of one patient.
    groups = [str(number // 2) for number in range(12)]
    share, chance = attribute_inference.reidentified(attribute_inference.pixels, train, test, groups)
    assert share > 2 * chance
    assert chance == pytest.approx(1 / 11)
    alone = attribute_inference.reidentified(
        attribute_inference.pixels, train, test, [str(number) for number in range(12)]
    )
    assert alone[1] == pytest.approx(1 / 12)  # of which none is another's


def test_attributes_of_pixels_and_of_nothing() -> None:
    parts = [attribute_inference.mirrored(slices(start, 16)) for start in (40, 42, 44)]
    darker = [torch.where(values == 1, 0.5, 1.0).view(-1, 1, 1, 1) for _, values in parts]
    shaded = [((images * shade).byte(), values) for (images, values), shade in zip(parts, darker, strict=True)]
    assert attribute_inference.attribute(attribute_inference.pixels, shaded) > 0.9
    assert attribute_inference.attribute(nothing, shaded) == 0.5


def test_host_and_server_together_decrypt_and_equal_images_are_at_no_distance() -> None:
    images = slices(70, 2)
    assert joined_parties(images) == 60.0
    plain = Reader(PlainStem(1, 4), resnet(4, 2)).eval()
    near, far = (distance(plain, images.float() + step, images) for step in (2.0, 60.0))
    assert distance(plain, images.float(), images) == pytest.approx(0, abs=1e-6)
    assert near < far


def test_a_checkpoint_keeps_what_the_best_decoder_made_of_its_numbers(
    tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    stem = FunctionalStem(1, (32, 32), outputs=2, kernel=8, stride=8, width=4)
    checkpoint = save_reader(tmp_path / "r.ckpt", Reader(stem, resnet(4, 3)), view="Functional", size=[32, 32])
    np.savez(tmp_path / "s.npz", images=slices(60, 12)[:, 0].numpy(), split=np.arange(12) % 3, labels=np.arange(12) % 2)
    (tmp_path / "functional-s.yaml").write_text(
        "file: s.npz\nmetric: auroc\nbackbone: {name: MonaiNet}\nsettings: [{}]\nunet: [4, 4, 4, 4, 4, 4]\n"
        "decoder_budget: {steps: 3, batch: 4}\n"
    )
    words = ["experiment", "reader-leak", "--config", str(tmp_path / "functional-s.yaml"), "--data-dir", str(tmp_path)]
    before = readers.load(checkpoint)
    assert encdl([*words, "--reader", str(checkpoint)]) == 0
    assert "psnr_db" in capsys.readouterr().out
    after = readers.load(checkpoint)
    assert not before.leak
    assert after.leak["psnr_db"] > 10
    Key.generate().save(tmp_path / "k.key")
    (tmp_path / "a.encdl").write_bytes(api.encrypt(slices(60, 1)[0, 0].numpy(), tmp_path / "k.key", readable=32))
    api.grant_functional(tmp_path / "a.encdl", tmp_path / "k.key", checkpoint).save(tmp_path / "a.fkey")
    assert encdl(["keyinfo", str(tmp_path / "a.fkey"), "--reader", str(checkpoint)]) == 0
    assert f"the best decoder ({after.leak['decoder']}) rebuilt s.npz at" in capsys.readouterr().out


def test_numbers_that_no_image_gives_are_read_as_lost() -> None:
    torch.manual_seed(0)
    stem = FunctionalStem(1, (32, 32), outputs=2, kernel=4, stride=4, width=4)
    reader = Reader(stem, resnet(4, 2))
    images = slices(60, 8)
    reader(images)
    reader.eval().requires_grad_(False)
    numbers = stem.map.exact(images)
    assert torch.allclose(stem.read(numbers), stem(images), atol=1e-4)
    hit = numbers.clone()
    hit[:, 0, 0, 0] += 2**30
    erased = stem.read(hit)
    assert float((erased - stem(images)).abs().max()) < 10
    found = damaged(reader, Resident(images, torch.arange(8) % 2, None), "accuracy")
    right = (reader(images).argmax(1) == torch.arange(8) % 2).float().mean()
    assert found["intact"] == pytest.approx(float(right))
