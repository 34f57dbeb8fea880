from __future__ import annotations

from typing import Any

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from encdl.files.container.chunk_grid import (
    DTYPES,
    MAX_CHUNK_BYTES,
    MAX_CHUNK_PIXELS,
    MAX_SIDE,
    MAX_SLICE_BYTES,
    Grid,
    choose_tile,
    cut,
    is_layout,
    paste,
)
from encdl.files.formats import base
from encdl.files.formats.base import ArrayDigest


@settings(max_examples=100, deadline=None)
@given(st.sampled_from(DTYPES), st.integers(1, 9), st.integers(1, 9), st.integers(1, 4), st.data())
def test_chunks_cover_a_slice_bit_by_bit(
    dtype: str, height: int, width: int, channels: int, data: st.DataObject
) -> None:
    """Whatever the bits are: floats that are not numbers, negative zeros, the largest integers."""
    tile = data.draw(st.integers(1, height)), data.draw(st.integers(1, width))
    grid = Grid((2, height, width, channels), "SHWC", np.dtype(dtype).itemsize, tile)
    raw = data.draw(st.binary(min_size=grid.body_bytes // 2, max_size=grid.body_bytes // 2))
    array = np.frombuffer(raw, dtype).reshape(height, width, channels)
    back = np.empty_like(array)
    per_slice = grid.count // 2
    for index in range(per_slice):
        place = grid.place(per_slice + index)
        assert place.slice == 1
        planes = cut(array, place)
        assert planes.nbytes == np.prod(grid.form(per_slice + index))
        paste(back, place, planes)
    assert back.tobytes() == raw
    assert sum(int(np.prod(grid.form(index))) for index in range(grid.count)) == grid.body_bytes


def test_wider_values_are_low_bytes_then_high_bytes() -> None:
    grid = Grid((1, 1, 2), "HWC", 2, (1, 1))
    array = np.array([[[0x1234, -1]]], np.int16)
    assert cut(array, grid.place(0)).flatten().tolist() == [0x34, 0xFF, 0x12, 0xFF]


@settings(max_examples=300, deadline=None)
@given(st.data(), st.integers(1, 1024), st.sampled_from(DTYPES))
def test_tiles_keep_within_the_limits_and_are_not_needlessly_small(
    data: st.DataObject, channels: int, dtype: str
) -> None:
    planes = channels * np.dtype(dtype).itemsize
    width = data.draw(st.integers(1, min(MAX_SIDE, MAX_SLICE_BYTES // planes)))
    height = data.draw(st.integers(1, min(MAX_SIDE, MAX_SLICE_BYTES // planes // width)))
    rows, columns = choose_tile((height, width, channels), "HWC", dtype)
    limit = min(MAX_CHUNK_PIXELS, MAX_CHUNK_BYTES // planes)
    assert 1 <= rows <= height
    assert 1 <= columns <= width
    assert rows * columns <= limit
    assert (rows, columns) == (height, width) or rows * columns > limit / 4


@pytest.mark.parametrize(
    ("shape", "dtype", "tile"),
    [
        ((512, 512), "uint16", (512, 512)), ((1024, 1024), "uint8", (1024, 1024)),
        ((1024, 1024), "float32", (1024, 1024)), ((1024, 1024), "float64", (512, 1024)),
        ((2048, 2048), "uint8", (1024, 1024)), ((3, 2**26), "uint8", (3, 349525)),
        ((2**26, 1), "uint8", (2**20, 1)), ((1, 1), "complex128", (1, 1)),
    ],
)  # fmt: skip
def test_tiles(shape: tuple[int, int], dtype: str, tile: tuple[int, int]) -> None:
    assert choose_tile(shape, "HW", dtype) == tile


@pytest.mark.parametrize("layout", ["W", "WC", "HW", "HWC", "SHW", "SHWC", "TSHW", "TSHWC", "ZYXUTSHW"])
def test_layouts_that_are_taken(layout: str) -> None:
    assert is_layout(layout, (1,) * len(layout))
    assert not is_layout(layout, (1,) * (len(layout) + 1))


@pytest.mark.parametrize(
    "layout", ["", "C", "H", "HC", "WH", "CHW", "HSW", "SSHW", "HWCS", "hw", "AW", "SCHW", "HW ", None, 5]
)
def test_layouts_that_are_refused(layout: Any) -> None:
    assert not is_layout(layout, (1,) * (len(layout) if isinstance(layout, str) else 2))
    assert not is_layout("ZYXUVTSHW", (1,) * 9)


def test_files_hold_what_the_formats_read() -> None:
    for shape in ((5,), (5, 6), (5, 6, 3), (5, 6, 9), (4, 5, 6, 3), (2,) * 8):
        assert is_layout(base.layout_of(shape), shape)


def test_contents_are_told_apart() -> None:
    def digest(array: np.ndarray[Any, Any], layout: str = "HW", dtype: str | None = None) -> bytes:
        content = ArrayDigest(array.shape, layout, dtype or array.dtype.name)
        content.update(array)
        return content.digest()

    array = np.arange(12, dtype=np.uint8).reshape(3, 4)
    same = [digest(array), digest(np.asfortranarray(array))]
    wide = array.astype(np.uint16)
    assert digest(wide) == digest(wide.astype(">u2"))
    others = [
        digest(array.reshape(4, 3)),
        digest(wide),
        digest(array, "SW"),
        digest(array.view(np.int8)),
        digest(array + 1),
    ]
    assert len({*same, *others}) == 1 + len(others)
