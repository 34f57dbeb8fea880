"""Mutated containers: each is refused with a clean error, or it is what its owner wrote, byte for byte.

The block of recipients stands outside tags and signature, so a file that lost just that block opens for its owner.
"""

from __future__ import annotations

import io
import json
import random
import resource
import time
from collections.abc import Callable
from dataclasses import dataclass, field, replace

import pytest
from hypothesis import given, seed, settings
from hypothesis import strategies as st

from encdl.files.codec import Codec
from encdl.files.container import ContainerReader, Header, Metadata
from encdl.files.container.header import PREFIX
from encdl.files.container.recipients import Recipients
from encdl.files.container.sections import METADATA as METADATA_SECTION
from encdl.files.container.sections import PIXELS, Section
from encdl.files.settings import Salvage
from encdl.files.settings import Settings as How
from encdl.keys.key import Key
from encdl.utils.errors import ContainerError, EncdlError, WrongKeyError
from tests.files.container import golden
from tests.files.container.support import KEY, METADATA, header, make, resign
from tests.stub_cipher import StubCipher

BURST = 100
"""Mutants an example of hypothesis: drawing each of them by itself would take longer than reading it."""


@dataclass
class Written:
    """All that a file's owner put into it."""

    header: Header
    metadata: Metadata | None
    sections: tuple[tuple[Section, bytes | None], ...]
    bodies: list[bytes]
    recipients: Recipients | None

    @classmethod
    def of(cls, reader: ContainerReader) -> Written:
        """What a reader gives; errors as it raises them."""
        sealed = {METADATA_SECTION, PIXELS}
        sections = tuple((each, None if each.name in sealed else reader.section(each.name)) for each in reader.sections)
        bodies = [chunk.body for chunk in reader.chunks()]
        return cls(reader.header, reader.metadata, sections, bodies, reader.recipients)


@dataclass
class Corpus:
    """Files to mutate, and what their owner wrote."""

    files: list[tuple[bytes, Key]] = field(default_factory=list)
    chunks: set[tuple[str, int, bytes]] = field(default_factory=set)
    written: dict[str, Written] = field(default_factory=dict)

    def add(self, data: bytes, key: Key) -> None:
        self.files.append((data, key))
        reader = ContainerReader(io.BytesIO(data), key)
        self.chunks |= {(reader.header.nonce, chunk.index, chunk.body) for chunk in reader.chunks()}
        self.written[reader.header.nonce] = Written.of(reader)


def corpus() -> Corpus:
    made = Corpus()
    for recorded in golden.RECORDED:
        made.add(recorded.path.read_bytes(), golden.KEY)
    made.add(make(), KEY)
    made.add(make(header(shape=(9, 2, 2), tile=(2, 2), nonce="ab" * 16)), KEY)
    wrapped = Codec(StubCipher(), "0" * 16).encrypt_array(golden.RECORDED[1].array, KEY, How(wrap="aes"))
    made.add(wrapped, KEY)
    return made


CORPUS = corpus()


def flip(data: bytearray, rng: random.Random) -> None:
    for _ in range(rng.choice((1, 1, 1, 2, 5))):
        data[rng.randrange(len(data))] ^= 1 << rng.randrange(8)


def cut(data: bytearray, rng: random.Random) -> None:
    del data[rng.randrange(len(data)) :]


def insert(data: bytearray, rng: random.Random) -> None:
    place = rng.randrange(len(data) + 1)
    data[place:place] = rng.randbytes(rng.choice((1, 2, 32, 300)))


def remove(data: bytearray, rng: random.Random) -> None:
    place = rng.randrange(len(data))
    del data[place : place + rng.choice((1, 2, 32, 92))]


def overwrite(data: bytearray, rng: random.Random) -> None:
    place, count = rng.randrange(len(data)), rng.choice((1, 4, 32))
    data[place : place + count] = rng.choice((bytes(count), b"\xff" * count, rng.randbytes(count)))


