"""The kernels for a GPU, checked against the CPU and timed: run `python -m tests.ciphers.device_check` beside one.

Every check runs whether or not those before it failed. Each prints lines; the exit status is the number of failures.
`--quick` leaves the timing out. Only the golden ciphertexts at the end need more than torchvision and cryptography.
"""

from __future__ import annotations

import argparse
import hashlib
import sys
import time
import traceback
import warnings
from collections.abc import Callable, Iterator, Sequence
from typing import Any

import torch
from torch import Tensor, nn

from encdl.audit.studies.cost import cost
from encdl.ciphers import batches, compiled_ciphers, device, weights
from encdl.ciphers.agile import AgileCipher
from encdl.ciphers.mask_network import MaskNetwork
from encdl.ciphers.nn.plane_tensors import plane_tensor
from encdl.ciphers.postprocess import interleave
from encdl.keys import derivation
from encdl.keys.planes import PlaneSpec, key_planes
from encdl.keys.sequences import MAPS, byte_sequence
from encdl.readers import Backbone, PlainStem, Reader
from encdl.utils import compiled

COUNTS = (1, 7, 8, 9, 63, 64, 65, 4095, 4096, 4097, 65536, 100_003)
SHAPES = ((1, 1, 1, 1), (2, 1, 1, 7), (3, 1, 5, 1), (2, 3, 28, 28), (5, 1, 31, 45), (2, 2, 64, 64), (1, 1, 233, 197),
          (33, 1, 128, 128), (7, 1, 256, 256), (1, 1, 1024, 1000), (2, 32, 512, 512))  # fmt: skip
SECRET = bytes(range(32))
GPU = torch.device("cuda")


def secrets_of(count: int) -> list[bytes]:
    """Sub-keys of a check."""
    return [hashlib.sha256(f"device check {index}".encode()).digest() for index in range(count)]


def random_bytes(shape: Sequence[int]) -> Tensor:
    """Noise on the CPU."""
    return torch.randint(0, 256, tuple(shape), dtype=torch.uint8, generator=torch.Generator().manual_seed(1))


def sequences() -> Iterator[tuple[str, bool]]:
    """Every map at every length, bytes beside the CPU's."""
    from encdl.ciphers.device.keystream import byte_sequences, seed_words

    seeds = secrets_of(3)
    for name in MAPS:
        wrong = [
            count
            for count in COUNTS
            if byte_sequences(name, seed_words(seeds, GPU), count).cpu().numpy().tobytes()
            != byte_sequence(name, seeds, count).tobytes()
        ]
        yield f"sequence {name}, {len(COUNTS)} lengths; wrong: {wrong}", not wrong


def derived() -> Iterator[tuple[str, bool]]:
    """Sub-keys and interleaver starts of nonces."""
    from encdl.ciphers.device.derivation import plane_seeds
    from encdl.ciphers.device.interleave import starts_of

    nonces = random_bytes((1000, 16))
    told = [row.tobytes() for row in nonces.numpy()]
    expected = [derivation.image_keys(derivation.image_secret(SECRET, one), one).planes for one in told]
    yield "sub-keys of 1000 nonces", plane_seeds(SECRET, nonces.to(GPU)).cpu().numpy().tobytes() == b"".join(expected)
    for size in (1, 3, 65536, 2**31 - 1):
        starts = torch.tensor([compiled_ciphers.interleave_start(one, size) for one in told])
        yield (
            f"starts modulo {size}",
            torch.equal(starts_of(nonces.to(GPU), compiled_ciphers.INTERLEAVE_DOMAIN, size).cpu(), starts),
        )


def plane_tensors() -> Iterator[tuple[str, bool]]:
    """Key planes again and again, so that recordings are used, in and out of inference mode."""
    for count in (8, 3):
        for shape in ((1, 1, 128, 128), (3, 2, 33, 17), (32, 1, 256, 256)):
            spec, seeds = PlaneSpec(count=count), secrets_of(shape[0])
            expected = torch.from_numpy(key_planes(seeds, spec, *shape[1:]))
            with torch.inference_mode():
                right = [torch.equal(plane_tensor(seeds, spec, shape[1:], GPU).cpu(), expected) for _ in range(3)]
            right += [torch.equal(plane_tensor(seeds, spec, shape[1:], GPU).cpu(), expected) for _ in range(3)]
            yield f"key planes {shape}, {count} of 8: {right}", all(right)


def masks() -> Iterator[tuple[str, bool]]:
    """Masks, of whole batches and in turns with other ones, beside the CPU's."""
    cipher, network = AgileCipher(), MaskNetwork()
    for shape in SHAPES:
        keys = random_bytes(shape)
        if compiled_ciphers.available():
            expected = torch.from_numpy(compiled_ciphers.masks(keys.flatten(0, 1).unsqueeze(1).numpy())).view(shape)
        else:
            expected = network(keys.flatten(0, 1).unsqueeze(1)).view(shape)
        found = [cipher.field(keys.to(GPU), keys.to(GPU)).cpu() for _ in range(4)]
        other = cipher.field(keys.to(GPU).flip(-1).contiguous(), keys.to(GPU).flip(-1).contiguous())
        found.append(cipher.field(keys.to(GPU).transpose(2, 3).contiguous().transpose(2, 3), keys.to(GPU)).cpu())
        wrong = [int((each != expected).sum()) for each in found]
        yield f"masks {shape}; wrong bytes: {wrong}", not any(wrong) and other.shape == tuple(shape)


