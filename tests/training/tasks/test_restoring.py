"""A short training restores better than a median, and leaves alone what was not hit."""

from __future__ import annotations

import numpy as np
import pytest
import torch
from torch import Tensor

from encdl.ciphers import KeystreamCipher
from encdl.ciphers.base import GUESS_ERROR, worth_guessing
from encdl.ciphers.channel import stored
from encdl.ciphers.damage import LostRun, Scatter
from encdl.ciphers.nn.plane_tensors import plane_tensor
from encdl.data.mixture import Mixture
from encdl.keys.planes import PlaneSpec
from encdl.metrics import classical_repair
from encdl.metrics.quality import mean_psnr_db
from encdl.training.tasks.encrypt import EncryptTask
from encdl.training.tasks.random_damage import KINDS, RandomDamage
from tests.training.tasks.support import trainer


def waves(count: int, size: int) -> np.ndarray:
    """Smooth waves in all directions, uint8 (count, size, size)."""
    random = np.random.default_rng(0)
    y, x = np.mgrid[:size, :size] / size
    found = []
    for across, down, phase in random.uniform(-6, 6, (count, 3)):
        found.append(127.5 + 110 * np.sin(2 * np.pi * (across * x + down * y) + phase))
    return np.round(found).astype(np.uint8)


@pytest.fixture(scope="module")
def trained(tmp_path_factory: pytest.TempPathFactory) -> EncryptTask:
    folder = tmp_path_factory.mktemp("waves")
    np.savez(folder / "waves.npz", images=waves(90, 32), split=np.arange(90) % 3)
    torch.manual_seed(0)
    damage = RandomDamage(**{**dict.fromkeys(KINDS, 0.0), "scatter": 2.0, "run": 1.0})
    task = EncryptTask(KeystreamCipher(8, 12, 1), damage=damage, learning_rate=1e-2)
    # A network this small takes its time to find that estimates tell nothing of hits.
    data = Mixture({"waves": 1.0}, str(folder), batch_size=8, crop=24, batches=1400, smaller=0.0)
    trainer(folder, 1400, limit_val_batches=0).fit(task, data)
    return task.eval()


def images() -> tuple[Tensor, Tensor]:
    """Others than were trained on, and their key planes."""
    image = torch.from_numpy(waves(90, 32)[2::3]).unsqueeze(1)
    keys = [bytes([number]) * 32 for number in range(len(image))]
    return image, plane_tensor(keys, PlaneSpec(), image.shape[1:])


def test_hits_are_repaired_better_than_by_a_median(trained: EncryptTask) -> None:
    cipher, (image, planes) = trained.cipher, images()
    damaged, lost = stored(Scatter(0.05), cipher.encrypt(image, planes), torch.Generator().manual_seed(0))
    decrypted, restored = cipher.decrypt(damaged, planes), cipher.restore(damaged, planes, lost)
    median = torch.from_numpy(classical_repair.repaired("hits", "median", decrypted.numpy(), lost.numpy()))
    assert mean_psnr_db(restored, image) > mean_psnr_db(decrypted, image) + 3
    assert mean_psnr_db(restored, image) > mean_psnr_db(median, image) + 1
    unhit = decrypted == image
    assert (restored == image)[unhit].float().mean() > 0.85


def test_losses_are_repaired(trained: EncryptTask) -> None:
    cipher, (image, planes) = trained.cipher, images()
    damaged, lost = stored(LostRun(0.25), cipher.encrypt(image, planes), torch.Generator().manual_seed(0))
    restored = cipher.restore(damaged, planes, lost)
    assert mean_psnr_db(restored, image) > mean_psnr_db(cipher.decrypt(damaged, planes), image) + 10
    assert (restored == image)[~lost].float().mean() > 0.9


def test_a_pixel_that_is_not_worth_guessing_is_kept_bit_for_bit(trained: EncryptTask) -> None:
    """Whatever the network makes of its level."""
    cipher, (image, planes) = trained.cipher, images()
    damaged, lost = stored(Scatter(0.05), cipher.encrypt(image, planes), torch.Generator().manual_seed(0))
    decrypted = cipher.decrypt(damaged, planes)
    found = cipher.decryption.averaged(decrypted, lost)
    guess = (255 * found.level.sigmoid()).round()
    distance = guess - decrypted.float()
    guessed = worth_guessing(found.hit, distance) & (distance.abs() > GUESS_ERROR)  # few pixels were hit
    assert 0.02 < guessed.float().mean() < 0.2
    restored = cipher.restore(damaged, planes, lost)
    assert torch.equal(restored[~guessed], decrypted[~guessed])
    assert torch.equal(restored[guessed], guess[guessed].to(torch.uint8))
