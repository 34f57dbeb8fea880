"""Yesterday's ciphertexts, of this kind of device and of others, open bit by bit today."""

from __future__ import annotations

import hashlib
import json
from collections.abc import Iterator
from pathlib import Path

import numpy as np
import pytest
import torch
from torch import Tensor

from encdl.ciphers import weights
from encdl.keys.key import Key
from encdl.keys.planes import PlaneSpec, key_planes
from tests.ciphers import golden
from tests.mni import mni_slice

FILES = sorted(golden.FOLDER.glob("ciphertext-*.npz"))
RESULTS = Path(__file__).parents[2] / "experiments" / "results"
NEEDS_CUDA = pytest.mark.skipif(not torch.cuda.is_available(), reason="needs a CUDA device")

BATCHES = (
    # batch size, height, width, how often, threads
    (1, 1, 1, 7, 1),
    (5, 1, 33, 4, 1),
    (8, 28, 28, 6, 2),
    (3, 31, 45, 8, 1),
    (7, 64, 64, 6, 1),
    (2, 97, 61, 10, 1),
    (4, 128, 128, 5, 2),
    (3, 224, 224, 2, 1),
    (1, 233, 197, 6, 1),
    (2, 256, 256, 2, 1),
    (1, 301, 299, 2, 1),
    (1, 512, 512, 1, 2),
)
"""How 200 images are enciphered together."""


@pytest.fixture(autouse=True)
def threads() -> Iterator[None]:
    before = torch.get_num_threads()
    yield
    torch.set_num_threads(before)


def brains(count: int, height: int, width: int, start: int) -> Tensor:
    """Slices by height in the head, black around where the size is larger, noise where it is tiny."""
    if min(height, width) < 28:
        noise = hashlib.shake_256(f"{start}".encode()).digest(count * height * width)
        return torch.from_numpy(np.frombuffer(noise, np.uint8).reshape(count, 1, height, width).copy())
    return torch.cat([mni_slice(30 + (start + n) % 115, height, width) for n in range(count)])


def test_there_are_ciphertexts_of_both_kinds_of_device() -> None:
    assert [path.stem for path in FILES] == ["ciphertext-cpu", "ciphertext-cuda"]
    stored = [np.load(path) for path in FILES]
    assert {str(one["weights"]) for one in stored} == {weights.load("default").id}
    for index, shape in enumerate(golden.SHAPES):
        arrays = [one[f"ciphertext_{index}"] for one in stored]
        assert {(array.dtype.name, array.shape) for array in arrays} == {("uint8", (1, *shape))}
        assert np.array_equal(*arrays)


@pytest.mark.parametrize("path", FILES, ids=lambda path: path.stem)
@pytest.mark.parametrize("mode", ["float32", "bfloat16"])
def test_golden_ciphertexts_open_on_this_cpu(path: Path, mode: str) -> None:
    with golden.precision("cpu", mode):
        assert golden.differing(path, "cpu") == 0


@NEEDS_CUDA
@pytest.mark.parametrize("path", FILES, ids=lambda path: path.stem)
@pytest.mark.parametrize("mode", ["float32", "tf32", "bfloat16", "float16", "benchmark"])
def test_golden_ciphertexts_open_on_this_gpu(path: Path, mode: str) -> None:
    with golden.precision("cuda", mode):
        assert golden.differing(path, "cuda") == 0


def differing_images(device: str, spec: PlaneSpec, key: Key) -> tuple[int, int]:
    """Of the images of `BATCHES`, how many there are and how many do not come back."""
    cipher = weights.load("default", device).cipher
    total = wrong = 0
    for size, height, width, times, threads in BATCHES:
        torch.set_num_threads(threads)
        for _ in range(times):
            image = brains(size, height, width, total).to(device)
            nonces = [hashlib.sha256(f"{total + n}".encode()).digest()[:16] for n in range(size)]
            subkeys = [key.image_keys(nonce).planes for nonce in nonces]
            bits = torch.from_numpy(key_planes(subkeys, spec, 1, height, width)).to(device)
            back = cipher.decrypt(cipher.encrypt(image, bits), bits)
            wrong += int((back != image).flatten(1).any(1).sum())
            total += size
    return total, wrong


def test_200_images_are_exact_under_a_key_never_trained_on() -> None:
    assert differing_images("cpu", PlaneSpec(), Key.generate()) == (200, 0)


@NEEDS_CUDA
@pytest.mark.parametrize("mode", ["float32", "tf32", "bfloat16"])
def test_200_images_are_exact_on_this_gpu(mode: str) -> None:
    with golden.precision("cuda", mode):
        assert differing_images("cuda", PlaneSpec(), Key.generate()) == (200, 0)


@NEEDS_CUDA
def test_cpu_and_gpu_give_one_ciphertext_at_any_batch_size() -> None:
    on_cpu, on_gpu = weights.load("default").cipher, weights.load("default", "cuda").cipher
    image = brains(6, 150, 149, 0)
    subkeys = [hashlib.sha256(bytes([n])).digest() for n in range(6)]
    bits = torch.from_numpy(key_planes(subkeys, PlaneSpec(), 1, 150, 149))
    ciphertext = on_cpu.encrypt(image, bits)
    for size in (1, 2, 6):
        parts = [on_gpu.encrypt(image[n : n + size].cuda(), bits[n : n + size].cuda()).cpu() for n in range(0, 6, size)]
        assert torch.equal(torch.cat(parts), ciphertext)


def test_the_record_of_the_gpu_says_that_all_came_back() -> None:
    """What no machine without a GPU can try: the record that `tests.ciphers.golden check cuda` wrote."""
    record = json.loads((RESULTS / "exactness-cuda.json").read_text())
    assert record["weights"] == weights.load("default").id
    metrics = record["metrics"]
    modes = {"float32", "medium", "tf32", "bfloat16", "float16", "benchmark"}
    assert set(metrics["exact_fraction"]) == set(metrics["differing_pixels"]) == modes
    assert set(metrics["exact_fraction"].values()) == {1.0}
    assert all(set(row.values()) == {0} for row in metrics["differing_pixels"].values())
