"""What the lengths of files tell of originals of one size, compressed and kept whole, or decoded."""

from __future__ import annotations

import hashlib
import io
import json
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from PIL import Image

from encdl.files import formats
from encdl.files.settings import Settings, Wrapping
from tests.files.container.golden import KEY, codec
from tests.files.container.slow_reader import SlowReader, padded
from tests.mni import mni_slice

COUNT, SIDE, BLACK = 63, 96, 3
MASTER = hashlib.sha256(b"golden key").digest()


def image(number: int) -> np.ndarray[Any, Any]:
    """Slices of a brain from bottom to top, after some that show nothing."""
    if number < BLACK:
        return np.zeros((SIDE, SIDE), np.uint8)
    return mni_slice(20 + 2 * number, SIDE, SIDE)[0, 0].numpy()


def encrypted(path: Path, wrap: Wrapping) -> bytes:
    stream = io.BytesIO()
    codec().encrypt(formats.load(path), KEY, stream, Settings(wrap=wrap))
    return stream.getvalue()


def padded_metadata(file: bytes) -> int:
    """What the specification pads a file's metadata to; the reader checks that they are so long."""
    slow = SlowReader(file, MASTER)
    return padded(4 + len(json.dumps(slow.metadata, separators=(",", ":"))) + len(slow.rest))


@pytest.mark.parametrize("wrap", ["none", "aes"])
def test_jpegs_have_the_lengths_that_padme_leaves(tmp_path: Path, wrap: Wrapping) -> None:
    originals, files = [], []
    for number in range(COUNT):
        path = tmp_path / f"{number}.jpg"
        Image.fromarray(image(number)).save(path, quality=90)
        originals.append(path.stat().st_size)
        files.append(encrypted(path, wrap))
    assert len(set(originals)) > 49
    assert len({len(file) for file in files}) <= 16
    lengths = {(padded_metadata(file), len(file)) for file in files[::6]}
    assert len(lengths) == len(dict(lengths)) == len({length for _, length in lengths}) > 3
    # Black ones show by being small, all of one length; one that is no smaller than a busy one is as long as that.
    assert len({len(file) for file in files[:BLACK]}) == 1
    path = tmp_path / "commented.jpg"
    Image.fromarray(image(0)).save(path, quality=90, comment=b"x" * (originals[-1] - originals[0] - 4))
    assert path.stat().st_size == originals[-1]
    assert len(encrypted(path, wrap)) == len(files[-1])


@pytest.mark.parametrize("wrap", ["none", "aes"])
@pytest.mark.parametrize("ending", ["png", "npy", "tif"])
def test_images_that_are_not_kept_whole_have_one_length(tmp_path: Path, wrap: Wrapping, ending: str) -> None:
    lengths = set()
    for number in range(0, COUNT, 6):
        path = tmp_path / f"{number}.{ending}"
        if ending == "npy":
            np.save(path, image(number))
        else:
            Image.fromarray(image(number)).save(path)
        assert not formats.is_whole(formats.load(path))
        lengths.add(len(encrypted(path, wrap)))
    assert len(lengths) == 1
