from __future__ import annotations

import resource
import zlib
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import tifffile
from hypothesis import given, settings
from hypothesis import strategies as st
from PIL import Image

from encdl.files import images
from tests.files.formats.support import array_of, noise, refusal, there_and_back

DTYPES = ("uint8", "int8", "uint16", "int16", "uint32", "float16", "float32", "float64", "complex64")


@settings(max_examples=40, deadline=None)
@given(
    st.lists(st.integers(1, 6), min_size=2, max_size=4).map(tuple),
    st.sampled_from(DTYPES),
    st.sampled_from("<>"),
    st.booleans(),
    st.integers(1, 9),
)
def test_plain_files_come_back(
    tmp_path_factory: pytest.TempPathFactory, shape: tuple[int, ...], dtype: str, order: str, large: bool, rows: int
) -> None:
    path = tmp_path_factory.mktemp("any") / "a.tif"
    array = noise(shape, dtype)
    tifffile.imwrite(
        path, array, byteorder=order, bigtiff=large, photometric="minisblack", rowsperstrip=rows, metadata=None,
        planarconfig=None,
    )  # fmt: skip
    document = there_and_back(path)
    assert array_of(document).tobytes() == array.tobytes()


@pytest.mark.parametrize("planar", ["contig", "separate"])
@pytest.mark.parametrize("order", "<>")
@pytest.mark.parametrize("pages", [1, 3])
def test_colour(tmp_path: Path, pages: int, order: str, planar: Any) -> None:
    path, array = tmp_path / "a.tif", noise((pages, 9, 7, 3), "uint16")
    with tifffile.TiffWriter(path, byteorder=order) as file:
        for page in array:
            stored = page if planar == "contig" else np.moveaxis(page, -1, 0)
            file.write(stored, photometric="rgb", planarconfig=planar, metadata=None, contiguous=False)
    document = there_and_back(path)
    assert document.layout == ("HWC" if pages == 1 else "SHWC")
    np.testing.assert_array_equal(array_of(document).reshape(array.shape), array)


def test_imagej_and_ome_stacks(tmp_path: Path) -> None:
    path, array = tmp_path / "a.tif", noise((4, 9, 7), "uint16")
    tifffile.imwrite(path, array, imagej=True, resolution=(1.5, 1.5), metadata={"spacing": 3.0, "unit": "um"})
    document = there_and_back(path)
    assert (document.layout, document.shape) == ("SHW", (4, 9, 7))
    np.testing.assert_array_equal(array_of(document), array)
    tifffile.imwrite(path, array, ome=True, metadata={"axes": "ZYX", "PhysicalSizeX": 0.5})
    np.testing.assert_array_equal(array_of(there_and_back(path)), array)


def test_one_page_for_all_of_an_imagej_stack(tmp_path: Path) -> None:
    """ImageJ writes the tags of the first page alone where a stack would be too large for its kind of file."""
    path, array = tmp_path / "a.tif", noise((4, 9, 7), ">u2")
    tifffile.imwrite(path, array, imagej=True, truncate=True)
    with tifffile.TiffFile(path) as file:
        assert len(file.pages) == 1
    document = there_and_back(path)
    assert document.shape == (4, 9, 7)
    np.testing.assert_array_equal(array_of(document), array)


def test_thumbnails_and_notes_stay_in_the_rest(tmp_path: Path) -> None:
    path = tmp_path / "a.tif"
    with tifffile.TiffWriter(path) as file:
        for seed in (1, 2):
            file.write(noise((9, 7), seed=seed), description="Jane Doe", extratags=[(65000, "s", 0, "private", True)])
        file.write(noise((3, 2)), subfiletype=1)
    document = there_and_back(path)
    assert document.shape == (2, 9, 7)


@pytest.mark.parametrize("pages", [1, 3])
def test_compressed_files_are_kept_whole(tmp_path: Path, pages: int) -> None:
    path, array = tmp_path / "a.tif", noise((pages, 9, 7), "uint16")
    with tifffile.TiffWriter(path) as file:
        for page in array:
            file.write(page, compression="zlib", photometric="minisblack", metadata=None, contiguous=False)
    document = there_and_back(path, whole=True)
    np.testing.assert_array_equal(array_of(document).reshape(array.shape), array)