def reorder(data: bytearray, rng: random.Random) -> None:
    if len(data) < 2:
        return
    one, two, three = sorted(rng.sample(range(len(data) + 1), 3))
    data[one:three] = data[two:three] + data[one:two]


def splice(data: bytearray, rng: random.Random) -> None:
    other = rng.choice(CORPUS.files)[0]
    place = rng.randrange(min(len(data), len(other)))
    data[place:] = other[place:]


def prefix(data: bytearray, rng: random.Random) -> None:
    """The version, or the header's length."""
    if rng.random() < 0.5:
        data[8:10] = rng.choice((0, 1, 2, 3, 65535)).to_bytes(2, "little")
    else:
        data[10:14] = rng.choice((0, 1, 65536, 65537, 2**32 - 1, rng.randrange(1000))).to_bytes(4, "little")


def rewrite(data: bytearray, rng: random.Random) -> None:
    """A header that parses and says something else."""
    length = int.from_bytes(data[10:14], "little")
    try:
        values = json.loads(bytes(data[PREFIX.size : PREFIX.size + length]))
        name = rng.choice(sorted(values))
        values[name] = rng.choice(ODD)(rng, values[name])
        encoded = json.dumps(values, sort_keys=True, separators=(",", ":"), ensure_ascii=False).encode()
    except (ValueError, AttributeError, TypeError, IndexError):  # a wrapped file, or nothing to change
        flip(data, rng)
        return
    data[PREFIX.size : PREFIX.size + length] = encoded
    data[10:14] = len(encoded).to_bytes(4, "little")


ODD: list[Callable[[random.Random, object], object]] = [
    lambda rng, old: None,
    lambda rng, old: rng.choice((0, -1, 1, 2**31, 2**62, 10**40, 0.5, True)),
    lambda rng, old: [rng.choice((0, 1, 2**20, 2**40, 10**30)) for _ in range(rng.randrange(1, 6))],
    lambda rng, old: rng.choice(("", "HW", "SHW", "WH", "uint8", "float64", "0" * 16, "0" * 32, "../..", "\u0301")),
    lambda rng, old: [*old[:-1], old[-1] + rng.choice((-1, 1))] if isinstance(old, list) else old,
    lambda rng, old: {"map": "logistic", "expansion": "full", "planes": rng.randrange(70), "period": 0},
]
MUTATIONS = [flip, flip, cut, insert, remove, overwrite, reorder, splice, prefix, rewrite, rewrite]


@dataclass
class Tally:
    """What came of the mutants; those that a salvage repairs from parity are among the refused."""

    mutants: int = 0
    refused: int = 0
    without_recipients: int = 0
    repaired: int = 0
    unchanged: int = 0
    slowest: float = 0.0


def mutant(rng: random.Random) -> tuple[bytes, Key]:
    original, key = rng.choice(CORPUS.files)
    data = bytearray(original)
    for _ in range(rng.choice((1, 1, 1, 2, 3))):
        if data:
            rng.choice(MUTATIONS)(data, rng)
    return bytes(data), key


def refusal(data: bytes, key: Key) -> str | None:
    """What the error says; None if the file is accepted. Any other error is a crash, and passes."""
    try:
        ContainerReader(io.BytesIO(data), key).verify()
    except (ContainerError, WrongKeyError) as error:
        return str(error)
    return None


