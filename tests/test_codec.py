from __future__ import annotations

import io
import warnings
from collections.abc import Iterator
from typing import Any

import numpy as np
import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st

from encdl import ciphers, container
from encdl.codec import NONCE_MODES, Codec, Salvage, Settings
from encdl.container import Reader
from encdl.container.array import as_slice, cut
from encdl.container.grid import DTYPES
from encdl.documents import array_of, content_of, document_of
from encdl.errors import ContainerError, ImageFileError, UsageError, WeightsError, WrongKeyError
from encdl.formats import Document
from encdl.keys.key import Key
from encdl.keys.planes import PlaneSpec
from encdl.postprocess import NAMES
from tests.container.support import parts
from tests.stub_cipher import StubCipher

KEY = Key(bytes(range(32)))
WEIGHTS = "0123456789abcdef"
Array = np.ndarray[Any, Any]


@pytest.fixture(autouse=True, scope="module")
def one_thread() -> None:
    """Threads that wait for each other on a busy machine make tiny pictures forty times slower."""
    torch.set_num_threads(1)


@pytest.fixture(scope="module")
def codec() -> Codec:
    return Codec(StubCipher(), WEIGHTS)


@pytest.fixture(scope="module")
def agile() -> Codec:
    torch.manual_seed(0)
    return Codec(ciphers.create("agile", {}).eval(), WEIGHTS)


def noise(shape: tuple[int, ...], dtype: str = "uint8", seed: int = 0) -> Array:
    """Random bits: among floats also infinities and what is not a number."""
    count = int(np.prod(shape)) * np.dtype(dtype).itemsize
    return np.frombuffer(np.random.default_rng(seed).bytes(count), dtype).reshape(shape)


def same(one: Array, two: Array) -> bool:
    """Bit by bit."""
    return (one.shape, one.dtype, one.tobytes()) == (two.shape, two.dtype, two.tobytes())


def header_of(data: bytes) -> container.Header:
    return Reader(io.BytesIO(data), KEY).header


SHAPES = st.lists(st.integers(1, 7), min_size=1, max_size=4).map(tuple)


@settings(max_examples=80, deadline=None)
@given(
    SHAPES,
    st.sampled_from(DTYPES),
    st.sampled_from(NAMES),
    st.sampled_from(NONCE_MODES),
    st.text("ab", max_size=3),
)
def test_round_trip(codec: Codec, shape: Any, dtype: str, postprocess: str, nonce: Any, study: str) -> None:
    array = noise(shape, dtype)
    made = codec.encrypt_array(array, KEY, Settings(postprocess=postprocess, nonce=nonce, study=study))
    assert same(codec.decrypt_array(made, KEY), array)
    header = header_of(made)
    assert same(codec.decrypt_array(made, KEY.grant_file(header.nonce_bytes, study)), array)
    assert len(made) < array.nbytes + 32 * header.grid.count + 1000


@pytest.mark.parametrize("dtype", ["uint8", "uint16", "int16", "float32"])
@pytest.mark.parametrize(
    "shape",
    [(1,), (1, 1), (1, 7), (6, 1), (5, 6), (5, 6, 1), (7, 9, 3), (9, 3, 5), (2, 2, 3, 5), (2, 1, 3, 5, 3)],
    ids=str,
)
def test_round_trip_with_the_network(agile: Codec, shape: tuple[int, ...], dtype: str) -> None:
    array = noise(shape, dtype)
    assert same(
        agile.decrypt_array(agile.encrypt_array(array, KEY, Settings(postprocess="both")), KEY), array
    )


@pytest.mark.filterwarnings("ignore::encdl.keys.LeakyExpansionWarning")
@pytest.mark.parametrize("spec", [PlaneSpec(expansion="coprime", period=16), PlaneSpec(map="chacha20")])
def test_the_key_planes_of_the_header_count(codec: Codec, spec: PlaneSpec) -> None:
    array = noise((40, 40))
    made = codec.encrypt_array(array, KEY, Settings(spec))
    assert header_of(made).plane_spec() == spec
    assert same(codec.decrypt_array(made, KEY), array)


