"""What readers are shown."""

from __future__ import annotations

import pytest
import torch
from torch import Tensor
from torch.nn import functional as F

from encdl.ciphers import weights
from encdl.ciphers.base import Cipher
from encdl.ciphers.damage import SaltPepper
from encdl.data.base import DataSpec
from encdl.keys.planes import PlaneSpec
from encdl.readers import FunctionalStem, Reader
from encdl.training.tasks.key_planes import fresh_planes
from encdl.training.tasks.random_damage import RandomDamage
from encdl.training.tasks.views import (
    Ciphertext,
    FixedKey,
    Functional,
    HardenedCiphertext,
    HardenedPlaintext,
    Keyless,
    Plaintext,
)
from tests.mni import mni_slice
from tests.reader_checkpoint import resnet
from tests.training.tasks.support import tiny_cipher


class TestKeys:
    """Planes by purpose."""

    __test__ = False

    def __init__(self, image: Tensor) -> None:
        self.image = image

    def fresh(self, purpose: str) -> Tensor:
        return fresh_planes(PlaneSpec(), self.image.shape, seed=0, rank=0, purpose=purpose, step=0)

    def generator(self, purpose: str) -> torch.Generator:
        return torch.Generator().manual_seed(len(purpose))

    def fixed(self, purpose: str) -> Tensor:
        return self.fresh(purpose)[:1].expand(self.image.shape).contiguous()


@pytest.fixture(scope="module")
def image() -> Tensor:
    return torch.cat([mni_slice(index, 33, 26) for index in (80, 90, 100)])


@pytest.fixture(scope="module", params=["agile", "default", "keystream", "coupled", "thesis"])
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


def test_a_fixed_key_is_the_same_for_all_images(image: Tensor) -> None:
    same = image[:1].expand(3, -1, -1, -1).contiguous()
    cipher = tiny_cipher()
    rows = FixedKey().rows(cipher, same, TestKeys(same))
    assert torch.equal(rows["fixed_key"].picture[0], rows["fixed_key"].picture[1])
    assert not torch.equal(rows["fixed_key"].picture, rows["wrong_key"].picture)
    fresh = Keyless().train(cipher, same, TestKeys(same)).picture
    assert not torch.equal(fresh[0], fresh[1])


def test_hardened_views_train_on_damage_and_are_judged_without(image: Tensor) -> None:
    cipher, keys = tiny_cipher(), TestKeys(image)
    always = RandomDamage(intact=0.0)
    intact = Ciphertext().train(cipher, image, keys)
    shown = HardenedCiphertext(damage=always).train(cipher, image, keys)
    assert all(not torch.equal(one, other) for one, other in zip(shown.picture, intact.picture, strict=True))
    planes = keys.fresh("key")
    assert shown.mask is not None
    assert torch.equal(shown.mask, cipher.field(shown.picture, planes))  # a user has no other
    rows = HardenedCiphertext().rows(cipher, image, keys)
    assert list(rows) == ["hardened", "wrong_key"]
    assert torch.equal(rows["hardened"].picture, intact.picture)
    plain = HardenedPlaintext(damage=always)
    assert not torch.equal(plain.train(cipher, image, keys).picture, image)
    assert torch.equal(plain.rows(cipher, image, keys)["hardened_plaintext"].picture, image)


def test_damage_falls_on_what_travels(image: Tensor) -> None:
    """On the ciphertext, and for comparison as much on the image itself."""
    cipher, keys = tiny_cipher(), TestKeys(image)

    def harm(picture: Tensor) -> tuple[Tensor, Tensor]:
        return SaltPepper(0.05)(picture, torch.Generator().manual_seed(0))

    planes = keys.fresh("key")
    ciphertext, _ = harm(cipher.encrypt(image, planes))
    for view in (Ciphertext(), HardenedCiphertext()):
        [sight] = view.damaged(cipher, image, keys, harm).values()
        assert torch.equal(sight.picture, ciphertext)
        assert sight.mask is not None
        assert torch.equal(sight.mask, cipher.field(ciphertext, planes))
    rows = Plaintext().damaged(cipher, image, keys, harm)
    assert torch.equal(rows["plaintext"].picture, harm(image)[0])
    assert torch.equal(rows["decrypt_then_infer"].picture, cipher.decrypt(ciphertext, planes))
    assert torch.equal(
        rows["restore_then_infer"].picture, cipher.restore(ciphertext, planes, torch.zeros_like(image) > 0)
    )
    assert list(HardenedPlaintext().damaged(cipher, image, keys, harm)) == ["hardened_plaintext"]
    assert Keyless().damaged(cipher, image, keys, harm) == FixedKey().damaged(cipher, image, keys, harm) == {}


@pytest.mark.parametrize("size", [0, 24])
def test_a_functional_view_shows_the_reading_layer_and_its_adversary(image: Tensor, size: int) -> None:
    torch.manual_seed(0)
    view = Functional(outputs=2, kernel=6, stride=4, size=size)
    stem = view.stem_for(DataSpec(1, *image.shape[2:]))
    reader = Reader(stem, resnet(stem.width, 2)).eval()
    sight = view.rows(tiny_cipher(), image, TestKeys(image))["functional"]
    wanted = F.interpolate(image.float(), (size, size), mode="area").round() if size else image.float()
    assert torch.equal(sight.picture, wanted)
    assert reader(sight.picture).shape == (len(image), 2)
    assert view.shown(reader, sight).shape == wanted.shape
    assert float(view.penalty(reader, sight).detach()) != 0
    assert float(Plaintext().penalty(reader, sight)) == 0


def test_the_view_hands_noise_to_its_stem(image: Tensor) -> None:
    view = Functional(outputs=1, kernel=4, stride=4, noise=4.0)
    stem = view.stem_for(DataSpec(1, image.shape[2], image.shape[3], ("a", "b")))
    assert isinstance(stem, FunctionalStem)
    assert stem.noise == 4.0
    assert torch.equal(view.train(tiny_cipher(), image, TestKeys(image)).picture, image.float())
