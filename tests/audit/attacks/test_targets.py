"""What is attacked: our cipher in each mode, and the references beside it."""

from __future__ import annotations

import pytest
import torch
from cryptography.hazmat.primitives.ciphers import Cipher as AESCipher
from cryptography.hazmat.primitives.ciphers.algorithms import AES
from cryptography.hazmat.primitives.ciphers.modes import CTR

from encdl.audit.attacks.targets import (
    CHUNK,
    MODES,
    PERIOD,
    Aes,
    CipherTarget,
    FixedXor,
    Target,
    audit_key,
    audit_nonce,
)
from encdl.keys.planes import PlaneSpec
from encdl.metrics.differential import npcr_pct
from tests.audit.attacks.support import agile, cipher


def some_images(count: int = 6, side: int = 12) -> torch.Tensor:
    generator = torch.Generator().manual_seed(5)
    return torch.randint(0, 256, (count, 1, side, side), generator=generator, dtype=torch.uint8)


@pytest.mark.parametrize("mode", MODES)
def test_modes_encrypt_the_same_number_the_same_way(mode: str) -> None:
    target, images = agile(mode), some_images()
    whole = target.encrypt(images, first=3)
    assert torch.equal(whole[2:], target.encrypt(images[2:], first=5))
    assert not torch.equal(whole, target.under(1).encrypt(images, first=3))


@pytest.mark.parametrize("mode", MODES)
def test_an_image_encrypted_twice(mode: str) -> None:
    """Only a synthetic or a reused nonce gives the same ciphertext again."""
    image = some_images(1)
    target = agile(mode)
    same = torch.equal(target.encrypt(image, 0), target.encrypt(image, 1))
    assert same is (target.nonce in {"synthetic", "reused"})


def test_fresh_nonces_make_unrelated_ciphertexts() -> None:
    image = some_images(1, 64).expand(4, -1, -1, -1)
    found = agile().encrypt(image)
    for one in range(4):
        assert npcr_pct(found, found.roll(one + 1, 0)).min() > 99 or one == 3


def test_a_synthetic_nonce_follows_the_image() -> None:
    images = some_images(2)
    images[1] = images[0]
    changed = images.clone()
    changed[1, 0, 0, 0] ^= 1
    target = agile("synthetic_nonce")
    equal, other = target.encrypt(images), target.encrypt(changed)
    assert torch.equal(equal[0], equal[1])
    assert torch.equal(equal[0], other[0])
    assert npcr_pct(other[:1], other[1:]).item() > 90


def test_a_reused_nonce_gives_every_image_the_same_planes() -> None:
    planes = agile("reused_nonce").planes(some_images())
    assert torch.equal(planes, planes[:1].expand_as(planes))
    fresh = agile().planes(some_images())
    assert len({bytes(one.numpy().tobytes()) for one in fresh}) == len(fresh)


def test_planes_are_those_that_encrypt() -> None:
    images = some_images()
    target = agile()
    assert torch.equal(cipher().encrypt(images, target.planes(images, 7)), target.encrypt(images, 7))


def test_more_images_than_are_encrypted_at_a_time() -> None:
    images = some_images(CHUNK + 3, 4)
    target = agile()
    assert torch.equal(target.encrypt(images)[CHUNK:], target.encrypt(images[CHUNK:], CHUNK))


@pytest.mark.parametrize("mode", ["periodic", "coprime"])
def test_modes_that_repeat_key_planes(mode: str) -> None:
    planes = agile(mode).planes(some_images(1, 3 * PERIOD))
    repeats = planes[..., PERIOD:, :] ^ planes[..., :-PERIOD, :]
    assert not (repeats & (255 if mode == "periodic" else 1)).any()
    assert agile(mode).spec.expansion == mode


def test_confusion_moves_bytes_and_diffusion_changes_them() -> None:
    images = some_images()
    plain, moved, mixed = (agile(mode).encrypt(images) for mode in ("default", "confusion", "diffusion"))
    assert not torch.equal(plain, moved)
    assert torch.equal(plain.flatten(1).sort(1).values, moved.flatten(1).sort(1).values)
    assert not torch.equal(plain.flatten(1).sort(1).values, mixed.flatten(1).sort(1).values)


def test_the_default_mode_is_what_a_user_gets() -> None:
    target = agile()
    assert target.spec == PlaneSpec("logistic+chacha20", "full", 8, 0)
    assert (target.process, target.nonce) == ("interleave", "random")
    assert MODES["default"] == {}


def test_aes_is_aes_with_a_fresh_nonce_each_time() -> None:
    images = some_images(3)
    found = Aes().encrypt(images, first=4)
    for index in range(3):
        keys = audit_key(0).image_keys(audit_nonce(4 + index))
        decryptor = AESCipher(AES(keys.planes), CTR(keys.nonce)).decryptor()
        assert decryptor.update(found[index].numpy().tobytes()) == images[index].numpy().tobytes()
    assert not torch.equal(found, Aes().encrypt(images, first=5))
    assert not torch.equal(found, Aes().under(1).encrypt(images, first=4))


def test_the_fixed_xor_is_one_keystream_for_all() -> None:
    images = some_images()
    fixed = FixedXor()
    stream = fixed.encrypt(images) ^ images
    assert torch.equal(stream, stream[:1].expand_as(stream))
    assert torch.equal(fixed.under(4).encrypt(images, 9), fixed.encrypt(images))
    assert torch.equal(fixed.encrypt(fixed.encrypt(images)), images)


@pytest.mark.parametrize("target", [agile(), agile("diffusion"), Aes(), FixedXor()], ids=lambda t: t.name)
def test_colour_and_odd_sizes(target: Target) -> None:
    images = torch.randint(0, 256, (2, 3, 7, 9), generator=torch.Generator().manual_seed(0), dtype=torch.uint8)
    found = target.encrypt(images)
    assert found.shape == images.shape
    assert found.dtype == torch.uint8
    assert not torch.equal(found, images)


def test_no_key_in_what_is_printed() -> None:
    target = agile()
    keys = target.image_keys(some_images(1))[0]
    assert isinstance(target, CipherTarget)
    for shown in (repr(target), repr(keys), repr(audit_key(0))):
        assert keys.planes.hex() not in shown
        assert repr(keys.planes)[2:-1] not in shown
