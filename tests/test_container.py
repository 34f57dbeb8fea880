from __future__ import annotations

import dataclasses
import hashlib
import hmac
import json
import struct
from collections.abc import Callable
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from encdl import container
from encdl.container import Header
from encdl.errors import ContainerError, OutputExistsError, WrongKeyError
from encdl.keys.key import Key
from encdl.keys.planes import PlaneSpec

SECRET = bytes(range(100, 132))
KEY = Key(SECRET)
NONCE = bytes(range(16))
BODY = bytes(range(6))
PREFIX = 14


def header(**changes: Any) -> Header:
    fields: dict[str, Any] = {
        "cipher": "agile",
        "weights": "0123456789abcdef",
        "shape": (2, 3),
        "dtype": "uint8",
        "layout": "HW",
        "nonce": NONCE.hex(),
        "postprocess": "none",
        "planes": PlaneSpec("logistic", "full", 8, 0).to_dict(),
        "study": "",
        "key_id": KEY.id,
        "format": "png",
        "body_bytes": 6,
    }
    return Header(**{**fields, **changes})


@pytest.fixture
def path(tmp_path: Path) -> Path:
    container.write(tmp_path / "a.encdl", header(), BODY, KEY.image_keys(NONCE))
    return tmp_path / "a.encdl"


def rewrite(path: Path, change: Callable[[dict[str, Any]], Any], key: Key = KEY) -> None:
    """Change the header of a file and sign it anew, as only the owner of the key could."""
    data = path.read_bytes()
    length = struct.unpack("<I", data[10:14])[0]
    values = json.loads(data[PREFIX : PREFIX + length])
    values = change(values) or values
    encoded = values if isinstance(values, bytes) else canonical(values)
    signed = data[:10] + struct.pack("<I", len(encoded)) + encoded + data[PREFIX + length : -32]
    tag = hmac.digest(key.image_keys(NONCE).authentication, signed, "sha256")
    path.write_bytes(signed + tag)


def canonical(values: object) -> bytes:
    return json.dumps(values, sort_keys=True, separators=(",", ":"), ensure_ascii=False).encode()


def refused(path: Path, match: str) -> None:
    """Both readers refuse the header, in one line that starts with the file's name."""
    for read in (lambda: container.read(path, KEY), lambda: container.read_header(path)):
        with pytest.raises(ContainerError, match=match) as caught:
            read()
        assert str(caught.value).startswith(f"{path}: ")
        assert "\n" not in str(caught.value)
        assert len(str(caught.value)) < len(str(path)) + 250


def test_the_layout_is_the_documented_one(path: Path) -> None:
    fields = dataclasses.asdict(header()) | {"shape": [2, 3]}
    encoded = canonical(fields)
    start = b"\x89ENCDL\r\n" + struct.pack("<HI", 1, len(encoded)) + encoded + BODY
    tag = hmac.new(KEY.image_keys(NONCE).authentication, start, hashlib.sha256).digest()
    assert path.read_bytes() == start + tag


def test_a_file_written_once_is_read_for_ever(path: Path) -> None:
    assert hashlib.sha256(path.read_bytes()).hexdigest() == (
        "70a10c55602a15d1eaad94cecb199832a43e72bf4d96d6f33bf64ea3e054c127"
    )


def test_round_trip(path: Path) -> None:
    assert container.read(path, KEY) == (header(), BODY)
    assert container.read_header(path) == container.check_size(path) == header()
    found, body, lost = container.read_damaged(path, KEY)
    assert (found, body) == (header(), BODY)
    assert not lost.any()


@settings(max_examples=50, deadline=None)
@given(
    st.sampled_from(["uint8", "uint16", "int16"]),
    st.lists(st.integers(1, 5), min_size=2, max_size=3),
    st.text(max_size=60),
    st.binary(min_size=16, max_size=16),
    st.sampled_from(container.FORMATS),
)
def test_every_valid_header_survives(
    dtype: str, shape: list[int], study: str, nonce: bytes, file_format: str
) -> None:
    try:
        made = header(
            dtype=dtype, shape=tuple(shape), layout="HWC"[: len(shape)], study=study, nonce=nonce.hex(),
            format=file_format, body_bytes=int(np.prod(shape)) * (1 if dtype == "uint8" else 2),
        )  # fmt: skip
    except ContainerError as error:
        if "'study'" not in str(error):  # control characters, or not in normal form
            raise
        return
    assert Header.from_bytes(made.to_bytes()) == made


@settings(max_examples=200, deadline=None)
@given(st.binary(max_size=200) | st.text(max_size=200).map(str.encode))
def test_any_bytes_as_header_are_refused(encoded: bytes) -> None:
    with pytest.raises(ContainerError):
        Header.from_bytes(encoded)


