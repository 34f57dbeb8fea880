from __future__ import annotations

import io
import struct
from collections.abc import Sequence
from dataclasses import replace
from pathlib import Path
from typing import Any

import pytest
from cryptography.hazmat.primitives.hashes import SHA256
from cryptography.hazmat.primitives.kdf.hkdf import HKDFExpand

from encdl.files import container
from encdl.files.container import ContainerReader, ContainerWriter, Header, PublicReader
from encdl.files.container.header import LOCATOR
from encdl.files.container.sections import Section, chunk_keys, table_bytes
from encdl.keys.key import Key, Opener
from encdl.utils.errors import ContainerError, WrongKeyError
from tests.files.container.support import (
    KEY,
    METADATA,
    NONCE,
    SECRET,
    bodies,
    header,
    make,
    parts,
    read,
    resign,
    with_table,
)

DATA = make()
MINE = parts(DATA)
HEAD, CHUNKS = MINE.head, MINE.chunks
TABLE = len(HEAD) + LOCATOR.size + 32
START = TABLE + len(MINE.table) + len(MINE.sealed) + len(MINE.parity)


def refused(data: bytes, match: str, opener: Opener = KEY) -> None:
    with pytest.raises(ContainerError, match=match) as caught:
        read(data, opener, where="a.encdl")
    assert str(caught.value).startswith("a.encdl: ")
    assert "\n" not in str(caught.value)


def expand(secret: bytes, info: bytes) -> bytes:
    return HKDFExpand(SHA256(), 32, info).derive(secret)


def test_round_trip() -> None:
    assert read(DATA) == (header(), METADATA, bodies(header()))
    reader = ContainerReader(io.BytesIO(DATA), KEY)
    for _ in range(2):  # as often as one likes
        assert [chunk.index for chunk in reader.chunks()] == [0, 1, 2, 3, 4, 5]
    assert all(not chunk.damaged and chunk.present == len(chunk.body) for chunk in reader.chunks())
    assert reader.problems == []


def test_every_chunk_has_keys_of_its_own() -> None:
    keys = KEY.image_keys(NONCE)
    made = [chunk_keys(keys, index) for index in range(50)]
    for name in ("planes", "permutation", "diffusion"):
        assert len({getattr(each, name) for each in (*made, keys)}) == 51
    assert made[3].planes == expand(keys.planes, b"encdl chunk" + struct.pack("<Q", 3))
    assert {each.authentication for each in made} == {keys.authentication}
    assert {each.nonce for each in made} == {NONCE}
    reader = ContainerReader(io.BytesIO(DATA), KEY)
    assert reader.keys(4) == made[4]


def test_a_file_cut_anywhere_is_refused() -> None:
    for kept in range(len(DATA)):
        with pytest.raises(ContainerError, match=r"is cut|is empty") as caught:
            read(DATA[:kept])
        assert "\n" not in str(caught.value)
    refused(DATA[:-1], rf"cut \({len(DATA) - 1:,} of {len(DATA):,} bytes\).*--salvage")
    refused(DATA[:5], "is cut: 5 bytes")
    refused(DATA[:14], r"cut in its header \(0 of \d+ bytes\)")
    refused(b"", "is empty")


def test_every_changed_byte_is_noticed() -> None:
    for place in range(len(DATA)):
        damaged = bytearray(DATA)
        damaged[place] ^= 1
        with pytest.raises((ContainerError, WrongKeyError)) as caught:
            read(bytes(damaged))
        assert "\n" not in str(caught.value)


def test_nothing_damaged_is_handed_out_and_every_damaged_slice_is_named() -> None:
    damaged = bytearray(DATA)
    sizes = [len(chunk) for chunk in CHUNKS]
    damaged[START + sum(sizes[:2])] ^= 1  # slice 2, its first tile
    damaged[START + sum(sizes[:3]) + 1] ^= 1  # and its second
    damaged[START + sum(sizes[:6]) - 1] ^= 1  # the tag of the last tile of slice 3
    reader = ContainerReader(io.BytesIO(bytes(damaged)), KEY, "a.encdl")
    given = []
    with pytest.raises(ContainerError, match=r"slices 2, 3 of 3 were changed after.*--salvage"):
        given.extend(chunk.index for chunk in reader.chunks())
    assert given == [0, 1]
    tolerant = ContainerReader(io.BytesIO(bytes(damaged)), KEY, "a.encdl", tolerant=True)
    chunks = list(tolerant.chunks())
    assert [chunk.index for chunk in chunks if chunk.damaged] == [2, 3, 5]
    assert tolerant.slices_of([2, 3, 5]) == [1, 2]
    assert [chunk.body for chunk in chunks if not chunk.damaged] == [bodies(header())[i] for i in (0, 1, 4)]


