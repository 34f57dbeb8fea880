"""Files that were written once are read for ever, bit by bit; those of EncDL 0.1 are named."""

from __future__ import annotations

import hashlib
import io
import re
from pathlib import Path
from typing import get_args

import numpy as np
import pytest
from cryptography.exceptions import InvalidSignature, InvalidTag

from encdl.ciphers.names import POSTPROCESS
from encdl.files.container import ContainerReader, PublicReader, read_header
from encdl.files.container.aes_wrap import MAGIC, open_wrapped
from encdl.files.container.recipients import at_end
from encdl.files.formats.base import array_of
from encdl.files.reading import ReadingLayer
from encdl.files.settings import Wrapping
from encdl.utils.errors import ContainerError
from tests.files.container.golden import FOLDER, KEY, RECIPIENT, RECORDED, SIGNER, Golden, codec, make
from tests.files.container.slow_reader import SlowReader, parity

OLD = (1, 2)


def by_name(golden: Golden) -> str:
    return golden.name


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


def constant(data: bytes) -> bytes:
    """What equal settings make equal: not the salt of a wrapping, nor what is sealed to recipients."""
    _, end = at_end(io.BytesIO(data))
    data = data[:end]
    return open_wrapped(io.BytesIO(data), KEY).read() if data.startswith(MAGIC) else data


@pytest.mark.parametrize("golden", RECORDED, ids=by_name)
def test_recorded_files_are_made_again(golden: Golden) -> None:
    made, recorded = (PublicReader(io.BytesIO(constant(data))) for data in (make(golden), golden.path.read_bytes()))
    assert made.head == recorded.head
    names = {section.name for section in recorded.sections}
    table = {section.name for section in made.sections} == names
    # Without `series`, as early ones are, the table is another, and so are its parity and what signs it.
    for name in names - (set() if table else {"parity", "signature"}):
        assert made.section(name) == recorded.section(name)


@pytest.mark.parametrize("path", sorted(FOLDER.glob("*.encdl")), ids=lambda path: path.stem)
def test_a_reader_made_from_the_specification_alone_opens_every_file(path: Path) -> None:
    data, master = path.read_bytes(), hashlib.sha256(b"golden key").digest()
    if path.stem.startswith("old-"):
        with pytest.raises(AssertionError):
            SlowReader(data, master)
        return
    [golden] = (golden for golden in RECORDED if golden.path == path)
    public = SIGNER.public if golden.settings.signer else None
    slow = SlowReader(data, master, public and public.raw)
    assert (slow.metadata["format"], slow.rest) == (golden.format, golden.rest)
    assert (slow.metadata["identity"], slow.header["study"]) == (golden.settings.identity, golden.settings.study)
    assert slow.wrapped == (golden.settings.wrap == "aes")
    assert slow.array() == golden.array.tobytes()
    reader = ContainerReader(io.BytesIO(data), KEY)
    if golden.settings.readable:
        layer = ReadingLayer.from_bytes(reader.section("reading") or b"")
        assert slow.levels() == layer.levels(reader.image_keys).ravel().tolist()
        by_host = ReadingLayer.mended(PublicReader(io.BytesIO(data)))
        assert by_host is not None
        assert np.array_equal(by_host.words, layer.words)
        if "reading-parity" in slow.sections:  # which the earliest have not
            assert slow.sections["reading-parity"] == parity(slow.sections["reading"], 223, 32)
    if golden.settings.recipients:
        theirs = SlowReader(data, hashlib.sha256(b"golden recipient key").digest(), recipient=True)
        assert theirs.array() == golden.array.tobytes()
        assert ContainerReader(io.BytesIO(data), RECIPIENT).metadata == reader.metadata
    damaged = bytearray(data)
    damaged[-1] ^= 1
    with pytest.raises((AssertionError, InvalidSignature, InvalidTag)):
        list(SlowReader(bytes(damaged), master).chunks())


def test_every_way_to_make_a_file_is_recorded() -> None:
    every = [golden.settings for golden in RECORDED]
    assert {settings.postprocess for settings in every} == set(POSTPROCESS)
    assert {settings.wrap for settings in every} == set(get_args(Wrapping))
    for given in (lambda s: s.readable, lambda s: s.signer, lambda s: s.recipients, lambda s: s.identity):
        assert {bool(given(settings)) for settings in every} == {False, True}
    assert {golden.path for golden in RECORDED} | {FOLDER / f"old-{version}.encdl" for version in OLD} == set(
        FOLDER.glob("*.encdl")
    )


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
