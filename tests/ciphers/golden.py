"""Golden ciphertexts: made on one kind of device, opened on every other.

`python -m tests.ciphers.golden make cpu|cuda` writes tests/golden/ciphertext-DEVICE.npz;
`python -m tests.ciphers.golden check cpu|cuda [-o RECORD]` opens all of them on that device, in every precision and
batching, and counts differing pixels.
"""

from __future__ import annotations

import argparse
import contextlib
import hashlib
import itertools
import time
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import numpy as np
import torch
from torch import Tensor
from torch.nn import functional as F

from encdl.audit.evaluation import SIZES, Evaluation, resized
from encdl.ciphers import weights
from encdl.ciphers.nn.integer import IntegerConv2d
from encdl.data.embedded import axial_slice, volume
from encdl.keys.key import Key
from encdl.keys.planes import PlaneSpec, key_planes
from encdl.utils import records

FOLDER = Path(__file__).parents[1] / "golden"
SHAPES = ((1, 1, 1), (1, 1, 7), (3, 28, 28), (1, 31, 45), (2, 64, 64), (1, 97, 61), (1, 233, 197), (3, 128, 90))
MAPS = ("logistic+chacha20", "chebyshev+chacha20", "piecewise_linear+chacha20", "tent+chacha20", "chacha20")


def image(index: int) -> Tensor:
    """Golden image `index`, uint8 (1, C, H, W): noise, or a brain slice where the size allows one."""
    shape = SHAPES[index]
    if min(shape[1:]) < 32:
        noise = hashlib.shake_256(f"golden {index}".encode()).digest(int(np.prod(shape)))
        return torch.from_numpy(np.frombuffer(noise, np.uint8).reshape(1, *shape).copy())
    voxels = volume("t1")
    slices = [resized(torch.from_numpy(axial_slice(voxels, 60 + 9 * c)), shape[1:]) for c in range(shape[0])]
    return torch.cat(slices, dim=1)


def planes(index: int) -> Tensor:
    """Its key planes, packed, uint8 (1, C, H, W)."""
    key = Key(hashlib.sha256(b"golden key").digest())
    subkey = key.image_keys(hashlib.sha256(f"golden nonce {index}".encode()).digest()[:16]).planes
    spec = PlaneSpec(map=MAPS[index % len(MAPS)])
    return torch.from_numpy(key_planes([subkey], spec, *SHAPES[index]))


def make(device: str) -> Path:
    """Write the golden ciphertexts of a device."""
    loaded = weights.load("default", device)
    arrays = {
        f"ciphertext_{index}": loaded.cipher.encrypt(image(index).to(device), planes(index).to(device)).cpu().numpy()
        for index in range(len(SHAPES))
    }
    path = FOLDER / f"ciphertext-{device}.npz"
    np.savez_compressed(path, weights=np.array(loaded.id), device=np.array(records.device_name(device)), **arrays)
    return path


def differing(path: Path, device: str) -> int:
    """Pixels that do not come back from the golden ciphertexts in `path`, on `device`."""
    loaded = weights.load("default", device)
    stored = np.load(path)
    assert str(stored["weights"]) == loaded.id, f"{path} was made with weights {stored['weights']}: make it anew"
    wrong = 0
    for index in range(len(SHAPES)):
        ciphertext = torch.from_numpy(stored[f"ciphertext_{index}"]).to(device)
        back = loaded.cipher.decrypt(ciphertext, planes(index).to(device)).cpu()
        again = loaded.cipher.encrypt(image(index).to(device), planes(index).to(device)).cpu()
        wrong += int((back != image(index)).sum()) + int((again != ciphertext.cpu()).sum())
    return wrong


