from __future__ import annotations

import io
import os
import struct
import zlib
from pathlib import Path

import numpy as np
import pytest
import tifffile
from hypothesis import given, settings
from hypothesis import strategies as st
from PIL import Image

from encdl.files import images
from encdl.utils.errors import ImageFileError, OutputExistsError

SHAPES = [(1, 1), (1, 9), (9, 1), (5, 7), (5, 7, 1), (5, 7, 2), (5, 7, 3), (1, 1, 3), (9, 1, 4), (4, 4, 4), (5, 7, 6)]


def noise(shape: tuple[int, ...], dtype: str = "uint8", seed: int = 0) -> images.Array:
    info = np.iinfo(dtype)
    return np.random.default_rng(seed).integers(info.min, info.max, shape, dtype=dtype, endpoint=True)


def png_holds(shape: tuple[int, ...], dtype: str) -> bool:
    channels = shape[2] if len(shape) == 3 else 1
    return (channels in (1, 3, 4) and dtype != "int16") or (channels, dtype) == (2, "uint8")


@pytest.mark.parametrize("dtype", images.DTYPES)
@pytest.mark.parametrize("shape", SHAPES, ids=str)
@pytest.mark.parametrize("suffix", [".png", ".tif", ".tiff", ".npy"])
def test_every_bit_survives(tmp_path: Path, suffix: str, shape: tuple[int, ...], dtype: str) -> None:
    array, path = noise(shape, dtype), tmp_path / f"a{suffix}"
    if suffix == ".png" and not png_holds(shape, dtype):
        with pytest.raises(ImageFileError, match=r"PNG cannot hold .* \.tiff or \.npy"):
            images.write(path, array)
        assert not path.exists()
        return
    images.write(path, array)
    again, kind = images.read_with_format(path)
    expected = array[..., 0] if shape[2:] == (1,) and suffix != ".npy" else array
    np.testing.assert_array_equal(again, expected, strict=True)
    assert kind == images.SUFFIXES[suffix]
    assert again.flags.c_contiguous


@settings(max_examples=40, deadline=None)
@given(st.sampled_from(images.DTYPES), st.integers(1, 12), st.integers(1, 12), st.integers(0, 5), st.booleans())
def test_every_array_survives_npy_and_tiff(
    tmp_path_factory: pytest.TempPathFactory, dtype: str, height: int, width: int, channels: int, big: bool
) -> None:
    folder = tmp_path_factory.mktemp("any")
    array = noise((height, width) if channels == 0 else (height, width, channels), dtype)
    for suffix in (".npy", ".tiff"):
        images.write(folder / f"a{suffix}", array.astype(array.dtype.newbyteorder(">" if big else "<")))
        again = images.read(folder / f"a{suffix}")
        np.testing.assert_array_equal(again.reshape(array.shape), array, strict=True)


def test_palette_bilevel_and_keyed_png(tmp_path: Path) -> None:
    rgb = np.zeros((2, 2, 3), np.uint8)
    rgb[0, 0], rgb[1, 1] = (255, 0, 0), (0, 0, 255)
    Image.fromarray(rgb).quantize(4).save(tmp_path / "p.png")
    np.testing.assert_array_equal(images.read(tmp_path / "p.png"), rgb, strict=True)
    Image.fromarray(rgb[..., 0] > 0).save(tmp_path / "b.png")
    np.testing.assert_array_equal(images.read(tmp_path / "b.png"), rgb[..., 0], strict=True)
    Image.fromarray(rgb).save(tmp_path / "k.png", transparency=(255, 0, 0))
    keyed = images.read(tmp_path / "k.png")
    assert keyed.shape == (2, 2, 4)
    assert keyed[0, 0, 3] == 0
    assert keyed[1, 1, 3] == 255


def chunk(name: bytes, content: bytes) -> bytes:
    return struct.pack(">I", len(content)) + name + content + struct.pack(">I", zlib.crc32(name + content))


def png(width: int, height: int, depth: int, colour: int, pixels: bytes) -> bytes:
    header = struct.pack(">IIBBBBB", width, height, depth, colour, 0, 0, 0)
    return b"\x89PNG\r\n\x1a\n" + chunk(b"IHDR", header) + chunk(b"IDAT", zlib.compress(pixels)) + chunk(b"IEND", b"")


def test_16_bit_grey_with_alpha_goes_on_as_tiff(tmp_path: Path) -> None:
    path = tmp_path / "la.png"
    path.write_bytes(png(2, 1, 16, 4, b"\0" + struct.pack(">HHHH", 513, 40000, 7, 65535)))
    array, kind = images.read_with_format(path)
    np.testing.assert_array_equal(array, np.array([[[513, 40000], [7, 65535]]], np.uint16), strict=True)
    assert kind == "tiff"


