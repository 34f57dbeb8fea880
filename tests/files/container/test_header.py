from __future__ import annotations

import io
import struct
from typing import Any

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from encdl.files.container import ContainerReader, Header
from encdl.files.container.chunk_grid import DTYPES
from encdl.files.container.header import PREFIX, located
from encdl.files.container.metadata import Metadata
from encdl.files.container.sections import MAX_SECTION_BYTES
from encdl.utils.canonical_json import encoded
from encdl.utils.errors import ContainerError
from tests.files.container.support import KEY, METADATA, header, make, resign


def refused(data: bytes, match: str) -> None:
    """Refused in one short line that starts with the file's name, whether tolerant or not."""
    for tolerant in (False, True):
        with pytest.raises(ContainerError, match=match) as caught:
            ContainerReader(io.BytesIO(data), KEY, "a.encdl", tolerant=tolerant)
        assert str(caught.value).startswith("a.encdl: ")
        assert "\n" not in str(caught.value)
        assert len(str(caught.value)) < 250


@settings(max_examples=50, deadline=None)
@given(
    st.sampled_from(DTYPES),
    st.lists(st.integers(1, 5), min_size=1, max_size=5),
    st.booleans(),
    st.text(max_size=60),
    st.binary(min_size=16, max_size=16),
)
def test_every_valid_header_survives(dtype: str, shape: list[int], colour: bool, study: str, nonce: bytes) -> None:
    layout = "ZTSHW"[-len(shape) :]
    if colour and len(shape) > 1:
        layout = "TSHW"[-len(shape) + 1 :] + "C"
    try:
        made = header(dtype=dtype, shape=tuple(shape), layout=layout, study=study, nonce=nonce.hex(), tile=(1, 1))
    except ContainerError as error:
        if "'study'" not in str(error):  # control characters, or not in normal form
            raise
        return
    assert Header.from_bytes(made.to_bytes()[PREFIX.size :]) == made
    assert made.grid.body_bytes == int(np.prod(shape)) * np.dtype(dtype).itemsize


@settings(max_examples=200, deadline=None)
@given(st.binary(max_size=200) | st.text(max_size=200).map(str.encode))
def test_any_bytes_as_header_are_refused(encoded: bytes) -> None:
    with pytest.raises(ContainerError):
        Header.from_bytes(encoded)


WRONG_FIELDS: list[tuple[str, Any]] = [
    ("cipher", ""), ("cipher", "Agile"), ("cipher", "../x"), ("cipher", 3), ("cipher", None), ("cipher", "a" * 65),
    ("weights", "0123"), ("weights", "0123456789ABCDEF"), ("weights", 0),
    ("shape", []), ("shape", [3, 4, 5, 1]), ("shape", [2]), ("shape", [0, 4, 5]), ("shape", [-3, -4, 5]),
    ("shape", [3, 4, 5.0]), ("shape", [True, 4, 5]), ("shape", "345"), ("shape", {"0": 2}), ("shape", [[3], 4, 5]),
    ("shape", [2**62, 2**62, 2**62]), ("shape", [2**40, 4, 5]), ("shape", [1, 2**27, 1]), ("shape", [1, 2**20, 2**20]),
    ("shape", [2**32, 2**10, 2**10]), ("shape", [10**400, 4, 5]),
    ("dtype", "bool"), ("dtype", "object"), ("dtype", "float128"), ("dtype", ["uint8"]), ("dtype", "<u2"),
    ("layout", "CHW"), ("layout", "HW"), ("layout", "SSW"), ("layout", "SWH"), ("layout", "HSW"), ("layout", "shw"),
    ("layout", 3), ("layout", ["S", "H", "W"]), ("layout", "SHWC"), ("layout", "S\nW"),
    ("nonce", ""), ("nonce", "00"), ("nonce", "zz" * 16), ("postprocess", "No ne"), ("postprocess", []),
    ("planes", {}), ("planes", []), ("planes", None), ("planes", {"map": "logistic"}),
    ("planes", {"expansion": "full", "map": "nothing", "period": 0, "planes": 8}),
    ("planes", {"expansion": "full", "map": "logistic", "period": 0, "planes": 10**9}),
    ("study", None), ("study", "a\nb"), ("study", "x" * 257), ("study", "e\u0301"), ("key_id", "1"), ("key_id", None),
    ("tile", [0, 5]), ("tile", [5, 5]), ("tile", [3, 6]), ("tile", [3]), ("tile", [3, 5, 1]), ("tile", "35"),
    ("tile", [3, 5.0]), ("tile", None), ("tile", [-3, -5]), ("tile", {}),
]  # fmt: skip


@pytest.mark.parametrize(("name", "value"), WRONG_FIELDS, ids=lambda value: str(value)[:40])
def test_wrong_fields_are_refused_even_when_signed(name: str, value: Any) -> None:
    refused(resign(make(), lambda values: values | {name: value}), r"header's field '\w+' is not valid|JSON")


def test_a_chunk_larger_than_the_limit_is_refused() -> None:
    with pytest.raises(ContainerError, match="tile"):
        header(shape=(1, 4096, 4096), tile=(4096, 1024))
    header(shape=(1, 4096, 4096), tile=(2048, 1024))
    with pytest.raises(ContainerError, match="bytes a slice"):
        header(shape=(1, 2**15, 2**15 + 1), dtype="uint8", tile=(1, 1))


