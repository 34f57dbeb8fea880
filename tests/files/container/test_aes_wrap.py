from __future__ import annotations

import io
import itertools
import os
import random
import tracemalloc
from collections.abc import Callable

import pytest

from encdl.files.container import aes_wrap
from encdl.keys import Key
from encdl.keys.key import Opener
from encdl.utils.errors import ContainerError, ExpiredGrantError, WrongKeyError
from tests.files.container import slow_reader
from tests.keys.test_expiry import NOW, Clock

KEY, OTHER = Key(bytes(range(32))), Key(bytes(32))
NONCE, STUDY = bytes(range(16)), "Thorax \u00e9tude"
SMALL = 48


@pytest.fixture
def small(monkeypatch: pytest.MonkeyPatch) -> None:
    """Small chunks, so that a file of few bytes has many."""
    monkeypatch.setattr(aes_wrap, "CHUNK", SMALL)


def wrapped(plain: bytes, piece: int | None = None, study: str = STUDY, nonce: bytes = NONCE) -> bytes:
    stream = io.BytesIO()
    writer = aes_wrap.Writer(stream, KEY.image_keys(nonce, study), KEY.id, study)
    for start in range(0, len(plain), piece or max(1, len(plain))):
        assert writer.write(plain[start : start + (piece or len(plain))]) == len(
            plain[start : start + (piece or len(plain))]
        )
    writer.finish()
    writer.finish()
    return stream.getvalue()


def unwrapped(data: bytes, opener: Opener = KEY, tolerant: bool = False) -> bytes:
    return aes_wrap.open_wrapped(io.BytesIO(data), opener, "x.encdl", tolerant=tolerant).read()


def refused(data: bytes) -> str:
    with pytest.raises(ContainerError) as caught:
        unwrapped(data)
    assert str(caught.value).startswith("x.encdl: ")
    assert "\n" not in str(caught.value)
    return str(caught.value)


def header_bytes(study: str = STUDY) -> int:
    return 8 + 2 + 8 + 16 + 32 + 2 + len(study.encode())


# ---- round trips


