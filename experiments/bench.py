"""Times encryption, its parts and AES-256-CTR on the same pictures, in one run: `make bench`.

Writes experiments/results/bench-cpu.json (or bench-cuda.json). Times compare only within one record.
"""

from __future__ import annotations

import argparse
import statistics
import time
from collections.abc import Callable
from pathlib import Path

import torch
from cryptography.hazmat.primitives.ciphers import Cipher, algorithms, modes

from encdl import postprocess, records, weights
from encdl.keys.key import Key
from encdl.keys.planes import PlaneSpec, key_planes

RESULTS = Path(__file__).parent / "results"
SIZES = (256, 512)
REPEATS = 7


def seconds(work: Callable[[], object], device: str) -> float:
    """Median seconds of one call, after one that does not count."""
    times = []
    for _ in range(REPEATS + 1):
        started = time.perf_counter()
        work()
        if device == "cuda":
            torch.cuda.synchronize()
        times.append(time.perf_counter() - started)
    return statistics.median(times[1:])


def measure(size: int, device: str) -> dict[str, float]:
    """Megapixels a second of each part, for one grey picture of size x size."""
    loaded = weights.load("default", device)
    keys = Key.generate().image_keys(bytes(16))
    image = torch.randint(0, 256, (1, 1, size, size), dtype=torch.uint8, device=device)
    planes = torch.from_numpy(key_planes([keys.planes], PlaneSpec(), 1, size, size)).to(device)
    ciphertext = loaded.cipher.encrypt(image, planes)
    plain = image.cpu().numpy().tobytes()
    parts: dict[str, Callable[[], object]] = {
        "aes_256_ctr": lambda: (
            Cipher(algorithms.AES(keys.planes), modes.CTR(bytes(16))).encryptor().update(plain)
        ),
        "key_planes_logistic": lambda: key_planes([keys.planes], PlaneSpec(), 1, size, size),
        "key_planes_chacha20": lambda: key_planes([keys.planes], PlaneSpec(map="chacha20"), 1, size, size),
        "network_encrypt": lambda: loaded.cipher.encrypt(image, planes),
        "network_decrypt": lambda: loaded.cipher.decrypt(ciphertext, planes),
        "network_restore": lambda: loaded.cipher.restore(ciphertext, planes),
    }
    for name in ("confusion", "diffusion"):
        process = postprocess.create(name)
        parts[f"{name}_apply"] = lambda process=process: process.apply(ciphertext, [keys])  # type: ignore[misc]
        parts[f"{name}_undo"] = lambda process=process: process.undo(ciphertext, [keys])  # type: ignore[misc]
    return {name: size * size / 1e6 / seconds(work, device) for name, work in parts.items()}


def main() -> None:
    """Measure, print, write the record."""
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--device", choices=("cpu", "cuda"), default="cpu")
    args = parser.parse_args()
    started = time.monotonic()
    metrics = {"megapixels_per_s": {f"{size}x{size}": measure(size, args.device) for size in SIZES}}
    for size, rates in metrics["megapixels_per_s"].items():
        print(size, *(f"  {name:<22} {rate:10.2f} megapixels/s" for name, rate in rates.items()), sep="\n")
    name = f"bench-{args.device}"
    content = records.record(
        name,
        "bench",
        config="experiments/bench.py",
        dataset="uniform noise, one grey picture",
        seeds=[],
        metrics=metrics,
        wall_s=time.monotonic() - started,
        device=args.device,
    )
    records.write(RESULTS / f"{name}.json", content, force=True)
    print(f"record: {RESULTS / name}.json")


if __name__ == "__main__":
    main()
