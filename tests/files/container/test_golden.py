"""Files that were written once are read for ever, bit by bit; those of EncDL 0.1 are named."""

from __future__ import annotations

import hashlib
import io
import re

import pytest
from cryptography.exceptions import InvalidSignature

from encdl.files.container import ContainerReader, PublicReader, read_header
from encdl.files.formats.base import array_of
from encdl.files.reading import ReadingLayer
from encdl.utils.errors import ContainerError
from tests.files.container.golden import FOLDER, KEY, RECIPIENT, RECORDED, SIGNER, Golden, codec, make
from tests.files.container.slow_reader import SlowReader

OLD = (1, 2)


def by_name(golden: Golden) -> str:
    return golden.name


def test_every_recorded_file_is_checked() -> None:
    names = [*map(by_name, RECORDED), *(f"old-{version}" for version in OLD)]
    assert sorted(path.stem for path in FOLDER.glob("*.encdl")) == sorted(names)


@pytest.mark.parametrize("golden", RECORDED, ids=by_name)
def test_recorded_files_open_exactly(golden: Golden) -> None:
    reader = ContainerReader(io.BytesIO(golden.path.read_bytes()), KEY)
    document = codec().decrypt(reader)
    assert (document.format, document.layout, document.rest) == (golden.format, golden.layout, golden.rest)
    array = array_of(document)
    assert (array.dtype, array.shape) == (golden.array.dtype, golden.shape)
    assert array.tobytes() == golden.array.tobytes()
    (first, *_) = codec().cipher_slices(reader)
    assert first.body.shape == first.mask.shape[1:]


@pytest.mark.parametrize("golden", RECORDED, ids=by_name)
def test_recorded_files_are_made_again(golden: Golden) -> None:
    made, recorded = make(golden), golden.path.read_bytes()
    assert len(made) == len(recorded)
    varying = len(made) - PublicReader(io.BytesIO(made)).end
    assert made[: len(made) - varying] == recorded[: len(made) - varying]


@pytest.mark.parametrize("golden", RECORDED, ids=by_name)
def test_a_reader_made_from_the_specification_alone_opens_them(golden: Golden) -> None:
    data = golden.path.read_bytes()
    public = SIGNER.public if golden.settings.signer else None
    slow = SlowReader(data, hashlib.sha256(b"golden key").digest(), public and public.raw)
    assert (slow.metadata["format"], slow.rest) == (golden.format, golden.rest)
    reader = ContainerReader(io.BytesIO(data), KEY)
    assert [body for *_, body in slow.chunks()] == [chunk.body for chunk in reader.chunks()]
    if golden.settings.postprocess in {"none", "interleave"}:
        assert slow.array() == golden.array.tobytes()
    if golden.settings.readable:
        layer = ReadingLayer.from_bytes(reader.section("reading") or b"")
        assert slow.levels() == layer.levels(reader.image_keys).ravel().tolist()
    if golden.settings.recipients:
        theirs = SlowReader(data, hashlib.sha256(b"golden recipient key").digest(), recipient=True)
        assert theirs.array() == golden.array.tobytes()
        assert ContainerReader(io.BytesIO(data), RECIPIENT).metadata == reader.metadata
    damaged = bytearray(data)
    damaged[-1] ^= 1
    with pytest.raises((AssertionError, InvalidSignature)):
        list(SlowReader(bytes(damaged), hashlib.sha256(b"golden key").digest()).chunks())


@pytest.mark.parametrize("version", OLD)
def test_files_of_encdl_0_1_are_named_in_one_line(version: int) -> None:
    path = FOLDER / f"old-{version}.encdl"
    told = re.escape(f"was made by EncDL 0.1 (container version {version}), which this version does not open")
    for refused in (
        lambda: ContainerReader(io.BytesIO(path.read_bytes()), KEY, path),
        lambda: read_header(path),
        lambda: PublicReader(io.BytesIO(path.read_bytes()), path),
    ):
        with pytest.raises(ContainerError, match=told) as caught:
            refused()
        assert "\n" not in str(caught.value)
        assert str(path) in str(caught.value)
