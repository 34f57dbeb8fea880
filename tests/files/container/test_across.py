"""A container is the same file whatever device makes it, and opens on every other."""

from __future__ import annotations

import pytest
import torch

from tests.files.container import across
from tests.files.container.across import CASES, Case, codec, compare, name, recorded, unequal

NEEDS_CUDA = pytest.mark.skipif(not torch.cuda.is_available(), reason="needs a CUDA device")


@pytest.mark.parametrize("case", CASES, ids=name)
def test_bfloat16_on_the_cpu_changes_nothing(case: Case) -> None:
    assert set(compare(codec("cpu"), case, "bfloat16", codec("cpu")).values()) == {0}


@NEEDS_CUDA
@pytest.mark.parametrize("mode", across.MODES["cuda"])
def test_containers_of_cpu_and_gpu_are_equal_and_open_on_both(mode: str) -> None:
    here, there = codec("cpu"), codec("cuda")
    for case in CASES:
        assert set(compare(there, case, mode, here).values()) == {0}, name(case)
    assert recorded("cuda", mode) == 0


def test_a_device_that_computes_otherwise_would_be_seen(monkeypatch: pytest.MonkeyPatch) -> None:
    """A single wrong level is found, and decryption refuses what such a device made."""
    right, wrong = codec("cpu"), codec("cpu")
    encrypt = wrong.cipher.encrypt

    def off_by_one(image: torch.Tensor, key_planes: torch.Tensor) -> torch.Tensor:
        ciphertext = encrypt(image, key_planes).clone()
        ciphertext[..., 0, 0] += 1
        return ciphertext

    monkeypatch.setattr(wrong.cipher, "encrypt", off_by_one)
    found = compare(wrong, CASES[2], "float32", right)
    assert found["container"] >= 17  # a level and its block's tag
    assert found["opened_here"] == 97 * 61


def test_differing_bytes_are_counted() -> None:
    assert unequal(b"abc", b"abc") == 0
    assert unequal(b"abc", b"xbcd") == 2
