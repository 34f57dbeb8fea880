"""What readers are shown."""

from __future__ import annotations

import pytest
import torch
from torch import Tensor

from encdl import weights
from encdl.ciphers.base import Cipher
from encdl.keys.planes import PlaneSpec
from encdl.tasks.keys import fresh_planes
from encdl.tasks.views import Ciphertext, FixedKey, Keyless, Plaintext
from tests.mni import mni_slice
from tests.tasks.support import tiny_cipher


class TestKeys:
    """Planes by purpose."""

    __test__ = False

    def __init__(self, image: Tensor) -> None:
        self.image = image

    def fresh(self, purpose: str) -> Tensor:
        return fresh_planes(PlaneSpec(), self.image.shape, seed=0, rank=0, purpose=purpose, step=0)

    def fixed(self, purpose: str) -> Tensor:
        return self.fresh(purpose)[:1].expand(len(self.image), -1, -1, -1, -1).contiguous()


@pytest.fixture(scope="module")
def image() -> Tensor:
    return torch.cat([mni_slice(index, 33, 26) for index in (80, 90, 100)])


@pytest.fixture(scope="module", params=["agile", "default", "thesis"])
def cipher(request: pytest.FixtureRequest) -> Cipher:
    return weights.load("default").cipher if request.param == "default" else tiny_cipher(request.param)


def test_training_on_ciphertext_shows_what_a_user_computes(cipher: Cipher, image: Tensor) -> None:
    keys = TestKeys(image)
    trained, rows = Ciphertext().train(cipher, image, keys), Ciphertext().rows(cipher, image, keys)
    assert list(rows) == ["ciphertext", "wrong_key"]
    assert trained.mask is not None
    assert rows["ciphertext"].mask is not None
    assert torch.equal(trained.picture, rows["ciphertext"].picture)
    assert torch.equal(trained.mask, rows["ciphertext"].mask)
    assert torch.equal(rows["wrong_key"].picture, trained.picture)
    assert not torch.equal(rows["wrong_key"].mask, trained.mask)  # type: ignore[arg-type]
    if cipher.exact:
        assert torch.equal(trained.picture - trained.mask, image)


def test_rows_without_a_key_hold_no_mask(image: Tensor) -> None:
    cipher, keys = tiny_cipher(), TestKeys(image)
    expected = {
        Plaintext(): ["plaintext", "decrypt_then_infer"],
        Keyless(): ["keyless"],
        FixedKey(): ["fixed_key", "wrong_key"],
    }
    for view, names in expected.items():
        rows = view.rows(cipher, image, keys)
        assert list(rows) == names
        assert all(sight.mask is None for sight in rows.values())
    assert not torch.equal(Keyless().train(cipher, image, keys).picture, image)
    for sight in Plaintext().rows(cipher, image, keys).values():
        assert torch.equal(sight.picture, image)


def test_a_fixed_key_is_the_same_for_all_pictures(image: Tensor) -> None:
    same = image[:1].expand(3, -1, -1, -1).contiguous()
    cipher = tiny_cipher()
    rows = FixedKey().rows(cipher, same, TestKeys(same))
    assert torch.equal(rows["fixed_key"].picture[0], rows["fixed_key"].picture[1])
    assert not torch.equal(rows["fixed_key"].picture, rows["wrong_key"].picture)
    fresh = Keyless().train(cipher, same, TestKeys(same)).picture
    assert not torch.equal(fresh[0], fresh[1])
