"""How many files survive hits on the whole of them: `python -m tests.files.container.damage_trial [TRIALS]`.

Every byte of a file, its header and all else included, is replaced by a random one with the given probability. A file
survives if `--salvage` gives an array, and its metadata if they come out authentic. Prints a table for the docs.
"""

from __future__ import annotations

import io
import sys
from dataclasses import replace

import numpy as np

from encdl import api
from encdl.files.container import ContainerReader
from encdl.files.formats.base import array_of, document_of
from encdl.files.settings import Salvage
from encdl.keys.key import Key
from encdl.utils.errors import EncdlError

KEY = Key(bytes(range(32)))
RATES = (0.001, 0.005, 0.01, 0.02, 0.05)
SIDES = 96


def hit(data: bytes, rate: float, rng: np.random.Generator) -> bytes:
    damaged = np.frombuffer(data, np.uint8).copy()
    places = rng.random(len(data)) < rate
    damaged[places] = rng.integers(0, 256, int(places.sum()), dtype=np.uint8)
    return damaged.tobytes()


def survived(data: bytes) -> tuple[bool, bool]:
    """Whether the array can be restored, and whether the metadata are whole."""
    try:
        reader = ContainerReader(io.BytesIO(data), KEY, tolerant=True)
        array_of(api.load_codec("default", "cpu").decrypt(reader, Salvage(restore=False)))
    except EncdlError:
        return False, False
    genuine = not any("header" in problem or "table" in problem for problem in reader.problems)
    return genuine, genuine and reader.metadata is not None


def container(rest: int) -> bytes:
    """An image, with so many bytes beside its pixels."""
    rng, stream = np.random.default_rng(rest), io.BytesIO()
    document = document_of(rng.integers(0, 256, (SIDES, SIDES), dtype=np.uint8), None, "npy")
    api.load_codec("default", "cpu").encrypt(replace(document, rest=rng.bytes(rest)), KEY, stream)
    return stream.getvalue()


def trial(rest: int, rate: float, count: int) -> tuple[int, int]:
    """Of so many hit files, those whose array can be restored, and those whose metadata are whole."""
    data, rng = container(rest), np.random.default_rng(0)
    found = [survived(hit(data, rate, rng)) for _ in range(count)]
    return sum(array for array, _ in found), sum(metadata for _, metadata in found)


if __name__ == "__main__":
    trials = int(sys.argv[1]) if len(sys.argv) > 1 else 200
    for rest in (0, 4000):
        for rate in RATES:
            array, metadata = trial(rest, rate, trials)
            print(f"| {rest:,} | {100 * rate:g} % | {array} | {metadata} |", flush=True)