def test_many_damaged_slices_are_told_shortly() -> None:
    made = header(shape=(60, 1, 1), tile=(1, 1), dtype="uint8")
    data = bytearray(make(made))
    for index in range(60):
        data[-17 * (index + 1)] ^= 1
    with pytest.raises(ContainerError, match=r"slices 1, 2, .*, 20 and 40 more of 60 were changed"):
        read(bytes(data))


def with_chunks(*chunks: bytes, **others: Any) -> bytes:
    return replace(MINE, chunks=list(chunks), **others).joined()


def test_chunks_in_another_order_are_noticed() -> None:
    refused(with_chunks(CHUNKS[2], CHUNKS[1], CHUNKS[0], *CHUNKS[3:]), "slices 1, 2 of 3 were changed")
    refused(with_chunks(*CHUNKS[:2], *CHUNKS[:2], *CHUNKS[4:]), "slice 2 of 3 was changed")


def test_pieces_of_another_file_are_noticed() -> None:
    """Spliced in from a file under the same key, of the same shape."""
    theirs = parts(make(header(nonce=bytes(16).hex())))
    for name in ("tag", "table", "sealed"):
        refused(replace(MINE, **{name: getattr(theirs, name)}).joined(), "changed after")
    refused(with_chunks(CHUNKS[0], theirs.chunks[1], *CHUNKS[2:]), "slice 1 of 3 was changed")


def test_pieces_of_a_file_with_the_same_nonce_are_noticed() -> None:
    """As under a synthetic nonce that an attacker got signed twice: another header, so other tags."""
    theirs = parts(make(header(postprocess="both")))
    assert CHUNKS[0][:-16] == theirs.chunks[0][:-16]
    refused(with_chunks(theirs.chunks[0], *CHUNKS[1:]), "slice 1 of 3 was changed")
    refused(replace(MINE, sealed=theirs.sealed).joined(), "metadata were changed")


def test_whole_chunks_that_are_cut_off_or_added_are_noticed() -> None:
    """Even with a header and a table that say so: both are signed."""
    refused(with_chunks(*CHUNKS[:4]), "is cut")
    refused(with_chunks(*CHUNKS, CHUNKS[5]), "bytes after its end")
    short = parts(make(header(shape=(2, 4, 5))))
    fewer = with_chunks(*CHUNKS[:4], head=short.head, table=short.table)
    refused(fewer, "header was changed")


def test_blocks_of_4_kib_have_tags_of_their_own() -> None:
    """In chunks whose last block is shorter."""
    made = header(shape=(2, 100, 101), tile=(100, 101), dtype="uint8")
    data = make(made)
    assert made.grid.blocks == 6
    start = len(data) - 10_100 - 3 * 16
    damaged = bytearray(data)
    for place in (start + 4095, start + 8192):
        damaged[place] ^= 1
    chunks = list(ContainerReader(io.BytesIO(damaged), KEY, tolerant=True).chunks())
    assert [chunk.damaged for chunk in chunks] == [(), (0, 2)]
    cut = ContainerReader(io.BytesIO(data[: start + 5000]), KEY, tolerant=True)
    assert [(chunk.damaged, chunk.present) for chunk in cut.chunks()] == [((), 10_100), ((0, 1, 2), 5000)]
    tag = bytearray(data)
    tag[-17] ^= 1
    assert list(ContainerReader(io.BytesIO(tag), KEY, tolerant=True).chunks())[1].damaged == (1,)


META, _, PIXELS = PublicReader(io.BytesIO(DATA)).sections


@pytest.mark.parametrize(
    ("sections", "match"),
    [
        ((META,), "a section is missing"),
        ((META, PIXELS, PIXELS), "there twice"),
        ((META, PIXELS, Section("later", 0, critical=True)), "'later' that this EncDL does not know"),
        ((META, Section("pixels", PIXELS.length - 16, True)), "damaged .pixels of"),
        ((Section("metadata", 2**26 + 1, True), PIXELS), "damaged .metadata of 67,108,865"),
        ((META, PIXELS, Section("Reading", 0)), "damaged .section 3"),
        ((META, PIXELS, Section("a\0b", 0)), "damaged .section 3"),
        ((META, PIXELS, Section("", 0)), "damaged .section 3"),
        ((META, PIXELS, Section("a", 2**49)), "damaged .section 3"),
        ((META, PIXELS, Section("a", 0, 2)), "damaged .section 3"),  # type: ignore[arg-type]
        ([META, PIXELS, *(Section(f"a{n}", 0) for n in range(63))], "damaged .65 sections"),
        ((META, PIXELS, Section("other", 5)), "is cut"),
    ],
    ids=lambda value: value if isinstance(value, str) else None,
)
def test_tables_that_are_refused_though_signed(sections: Sequence[Section], match: str) -> None:
    data = with_table(DATA, *sections)
    refused(data, match)
    with pytest.raises(ContainerError, match=match) as caught:
        PublicReader(io.BytesIO(data), "a.encdl")
    assert "\n" not in str(caught.value)