def test_a_file_cut_anywhere_is_refused(path: Path) -> None:
    data = path.read_bytes()
    head = len(data) - 38
    for kept in range(len(data)):
        path.write_bytes(data[:kept])
        with pytest.raises(ContainerError, match=r"is cut|is empty") as caught:
            container.read(path, KEY)
        assert "\n" not in str(caught.value)
        if kept <= head:
            with pytest.raises(ContainerError):
                container.read_damaged(path, KEY)
            continue
        _, body, lost = container.read_damaged(path, KEY)
        left = min(kept - head, 6)
        assert body == BODY[:left].ljust(6, b"\0")
        np.testing.assert_array_equal(lost, np.arange(6) >= left)


def test_the_error_of_a_cut_file_says_how_much_is_missing(path: Path) -> None:
    data = path.read_bytes()
    path.write_bytes(data[:-1])
    with pytest.raises(ContainerError, match=rf"cut \({len(data) - 1} of {len(data)} bytes\).*--salvage"):
        container.read(path, KEY)
    path.write_bytes(data[: len(data) - 38])
    with pytest.raises(ContainerError, match="nothing is left to salvage"):
        container.read_damaged(path, KEY)
    path.write_bytes(data[:5])
    refused(path, "is cut: 5 bytes")
    path.write_bytes(data[:14])
    refused(path, r"cut in its header \(0 of 2\d\d bytes\)")
    path.write_bytes(b"")
    refused(path, "is empty")


def test_every_changed_byte_is_noticed(path: Path) -> None:
    data = path.read_bytes()
    for place in range(len(data)):
        damaged = bytearray(data)
        damaged[place] ^= 1
        path.write_bytes(damaged)
        with pytest.raises((ContainerError, WrongKeyError)) as caught:
            container.read(path, KEY)
        assert "\n" not in str(caught.value)


@pytest.mark.parametrize("place", [-1, -33])
def test_changed_tag_or_body_is_told_as_such(path: Path, place: int) -> None:
    data = bytearray(path.read_bytes())
    data[place] ^= 128
    path.write_bytes(data)
    with pytest.raises(ContainerError, match=r"changed after it was written .*--salvage"):
        container.read(path, KEY)
    assert container.read_header(path) == header()
    _, body, lost = container.read_damaged(path, KEY)
    assert body == bytes(data[-38:-32])
    assert not lost.any(), "where it was changed is not known"


def test_bytes_after_the_end_are_told(path: Path) -> None:
    path.write_bytes(path.read_bytes() + b"xy")
    with pytest.raises(ContainerError, match="2 bytes after its end"):
        container.read(path, KEY)
    assert container.read_damaged(path, KEY)[1] == BODY


def test_other_files(path: Path) -> None:
    data = path.read_bytes()
    path.write_bytes(b"\x89PNG\r\n\x1a\n" + data[8:])
    refused(path, "is not an EncDL file")
    path.write_bytes(data.replace(b"\r\n", b"\n"))
    refused(path, "copied as text")
    path.write_bytes(data[:8] + struct.pack("<H", 2) + data[10:])
    refused(path, "container version 2, this EncDL reads up to 1: update EncDL")
    path.write_bytes(data[:8] + struct.pack("<H", 0) + data[10:])
    refused(path, "header is damaged")


@pytest.mark.parametrize("length", [0, 2**16 + 1, 2**32 - 1])
def test_an_absurd_header_length_is_refused_before_it_is_read(path: Path, length: int) -> None:
    data = path.read_bytes()
    path.write_bytes(data[:10] + struct.pack("<I", length) + data[14:])
    refused(path, "header is damaged")


def test_names_that_cannot_be_read(path: Path) -> None:
    refused(path.parent, "is a folder")
    refused(path.parent / "none.encdl", "no such file")
    refused(Path("/dev/null"), "no regular file")


WRONG_FIELDS: list[tuple[str, Any]] = [
    ("cipher", ""), ("cipher", "Agile"), ("cipher", "../x"), ("cipher", 3), ("cipher", None), ("cipher", "a" * 65),
    ("weights", "0123"), ("weights", "0123456789ABCDEF"), ("weights", 0),
    ("shape", []), ("shape", [2, 3, 1]), ("shape", [2]), ("shape", [0, 3]), ("shape", [-2, -3]), ("shape", [3, 2.0]),
    ("shape", [True, 6]), ("shape", "23"), ("shape", {"0": 2}), ("shape", [2**62, 2**62]), ("shape", [[2], 3]),
    ("dtype", "float32"), ("dtype", "uint16"), ("dtype", ["uint8"]), ("layout", "CHW"), ("layout", "HWC"),
    ("nonce", ""), ("nonce", "00"), ("nonce", "zz" * 16), ("postprocess", "No ne"), ("postprocess", []),
    ("planes", {}), ("planes", []), ("planes", None), ("planes", {"map": "logistic"}),
    ("planes", {"expansion": "full", "map": "nothing", "period": 0, "planes": 8}),
    ("planes", {"expansion": "full", "map": "logistic", "period": 0, "planes": 10**9}),
    ("study", None), ("study", "a\nb"), ("study", "x" * 257), ("study", "e\u0301"), ("key_id", "1"), ("key_id", None),
    ("format", "exe"), ("format", {}), ("body_bytes", 5), ("body_bytes", -6), ("body_bytes", "6"), ("body_bytes", True),
    ("body_bytes", 10**30),
]  # fmt: skip