def orders() -> Iterator[tuple[str, bool]]:
    """The interleaver there and back, bytes and bool."""
    for shape in SHAPES:
        images, nonces = random_bytes(shape), [one[:16] for one in secrets_of(shape[0])]
        for kind in (images, images > 100):
            file = interleave.interleave(kind, nonces)
            there = interleave.interleave(kind.to(GPU), nonces)
            right = torch.equal(there.cpu(), file)
            yield (
                f"interleaver {shape} {kind.dtype}",
                right and torch.equal(interleave.deinterleave(there, nonces).cpu(), kind),
            )


def whole() -> Iterator[tuple[str, bool]]:
    """From nonces to the bytes of files and back."""
    cipher = AgileCipher()
    for shape in SHAPES:
        images, nonces = random_bytes(shape), random_bytes((shape[0], 16))
        expected = batches.encrypt(cipher, images, SECRET, nonces)
        found = batches.encrypt(cipher, images.to(GPU), SECRET, nonces.to(GPU))
        back = batches.decrypt(cipher, found, SECRET, nonces.to(GPU))
        yield f"encrypt {shape}, decrypt", torch.equal(found.cpu(), expected) and torch.equal(back.cpu(), images)


def golden() -> Iterator[tuple[str, bool]]:
    """Ciphertexts that were made by earlier versions, on a CPU and on a GPU."""
    from tests.ciphers.golden import check

    found = check("cuda")
    yield f"golden ciphertexts: {found}", True


