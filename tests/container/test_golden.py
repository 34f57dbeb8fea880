"""Files that were written once are read for ever, bit by bit."""

from __future__ import annotations

import io

import pytest

from encdl.codec import Salvage
from encdl.container import Metadata, Reader
from encdl.documents import array_of
from encdl.errors import ContainerError
from tests.container.golden import FIRST, FOLDER, KEY, SECOND, Golden, codec, make


def by_name(golden: Golden) -> str:
    return golden.name


def test_every_recorded_file_is_checked() -> None:
    assert sorted(path.stem for path in FOLDER.glob("*.encdl")) == sorted(map(by_name, (*FIRST, *SECOND)))


@pytest.mark.parametrize("golden", [*FIRST, *SECOND], ids=by_name)
def test_recorded_files_open_exactly(golden: Golden) -> None:
    reader = Reader(io.BytesIO(golden.path.read_bytes()), KEY)
    assert reader.header.version == (1 if golden in FIRST else 2)
    document = codec().decrypt(reader)
    assert (document.format, document.layout, document.rest) == (golden.format, golden.layout, golden.rest)
    array = array_of(document)
    assert (array.dtype, array.shape) == (golden.array.dtype, golden.shape)
    assert array.tobytes() == golden.array.tobytes()
    (first, *_) = codec().cipher_slices(reader)
    assert first.body.shape == first.mask.shape[1:]


@pytest.mark.parametrize("golden", SECOND, ids=by_name)
def test_recorded_files_are_made_again(golden: Golden) -> None:
    assert make(golden) == golden.path.read_bytes()


@pytest.mark.parametrize("golden", FIRST, ids=by_name)
def test_version_1_is_verified_as_before(golden: Golden) -> None:
    data = golden.path.read_bytes()
    assert Reader(io.BytesIO(data), KEY).metadata == Metadata(golden.format, f".{golden.format}")
    for kept in range(0, len(data), 7):
        with pytest.raises(ContainerError):
            Reader(io.BytesIO(data[:kept]), KEY).verify()
    for place in range(14, len(data)):
        damaged = data[:place] + bytes([data[place] ^ 1]) + data[place + 1 :]
        with pytest.raises(Exception, match=r"^data: ") as caught:
            Reader(io.BytesIO(damaged), KEY).verify()
        assert type(caught.value).__name__ in {"ContainerError", "WrongKeyError"}


def test_version_1_is_salvaged_as_before() -> None:
    golden = FIRST[0]
    data = golden.path.read_bytes()
    salvage = Salvage()
    reader = Reader(io.BytesIO(data[:-50]), KEY, tolerant=True)  # the tag and 18 pixels
    array = array_of(codec().decrypt(reader, salvage))
    assert salvage.damaged == [0]
    assert array.shape == golden.shape
    (chunk,) = reader.chunks()
    assert (chunk.present, chunk.intact) == (45, False)
    assert Reader(io.BytesIO(data[: -32 - 63]), KEY, tolerant=True).nothing_left()


@pytest.mark.parametrize(
    ("field", "value"),
    [("format", '"exe"'), ("format", "[]"), ("dtype", '"float32"'), ("layout", '"SHW"'), ("body_bytes", "62"),
     ("body_bytes", "true"), ("shape", '"97"')],
)  # fmt: skip
def test_wrong_fields_of_version_1_are_refused(field: str, value: str) -> None:
    import json

    data = FIRST[0].path.read_bytes()
    length = int.from_bytes(data[10:14], "little")
    values = json.loads(data[14 : 14 + length]) | {field: json.loads(value)}
    encoded = json.dumps(values, sort_keys=True, separators=(",", ":")).encode()
    changed = data[:10] + len(encoded).to_bytes(4, "little") + encoded + data[14 + length :]
    with pytest.raises(ContainerError, match=f"field '{field}' is not valid"):
        Reader(io.BytesIO(changed), KEY)
