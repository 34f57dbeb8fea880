"""Encrypts, reads and decrypts a volume on the CPU, and prints as one JSON object how much memory that took.

`python -m tests.commands.memory_trial FOLDER 600x512x512 [WEIGHTS]`, by default with the network that comes with EncDL.
"""

from __future__ import annotations

import hashlib
import json
import os
import resource
import sys
import time
from pathlib import Path

import numpy as np

from encdl.ciphers.weights import load as load_cipher
from encdl.cli import main
from tests.reader_checkpoint import save_reader, tiny_reader, unet

SLICE_SEED = 7


def make(path: Path, shape: tuple[int, ...]) -> str:
    """A volume of int16, slices first, written slice by slice; the digest of its file."""
    volume = np.lib.format.open_memmap(path, "w+", np.int16, shape)
    rng = np.random.default_rng(SLICE_SEED)
    for part in volume:
        part[:] = rng.integers(-1024, 3072, part.shape, dtype=np.int16)
    volume.flush()
    del volume
    return digest(path)


def digest(path: Path) -> str:
    with path.open("rb") as stream:
        return hashlib.file_digest(stream, "sha256").hexdigest()


def child(words: list[str]) -> dict[str, float]:
    """Run a verb in a process of its own: seconds, and peak resident memory in MiB."""
    started = time.perf_counter()
    pid = os.fork()
    if pid == 0:
        code = main(words)
        peak = resource.getrusage(resource.RUSAGE_SELF).ru_maxrss
        Path(words[1] + ".peak").write_text(str(peak))
        os._exit(code)
    _, status = os.waitpid(pid, 0)
    assert status == 0, words
    return {
        "seconds": round(time.perf_counter() - started, 1),
        "peak_mib": round(int(Path(words[1] + ".peak").read_text()) / 1024, 1),
    }


def trial(folder: Path, shape: tuple[int, ...], weights: str) -> dict[str, object]:
    source = folder / "volume.npy"
    pid = os.fork()  # what making the volume takes does not count
    if pid == 0:
        (folder / "digest").write_text(make(source, shape))
        os._exit(0)
    os.waitpid(pid, 0)
    key = str(folder / "k.key")
    main(["keygen", key])
    options = ["--key", key, "--device", "cpu"]
    encrypted = child(["encrypt", str(source), *options, "--weights", weights])
    source.unlink()
    reader = str(folder / "r.ckpt")
    pid = os.fork()
    if pid == 0:
        save_reader(reader, tiny_reader(unet), load_cipher(weights), size=shape[1:])
        os._exit(0)
    os.waitpid(pid, 0)
    words = ["--reader", reader, "-o", str(folder / "masks")]
    predicted = child(["predict", str(folder / "volume.encdl"), *options, *words])
    decrypted = child(["decrypt", str(folder / "volume.encdl"), *options, "--weights", weights])
    same = digest(source) == (folder / "digest").read_text()
    return {"shape": shape, "encrypt": encrypted, "decrypt": decrypted, "predict": predicted, "same": same}


if __name__ == "__main__":
    sizes = tuple(int(size) for size in sys.argv[2].split("x"))
    found = trial(Path(sys.argv[1]), sizes, *(sys.argv[3:] or ["default"]))
    print(json.dumps(found))
