from __future__ import annotations

import struct
import zlib
from pathlib import Path

import numpy as np
import pytest
from PIL import Image, PngImagePlugin

from encdl.files import formats, images
from encdl.utils import worker_process
from encdl.utils.errors import ImageFileError
from tests.files.formats.support import array_of, noise, refusal, restored, there_and_back

KINDS = [
    ((5, 7), "uint8"), ((1, 1), "uint8"), ((9, 1), "uint16"), ((5, 7), "uint16"), ((5, 7, 2), "uint8"),
    ((5, 7, 3), "uint8"), ((5, 7, 3), "uint16"), ((5, 7, 4), "uint8"), ((1, 1, 4), "uint16"),
]  # fmt: skip


def chunk(name: bytes, content: bytes) -> bytes:
    return struct.pack(">I", len(content)) + name + content + struct.pack(">I", zlib.crc32(name + content))


def chunks_of(data: bytes) -> list[tuple[bytes, bytes]]:
    found, place = [], 8
    while place < len(data):
        length, name = struct.unpack(">I4s", data[place : place + 8])
        found.append((name, data[place + 8 : place + 8 + length]))
        place += 12 + length
    return found


def with_chunks(path: Path) -> None:
    """Put chunks of all sorts around a PNG's pixels, private ones too."""
    data = path.read_bytes()
    before = (
        chunk(b"gAMA", struct.pack(">I", 45455))
        + chunk(b"pHYs", struct.pack(">IIB", 2835, 2835, 1))
        + chunk(b"iCCP", b"a profile\0\0" + zlib.compress(b"not a real one"))
        + chunk(b"prVt", b"\0\1\2")
    )
    after = chunk(b"tEXt", b"Patient\0Jane Doe") + chunk(b"eXIf", b"II*\0\x08\0\0\0\0\0\0\0\0\0")
    path.write_bytes(data[:33] + before + data[33:-12] + after + data[-12:])


@pytest.mark.parametrize(("shape", "dtype"), KINDS)
def test_pixels_and_all_other_chunks_of_a_png_come_back(tmp_path: Path, shape: tuple[int, ...], dtype: str) -> None:
    path, array = tmp_path / "a.png", noise(shape, dtype)
    images.write(path, array)
    with_chunks(path)
    document = formats.load(path)
    np.testing.assert_array_equal(array_of(document), array, strict=True)
    assert document.format == "png"
    assert not formats.is_whole(document)
    back = restored(path, document)
    others = [entry for entry in chunks_of(path.read_bytes()) if entry[0] != b"IDAT"]
    assert [entry for entry in chunks_of(back) if entry[0] != b"IDAT"] == others
    assert len(others) == 8
    np.testing.assert_array_equal(images.read(path.with_name("back-a.png")), array, strict=True)


def test_text_and_bytes_behind_the_end_of_a_png(tmp_path: Path) -> None:
    text = PngImagePlugin.PngInfo()
    text.add_text("Patient", "Jane Doe")
    text.add_itxt("Ünicode", "日本", zip=True)
    path = tmp_path / "a.png"
    Image.fromarray(noise((8, 8))).save(path, pnginfo=text, dpi=(300, 300))
    path.write_bytes(path.read_bytes() + b"trailer")
    back = restored(path, formats.load(path))
    assert back.endswith(b"trailer")
    with Image.open(path) as before, Image.open(tmp_path / "back-a.png") as after:
        assert (after.text, after.info["dpi"]) == (before.text, before.info["dpi"])


def test_pngs_that_are_kept_whole(tmp_path: Path) -> None:
    rgb = noise((6, 5, 3))
    path = tmp_path / "a.png"
    Image.fromarray(rgb).quantize(7).save(path)
    document = there_and_back(path, whole=True)
    np.testing.assert_array_equal(array_of(document), images.read(path))
    assert document.layout == "HWC"
    for mode in ("1", "LA", "RGBA"):
        keyed = Image.fromarray(rgb[..., 0]).convert(mode)
        keyed.save(path)
        there_and_back(path, whole=mode == "1")
    Image.fromarray(rgb).save(path, transparency=(1, 2, 3))
    assert there_and_back(path, whole=True).shape == (6, 5, 4)
    grey_and_alpha = struct.pack(">IIBBBBB", 2, 1, 16, 4, 0, 0, 0)
    pixels = zlib.compress(b"\0" + struct.pack(">HHHH", 513, 40000, 7, 65535))
    path.write_bytes(
        b"\x89PNG\r\n\x1a\n" + chunk(b"IHDR", grey_and_alpha) + chunk(b"IDAT", pixels) + chunk(b"IEND", b"")
    )
    assert array_of(there_and_back(path, whole=True)).tolist() == [[[513, 40000], [7, 65535]]]


