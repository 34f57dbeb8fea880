from __future__ import annotations

import shutil
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch

from encdl.data.split_digest import END_BYTES, WHOLE_BYTES, digest


def samples() -> list[dict[str, Any]]:
    noise = np.random.default_rng(0).integers(0, 256, (3, 1, 8, 8), dtype=np.uint8)
    return [{"image": image, "label": index} for index, image in enumerate(noise)]


def test_equal_content_has_an_equal_digest() -> None:
    assert digest(samples()) == digest(samples())
    assert len(digest(samples())) == 32
    tensors = [{**sample, "image": torch.from_numpy(sample["image"])} for sample in samples()]
    assert digest(tensors) == digest(samples())
    assert digest([]) != digest(samples())


@pytest.mark.parametrize("change", ["pixel", "label", "order", "shape", "type", "name", "missing"])
def test_every_change_shows(change: str) -> None:
    other = samples()
    match change:
        case "pixel":
            other[1]["image"][0, 3, 3] ^= 1
        case "label":
            other[1]["label"] += 1
        case "order":
            other.reverse()
        case "shape":
            other[0]["image"] = other[0]["image"].reshape(1, 4, 16)
        case "type":
            other[0]["image"] = other[0]["image"].astype(np.uint16)
        case "name":
            other[0]["mask"] = other[0].pop("image")
        case "missing":
            other.pop()
    assert digest(other) != digest(samples())


def test_files_count_by_name_and_content_and_not_by_folder(tmp_path: Path) -> None:
    small, large = tmp_path / "a.png", tmp_path / "b.nii.gz"
    small.write_bytes(b"x" * 100)
    large.write_bytes(bytes(WHOLE_BYTES + 1))
    listed: list[dict[str, Any]] = [{"image": small, "mask": str(large)}]
    first = digest(listed)
    moved = tmp_path / "elsewhere"
    moved.mkdir()
    for file in (small, large):
        shutil.copy(file, moved)
    assert digest([{"image": moved / "a.png", "mask": moved / "b.nii.gz"}]) == first
    for place in (0, WHOLE_BYTES - END_BYTES + 5):
        content = bytearray(WHOLE_BYTES + 1)
        content[place] = 1
        large.write_bytes(content)
        assert digest(listed) != first
    large.write_bytes(bytes(WHOLE_BYTES + 1))
    small.write_bytes(b"x" * 99 + b"y")
    assert digest(listed) != first