def try_mutant(data: bytes, key: Key, rng: random.Random, tally: Tally) -> None:
    """Read it in every way; only the two errors of a reader are allowed, and nothing forged comes out."""
    if data in (original for original, _ in CORPUS.files):
        tally.unchanged += 1
        return
    tally.mutants += 1
    started = time.perf_counter()
    told = refusal(data, key)
    if told is None:
        found = Written.of(ContainerReader(io.BytesIO(data), key))
        whole = CORPUS.written[found.header.nonce]
        assert whole.recipients, f"a forgery was accepted: {data.hex()}"
        assert found == replace(whole, recipients=None), f"a forgery was accepted: {data.hex()}"
        tally.without_recipients += 1
    else:
        assert "\n" not in told
        assert len(told) < 400
        tally.refused += 1
    try:
        reader = ContainerReader(io.BytesIO(data), key, tolerant=True)
        if reader.metadata:  # it is sealed together with the header
            whole = CORPUS.written[reader.header.nonce]
            assert (reader.header, reader.metadata) == (whole.header, whole.metadata)
            tally.repaired += any("repaired" in problem for problem in reader.problems)
        for chunk in reader.chunks():
            assert chunk.damaged or (reader.header.nonce, chunk.index, chunk.body) in CORPUS.chunks
    except (ContainerError, WrongKeyError):
        pass
    else:
        if rng.random() < 0.02:
            decrypt(reader)
    tally.slowest = max(tally.slowest, time.perf_counter() - started)


def decrypt(reader: ContainerReader) -> None:
    """What a salvage does with it: slices of the size that the header says, and no other error."""
    codec = Codec(StubCipher(), reader.header.weights)
    object.__setattr__(reader.header, "cipher", "stub")
    try:
        slices = list(codec.decrypt(reader, Salvage()).slices())
    except EncdlError:
        return
    except AssertionError:  # the stub takes eight planes alone
        assert reader.header.planes.count != 8
        return
    assert sum(part.nbytes for part in slices) == reader.header.grid.body_bytes


def fuzz(examples: int) -> Tally:
    tally = Tally()

    @seed(2026)
    @settings(max_examples=examples, deadline=None, database=None)
    @given(st.integers(0, 2**64 - 1))
    def burst(number: int) -> None:
        rng = random.Random(number)
        for _ in range(BURST):
            data, key = mutant(rng)
            try_mutant(data, key, rng, tally)

    burst()
    return tally


@pytest.mark.filterwarnings("ignore::encdl.keys.planes.WeakPlanesWarning")
def test_a_few_thousand_mutants() -> None:
    tally = fuzz(30)
    assert tally.mutants > 2800
    assert tally.refused + tally.without_recipients == tally.mutants


@pytest.mark.slow
@pytest.mark.timeout(1500)
@pytest.mark.filterwarnings("ignore::encdl.keys.planes.WeakPlanesWarning")
def test_two_hundred_thousand_mutants() -> None:
    fuzz(10)
    before = resource.getrusage(resource.RUSAGE_SELF).ru_maxrss
    tally = fuzz(2100)
    grown_mib = (resource.getrusage(resource.RUSAGE_SELF).ru_maxrss - before) / 1024
    print(tally, f"memory grew by {grown_mib:.0f} MiB")
    assert tally.mutants >= 200_000
    assert tally.refused + tally.without_recipients == tally.mutants
    assert grown_mib < 100
    assert tally.slowest < 10  # seconds, on a machine that does other things too


@settings(max_examples=150, deadline=None)
@given(st.integers(0, 2**64 - 1))
def test_headers_that_the_owner_signed(number: int) -> None:
    """Past the tags: whatever a holder of the key may have written is read in its own sense, or refused."""
    rng = random.Random(number)

    def change(values: dict[str, object]) -> dict[str, object]:
        name = rng.choice(sorted(values))
        return values | {name: rng.choice(ODD)(rng, values[name])}

    noise = rng.randbytes(rng.randrange(80))
    plain = rng.choice((METADATA.to_bytes(), noise, len(noise).to_bytes(4, "little") + noise))
    data = resign(make(), change, metadata=plain)
    try:
        reader = ContainerReader(io.BytesIO(data), KEY)
        total = sum(len(chunk.body) for chunk in reader.chunks())
    except (ContainerError, WrongKeyError):
        return
    assert isinstance(reader.header, Header)
    assert total == reader.header.grid.body_bytes