def milliseconds(step: Callable[[], Any], repeats: int = 20) -> float:
    """The device's own time of a call, median."""
    step(), step(), step()
    times = []
    for _ in range(repeats):
        start, end = (torch.cuda.Event(enable_timing=True) for _ in range(2))
        start.record()
        step()
        end.record()
        torch.cuda.synchronize()
        times.append(start.elapsed_time(end))
    return sorted(times)[len(times) // 2]


def throughput() -> Iterator[tuple[str, bool]]:
    """Images of 256x256 a second, and by part."""
    for count in (32, 256, 1024, 8192):
        for name, step in parts(count).items():
            time_ms = milliseconds(step)
            yield f"{name}, {count} images of 256x256: {time_ms:.3f} ms, {count / time_ms * 1e3:,.0f} images/s", True


def parts(count: int) -> dict[str, Callable[[], Any]]:
    """Encryption and its steps, each by itself."""
    from encdl.ciphers import device_mask_network
    from encdl.ciphers.device import derivation as seeds_of
    from encdl.ciphers.device import interleave as kernels
    from encdl.ciphers.device import keystream

    cipher = AgileCipher()
    images = random_bytes((1, 1, 256, 256)).to(GPU).expand(count, 1, 256, 256).contiguous()
    nonces = random_bytes((count, 16)).to(GPU)
    seeds = seeds_of.plane_seeds(SECRET, nonces)
    keys = keystream.byte_sequences("logistic+chacha20", seeds, 65536).view(count, 1, 256, 256)
    starts = kernels.starts_of(nonces, compiled_ciphers.INTERLEAVE_DOMAIN, 65536)
    return {
        "ENCRYPT": lambda: batches.encrypt(cipher, images, SECRET, nonces),
        "   sub-keys": lambda: seeds_of.plane_seeds(SECRET, nonces),
        "   starts": lambda: kernels.starts_of(nonces, compiled_ciphers.INTERLEAVE_DOMAIN, 65536),
        "   lanes": lambda: keystream.byte_sequences("logistic", seeds, 65536),
        "   chacha20": lambda: keystream.byte_sequences("chacha20", seeds, 65536),
        "   both": lambda: keystream.byte_sequences("logistic+chacha20", seeds, 65536),
        "   masks": lambda: device_mask_network._all_masks(keys),
        "   add and interleave": lambda: kernels.moved(images, starts, False, keys),
        "   decrypt": lambda: batches.decrypt(cipher, images, SECRET, nonces),
    }


def blocks() -> Iterator[tuple[str, bool]]:
    """The mask network with other sizes of its programs."""
    from encdl.ciphers import device_mask_network as module

    keys = random_bytes((1, 1, 256, 256)).to(GPU).expand(1024, 1, 256, 256).contiguous()
    usual = module._BLOCK, module._WARPS, module.PLACES_AT_ONCE
    try:
        for block, warps in ((64, 2), (128, 2), (128, 4), (256, 8)):
            module._BLOCK, module._WARPS = block, warps
            time_ms = milliseconds(lambda: module._all_masks(keys), 7)
            yield f"masks, {block} places in {warps} warps: {1024 / time_ms * 1e3:,.0f} images/s", True
        module._BLOCK, module._WARPS = usual[:2]
        for places in (2**22, 2**23, 2**24):
            module.PLACES_AT_ONCE = places
            time_ms = milliseconds(lambda: module._all_masks(keys), 7)
            yield f"masks, {places >> 20} Mi places at once: {1024 / time_ms * 1e3:,.0f} images/s", True
    finally:
        module._BLOCK, module._WARPS, module.PLACES_AT_ONCE = usual


def kernels_of(count: int) -> Iterator[tuple[str, bool]]:
    """What the profiler says of one encryption, kernel by kernel."""
    from torch.profiler import ProfilerActivity, profile

    cipher = AgileCipher()
    images, nonces = random_bytes((count, 1, 256, 256)).to(GPU), random_bytes((count, 16)).to(GPU)
    batches.encrypt(cipher, images, SECRET, nonces)
    with profile(activities=[ProfilerActivity.CUDA]) as found:
        batches.encrypt(cipher, images, SECRET, nonces)
        torch.cuda.synchronize()
    rows = sorted(found.key_averages(), key=lambda row: -row.self_device_time_total)
    for row in rows[:14]:
        yield f"   {count} images: {row.key[:50]:<50} {row.count:4} x, {row.self_device_time_total / 1e3:9.3f} ms", True


class Stages(Backbone):
    """ResNet-18 with a 3x3 first convolution, from torchvision, where MONAI is not."""

    def __init__(self, channels: int) -> None:
        super().__init__()
        from torchvision.models import resnet18

        self.net = resnet18(num_classes=4)
        self.net.conv1 = nn.Conv2d(channels, 64, 3, 2, 1, bias=False)

    def settings(self) -> dict[str, Any]:
        """None."""
        return {}

    def forward(self, x: Tensor) -> Tensor:
        """Logits."""
        logits: Tensor = self.net(x)
        return logits


def reading() -> Iterator[tuple[str, bool]]:
    """Reading ciphertext beside reading plaintext."""
    stem = PlainStem(1)
    reader = Reader(stem, Stages(stem.width))
    found = cost(reader, AgileCipher().to(GPU).eval(), PlaneSpec(), "cuda", (128, 256), (1, 32))
    for name, row in found.items():
        yield (
            f"{name}: " + ", ".join(f"{key} {value:.3f}" for key, value in row.items() if isinstance(value, float)),
            True,
        )


def training() -> Iterator[tuple[str, bool]]:
    """Keys and masks of a training batch, as a host sees them: milliseconds a batch, launches included."""
    for shape in ((64, 1, 128, 128), (32, 1, 256, 256), (256, 1, 64, 64)):
        for name, step in steps_of(shape).items():
            for _ in range(4):
                step()
            torch.cuda.synchronize()
            started = time.perf_counter()
            for _ in range(50):
                step()
            sent = time.perf_counter() - started
            torch.cuda.synchronize()
            done = time.perf_counter() - started
            yield f"{name} {shape}: {done * 20:.3f} ms, host busy {sent * 20:.3f} ms", True


def steps_of(shape: tuple[int, ...]) -> dict[str, Callable[[], Any]]:
    """Key planes, and encryption with them."""
    cipher, image, seeds = AgileCipher().to(GPU), random_bytes(shape).to(GPU), secrets_of(shape[0])
    return {
        "key planes": lambda: plane_tensor(seeds, PlaneSpec(), shape[1:], GPU),
        "keys and encryption": lambda: cipher.encrypt(image, plane_tensor(seeds, PlaneSpec(), shape[1:], GPU)),
    }


Check = Callable[[], Iterator[tuple[str, bool]]]
CHECKS: tuple[Check, ...] = (derived, sequences, masks, orders, plane_tensors, whole)
LONG: tuple[Check, ...] = (
    throughput, lambda: kernels_of(1024), training, reading, blocks, lambda: kernels_of(1), golden,
)  # fmt: skip
"""Left out with `--quick`."""


def main() -> int:
    """Check, time, tell."""
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--quick", action="store_true", help="no timing")
    args = parser.parse_args()
    if not device.available("cuda"):
        parser.error("there is no CUDA build of PyTorch with Triton here")
    warnings.simplefilter("ignore")
    print(torch.cuda.get_device_name(), "torch", torch.__version__, "C code:", compiled.built(), flush=True)
    print("default weights:", weights.load("default", "cpu").id, flush=True)
    failures = 0
    for check in CHECKS + (() if args.quick else LONG):
        started = time.perf_counter()
        try:
            for line, right in check():
                failures += not right
                print("ok   " if right else "WRONG", line, flush=True)
        except Exception:  # the next check may still tell something
            failures += 1
            print("BROKE", getattr(check, "__name__", check), traceback.format_exc(limit=-6), flush=True)
        print(f"      ({getattr(check, '__name__', '')} {time.perf_counter() - started:.1f} s)", flush=True)
    print(f"{failures} failures")
    return failures


if __name__ == "__main__":
    sys.exit(main())
