"""Containers made on one kind of device and opened on another.

`python -m tests.files.container.across cuda [-o RECORD]` makes containers of arrays of all kinds on the CPU and on that
device, with the same key, nonce and settings, and compares them byte for byte; then opens each on the other device, as
pixels and as readers of ciphertext take it, and opens the recorded containers of every version there. It counts what
differs: zero everywhere, or it ends with 1. It needs no data set.
"""

from __future__ import annotations

import argparse
import hashlib
import io
import sys
import time
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import numpy as np
import torch

from encdl.ciphers import weights
from encdl.files.codec import Codec
from encdl.files.container import ContainerReader
from encdl.files.formats.base import array_of
from encdl.files.settings import Settings
from encdl.keys.planes import PlaneSpec
from encdl.utils import records
from encdl.utils.errors import ContainerError
from tests.ciphers.golden import precision
from tests.files.container.golden import KEY, RECORDED

MODES = {"cpu": ("float32", "bfloat16"), "cuda": ("float32", "tf32", "bfloat16", "float16", "benchmark")}
CHACHA = PlaneSpec(map="chacha20")
CASES: tuple[tuple[tuple[int, ...], str, Settings], ...] = (
    ((7,), "uint8", Settings()),
    ((1, 1), "uint8", Settings(postprocess="both")),
    ((97, 61), "uint8", Settings()),
    ((31, 45), "int8", Settings(CHACHA)),
    ((28, 28, 3), "uint8", Settings(postprocess="diffusion")),
    ((33, 20), "int16", Settings(PlaneSpec(map="chebyshev+chacha20"))),
    ((65, 64, 3), "uint16", Settings(postprocess="confusion")),
    ((5, 31, 45), "int16", Settings()),
    ((9, 1, 17), "uint16", Settings(CHACHA, "both")),
    ((2, 3, 17, 19), "int16", Settings(PlaneSpec(map="piecewise_linear+chacha20"))),
    ((2, 3, 9, 8, 3), "uint8", Settings()),
    ((3, 24, 23), "float32", Settings()),
)
LARGE = ((1031, 1024), "uint8", Settings())
"""More pixels than a chunk takes: cut into tiles."""

Case = tuple[tuple[int, ...], str, Settings]


def array(shape: tuple[int, ...], dtype: str) -> np.ndarray[Any, Any]:
    """Noise that is the same everywhere."""
    count = int(np.prod(shape)) * np.dtype(dtype).itemsize
    return np.frombuffer(hashlib.shake_256(f"{shape} {dtype}".encode()).digest(count), dtype).reshape(shape)


def name(case: Case) -> str:
    shape, dtype, settings = case
    return f"{'x'.join(map(str, shape))} {dtype}, {settings.planes.map}, {settings.postprocess}"


def codec(device: str) -> Codec:
    loaded = weights.load("default", device)
    return Codec(loaded.cipher, loaded.id, device)


def make(one: Codec, case: Case) -> bytes:
    """The container of a case; its nonce follows from key, content and settings."""
    shape, dtype, settings = case
    settings = Settings(settings.planes, settings.postprocess, "synthetic")
    return one.encrypt_array(array(shape, dtype), KEY, settings)


def unequal(one: bytes, two: bytes) -> int:
    """Bytes that differ; those that only one of them has too."""
    size = min(len(one), len(two))
    pair = (np.frombuffer(data[:size], np.uint8) for data in (one, two))
    return int(np.not_equal(*pair).sum()) + abs(len(one) - len(two))


def opened(one: Codec, data: bytes, original: bytes) -> int:
    """Bytes that do not come back; all of them, where the codec itself notices that it computes otherwise."""
    try:
        return unequal(one.decrypt_array(data, KEY).tobytes(), original)
    except ContainerError:
        return len(original)


def read(one: Codec, data: bytes) -> Iterator[bytes]:
    """What a reader of ciphertext gets of each slice."""
    for part in one.cipher_slices(ContainerReader(io.BytesIO(data), KEY)):
        yield part.ciphertext.cpu().numpy().tobytes() + part.mask.cpu().numpy().tobytes()


def compare(there: Codec, case: Case, mode: str, here: Codec) -> dict[str, int]:
    """Differing bytes of one case; `there` computes in the precision of `mode`, `here` in plain float32."""
    original = array(case[0], case[1]).tobytes()
    made = make(here, case)
    with precision(there.device.type, mode):
        other = make(there, case)
        wrong = opened(there, made, original)
        seen = list(read(there, made))
    return {
        "container": unequal(made, other),
        "opened_there": wrong,
        "opened_here": opened(here, other, original),
        "seen_by_readers": sum(unequal(a, b) for a, b in zip(read(here, other), seen, strict=True)),
    }


def recorded(device: str, mode: str) -> int:
    """Differing bytes of the recorded containers of every version, opened on a device."""
    one, wrong = codec(device), 0
    with precision(device, mode):
        for golden in RECORDED:
            document = one.decrypt(ContainerReader(io.BytesIO(golden.path.read_bytes()), KEY))
            wrong += unequal(array_of(document).tobytes(), golden.array.tobytes())
    return wrong


def check(device: str) -> dict[str, Any]:
    """All cases in all precisions of a device: differing bytes of each."""
    here, there = codec("cpu"), codec(device)
    result: dict[str, Any] = {"differing_bytes": {}, "recorded_containers": {}}
    for mode in MODES[device]:
        cases = (*CASES, *((LARGE,) if mode == "float32" else ()))
        result["differing_bytes"][mode] = {name(case): compare(there, case, mode, here) for case in cases}
        result["recorded_containers"][mode] = recorded(device, mode)
    return result


def main() -> int:
    """Command line; see the module's text."""
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("device", choices=tuple(MODES))
    parser.add_argument("-o", "--output", type=Path)
    args = parser.parse_args()
    if args.device == "cuda" and not torch.cuda.is_available():
        parser.error("there is no CUDA device here, or torch was built without CUDA")
    started = time.monotonic()
    found = check(args.device)
    for mode, cases in found["differing_bytes"].items():
        for case, counts in cases.items():
            print(f"{mode:<10} {case:<44} {counts}")
        print(f"{mode:<10} recorded containers: {found['recorded_containers'][mode]}")
    wrong = sum(n for cases in found["differing_bytes"].values() for counts in cases.values() for n in counts.values())
    wrong += sum(found["recorded_containers"].values())
    print(f"{wrong} differing bytes between the CPU and {records.device_name(args.device)}")
    if args.output:
        content = records.record(
            args.output.stem, "exactness", config=None, dataset="noise of all kinds of arrays", seeds=[],
            metrics=found, wall_s=time.monotonic() - started, device=args.device,
            weights=weights.load("default").id,
        )  # fmt: skip
        records.write(args.output, content, force=True)
    return 1 if wrong else 0


if __name__ == "__main__":
    sys.exit(main())