@pytest.mark.parametrize(
    "options",
    [
        {"photometric": "rgb", "compression": "zlib", "rowsperstrip": 3},
        {"photometric": "rgb", "tile": (16, 16), "byteorder": ">"},
        {"photometric": "rgb", "bigtiff": True},
    ],
)
def test_tiffs_of_other_programs(tmp_path: Path, options: dict[str, object]) -> None:
    array = noise((20, 21, 3), "uint16")
    tifffile.imwrite(tmp_path / "a.tif", array, **options)
    np.testing.assert_array_equal(images.read(tmp_path / "a.tif"), array, strict=True)


def test_tiff_planes_white_as_zero_palette_and_lzw(tmp_path: Path) -> None:
    path = tmp_path / "a.tif"
    array = noise((6, 5, 3))
    tifffile.imwrite(path, np.moveaxis(array, -1, 0), planarconfig="separate", photometric="rgb")
    np.testing.assert_array_equal(images.read(path), array, strict=True)
    tifffile.imwrite(path, array[..., 0], photometric="miniswhite")
    np.testing.assert_array_equal(images.read(path), 255 - array[..., 0], strict=True)
    Image.fromarray(array).quantize(9).save(path)
    np.testing.assert_array_equal(images.read(path), np.asarray(Image.open(path).convert("RGB")), strict=True)
    Image.fromarray(array).save(path, compression="tiff_lzw")
    np.testing.assert_array_equal(images.read(path), array, strict=True)


@pytest.mark.parametrize("suffix", [".jpg", ".bmp"])
def test_jpeg_and_bmp_become_png(tmp_path: Path, suffix: str) -> None:
    path = tmp_path / f"a{suffix}"
    Image.fromarray(np.full((4, 6, 3), 200, np.uint8)).save(path)
    array, kind = images.read_with_format(path)
    assert (array.shape, array.dtype, kind) == ((4, 6, 3), np.uint8, "png")


def test_the_content_tells_the_kind(tmp_path: Path) -> None:
    images.write(tmp_path / "a.npy", noise((3, 4)))
    (tmp_path / "scan.png").write_bytes((tmp_path / "a.npy").read_bytes())
    assert images.read_with_format(tmp_path / "scan.png")[1] == "npy"


def encoded(kind: str, folder: Path) -> bytes:
    path = folder / f"whole.{kind}"
    if kind in ("jpg", "bmp"):
        Image.fromarray(noise((9, 11, 3))).save(path)
    else:
        images.write(path, noise((9, 11, 3), "uint16"))
    return path.read_bytes()


@pytest.mark.parametrize("kind", ["png", "tiff", "npy", "jpg", "bmp"])
def test_a_cut_file_is_told(tmp_path: Path, kind: str, capfd: pytest.CaptureFixture[str]) -> None:
    data = encoded(kind, tmp_path)
    whole, path = images.read(tmp_path / f"whole.{kind}"), tmp_path / f"cut.{kind}"
    for length in [*range(0, len(data), 7), len(data) - 1]:
        path.write_bytes(data[:length])
        try:
            np.testing.assert_array_equal(images.read(path), whole)
            assert length >= len(data) - 2, "pixels out of nowhere"
        except ImageFileError as error:
            assert_one_line(error, path)
    assert capfd.readouterr().err == "", "a decoder chatters"


@pytest.mark.parametrize("kind", ["png", "tiff", "npy"])
def test_damage_never_escapes_as_another_error(tmp_path: Path, kind: str) -> None:
    data, path = encoded(kind, tmp_path), tmp_path / f"bad.{kind}"
    random = np.random.default_rng(1)
    for _ in range(150):
        damaged = bytearray(data)
        damaged[int(random.integers(min(len(data), 300)))] = int(random.integers(256))
        path.write_bytes(damaged)
        try:
            images.read(path)
        except ImageFileError as error:
            assert_one_line(error, path)


def assert_one_line(error: Exception, path: Path) -> None:
    text = str(error)
    assert text.startswith(f"{path}: ")
    assert "\n" not in text
    assert " at 0x" not in text


def npy(array: object) -> bytes:
    stream = io.BytesIO()
    np.save(stream, array, allow_pickle=True)
    return stream.getvalue()


def npz() -> bytes:
    stream = io.BytesIO()
    np.savez(stream, a=np.zeros(3), b=np.zeros(3))
    return stream.getvalue()


HUGE_NPY = npy(np.zeros((9, 9), np.uint8)).replace(b"(9, 9), }  ", b"(99999, 9999999), }  ")

