"""A reader under homomorphic encryption, as a program for TenSEAL's environment: `python -I homomorphic.py < JOB`.

It imports nothing of EncDL. The client encrypts an image under CKKS; the host computes a convolution, squares, and a
linear layer on what is encrypted, and sends two encrypted logits back. Both run in this process: sizes and times
are the same as over a link.
"""

from __future__ import annotations

import io
import json
import os
import sys
import time
from typing import Any

DEGREE, CHAIN, SCALE = 8192, [31, 26, 26, 26, 26, 31], 2**26
"""Of CKKS: 128 bits of security (HomomorphicEncryption.org's standard, 218 bits at most at this degree)."""


def main() -> None:
    """Read a job, answer with logits, times and bytes."""
    answer = os.fdopen(os.dup(1), "wb")
    os.dup2(2, 1)
    import numpy as np  # noqa: PLC0415

    with np.load(io.BytesIO(sys.stdin.buffer.read()), allow_pickle=False) as archive:
        given = {name: archive[name] for name in archive.files}
    answer.write(json.dumps(_read(given)).encode())
    answer.flush()


def _read(given: dict[str, Any]) -> dict[str, Any]:
    import tenseal  # noqa: PLC0415

    context = tenseal.context(tenseal.SCHEME_TYPE.CKKS, DEGREE, coeff_mod_bit_sizes=CHAIN)
    context.global_scale = SCALE
    context.generate_galois_keys()
    side, stride = given["kernel"].shape[-1], int(given["stride"])
    logits, seconds, moved = [], [], []
    for image in given["images"]:
        started = time.perf_counter()
        sent, windows = tenseal.im2col_encoding(context, image.tolist(), side, side, stride)
        size = len(sent.serialize())
        features = tenseal.CKKSVector.pack_vectors(
            [
                sent.conv2d_im2col(kernel.tolist(), windows) + float(bias)
                for kernel, bias in zip(given["kernel"], given["bias"], strict=True)
            ]
        )
        features.square_()
        result = features.mm(given["linear"].tolist()) + given["offset"].tolist()
        moved.append(size + len(result.serialize()))
        logits.append(result.decrypt())
        seconds.append(time.perf_counter() - started)
    keys = len(context.serialize(save_secret_key=False))
    return {"logits": logits, "seconds": seconds, "bytes": moved, "key_bytes": keys}


if __name__ == "__main__":
    main()