@pytest.mark.parametrize("compression", ["tiff_lzw", "jpeg", "packbits"])
def test_what_tifffile_leaves_to_others_is_decoded_too(tmp_path: Path, compression: str) -> None:
    path = tmp_path / "a.tif"
    frames = [Image.fromarray(noise((16, 16), seed=seed)) for seed in range(3)]
    frames[0].save(path, save_all=True, append_images=frames[1:], compression=compression)
    document = there_and_back(path, whole=True)
    assert document.shape == (3, 16, 16)
    with Image.open(path) as image:
        for number, array in enumerate(document.slices()):
            image.seek(number)
            np.testing.assert_array_equal(array, np.asarray(image))


def test_tiles_palettes_bits_and_white_as_zero(tmp_path: Path) -> None:
    path = tmp_path / "a.tif"
    tifffile.imwrite(path, noise((40, 40)), tile=(16, 16), photometric="minisblack")
    np.testing.assert_array_equal(array_of(there_and_back(path, whole=True)), noise((40, 40)))
    tifffile.imwrite(path, noise((4, 4)), photometric="miniswhite")
    np.testing.assert_array_equal(array_of(there_and_back(path, whole=True)), 255 - noise((4, 4)))
    for image in (Image.fromarray(noise((8, 8)) > 99), Image.fromarray(noise((8, 8, 3))).quantize(5)):
        image.save(path)
        np.testing.assert_array_equal(array_of(there_and_back(path, whole=True)), images.read(path))


def test_a_deflate_bomb_is_not_inflated_into_memory(tmp_path: Path) -> None:
    path = tmp_path / "a.tif"
    tifffile.imwrite(path, noise((64, 64)), compression="zlib", photometric="minisblack", metadata=None)
    with tifffile.TiffFile(path) as file:
        page = file.pages[0]
        counts, offsets = page.tags["StripByteCounts"], page.tags["StripOffsets"]
        places = [(tag.valueoffset, tag.dtype) for tag in (counts, offsets)]
    bomb = zlib.compressobj(9)
    packed = b"".join(bomb.compress(bytes(2**20)) for _ in range(200)) + bomb.flush()
    data = bytearray(path.read_bytes())
    for (place, kind), value in zip(places, (len(packed), len(data)), strict=True):
        size = {3: 2, 4: 4}[int(kind)]
        data[place : place + size] = value.to_bytes(4, "little")[:size]
    path.write_bytes(bytes(data) + packed)
    before = resource.getrusage(resource.RUSAGE_SELF).ru_maxrss
    refusal(path)
    assert resource.getrusage(resource.RUSAGE_SELF).ru_maxrss - before < 2**16  # kB


def test_kinds_that_are_not_read(tmp_path: Path) -> None:
    path = tmp_path / "a.tif"
    tifffile.imwrite(path, noise((4, 4, 4)), photometric="separated")
    assert "SEPARATED" in refusal(path)
    tifffile.imwrite(path, noise((3, 20, 20, 20)), volumetric=True, tile=(16, 16, 16), photometric="minisblack")
    assert "a volume of 20 slices" in refusal(path)


@pytest.mark.parametrize("compression", [None, "zlib"])
def test_cut_and_damaged_files(tmp_path: Path, compression: Any) -> None:
    path = tmp_path / "whole.tif"
    tifffile.imwrite(path, noise((3, 9, 11), "uint16"), compression=compression, photometric="minisblack")
    data, path = path.read_bytes(), tmp_path / "a.tif"
    for length in range(1, len(data), 31):
        path.write_bytes(data[:length])
        assert refusal(path) or length > len(data) - 9, length
    random = np.random.default_rng(1)
    for _ in range(100):
        damaged = bytearray(data)
        damaged[int(random.integers(300))] = int(random.integers(256))
        path.write_bytes(damaged)
        refusal(path)