def test_sections_that_are_not_known_are_skipped_and_changed_ones_noticed() -> None:
    data = make(behind={"other": b"something", "more": b""})
    reader = ContainerReader(io.BytesIO(data), KEY)
    assert [section.name for section in reader.sections] == ["metadata", "parity", "pixels", "other", "more"]
    chunks = reader.chunks()
    assert [next(chunks).index, reader.section("other"), next(chunks).index] == [0, b"something", 1]
    assert (reader.section("more"), reader.section("none")) == (b"", None)
    assert PublicReader(io.BytesIO(data)).section("other") == b"something"
    assert read(data)[2] == bodies(header())
    damaged = bytearray(data)
    damaged[-70] ^= 1
    refused(bytes(damaged), "its section 'other' was changed")
    tolerant = ContainerReader(io.BytesIO(damaged), KEY, tolerant=True)
    assert not any(chunk.damaged for chunk in tolerant.chunks())
    assert tolerant.problems == ["its section 'other' was changed after it was written"]
    refused(with_table(DATA, META, PIXELS, Section("other", 0), signed=False), "its table of sections was changed")
    huge = Section("other", 2**26 + 1)  # skipped by its length
    assert read(with_table(DATA, META, PIXELS, huge, behind=bytes(huge.length)))[1] == METADATA


def test_bytes_after_the_end_are_told() -> None:
    refused(DATA + b"xy", "2 bytes after its end")
    reader = ContainerReader(io.BytesIO(DATA + b"xy"), KEY, tolerant=True)
    assert not any(chunk.damaged for chunk in reader.chunks())


def test_a_tolerant_reader_takes_what_is_left() -> None:
    sizes = [len(chunk) for chunk in CHUNKS]
    cut = DATA[: START + sum(sizes[:2]) + 7]
    reader = ContainerReader(io.BytesIO(cut), KEY, tolerant=True)
    chunks = list(reader.chunks())
    assert [not chunk.damaged for chunk in chunks] == [True, True, False, False, False, False]
    assert [chunk.present for chunk in chunks[2:]] == [7, 0, 0, 0]
    assert chunks[2].body == bodies(header())[2][:7].ljust(30, b"\0")
    assert reader.problems == []
    assert reader.metadata == METADATA
    assert not reader.nothing_left()
    assert ContainerReader(io.BytesIO(DATA[:START]), KEY, tolerant=True).nothing_left()


def test_a_tolerant_reader_tells_of_damaged_metadata_and_headers() -> None:
    """Where the parity is lost too."""
    lost = {"parity": bytes(len(MINE.parity))}
    damaged = replace(MINE, sealed=bytes(len(MINE.sealed)), **lost).joined()
    reader = ContainerReader(io.BytesIO(damaged), KEY, tolerant=True)
    assert reader.metadata is None
    assert not any(chunk.damaged for chunk in reader.chunks())
    assert reader.problems[0] == "its metadata were changed after they were written"
    damaged = replace(MINE, head=header(study="X").to_bytes(), **lost).joined()
    reader = ContainerReader(io.BytesIO(damaged), KEY, tolerant=True)
    assert reader.problems[0] == "its header was changed after it was written"
    assert all(chunk.damaged for chunk in reader.chunks())


def test_a_few_bytes_cannot_ask_a_tolerant_reader_for_terabytes() -> None:
    """A header that nobody signed is believed only as far as the file is long."""
    bomb = header(shape=(2**20, 1024, 1024), tile=(1, 1), dtype="uint8")
    pixels = Section("pixels", bomb.grid.body_bytes + bomb.grid.blocks * 16, critical=True)
    for table, match in ((MINE.table, "pixels of 216 bytes"), (table_bytes((META, pixels)) + bytes(32), "is cut")):
        unsigned = replace(MINE, head=bomb.to_bytes(), table=table, parity=b"").joined()
        for tolerant in (False, True):
            with pytest.raises(ContainerError, match=match):
                ContainerReader(io.BytesIO(unsigned), KEY, tolerant=tolerant)


def test_a_header_is_verified_without_the_rest_of_its_file() -> None:
    head = PublicReader(io.BytesIO(DATA)).head
    assert container.verified_header(head, KEY) == (header(), KEY.image_keys(NONCE))
    for opener in (Key(bytes(32)), KEY.grant_study("S")):
        with pytest.raises(WrongKeyError, match=r"^header: "):
            container.verified_header(head, opener)
    shape = head.replace(b'"shape":[3,4,5]', b'"shape":[3,5,4]').replace(b'"tile":[3,5]', b'"tile":[3,4]')
    for changed in (head[:-1], head + b"x", head[:-1] + bytes([head[-1] ^ 1]), shape):
        with pytest.raises(ContainerError, match="header: was changed"):
            container.verified_header(changed, KEY)