def test_no_two_chunks_share_a_key_plane(codec: Codec) -> None:
    """The slices are equal, and the stub adds the key planes alone: equal planes would give equal ciphertexts."""
    made = codec.encrypt_array(np.zeros((9, 32, 32), np.uint8), KEY, layout="SHW")
    bodies = [chunk.body for chunk in Reader(io.BytesIO(made), KEY).chunks()]
    assert len(bodies) == len(set(bodies)) == 9
    for one in range(9):
        for two in range(one):
            different = np.frombuffer(bodies[one], np.uint8) != np.frombuffer(bodies[two], np.uint8)
            assert different.mean() > 0.97


def test_the_channels_of_a_chunk_do_not_share_key_planes(codec: Codec) -> None:
    made = codec.encrypt_array(np.zeros((32, 32, 4), np.float64), KEY, layout="HWC")
    (chunk,) = Reader(io.BytesIO(made), KEY).chunks()
    planes = np.frombuffer(chunk.body, np.uint8).reshape(32, -1)
    assert len({plane.tobytes() for plane in planes}) == 32


def test_arrays_in_other_orders_are_the_same_content(codec: Codec) -> None:
    array = noise((6, 8, 3), "uint16")
    synthetic = Settings(nonce="synthetic")
    for other in (np.asfortranarray(array), array.astype(">u2"), array[::-1][::-1]):
        assert codec.encrypt_array(other, KEY, synthetic) == codec.encrypt_array(array, KEY, synthetic)


def test_random_nonces_differ_and_synthetic_ones_follow_content_and_settings(codec: Codec) -> None:
    array = noise((16, 16))

    def encrypt(array: Array = array, opener: Any = KEY, mode: Any = "synthetic", **changes: Any) -> str:
        kind = {name: changes.pop(name) for name in ("layout", "file_format") if name in changes}
        made = codec.encrypt_array(array, opener, Settings(nonce=mode, **changes), **kind)
        return Reader(io.BytesIO(made), opener).header.nonce

    assert encrypt(mode="random") != encrypt(mode="random")
    again = [encrypt() for _ in range(2)]
    changed = array.copy()
    changed[-1, -1] ^= 1
    others = [
        encrypt(changed),
        encrypt(array.reshape(8, 32)),
        encrypt(array.reshape(16, 16, 1)),
        encrypt(array.reshape(16, 1, 16), layout="SHW"),
        encrypt(array.view("<u2")),
        encrypt(file_format="tiff"),
        encrypt(study="S"),
        encrypt(postprocess="both"),
        encrypt(planes=PlaneSpec(map="chacha20")),
        encrypt(opener=Key(bytes(32))),
    ]
    assert again[0] == again[1]
    assert len({again[0], *others}) == 1 + len(others)


def test_the_metadata_belong_to_a_synthetic_nonce(codec: Codec) -> None:
    """Or one key of AES-256-GCM would seal two different texts under one nonce."""

    def nonce(rest: bytes, suffix: str) -> str:
        array = np.zeros((4, 4), np.uint8)
        document = Document(array.shape, array.dtype, "HW", "npy", rest, lambda: iter([array]))
        stream = io.BytesIO()
        return codec.encrypt(document, KEY, stream, Settings(nonce="synthetic"), suffix=suffix).nonce

    assert (
        len({nonce(b"", ""), nonce(b"a", ""), nonce(b"b", ""), nonce(b"", ".npy"), nonce(b"", ".tif")}) == 5
    )


def test_one_changed_pixel_changes_all_under_a_synthetic_nonce(codec: Codec) -> None:
    array = noise((4, 32, 32), "uint16")
    changed = array.copy()
    changed[3, 31, 31] ^= 128
    one, two = (
        b"".join(chunk.body for chunk in Reader(io.BytesIO(made), KEY).chunks())
        for made in (codec.encrypt_array(a, KEY, Settings(nonce="synthetic")) for a in (array, changed))
    )
    assert (np.frombuffer(one, np.uint8) != np.frombuffer(two, np.uint8)).mean() > 0.99


def test_study_grants_encrypt_for_their_study_only(codec: Codec) -> None:
    grant = KEY.grant_study("S")
    array = noise((8, 8))
    for nonce in NONCE_MODES:
        made = codec.encrypt_array(array, grant, Settings(study="S", nonce=nonce))
        assert same(codec.decrypt_array(made, KEY), array)
        with pytest.raises(WrongKeyError):
            codec.encrypt_array(array, grant, Settings(study="T", nonce=nonce))
    with pytest.raises(UsageError, match="grant for one file cannot encrypt"):
        codec.encrypt_array(array, KEY.grant_file(bytes(16)))
    for other in (KEY.grant_study("T"), KEY.grant_file(bytes(16), "S"), Key(bytes(32))):
        with pytest.raises(WrongKeyError):
            codec.decrypt_array(made, other)


