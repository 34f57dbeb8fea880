"""Damage of stored bytes, undone, decrypted and repaired."""

from __future__ import annotations

import hashlib

import numpy as np
import pytest
import torch
from torch import Tensor

from encdl.audit.evaluation.damaged import Outcome, Storage, kind_of
from encdl.ciphers.damage import DAMAGES, GaussianNoise, SaltPepper, Scatter
from encdl.keys.key import Key
from encdl.keys.planes import PlaneSpec
from tests.additive import AdditiveCipher
from tests.mni import mni_slice

STORAGE = Storage(PlaneSpec(), "confusion", Key(hashlib.sha256(b"test").digest()), "cpu")
NAMES = ["salt_pepper_1pct", "salt_pepper_5pct", "gaussian_2", "gaussian_8", "quarter_lost"]


def images() -> list[Tensor]:
    return [mni_slice(index, *size)[0] for index, size in ((80, (40, 50)), (81, (40, 50)), (90, (31, 33)))]


def outcomes(name: str, storage: Storage = STORAGE, of: list[Tensor] | None = None, seed: int = 0) -> list[Outcome]:
    return list(storage.outcomes(AdditiveCipher(), of or images(), DAMAGES[name], seed))  # type: ignore[arg-type]


def test_the_damages() -> None:
    assert list(DAMAGES) == NAMES


@pytest.mark.parametrize("name", NAMES)
def test_damage_of_an_additive_ciphertext_is_damage_of_the_image(name: str) -> None:
    for image, outcome in zip(images(), outcomes(name), strict=True):
        assert np.array_equal(outcome.plain, image.numpy())
        assert outcome.decrypted.dtype == np.uint8
        assert np.array_equal(outcome.decrypted != outcome.plain, outcome.hit)
        assert 0 < outcome.hit.mean() < 1
        assert outcome.lost.any() == (name == "quarter_lost")


def test_a_lost_run_is_scattered_by_a_permutation_and_a_quarter_all_the_same() -> None:
    for name in ("confusion", "none"):
        storage = Storage(STORAGE.spec, name, STORAGE.key, "cpu")
        lost = outcomes("quarter_lost", storage)[0].lost[0]
        assert lost.sum() == round(0.25 * lost.size)
        rows = lost.any(1).mean()
        assert rows == 1.0 if name == "confusion" else 0.2 < rows < 0.35


def test_images_do_not_depend_on_those_beside_them() -> None:
    together = outcomes("gaussian_8")
    for index, outcome in enumerate(outcomes("gaussian_8", of=images()[:1])):
        assert np.array_equal(outcome.decrypted, together[index].decrypted)
    assert not np.array_equal(together[0].hit, together[1].hit)


def test_seeds_draw_other_damage() -> None:
    assert not np.array_equal(outcomes("salt_pepper_5pct")[0].hit, outcomes("salt_pepper_5pct", seed=1)[0].hit)
    again = outcomes("salt_pepper_5pct")
    assert all(np.array_equal(a.hit, b.hit) for a, b in zip(again, outcomes("salt_pepper_5pct"), strict=True))


def test_kinds_of_damage() -> None:
    assert kind_of(GaussianNoise(3.0)) == ("noise", 3.0)
    assert kind_of(SaltPepper(0.1)) == kind_of(Scatter(0.1)) == ("hits", 0.0)
    assert kind_of(DAMAGES["quarter_lost"]) == ("losses", 0.0)


def test_without_repair() -> None:
    cipher, damage = AdditiveCipher(), DAMAGES["gaussian_2"]
    assert all(o.restored is None for o in STORAGE.outcomes(cipher, images(), damage, 0, restore=False))  # type: ignore[arg-type]


def test_large_images_go_one_at_a_time(monkeypatch: pytest.MonkeyPatch) -> None:
    together = outcomes("gaussian_8")
    monkeypatch.setattr("encdl.audit.evaluation.damaged.PIXELS_AT_ONCE", {"cpu": 1})
    seen = []
    plain = AdditiveCipher.encrypt

    def noting(self: AdditiveCipher, image: Tensor, planes: Tensor) -> Tensor:
        seen.append(len(image))
        return plain(self, image, planes)

    monkeypatch.setattr(AdditiveCipher, "encrypt", noting)
    for a, b in zip(outcomes("gaussian_8"), together, strict=True):
        assert np.array_equal(a.decrypted, b.decrypted)
    assert seen == [1, 1, 1]
    assert torch.get_default_dtype() == torch.float32
