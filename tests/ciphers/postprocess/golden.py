"""Digests of post-processed images. `python -m tests.ciphers.postprocess.golden` writes them anew."""

from __future__ import annotations

import hashlib
import json
from pathlib import Path

import torch

from encdl.ciphers.postprocess import NAMES, create
from tests.ciphers.postprocess.support import image_keys

GOLDEN = Path(__file__).parents[2] / "golden" / "postprocess.json"
SHAPES = [(1, 1, 1), (1, 1, 9), (1, 9, 1), (3, 7, 5), (1, 64, 64)]


def digests() -> dict[str, str]:
    """SHA-256 of the ciphertext of a ramp, by post-processing and shape."""
    result = {}
    for name in NAMES:
        for shape in SHAPES:
            ramp = torch.arange(2 * shape[0] * shape[1] * shape[2]).to(torch.uint8).view(2, *shape)
            ciphertext = create(name).apply(ramp, image_keys(2))
            text = "x".join(str(size) for size in shape)
            result[f"{name} {text}"] = hashlib.sha256(ciphertext.numpy().tobytes()).hexdigest()
    return result


if __name__ == "__main__":
    GOLDEN.write_text(json.dumps(digests(), indent=1) + "\n")