def test_study_names_are_the_same_however_they_are_typed(codec: Codec) -> None:
    made = codec.encrypt_array(noise((4, 4)), KEY, Settings(study="e\u0301"))
    assert header_of(made).study == "\u00e9"
    codec.decrypt_array(made, KEY.grant_study("e\u0301"))


@pytest.mark.parametrize(
    "array",
    [
        np.zeros((4, 4), bool), np.array([["a"]]), np.array([None]), np.zeros((0, 4), np.uint8), np.array(1),
        np.zeros((1,) * 10, np.uint8), np.zeros(3, "datetime64[s]"), np.zeros(3, "u1,u2"), np.zeros((2**27, 1), "u1"),
        np.zeros((1, 1, 5000, 1025), np.uint8)[:, :, :1],
    ],
    ids=lambda array: f"{array.dtype}{array.shape}",
)  # fmt: skip
def test_arrays_that_are_refused(codec: Codec, array: Array) -> None:
    layout = "SHWC" if array.ndim == 4 else None
    with pytest.raises(ImageFileError, match=r"^array: "):
        codec.encrypt_array(array, KEY, layout=layout)


def test_settings_that_are_refused(codec: Codec) -> None:
    array = noise((4, 4))
    wrong: list[dict[str, Any]] = [{"postprocess": "more"}, {"nonce": "fixed"}, {"study": "a\nb"}]
    for settings_ in wrong:
        with pytest.raises(UsageError):
            codec.encrypt_array(array, KEY, Settings(**settings_))
    with pytest.raises(ImageFileError, match="layout 'WH'"):
        codec.encrypt_array(array, KEY, layout="WH")


def test_other_weights_and_post_processings_are_told(codec: Codec) -> None:
    made = codec.encrypt_array(noise((4, 4)), KEY)
    other = Codec(StubCipher(), "f" * 16)
    reads: list[Any] = [other.decrypt, lambda reader: next(other.cipher_slices(reader))]
    for read in reads:
        with pytest.raises(
            WeightsError,
            match=f"'stub' with {'f' * 16}.* needs cipher 'stub' with weights {WEIGHTS}.*--weights",
        ):
            read(Reader(io.BytesIO(made), KEY))
    reader = Reader(io.BytesIO(made), KEY)
    object.__setattr__(reader.header, "postprocess", "folding")
    with pytest.raises(ContainerError, match="newer EncDL"):
        codec.decrypt(reader)


def document(slices: list[Array], shape: tuple[int, ...], calls: list[int] | None = None) -> Document:
    def each() -> Iterator[Array]:
        for number, part in enumerate(slices):
            if calls is not None:
                calls.append(number)
            yield part

    return Document(shape, slices[0].dtype, "SHW", "npy", b"", each)


def test_slices_that_do_not_fit_or_change_are_refused(codec: Codec) -> None:
    def encrypt(made: Document, content: bytes | None = None) -> None:
        codec.encrypt(made, KEY, io.BytesIO(), content=content)

    good = [noise((4, 5), seed=number) for number in range(3)]
    encrypt(document(good, (3, 4, 5)))
    with pytest.raises(ImageFileError, match="changed while they were read"):
        encrypt(document(good, (3, 4, 5)), bytes(32))
    for wrong in ([*good[:2], good[2][:3]], [*good[:2], good[2].astype(np.int8)]):
        with pytest.raises(ImageFileError, match="slice 3 is"):
            encrypt(document(wrong, (3, 4, 5)))
    for wrong in (good[:2], [*good, good[0]]):
        with pytest.raises((ImageFileError, ContainerError), match=r"2 of 3 chunks|chunk 3 is"):
            encrypt(document(wrong, (3, 4, 5)))