def test_an_interlaced_png_is_kept_whole(tmp_path: Path) -> None:
    header = struct.pack(">IIBBBBB", 1, 1, 8, 0, 0, 0, 1)
    path = tmp_path / "a.png"
    path.write_bytes(
        b"\x89PNG\r\n\x1a\n" + chunk(b"IHDR", header) + chunk(b"IDAT", zlib.compress(b"\0\x2a")) + chunk(b"IEND", b"")
    )
    assert array_of(there_and_back(path, whole=True)).tolist() == [[42]]


@pytest.mark.parametrize(("name", "kind"), [("a.jpg", "jpeg"), ("a.bmp", "bmp"), ("grey.jpg", "jpeg")])
def test_jpeg_and_bmp_come_back_as_they_were(tmp_path: Path, name: str, kind: str) -> None:
    path = tmp_path / name
    Image.fromarray(noise((9, 7) if "grey" in name else (9, 7, 3))).save(path)
    document = there_and_back(path, whole=True)
    assert document.format == kind
    np.testing.assert_array_equal(array_of(document), images.read(path), strict=True)


def test_a_turned_jpeg_is_shown_upright_and_comes_back_turned(tmp_path: Path) -> None:
    path, exif = tmp_path / "a.jpg", Image.Exif()
    exif[0x0112] = 6
    Image.fromarray(noise((9, 7))).save(path, exif=exif)
    assert there_and_back(path, whole=True).shape == (7, 9)


def test_animated_images_are_refused(tmp_path: Path) -> None:
    frames = [Image.fromarray(noise((9, 9), seed=n)) for n in range(2)]
    frames[0].save(tmp_path / "a.png", save_all=True, append_images=frames[1:])
    assert "animated" in refusal(tmp_path / "a.png")


def test_a_png_bomb_is_refused(tmp_path: Path) -> None:
    header = struct.pack(">IIBBBBB", 100_000, 100_000, 8, 0, 0, 0, 0)
    path = tmp_path / "a.png"
    path.write_bytes(
        b"\x89PNG\r\n\x1a\n"
        + chunk(b"IHDR", header)
        + chunk(b"IDAT", zlib.compress(bytes(10**6)))
        + chunk(b"IEND", b"")
    )
    assert "more than 67,108,864 pixels" in refusal(path)


@pytest.mark.parametrize("name", ["a.png", "a.jpg", "a.bmp"])
def test_cut_and_damaged_files(tmp_path: Path, name: str) -> None:
    path = tmp_path / name
    Image.fromarray(noise((9, 11, 3))).save(path)
    data = path.read_bytes()
    for length in range(1, len(data) - 2, 31):
        path.write_bytes(data[:length])
        assert refusal(path), length
    random = np.random.default_rng(1)
    for _ in range(100):
        damaged = bytearray(data)
        damaged[int(random.integers(len(data)))] = int(random.integers(256))
        path.write_bytes(damaged)
        refusal(path)


def test_pixels_of_another_form_are_not_put_into_a_png(tmp_path: Path) -> None:
    images.write(tmp_path / "a.png", noise((5, 7)))
    images.write(tmp_path / "b.png", noise((5, 7), "uint16"))
    one, other = formats.load(tmp_path / "a.png"), formats.load(tmp_path / "b.png")
    mixed = formats.Document(other.shape, other.dtype, other.layout, "png", one.rest, other.slices)
    with pytest.raises(ImageFileError, match="does not fit its pixels"):
        formats.write(tmp_path / "c.png", mixed)
    assert not (tmp_path / "c.png").exists()


@pytest.mark.parametrize("ending", ["png", "jpg", "bmp", "tif"])
def test_a_decoder_that_crashes_is_told(tmp_path: Path, ending: str, monkeypatch: pytest.MonkeyPatch) -> None:
    path = tmp_path / f"a.{ending}"
    options = {"compression": "tiff_lzw"} if ending == "tif" else {}
    Image.fromarray(noise((40, 30))).save(path, **options)
    assert formats.load(path).shape == (40, 30)
    aborting = worker_process.array_from
    monkeypatch.setattr(worker_process, "array_from", lambda *_: aborting("os:abort", {}, 9.0, 0))
    assert "the decoder of its pixels came to no end (SIGABRT)" in refusal(path)
