"""Training a cipher together with its reader: what changes, what stays exact, and what is refused."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import pytest
import torch
from torch import Tensor

from encdl import readers, weights
from encdl.ciphers.base import Cipher
from encdl.errors import UsageError
from encdl.keys.planes import PlaneSpec
from encdl.metrics.quality import mean_psnr_db
from encdl.readers import GatedStem, Stem
from encdl.tasks.classify import ClassifyTask
from encdl.tasks.keys import fresh_planes
from encdl.tasks.tuning import tuned_sight
from encdl.tasks.views import Ciphertext, Keyless, View
from tests.tasks.support import tiny_cipher, trainer
from tests.tasks.test_classify import Bars, backbone
from tests.tasks.test_segment import Boxes
from tests.tasks.test_segment import task as segment_task


def gated(channels: int) -> Stem:
    return GatedStem(channels, width=8)


def task(view: View | None = None, **settings: Any) -> ClassifyTask:
    torch.manual_seed(0)
    return ClassifyTask(view or Ciphertext(gated), backbone, **{"tune_cipher": True, **settings})


def state(module: torch.nn.Module) -> dict[str, Tensor]:
    return {name: value.clone() for name, value in module.state_dict().items()}


def changed(before: dict[str, Tensor], module: torch.nn.Module) -> set[str]:
    """First parts of the names of what differs."""
    return {
        name.partition(".")[0]
        for name, value in module.state_dict().items()
        if not torch.equal(value, before[name])
    }


def pictures(count: int = 4, side: int = 24) -> tuple[Tensor, Tensor]:
    image = torch.randint(
        0, 256, (count, 1, side, side), dtype=torch.uint8, generator=torch.Generator().manual_seed(0)
    )
    planes = fresh_planes(PlaneSpec(), image.shape, seed=7, rank=0, purpose="tuning", step=0)
    return image, planes


def exactly(cipher: Cipher) -> bool:
    image, planes = pictures()
    return torch.equal(cipher.decrypt(cipher.encrypt(image, planes), planes), image)


def test_a_tuned_cipher_is_another_one_and_still_exact(tmp_path: Path) -> None:
    tuned = task(learning_rate=0.5)  # large, so that integers move within a few steps
    before, restorer = state(tuned.cipher), tuned.cipher.restorer
    fitting = trainer(tmp_path, 25)
    fitting.fit(tuned, Bars())
    assert changed(before, tuned.cipher) == {"key_field", "coupling"}
    assert not any(parameter.requires_grad for parameter in restorer.parameters())  # type: ignore[union-attr]
    assert exactly(tuned.cipher.eval())

    fitting.save_checkpoint(tmp_path / "last.ckpt")
    loaded = weights.load(tmp_path / "last.ckpt")
    assert loaded.id != weights.load("default").id
    assert readers.load(tmp_path / "last.ckpt").weights_id == loaded.id == weights.weights_id(tuned.cipher)
    assert exactly(loaded.cipher)
    image, planes = pictures()
    ciphertext = loaded.cipher.encrypt(image, planes)
    assert torch.equal(ciphertext, tuned.cipher.encrypt(image, planes))
    assert not torch.equal(weights.load("default").cipher.decrypt(ciphertext, planes), image)


def test_segmenters_tune_too(tmp_path: Path) -> None:
    tuned = segment_task(Ciphertext(gated), tune_cipher=True)
    before = state(tuned.cipher)
    trainer(tmp_path, 3).fit(tuned, Boxes())
    assert changed(before, tuned.cipher) == {"key_field", "coupling"}


def test_the_thesis_cipher_stays_decryptable(tmp_path: Path) -> None:
    tuned = task(weights="thesis")
    before = state(tuned.cipher)
    trainer(tmp_path, 25).fit(tuned, Bars())
    assert changed(before, tuned.cipher) == {"encoder", "decoder"}
    image = torch.stack([torch.as_tensor(sample["image"]) for sample in Bars().samples("test")[:8]])
    planes = fresh_planes(PlaneSpec(), image.shape, seed=7, rank=0, purpose="tuning", step=0)
    cipher = tuned.cipher.eval()
    assert mean_psnr_db(cipher.decrypt(cipher.encrypt(image, planes), planes), image) > 20


def test_it_is_off_by_default(tmp_path: Path) -> None:
    learnt = task(tune_cipher=False)
    before = state(learnt.cipher)
    trainer(tmp_path, 3).fit(learnt, Bars())
    assert changed(before, learnt.cipher) == set()
    assert ClassifyTask(Ciphertext(gated), backbone).tune_cipher is False


@pytest.mark.parametrize("name", ["agile", "thesis"])
@pytest.mark.parametrize("channels", [1, 3])
def test_what_is_shown_while_tuning_is_what_is_shown_otherwise(name: str, channels: int) -> None:
    cipher = tiny_cipher(name).train()
    image = torch.randint(0, 256, (2, channels, 9, 12), dtype=torch.uint8)
    planes = fresh_planes(PlaneSpec(), image.shape, seed=7, rank=0, purpose="tuning", step=0)
    sight, loss = tuned_sight(cipher, image, planes)
    ciphertext = cipher.encrypt(image, planes)
    assert sight.mask is not None
    assert torch.equal(sight.picture.round().to(torch.uint8), ciphertext)
    assert torch.equal(sight.mask.round().to(torch.uint8), cipher.field(ciphertext, planes))
    assert (float(loss.detach()) > 0) == (name == "thesis")


def test_what_has_nothing_to_teach_is_refused(tmp_path: Path) -> None:
    for view, words in ((Ciphertext(), "Ciphertext with KeyedStem"), (Keyless(), "Keyless with KeylessStem")):
        with pytest.raises(UsageError, match=f"tune_cipher needs the view Ciphertext .* not {words}"):
            trainer(tmp_path, 1).fit(task(view), Bars())