def test_slices_are_read_and_written_one_after_the_other(
    codec: Codec, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setitem(__import__("encdl.chunk_cipher", fromlist=["x"]).PIXELS_AT_ONCE, "cpu", 40)
    calls: list[int] = []
    slices = [noise((4, 5), seed=number) for number in range(6)]
    written: list[int] = []

    class Stream(io.BytesIO):
        def write(self, data: Any) -> int:
            written.append(len(calls))
            return super().write(data)

    stream = Stream()
    made = document(slices, (6, 4, 5), calls)
    content = content_of(made)
    calls.clear()
    told: list[int] = []
    codec.encrypt(made, KEY, stream, content=content, progress=told.append)
    assert {2, 3, 4, 5, 6} & set(written) >= {3, 5}  # two slices ahead at the most
    assert sum(told) == 120
    reader = Reader(io.BytesIO(stream.getvalue()), KEY)
    for number, part in enumerate(codec.decrypt(reader).slices()):
        assert same(part, slices[number])
        assert reader._stream.tell() < len(stream.getvalue()) or number >= 3


def damaged(made: bytes, *slices: int) -> Reader:
    """A tolerant reader of a container with a flipped bit in these slices."""
    head, tag, sealed, chunks, end = parts(made)
    for number in slices:
        chunks[number] = bytes([chunks[number][0] ^ 4]) + chunks[number][1:]
    return Reader(io.BytesIO(b"".join([head, tag, sealed, *chunks, end])), KEY, tolerant=True)


def test_intact_slices_of_a_damaged_file_open(codec: Codec) -> None:
    array = noise((6, 16, 16), "uint16")
    reader = damaged(codec.encrypt_array(array, KEY), 1, 4)
    for restore in (True, False):
        salvage = Salvage(restore)
        opened = array_of(codec.decrypt(reader, salvage))
        assert salvage.damaged == [1, 4]
        for number in (0, 2, 3, 5):
            assert same(opened[number], array[number])
        if restore:  # the stub restores all but what is known to be lost
            assert (opened[1] != array[1]).sum() == 1
        else:
            assert not opened[[1, 4]].any()
    with pytest.raises(UsageError, match="salvage"):
        codec.decrypt(reader)


def test_a_strict_reader_stops_at_the_first_damaged_slice(codec: Codec) -> None:
    array = noise((6, 16, 16))
    stream = damaged(codec.encrypt_array(array, KEY), 2)._stream
    stream.seek(0)
    strict = Reader(stream, KEY)
    given = []
    with pytest.raises(ContainerError, match="slice 3 of 6 was changed"):
        given.extend(codec.decrypt(strict).slices())
    assert len(given) <= 2


@pytest.mark.parametrize("postprocess", NAMES)
@pytest.mark.parametrize("dtype", ["uint8", "uint16", "float32"])
def test_known_losses_reach_the_restorer_where_they_belong(
    codec: Codec, postprocess: str, dtype: str
) -> None:
    array = noise((40, 50, 2), dtype)
    made = codec.encrypt_array(array, KEY, Settings(postprocess=postprocess))
    cut = Reader(io.BytesIO(made[:-164]), KEY, tolerant=True)  # two tags and 100 bytes
    salvaged = array_of(codec.decrypt(cut, Salvage()))
    right = salvaged.view(np.uint8) == array.view(np.uint8)
    share = {"none": 100, "confusion": 100, "diffusion": 4000, "both": 4000}[postprocess] / array.nbytes
    assert 1 - share <= right.mean() < 1


def test_salvage_with_the_network(agile: Codec) -> None:
    array = np.tile(np.arange(48, dtype=np.uint8) * 5, (3, 32, 1))
    made = agile.encrypt_array(array, KEY, layout="SHW")
    reader = Reader(io.BytesIO(made[: -2 * 32 - 32 * 24]), KEY, tolerant=True)
    salvage = Salvage()
    salvaged = array_of(agile.decrypt(reader, salvage))
    assert salvage.damaged == [2]
    assert same(salvaged[:2], array[:2])
    assert salvaged[2].any()
    gone = Reader(io.BytesIO(made[: -2 * (32 * 48 + 32) - 32 + 100]), KEY, tolerant=True)
    salvaged = array_of(agile.decrypt(gone, salvage))
    assert salvage.damaged == [1, 2]
    assert not salvaged[2].any()  # nothing of it is left, and nothing is made up


def test_lost_metadata_leave_the_pixels(codec: Codec) -> None:
    array = noise((5, 6))
    made = bytearray(codec.encrypt_array(array, KEY, file_format="tiff"))
    made[len(parts(bytes(made))[0]) + 40] ^= 1
    opened = codec.decrypt(Reader(io.BytesIO(bytes(made)), KEY, tolerant=True), Salvage())
    assert (opened.format, opened.rest) == ("npy", b"")
    assert same(array_of(opened), array)


def test_large_pictures_go_in_tiles_and_some_channels_at_a_time(
    agile: Codec, monkeypatch: pytest.MonkeyPatch
) -> None:
    from encdl import chunk_cipher
    from encdl.container import grid

    array = noise((37, 26, 3), "uint16")
    settings_ = Settings(nonce="synthetic", postprocess="both")
    whole = agile.encrypt_array(array, KEY, settings_)
    monkeypatch.setitem(chunk_cipher.PIXELS_AT_ONCE, "cpu", 90)
    assert agile.encrypt_array(array, KEY, settings_) == whole
    assert same(agile.decrypt_array(whole, KEY), array)
    monkeypatch.setattr(grid, "MAX_CHUNK_PIXELS", 100)
    tiled = agile.encrypt_array(array, KEY, settings_)
    assert header_of(tiled).grid.count == 15
    assert same(agile.decrypt_array(tiled, KEY), array)


def test_an_arithmetic_that_differs_is_noticed(codec: Codec, monkeypatch: pytest.MonkeyPatch) -> None:
    """The tags vouch for the ciphertext; that it decrypts to what was encrypted is another question."""
    made = codec.encrypt_array(noise((4, 4)), KEY)
    monkeypatch.setattr(codec.cipher, "decrypt", lambda ciphertext, key_planes: ciphertext)
    with pytest.raises(ContainerError, match="does not decrypt to what was encrypted"):
        codec.decrypt_array(made, KEY)


@pytest.mark.parametrize(
    ("error", "told"),
    [
        (torch.OutOfMemoryError("CUDA out of memory"), UsageError),
        (
            RuntimeError("DefaultCPUAllocator: can't allocate memory: you tried to allocate 9 bytes"),
            MemoryError,
        ),
        (RuntimeError("another"), RuntimeError),
    ],
)
def test_running_out_of_memory_is_told(
    codec: Codec, monkeypatch: pytest.MonkeyPatch, error: Exception, told: type[Exception]
) -> None:
    def full(image: torch.Tensor, key_planes: torch.Tensor) -> torch.Tensor:
        raise error

    monkeypatch.setattr(codec.cipher, "encrypt", full)
    with pytest.raises(told):
        codec.encrypt_array(noise((4, 4)), KEY)


@pytest.mark.parametrize("postprocess", NAMES)
@pytest.mark.parametrize("dtype", ["uint8", "int16"])
def test_ciphertext_and_mask_differ_by_the_picture(agile: Codec, postprocess: str, dtype: str) -> None:
    array = noise((2, 9, 8, 3), dtype)
    made = agile.encrypt_array(array, KEY, Settings(postprocess=postprocess, study="S"))
    header = header_of(made)
    for opener in (KEY, KEY.grant_study("S"), KEY.grant_file(header.nonce_bytes, "S")):
        slices = list(agile.cipher_slices(Reader(io.BytesIO(made), opener)))
        assert len(slices) == 2
        for number, found in enumerate(slices):
            assert found.ciphertext.dtype == found.mask.dtype == torch.uint8
            planes = cut(as_slice(array[number], header.grid), header.grid.place(number))
            assert torch.equal(found.ciphertext - found.mask, torch.from_numpy(planes)[None])
            if postprocess == "none":
                assert torch.equal(found.ciphertext[0], torch.from_numpy(found.body))


def test_documents_of_arrays() -> None:
    array = noise((2, 3, 4, 5), "float32")
    made = document_of(array)
    assert made.layout == "TSHW"
    assert [part.shape for part in made.slices()] == [(4, 5)] * 6
    assert same(array_of(made), array)
    assert [part.shape for part in document_of(array[0, 0, 0]).slices()] == [(1, 5)]


def test_the_leaky_expansion_warns(codec: Codec) -> None:
    with pytest.warns(UserWarning, match="periodic"):
        codec.encrypt_array(noise((9, 9)), KEY, Settings(PlaneSpec(expansion="periodic", period=4)))
    with warnings.catch_warnings():
        warnings.simplefilter("error")
        codec.encrypt_array(noise((9, 9)), KEY)