def test_unknown_missing_and_oddly_written_fields_are_refused() -> None:
    data = make()
    good = header().to_bytes()[PREFIX.size :]
    changes: list[tuple[Any, str]] = [
        (lambda values: values | {"extra": 1}, "unknown field 'extra'"),
        (lambda values: values | {"version": 2}, "unknown field 'version'"),
        (lambda values: {k: v for k, v in values.items() if k != "nonce"}, "'nonce' is missing"),
        (lambda _: [1, 2], "not canonical JSON"),
        (lambda _: good.replace(b'":', b'": '), "not canonical JSON"),
        (lambda _: good[:-1] + b',"study":""}', "not canonical JSON"),
        (lambda _: good.replace(b'"shape":[3', b'"shape":[3.0'), "not valid"),
        (lambda _: good.replace(b'"shape":[3', b'"shape":[NaN'), "not canonical JSON"),
        (lambda _: good.replace(b'"shape":[3', b'"shape":[' + b"9" * 5000), "not canonical JSON"),
        (lambda _: b"[" * 60_000, "not canonical JSON"),
        (lambda _: b"\xff" + good, "not canonical JSON"),
        (lambda _: b'{"\\ud800":1}', "not canonical JSON"),
    ]
    for change, message in changes:
        refused(resign(data, change), message)


def test_an_oversized_header_is_refused_before_it_is_read() -> None:
    data = make()
    for length in (0, 2**16 + 1, 2**32 - 1):
        prefix = data[:10] + struct.pack("<I", length)
        refused(prefix + located(prefix, 900) + data[36:], "header is damaged")
    large = header()
    object.__setattr__(large, "study", "x" * 70_000)  # no field that passes the checks gets so long
    with pytest.raises(ContainerError, match="more than 65,536"):
        large.to_bytes()


def test_headers_and_metadata_show_no_metadata() -> None:
    texts = [repr(header()), repr(METADATA), str(Metadata("dicom", "", "", b"PatientName=Doe"))]
    assert not any("Doe" in text or "abab" in text for text in texts)
    assert b"Doe" not in make()


@pytest.mark.parametrize(
    "plain",
    [
        b"", b"\0\0\0", b"\xff\xff\xff\xff", b"\x02\0\0\0{}", b"\x01\0\0\0[", struct.pack("<I", 17000) + b" " * 17000,
        b"\x30\0\0\0" + b'{"content":"","format":"png","suffix":"/../../x"}'[:48],
    ],
)  # fmt: skip
def test_sealed_nonsense_is_refused(plain: bytes) -> None:
    """As a holder of the key might seal it, with another program."""
    data = resign(make(), lambda values: values, metadata=plain)
    with pytest.raises(ContainerError, match="metadata"):
        ContainerReader(io.BytesIO(data), KEY)
    assert ContainerReader(io.BytesIO(data), KEY, tolerant=True).metadata is None


@pytest.mark.parametrize(
    ("field", "value"),
    [
        ("suffix", "/../x"), ("suffix", "x"), ("suffix", ".a/b"), ("suffix", "." + "x" * 17), ("suffix", ".a.b.c"),
        ("suffix", 3), ("suffix", ".\n"), ("format", ""), ("format", "../x"), ("format", None), ("content", "ab"),
        ("content", 7), ("mark", ""), ("identity", "a\n"), ("identity", "x" * 1025), ("identity", 3),
    ],
)  # fmt: skip
def test_metadata_that_are_refused(field: str, value: Any) -> None:
    fields: dict[str, Any] = {"format": "png", "suffix": ".png", "content": "", field: value}
    with pytest.raises(ContainerError, match=f"metadata's field '{field}'"):
        Metadata(**fields)


def test_the_length_of_metadata_tells_little() -> None:
    lengths = {size: len(Metadata("png", ".png", "0" * 64, bytes(size)).to_bytes()) for size in range(20_000)}
    assert len(set(lengths.values())) < 200
    assert len({lengths[size] for size in range(100)}) == 1
    assert all(lengths[size] <= max(1.12 * (size + 200), 384) for size in lengths)
    assert lengths[19_999] == 20_480


@pytest.mark.parametrize("rest", [-1, 10**6, True, None, "3", 2.0, 0])
def test_a_wrong_length_of_what_is_sealed(rest: Any) -> None:
    fields = encoded({"content": "", "format": "png", "identity": "", "mark": "0" * 32, "rest": rest, "suffix": ""})
    with pytest.raises(ContainerError, match="metadata's field 'rest'"):
        Metadata.from_bytes(len(fields).to_bytes(4, "little") + fields + b"abc" + bytes(20))


def test_metadata_survive() -> None:
    for made in (Metadata("png"), METADATA, Metadata("nifti", ".nii.gz", "", bytes(100_000))):
        assert Metadata.from_bytes(made.to_bytes()) == made
    with pytest.raises(ContainerError, match="more than a file holds"):
        Metadata("dicom", "", "", bytes(MAX_SECTION_BYTES)).to_bytes()