@pytest.mark.parametrize("size", [0, 1, 47, 48, 49, 95, 96, 97, 480, 1000])
@pytest.mark.parametrize("piece", [1, 7, 48, 5000])
def test_what_is_wrapped_is_unwrapped(size: int, piece: int, small: None) -> None:
    plain = os.urandom(size)
    data = wrapped(plain, piece)
    assert unwrapped(data) == plain
    assert len(data) == header_bytes() + size + 16 * max(1, -(-size // SMALL))


@pytest.mark.parametrize("size", [2**16 - 1, 2**16, 2**16 + 1, 2**20 + 5])
def test_real_chunks(size: int) -> None:
    plain = os.urandom(size)
    assert unwrapped(wrapped(plain)) == plain


def test_the_format_again_from_its_description() -> None:
    """docs/wrap.md, without the package's own reader."""
    plain = os.urandom(2**17 + 9)
    data = wrapped(plain)
    head = data[: header_bytes()]
    assert head[10:34] == bytes.fromhex(KEY.id) + NONCE
    assert slow_reader.unwrapped(data, head, KEY.image_keys(NONCE, STUDY).wrap) == plain


def test_a_stream_can_be_read_anywhere(small: None) -> None:
    plain = os.urandom(1000)
    stream = aes_wrap.open_wrapped(io.BytesIO(wrapped(plain)), KEY)
    order = random.Random(0)
    for _ in range(300):
        start, count = order.randrange(1100), order.randrange(200)
        assert stream.seek(start) == start
        assert stream.read(count) == plain[start : start + count]
        assert stream.tell() == min(start, 1000) + min(count, max(0, 1000 - start)) or start > 1000
    assert stream.seek(-10, os.SEEK_END) == 990
    assert stream.read() == plain[-10:]
    assert stream.seek(0) == 0
    assert stream.seek(5, os.SEEK_CUR) == 5
    assert stream.read(3) == plain[5:8]
    assert stream.readable()
    assert stream.seekable()


def test_every_wrapping_is_another_file() -> None:
    """The same container, the same nonce: another salt, hence another AES key."""
    files = [wrapped(b"the same container") for _ in range(4)]
    assert len({data[header_bytes() :] for data in files}) == 4
    assert [unwrapped(data) for data in files] == [b"the same container"] * 4


def test_nothing_of_the_text_is_in_the_file() -> None:
    plain = b'{"cipher":"agile","dtype":"int16"}' * 100
    data = wrapped(plain)
    for word in (b"agile", b"int16", b"dtype"):
        assert word not in data


def test_memory_is_bounded() -> None:
    plain = bytes(2**25)
    keys = KEY.image_keys(NONCE)
    with open(os.devnull, "wb") as sink:
        tracemalloc.start()
        writer = aes_wrap.Writer(sink, keys, KEY.id, "")
        for _ in range(4):
            writer.write(plain)
        writer.finish()
        assert tracemalloc.get_traced_memory()[1] < 2**20
        tracemalloc.stop()
    stream = aes_wrap.open_wrapped(io.BytesIO(wrapped(plain, study="")), KEY)
    tracemalloc.start()
    total = sum(len(part) for part in iter(lambda: stream.read(2**16), b""))
    assert tracemalloc.get_traced_memory()[1] < 2**20
    tracemalloc.stop()
    assert total == len(plain)


def test_a_writer_that_is_dropped_leaves_no_whole_file() -> None:
    stream = io.BytesIO()
    writer = aes_wrap.Writer(stream, KEY.image_keys(NONCE, STUDY), KEY.id, STUDY)
    writer.write(bytes(10))
    writer.close()
    del writer
    refused(stream.getvalue())


def test_a_finished_writer_takes_no_more() -> None:
    writer = aes_wrap.Writer(io.BytesIO(), KEY.image_keys(NONCE), KEY.id, "")
    writer.finish()
    with pytest.raises(ValueError, match="is finished"):
        writer.write(b"more")


# ---- keys and grants


def test_who_opens_it() -> None:
    data = wrapped(b"text")
    for opener in (KEY.grant_study(STUDY), KEY.grant_file(NONCE, STUDY)):
        assert unwrapped(data, opener) == b"text"
    for wrong in (KEY.grant_study("T"), KEY.grant_file(bytes(16), STUDY), KEY.grant_file(NONCE)):
        with pytest.raises(WrongKeyError, match=r"x\.encdl: this grant opens"):
            unwrapped(data, wrong)
    with pytest.raises(WrongKeyError, match=f"x.encdl: was wrapped with key {KEY.id}, yours is {OTHER.id}: give"):
        unwrapped(data, OTHER)


def test_a_grant_that_has_ended(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr("encdl.keys.grant.utc_now", Clock())
    with pytest.raises(ExpiredGrantError, match=r"x\.encdl: the grant for study .* expired on"):
        unwrapped(wrapped(b"text"), KEY.grant_study(STUDY, NOW))


def test_another_key_with_the_id_of_this_one_opens_nothing() -> None:
    data = bytearray(wrapped(b"text"))
    data[10:18] = bytes.fromhex(OTHER.id)
    with pytest.raises(ContainerError, match="was changed"):
        unwrapped(bytes(data), OTHER)


# ---- what is refused


def test_every_bit_counts(small: None) -> None:
    """Each bit of a file of four chunks flipped on its own."""
    data = wrapped(os.urandom(150))
    for place, bit in itertools.product(range(len(data)), range(8)):
        changed = bytearray(data)
        changed[place] ^= 1 << bit
        with pytest.raises((ContainerError, WrongKeyError)) as caught:
            unwrapped(bytes(changed))
        if place not in range(10, 18):
            assert isinstance(caught.value, ContainerError)


def test_every_cut_counts(small: None) -> None:
    data = wrapped(os.urandom(150))
    for length in range(len(data)):
        refused(data[:length])
    for more in (b"\0", bytes(16), bytes(SMALL + 16), data[-30:]):
        refused(data + more)


def parts(data: bytes) -> tuple[bytes, list[bytes]]:
    start = header_bytes()
    step = SMALL + 16
    return data[:start], [data[place : place + step] for place in range(start, len(data), step)]


def test_chunks_have_their_places(small: None) -> None:
    head, chunks = parts(wrapped(os.urandom(4 * SMALL)))
    assert len(chunks) == 4
    for order in itertools.permutations(range(4)):
        if order != (0, 1, 2, 3):
            refused(head + b"".join(chunks[index] for index in order))
    for count in range(4):
        refused(head + b"".join(chunks[:count]))
        refused(head + b"".join(chunks[count + 1 :]))
        refused(head + b"".join([*chunks[:count], chunks[count], *chunks[count:]]))


def test_chunks_belong_to_their_file(small: None) -> None:
    """Two files of one container, of one study, of one key: no chunk of the one serves in the other."""
    plain = os.urandom(3 * SMALL)
    head, chunks = parts(wrapped(plain))
    for other in (wrapped(plain), wrapped(plain, nonce=bytes(16))):
        other_head, others = parts(other)
        for place in range(3):
            refused(head + b"".join([*chunks[:place], others[place], *chunks[place + 1 :]]))
        refused(other_head + b"".join(chunks))


def test_an_empty_last_chunk_is_not_accepted(small: None) -> None:
    """Only one form of a text is a file: a full chunk is not followed by an empty one."""
    head, [chunk] = parts(wrapped(bytes(SMALL)))
    header = aes_wrap.read_header(io.BytesIO(head))
    seal = aes_wrap._Seal(KEY.image_keys(NONCE, STUDY), header)
    assert unwrapped(head + seal.lock(0, True, bytes(SMALL))) == bytes(SMALL)
    assert chunk == seal.lock(0, True, bytes(SMALL))
    refused(head + seal.lock(0, False, bytes(SMALL)) + seal.lock(1, True, b""))


@pytest.mark.parametrize(
    ("make", "message"),
    [
        (lambda data: b"", "is not a file that `--wrap aes` made"),
        (lambda data: b"\x89ENCDL\r\n" + data[8:], "is not a file that"),
        (lambda data: data.replace(b"\n", b"\r\n", 1), "is not a file that"),
        (lambda data: data[:40], "is cut in its header"),
        (lambda data: data[:70], "is cut in its header"),
        (lambda data: data[:8] + b"\2\0" + data[10:], "version 2, this EncDL reads up to 1: update"),
        (lambda data: data[:8] + b"\0\0" + data[10:], "header is damaged"),
        (lambda data: data[:66] + b"\1\1" + bytes(500), "header is damaged"),
        (lambda data: data[:66] + b"\xff\xff" + bytes(70_000), "header is damaged"),
        (lambda data: data[:66] + b"\2\0\xff\xff" + data[70:], "the study's name"),
        (lambda data: data[:66] + b"\2\0a\n" + data[70:], "the study's name"),
        (lambda data: data[:66] + b"\3\0e\xcc\x81" + data[71:], "the study's name"),
    ],
)  # fmt: skip
def test_other_headers(make: Callable[[bytes], bytes], message: str) -> None:
    assert message in refused(make(wrapped(bytes(100))))


def test_a_damaged_chunk_does_not_hide_the_others(small: None) -> None:
    """What is read before it is right; a tolerant reader gives zeros for it, and the rest."""
    plain = bytes(range(1, 201))
    data = bytearray(wrapped(plain))
    data[header_bytes() + SMALL + 16 + 3] ^= 1  # in the second chunk of five
    stream = aes_wrap.open_wrapped(io.BytesIO(bytes(data)), KEY, "x.encdl")
    assert stream.read(10) == plain[:10]
    stream.seek(SMALL)
    with pytest.raises(ContainerError, match=r"x\.encdl: was changed or cut"):
        stream.read(1)
    expected = plain[:SMALL] + bytes(SMALL) + plain[2 * SMALL :]
    assert unwrapped(bytes(data), tolerant=True) == expected


def test_a_tolerant_reader_of_cut_files(small: None) -> None:
    """Whole chunks that are left are given; of a chunk that is cut, zeros."""
    plain = bytes(range(1, 201))
    data = wrapped(plain)
    for length in range(header_bytes(), len(data)):
        found = unwrapped(data[:length], tolerant=True)
        whole = (length - header_bytes()) // (SMALL + 16) * SMALL
        assert found[:whole] == plain[:whole]
        assert set(found[whole:]) <= {0}
        assert len(found) <= len(plain)


def mutate(data: bytes, others: list[bytes], order: random.Random) -> bytes:
    """One to four changes of any kind."""
    changed = bytearray(data)
    for _ in range(order.choice([1, 1, 2, 4])):
        start = order.randrange(len(changed) + 1)
        end = min(len(changed), start + order.choice([0, 1, 2, 16, SMALL, SMALL + 16, 500]))
        kind = order.randrange(6)
        if kind == 0 and start < len(changed):
            changed[start] ^= 1 << order.randrange(8)
        elif kind == 1:
            changed[start:end] = order.randbytes(end - start)
        elif kind == 2:
            del changed[start:end]
        elif kind == 3:
            changed[start:start] = changed[start:end] or b"\0"
        elif kind == 4:
            other = order.choice(others)
            changed[start:end] = other[start:end]
        else:
            changed[start:] = b""
    return bytes(changed)


def fuzz(count: int, seed: int) -> None:
    order = random.Random(seed)
    plain = order.randbytes(200)
    data = wrapped(plain)
    others = [wrapped(plain), wrapped(order.randbytes(300)), wrapped(b"", study="T"), order.randbytes(400)]
    opened = 0
    for _ in range(count):
        changed = mutate(data, others, order)
        try:
            found = unwrapped(changed)
        except (ContainerError, WrongKeyError):
            continue
        # What opens is one of the files that were made, whole.
        assert changed in (data, *others)
        opened += found == plain
    assert opened < count / 10


def test_fuzz(small: None) -> None:
    fuzz(4000, 0)


@pytest.mark.slow
def test_fuzz_long(small: None) -> None:
    fuzz(200_000, 1)


@pytest.mark.slow
def test_fuzz_tolerant(small: None) -> None:
    """A tolerant reader never crashes, and never gives a byte that is neither the right one nor zero."""
    order = random.Random(2)
    plain = bytes(order.choice(range(1, 256)) for _ in range(200))
    data = wrapped(plain)
    others = [wrapped(plain[::-1]), order.randbytes(400)]
    for _ in range(20_000):
        changed = mutate(data, others, order)
        try:
            found = unwrapped(changed, tolerant=True)
        except (ContainerError, WrongKeyError):
            continue
        if changed[: header_bytes()] != data[: header_bytes()]:
            continue
        for start in range(0, len(found), SMALL):
            part = found[start : start + SMALL]
            assert part == bytes(len(part)) or part == plain[start : start + len(part)]