BAD_FILES = {
    "empty.png": (b"", "is empty"),
    "text.png": (b"hello", "does not start like its ending"),
    "text.xyz": (b"hello", "not an image of a known kind"),
    "scan.dcm": (b"\0" * 128 + b"DICM", "DICOM"),
    "scan.nii.gz": (b"\x1f\x8b" + b"\0" * 99, "NIfTI"),
    "scan.encdl": (b"\x89ENCDL\r\n1234", "encrypted by EncDL already"),
    "float.npy": (npy(np.zeros((3, 3))), "float64 values: convert"),
    "nan.npy": (npy(np.full((3, 3), np.nan, np.float32)), "not-a-number values, float32"),
    "bool.npy": (npy(np.zeros((3, 3), bool)), "bool values"),
    "int64.npy": (npy(np.zeros((3, 3), np.int64)), "int64 values"),
    "complex.npy": (npy(np.zeros((3, 3), complex)), "complex128 values"),
    "object.npy": (npy(np.array([{}, None], dtype=object)), "truncated or damaged"),
    "flat.npy": (npy(np.zeros(9, np.uint8)), r"shape \(9,\)"),
    "deep.npy": (npy(np.zeros((1, 2, 3, 4), np.uint8)), "shape"),
    "none.npy": (npy(np.zeros((0, 5), np.uint8)), "no pixels"),
    "many.npy": (npy(np.zeros((1, 1, 2000), np.uint8)), "2000 channels"),
    "huge.npy": (HUGE_NPY, "truncated|memory"),
    "arrays.npz": (npz(), "several arrays"),
    "bomb.png": (png(100_000, 100_000, 8, 0, b""), "more than 67,108,864 pixels"),
    "short.png": (png(10, 10, 8, 0, b"\0" * 30), "truncated"),
}


@pytest.mark.parametrize("name", BAD_FILES)
def test_bad_files(tmp_path: Path, name: str) -> None:
    content, message = BAD_FILES[name]
    path = tmp_path / name
    path.write_bytes(content)
    with pytest.raises(ImageFileError, match=message) as caught:
        images.read(path)
    assert_one_line(caught.value, path)


def test_several_images_in_one_file(tmp_path: Path) -> None:
    tifffile.imwrite(tmp_path / "a.tif", noise((4, 20, 20)), photometric="minisblack")
    with pytest.raises(ImageFileError, match="4 pages"):
        images.read(tmp_path / "a.tif")
    frames = [Image.fromarray(noise((9, 9), seed=n)) for n in range(2)]
    frames[0].save(tmp_path / "a.png", save_all=True, append_images=frames[1:])
    with pytest.raises(ImageFileError, match="animated"):
        images.read(tmp_path / "a.png")


def test_tiff_kinds_that_are_not_read(tmp_path: Path) -> None:
    path = tmp_path / "a.tif"
    tifffile.imwrite(path, np.zeros((4, 4), np.float32))
    with pytest.raises(ImageFileError, match="float32"):
        images.read(path)
    tifffile.imwrite(path, noise((4, 4, 4)), photometric="separated")
    with pytest.raises(ImageFileError, match="SEPARATED"):
        images.read(path)
    Image.fromarray(noise((9, 9, 4)), mode="CMYK").save(tmp_path / "a.jpg")
    with pytest.raises(ImageFileError, match="CMYK"):
        images.read(tmp_path / "a.jpg")


def test_names_that_cannot_be_read(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    with pytest.raises(ImageFileError, match="no such file"):
        images.read(tmp_path / "no.png")
    with pytest.raises(ImageFileError, match="is a folder"):
        images.read(tmp_path)
    with pytest.raises(ImageFileError, match="no regular file"):
        images.read("/dev/zero")
    (tmp_path / "a.png").write_bytes(b"x")

    def denied(path: Path, flags: int) -> int:
        raise PermissionError(13, "Permission denied", str(path))

    monkeypatch.setattr(os, "open", denied)
    with pytest.raises(ImageFileError, match="Permission denied"):
        images.read(tmp_path / "a.png")


def test_names_that_cannot_be_written(tmp_path: Path) -> None:
    array = noise((3, 3))
    for name in ("a.xyz", "a", "a.jpg"):
        with pytest.raises(ImageFileError, match=r"use \.png, \.tif, \.tiff, \.npy"):
            images.write(tmp_path / name, array)
    with pytest.raises(ImageFileError, match="float64"):
        images.write(tmp_path / "a.png", array / 2)
    images.write(tmp_path / "a.png", array)
    with pytest.raises(OutputExistsError):
        images.write(tmp_path / "a.png", array)
    images.write(tmp_path / "a.png", 255 - array, force=True)
    np.testing.assert_array_equal(images.read(tmp_path / "a.png"), 255 - array)
    assert [path.name for path in tmp_path.iterdir()] == ["a.png"]