def test_other_files() -> None:
    refused(b"\x89PNG\r\n\x1a\n" + DATA[8:], "is not an EncDL file")
    refused(DATA.replace(b"\r\n", b"\n"), "copied as text")
    refused(DATA[:8] + struct.pack("<H", 4) + DATA[10:], "version 4, this EncDL reads up to 3: update EncDL")
    refused(DATA[:8] + struct.pack("<H", 0) + DATA[10:], "header is damaged")
    refused(DATA[:8] + struct.pack("<H", 1) + DATA[10:], "was made by EncDL 0.1")


def test_names_that_cannot_be_read(tmp_path: Path) -> None:
    for path, match in (
        (tmp_path, "is a folder"),
        (tmp_path / "none.encdl", "no such file"),
        (Path("/dev/null"), "no regular file"),
        (Path("a\0b"), "cannot be read|no such file"),
    ):
        with pytest.raises(ContainerError, match=match):
            container.read_header(path)
        with pytest.raises(ContainerError, match=match):
            container.verify(path, KEY)


def test_files_on_the_disk(tmp_path: Path) -> None:
    path = tmp_path / "a.encdl"
    path.write_bytes(DATA)
    assert container.read_header(path) == container.verify(path, KEY) == header()
    with container.opened_without_key(path) as public:
        assert public.section("metadata") == MINE.sealed[:-16]
    with container.opened(path, KEY) as reader:
        assert reader.metadata == METADATA
    path.write_bytes(DATA[:-1])
    assert container.read_header(path) == header()
    with pytest.raises(ContainerError, match="is cut"), container.opened_without_key(path):
        pass


def test_keys_and_grants() -> None:
    other = Key(bytes(32))
    for tolerant in (False, True):
        with pytest.raises(WrongKeyError, match=rf"key {KEY.id}, yours is {other.id}"):
            read(DATA, other, tolerant=tolerant)
    assert read(DATA, KEY.grant_file(NONCE))[2] == bodies(header())
    for grant in (KEY.grant_file(bytes(16)), KEY.grant_study("S")):
        with pytest.raises(WrongKeyError, match=r"a\.encdl: this grant"):
            read(DATA, grant, where="a.encdl")


def test_a_grant_for_the_study_opens_its_files() -> None:
    data = make(header(study="Süd"))
    assert read(data, KEY.grant_study("Süd"))[0].study == "Süd"
    with pytest.raises(WrongKeyError, match="study 'Nord'"):
        read(data, KEY.grant_study("Nord"))


def test_moving_a_file_to_another_study_is_noticed() -> None:
    """Signed with the keys of no study."""
    refused(resign(DATA, lambda values: values | {"study": "S"}), "header was changed after it was written")


def test_secrets_stay_out_of_errors_and_reprs() -> None:
    damaged = bytearray(DATA)
    damaged[-1] ^= 1
    texts = [repr(header())]
    for opener in (KEY, Key(bytes(32)), KEY.grant_study("S")):
        with pytest.raises((ContainerError, WrongKeyError)) as caught:
            read(bytes(damaged), opener)
        texts.append(repr(caught.value))
    assert not any(SECRET.hex()[:12] in text for text in texts)


def test_a_writer_checks_that_all_belongs_together() -> None:
    keys = KEY.image_keys(NONCE)

    def write(made: Header, parts: list[bytes], **changes: Any) -> None:
        writer = ContainerWriter(io.BytesIO(), made, METADATA, changes.get("keys", keys))
        for part in parts:
            writer.chunk(part)
        writer.close()

    made, whole = header(), bodies(header())
    write(made, whole)
    with pytest.raises(ContainerError, match="chunk 0 is 29 bytes, the header says 30"):
        write(made, [whole[0][:-1]])
    with pytest.raises(ContainerError, match="5 of 6 chunks"):
        write(made, whole[:-1])
    with pytest.raises(ContainerError, match="chunk 6 is 1 bytes, the header says 0"):
        write(made, [*whole, b"x"])
    with pytest.raises(ContainerError, match="another nonce"):
        write(made, whole, keys=KEY.image_keys(bytes(16)))
    writer = ContainerWriter(io.BytesIO(), made, METADATA, keys, {"a": 2})
    with pytest.raises(ContainerError, match="0 of 6 chunks"):
        writer.section("a", b"xy")
    for part in whole:
        writer.chunk(part)
    with pytest.raises(ContainerError, match="section 'a' of 3 bytes is not what was to come"):
        writer.section("a", b"xyz")
    with pytest.raises(ContainerError, match="section 'a' was not written"):
        writer.close()
