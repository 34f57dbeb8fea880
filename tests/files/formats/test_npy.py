from __future__ import annotations

import io
from pathlib import Path

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from encdl.files import formats
from encdl.files.container.chunk_grid import DTYPES
from tests.files.formats.support import array_of, noise, refusal, there_and_back

SHAPES = st.lists(st.integers(1, 6), min_size=1, max_size=5).map(tuple)


@settings(max_examples=60, deadline=None)
@given(SHAPES, st.sampled_from((*DTYPES, "bool")), st.booleans(), st.booleans())
def test_every_array_comes_back(
    tmp_path_factory: pytest.TempPathFactory, shape: tuple[int, ...], dtype: str, big: bool, fortran: bool
) -> None:
    array = noise(shape, dtype)
    array = array.astype(array.dtype.newbyteorder(">"), copy=True) if big and dtype != "bool" else array
    path = tmp_path_factory.mktemp("any") / "a.npy"
    np.save(path, np.asfortranarray(array) if fortran else array)
    document = there_and_back(path)
    assert document.shape == shape
    assert document.format == "npy"
    little = np.frombuffer(array.astype(array.dtype.newbyteorder("<")).tobytes(), document.dtype)
    assert array_of(document).tobytes() == little.tobytes()


@pytest.mark.parametrize(
    ("shape", "layout"),
    [
        ((7,), "W"),
        ((7, 5), "HW"),
        ((7, 5, 3), "HWC"),
        ((7, 5, 9), "SHW"),
        ((7, 5, 9, 4), "SHWC"),
        ((7, 5, 9, 8), "TSHW"),
        ((2, 3, 4, 5, 6), "UTSHW"),
    ],
)
def test_layouts(tmp_path: Path, shape: tuple[int, ...], layout: str) -> None:
    np.save(tmp_path / "a.npy", noise(shape))
    document = there_and_back(tmp_path / "a.npy")
    assert (document.layout, document.shape) == (layout, shape)


def test_a_number_without_axes_and_bytes_behind_the_end(tmp_path: Path) -> None:
    path = tmp_path / "a.npy"
    np.save(path, np.float32(3.5))
    with path.open("ab") as stream:
        stream.write(b"a note")
    document = there_and_back(path)
    assert document.shape == (1,)
    assert array_of(document) == [np.float32(3.5)]


def test_odd_truth_values_and_signalling_nans_keep_their_bits(tmp_path: Path) -> None:
    path = tmp_path / "a.npy"
    np.save(path, np.zeros((2, 2), bool))
    path.write_bytes(path.read_bytes()[:-4] + b"\0\1\2\xff")
    assert array_of(there_and_back(path)).tolist() == [[0, 1], [2, 255]]
    signalling = np.full((3, 3), 0x7F800001, ">u4")
    np.save(path, signalling.view(">f4"))
    assert (array_of(there_and_back(path)).view("<u4") == 0x7F800001).all()


def pickled() -> bytes:
    stream = io.BytesIO()
    np.save(stream, np.array([{}, None], dtype=object), allow_pickle=True)
    return stream.getvalue()


def header(shape: str, descr: str = "'|u1'") -> bytes:
    text = f"{{'descr': {descr}, 'fortran_order': False, 'shape': {shape}, }}".ljust(117) + "\n"
    return b"\x93NUMPY\x01\x00" + len(text).to_bytes(2, "little") + text.encode()


BAD = {
    "objects": (pickled(), "Python objects"),
    "records": (header("(2,)", "[('a', '<i4')]") + bytes(8), "Python objects or records"),
    "dates": (header("(2, 2)", "'<M8[s]'") + bytes(32), "datetime64"),
    "long doubles": (header("(2, 2)", "'<f16'") + bytes(64), "float128|truncated"),
    "text": (header("(2, 2)", "'<U4'") + bytes(64), "str"),
    "huge": (header("(1000000, 1000000)") + bytes(9), "more than 67,108,864 pixels"),
    "huge volume": (header("(1000000, 1000, 1000)") + bytes(9), "more than 68,719,476,736 bytes"),
    "overflow": (header("(4294967296, 4294967296, 4)") + bytes(9), "more than"),
    "claim": (header("(4096, 4096)") + bytes(9), "pixels are missing"),
    "empty": (header("(0, 5)"), "no pixels"),
    "negative": (header("(-1, 5)") + bytes(9), "no pixels"),
    "deep": (header("(1,)*20") + b"\0", "truncated"),
    "nine axes": (header("(1, 1, 1, 1, 1, 1, 1, 1, 1, 9)") + bytes(9), "10 axes, more than eight: reshape"),
    "cut header": (header("(2, 2)")[:40], "truncated"),
    "version": (b"\x93NUMPY\x09\x00" + bytes(99), "truncated"),
}


@pytest.mark.parametrize("name", BAD)
def test_bad_files(tmp_path: Path, name: str) -> None:
    content, message = BAD[name]
    path = tmp_path / "a.npy"
    path.write_bytes(content)
    with pytest.raises(formats_error(), match=message):
        formats.load(path)
    assert refusal(path)


def formats_error() -> type[Exception]:
    from encdl.utils.errors import ImageFileError

    return ImageFileError


@pytest.mark.parametrize("version", [(1, 0), (2, 0), (3, 0)])
def test_versions_of_the_header(tmp_path: Path, version: tuple[int, int]) -> None:
    with (tmp_path / "a.npy").open("wb") as stream:
        np.lib.format.write_array(stream, noise((5, 6)), version=version)
    np.testing.assert_array_equal(array_of(there_and_back(tmp_path / "a.npy")), noise((5, 6)))


@pytest.mark.parametrize("fortran", [False, True])
def test_a_cut_file(tmp_path: Path, fortran: bool) -> None:
    np.save(tmp_path / "whole.npy", np.asfortranarray(noise((5, 6, 7))) if fortran else noise((5, 6, 7)))
    data = (tmp_path / "whole.npy").read_bytes()
    for length in range(1, len(data), 9):
        (tmp_path / "a.npy").write_bytes(data[:length])
        assert refusal(tmp_path / "a.npy")


def test_slices_that_do_not_fit(tmp_path: Path) -> None:
    for order in "CF":
        np.save(tmp_path / "a.npy", np.asarray(noise((3, 4, 5)), order=order))
        document = formats.load(tmp_path / "a.npy")
        kept = list(document.slices())
        for wrong in (kept[:2], [*kept, kept[0]], [kept[0][:2], *kept[1:]], [array[:, :2] for array in kept]):
            changed = formats.Document(
                document.shape, document.dtype, document.layout, "npy", document.rest, lambda w=wrong: iter(w)
            )
            with pytest.raises(formats_error(), match="does not fit its pixels"):
                formats.write(tmp_path / "b.npy", changed)
    assert [path.name for path in tmp_path.iterdir()] == ["a.npy"]