@contextlib.contextmanager
def precision(device: str, mode: str) -> Iterator[None]:
    """Run under a precision.

    `float32`, `medium` (its matrix products may use bfloat16 parts), `tf32`, `bfloat16` or `float16` (autocast), or
    `benchmark` (cuDNN picks its kernels).
    """
    before = (torch.get_float32_matmul_precision(), torch.backends.cudnn.allow_tf32, torch.backends.cudnn.benchmark)
    torch.set_float32_matmul_precision({"tf32": "high", "medium": "medium"}.get(mode, "highest"))
    torch.backends.cudnn.allow_tf32 = mode in {"tf32", "medium"}
    torch.backends.cudnn.benchmark = mode == "benchmark"
    kind = {"bfloat16": torch.bfloat16, "float16": torch.float16}.get(mode)
    try:
        with torch.autocast(device, dtype=kind) if kind else contextlib.nullcontext():
            yield
    finally:
        torch.set_float32_matmul_precision(before[0])
        torch.backends.cudnn.allow_tf32, torch.backends.cudnn.benchmark = before[1:]


def check(device: str) -> dict[str, Any]:
    """Differing pixels by golden file and precision, and the exact fraction of 200 images of ten sizes."""
    result: dict[str, Any] = {"differing_pixels": {}, "exact_fraction": {}}
    voxels = volume("t1")
    images = [torch.from_numpy(axial_slice(voxels, index)) for index in range(40, 140, 5)]
    modes = ("float32", "medium", "bfloat16", *(("tf32", "float16", "benchmark") if device == "cuda" else ()))
    for mode in modes:
        loaded = weights.load("default", device)
        with precision(device, mode):
            found = {path.stem: differing(path, device) for path in sorted(FOLDER.glob("ciphertext-*.npz"))}
            exact = Evaluation(loaded.cipher, PlaneSpec(), device, seed=7).exactness(images, 200)
        result["differing_pixels"][mode] = found
        result["exact_fraction"][mode] = exact["exact_fraction"]
    result["worst_case_differing"] = worst_case(device)
    return result


@torch.no_grad()
def worst_case(device: str) -> int:
    """Sums of layers of the shipped shape that differ from float64, for the largest weights and inputs there are.

    Random signs of the largest values, so that sums are large and kernels that transform their inputs (Winograd,
    Fourier) round as badly as they can; every precision in turn.
    """
    torch.manual_seed(0)
    wrong = 0
    for channels, dilation in itertools.product((12, 16, 24), (1, 2, 4, 8, 16)):
        layer = IntegerConv2d(channels, 6, dilation)
        layer.weight.copy_(torch.randint(0, 2, layer.weight.shape) * 14.0 - 7.0)
        x = torch.randint(0, 2, (4, channels, 128, 96)) * 127.0 - 64.0
        weight, bias = layer.integer_weight().double(), layer.integer_bias().double()
        exact = F.conv2d(x.double(), weight, bias, padding=dilation, dilation=dilation)
        for mode in ("float32", "medium", *(("tf32", "benchmark") if device == "cuda" else ())):
            with precision(device, mode):
                for form in (torch.contiguous_format, torch.channels_last):
                    sums = layer.to(device)(x.to(device).contiguous(memory_format=form)).cpu().double()
                    wrong += int((sums != exact).sum())
            layer.cpu()
    return wrong


def main() -> None:
    """Command line; see the module's text."""
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("action", choices=("make", "check"))
    parser.add_argument("device", choices=("cpu", "cuda"))
    parser.add_argument("-o", "--output", type=Path)
    args = parser.parse_args()
    if args.action == "make":
        print(make(args.device))
        return
    started = time.monotonic()
    found = check(args.device)
    sizes = ", ".join(f"{h}x{w}" for h, w in itertools.islice(SIZES, len(SIZES)))
    print(found)
    if args.output:
        content = records.record(
            args.output.stem, "exactness", config=None, dataset=f"embedded, 200 images of {sizes}", seeds=[7],
            metrics=found, wall_s=time.monotonic() - started, device=args.device,
            weights=weights.load("default").id,
        )  # fmt: skip
        records.write(args.output, content, force=True)


if __name__ == "__main__":
    main()