@pytest.mark.parametrize(("name", "value"), WRONG_FIELDS, ids=str)
def test_wrong_fields_are_refused_even_when_signed(path: Path, name: str, value: Any) -> None:
    rewrite(path, lambda values: values | {name: value})
    refused(path, r"header's field '\w+' is not valid")


def test_unknown_missing_and_oddly_written_fields_are_refused(path: Path) -> None:
    data = path.read_bytes()
    good = header().to_bytes()
    for change, message in [
        (lambda values: values | {"extra": 1}, "unknown field 'extra'"),
        (lambda values: {k: v for k, v in values.items() if k != "nonce"}, "'nonce' is missing"),
        (lambda _: [1, 2], "not canonical JSON"),
        (lambda _: good.replace(b'":', b'": '), "not canonical JSON"),
        (lambda _: good[:-1] + b',"study":""}', "not canonical JSON"),
        (lambda _: good.replace(b'"body_bytes":6', b'"body_bytes":6.0'), "not valid"),
        (lambda _: good.replace(b'"body_bytes":6', b'"body_bytes":NaN'), "not canonical JSON"),
        (lambda _: good.replace(b'"body_bytes":6', b'"body_bytes":' + b"9" * 5000), "not canonical JSON"),
        (lambda _: b"[" * 60_000, "not canonical JSON"),
        (lambda _: b"\xff" + good, "not canonical JSON"),
        (lambda _: b'{"\\ud800":1}', "not canonical JSON"),
    ]:
        path.write_bytes(data)
        rewrite(path, change)
        refused(path, message)


def test_a_body_larger_than_the_limit_is_refused() -> None:
    with pytest.raises(ContainerError, match="body_bytes"):
        header(shape=(2**16, 2**16), body_bytes=2**32)
    with pytest.raises(ContainerError, match="shape"):
        header(shape=(1, 2**26 + 1), body_bytes=2**26 + 1)


def test_keys_and_grants(path: Path) -> None:
    other = Key(bytes(32))
    with pytest.raises(WrongKeyError, match=rf"key {KEY.id}, yours is {other.id}"):
        container.read(path, other)
    with pytest.raises(WrongKeyError):
        container.read_damaged(path, other)
    assert container.read(path, KEY.grant_file(NONCE))[1] == BODY
    with pytest.raises(WrongKeyError, match=r"a\.encdl: this grant"):
        container.read(path, KEY.grant_file(bytes(16)))
    with pytest.raises(WrongKeyError, match=r"a\.encdl: this grant"):
        container.read(path, KEY.grant_study("S"))


def test_a_grant_for_the_study_opens_its_files(tmp_path: Path) -> None:
    path = tmp_path / "s.encdl"
    container.write(path, header(study="Süd"), BODY, KEY.image_keys(NONCE, "Süd"))
    assert container.read(path, KEY.grant_study("Süd"))[0].study == "Süd"
    with pytest.raises(WrongKeyError, match="study 'Nord'"):
        container.read(path, KEY.grant_study("Nord"))


def test_moving_a_file_to_another_study_is_noticed(path: Path) -> None:
    rewrite(path, lambda values: values | {"study": "S"})  # signed with the keys of no study
    with pytest.raises(ContainerError, match="changed after it was written"):
        container.read(path, KEY)


def test_secrets_stay_out_of_errors_and_reprs(path: Path) -> None:
    damaged = bytearray(path.read_bytes())
    damaged[-1] ^= 1
    path.write_bytes(damaged)
    texts = [repr(header())]
    for opener in (KEY, Key(bytes(32)), KEY.grant_study("S")):
        with pytest.raises((ContainerError, WrongKeyError)) as caught:
            container.read(path, opener)
        texts.append(repr(caught.value))
    assert not any(SECRET.hex()[:12] in text for text in texts)


def test_write_checks_that_all_belongs_together(path: Path) -> None:
    keys = KEY.image_keys(NONCE)
    with pytest.raises(OutputExistsError):
        container.write(path, header(), BODY, keys)
    container.write(path, header(format="npy"), BODY, keys, force=True)
    assert container.read(path, KEY)[0].format == "npy"
    other = path.with_name("b.encdl")
    with pytest.raises(ContainerError, match="7 bytes, the header says 6"):
        container.write(other, header(), BODY + b"x", keys)
    with pytest.raises(ContainerError, match="another nonce"):
        container.write(other, header(), BODY, KEY.image_keys(bytes(16)))
    assert not other.exists()
