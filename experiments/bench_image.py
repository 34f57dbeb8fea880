"""Times the encryption of one 8-bit image of 512x512 in memory, keystream included: prints milliseconds as JSON.

`PYTHONPATH=CHECKOUT python experiments/bench_image.py` times another version of EncDL, from 0.1 on, in the same way.
"""

from __future__ import annotations

import json
import time
from collections.abc import Callable

import numpy as np
import torch

from encdl.keys.key import Key

try:
    from encdl.ciphers import postprocess, weights
    from encdl.files.chunk_cipher import ChunkCipher
    from encdl.files.settings import Settings
except ImportError:  # version 0.1
    from encdl.chunk_cipher import ChunkCipher
    from encdl.codec import Settings

    from encdl import postprocess, weights

SIDE = 512
ROUNDS = 40


def fastest_ms(work: Callable[[], object]) -> float:
    """Milliseconds of the fastest of some calls: others' work only ever adds to it."""
    times = []
    for _ in range(ROUNDS + 1):
        started = time.perf_counter()
        work()
        times.append(time.perf_counter() - started)
    return 1000 * min(times[1:])


def main() -> None:
    """Measure with the defaults: cipher, sequence, post-processing."""
    settings = Settings()
    cipher = weights.load("default").cipher
    work = ChunkCipher(cipher, torch.device("cpu"), settings.planes, postprocess.create(settings.postprocess))
    image = np.random.default_rng(0).integers(0, 256, (1, SIDE, SIDE), dtype=np.uint8)
    keys = Key.generate().image_keys(bytes(range(16)), "")
    ciphertext = work.encrypt([image], [keys])[0]
    found = {
        "encrypt_ms": fastest_ms(lambda: work.encrypt([image], [keys])),
        "decrypt_ms": fastest_ms(lambda: work.decrypt([ciphertext], [keys])),
    }
    print(json.dumps(found))


if __name__ == "__main__":
    main()
