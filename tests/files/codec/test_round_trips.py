"""Arrays of all shapes and types come back bit by bit, under every setting and on any number of threads."""

from __future__ import annotations

import io
from typing import Any

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from encdl.ciphers.postprocess import NAMES
from encdl.files.codec import Codec
from encdl.files.container import ContainerReader
from encdl.files.container.chunk_grid import DTYPES
from encdl.files.formats.base import array_of, content_of, document_of
from encdl.files.settings import NONCE_MODES, Settings
from encdl.utils.worker_thread import background
from tests.files.codec.support import KEY, document, header_of, noise, same

SHAPES = st.lists(st.integers(1, 7), min_size=1, max_size=4).map(tuple)


@settings(max_examples=80, deadline=None)
@given(SHAPES, st.sampled_from(DTYPES), st.sampled_from(NAMES), st.sampled_from(NONCE_MODES), st.text("ab", max_size=3))
def test_round_trip(codec: Codec, shape: Any, dtype: str, postprocess: str, nonce: Any, study: str) -> None:
    array = noise(shape, dtype)
    made = codec.encrypt_array(array, KEY, Settings(postprocess=postprocess, nonce=nonce, study=study))
    assert same(codec.decrypt_array(made, KEY), array)
    header = header_of(made)
    assert same(codec.decrypt_array(made, KEY.grant_file(header.nonce_bytes, study)), array)
    assert len(made) < array.nbytes + 32 * header.grid.count + 1500


@pytest.mark.parametrize("dtype", ["uint8", "uint16", "int16", "float32"])
@pytest.mark.parametrize(
    "shape",
    [(1,), (1, 1), (1, 7), (6, 1), (5, 6), (5, 6, 1), (7, 9, 3), (9, 3, 5), (2, 2, 3, 5), (2, 1, 3, 5, 3)],
    ids=str,
)
def test_round_trip_with_the_network(agile: Codec, shape: tuple[int, ...], dtype: str) -> None:
    array = noise(shape, dtype)
    assert same(agile.decrypt_array(agile.encrypt_array(array, KEY, Settings(postprocess="both")), KEY), array)


def test_arrays_in_other_orders_are_the_same_content(codec: Codec) -> None:
    array = noise((6, 8, 3), "uint16")
    synthetic = Settings(nonce="synthetic")
    for other in (np.asfortranarray(array), array.astype(">u2"), array[::-1][::-1]):
        assert codec.encrypt_array(other, KEY, synthetic) == codec.encrypt_array(array, KEY, synthetic)


def test_documents_of_arrays() -> None:
    array = noise((2, 3, 4, 5), "float32")
    made = document_of(array)
    assert made.layout == "TSHW"
    assert [part.shape for part in made.slices()] == [(4, 5)] * 6
    assert same(array_of(made), array)
    assert [part.shape for part in document_of(array[0, 0, 0]).slices()] == [(1, 5)]


def test_large_images_go_in_tiles_and_some_channels_at_a_time(agile: Codec, monkeypatch: pytest.MonkeyPatch) -> None:
    from encdl.files import chunk_cipher
    from encdl.files.container import chunk_grid

    array = noise((37, 26, 3), "uint16")
    settings_ = Settings(nonce="synthetic", postprocess="both")
    whole = agile.encrypt_array(array, KEY, settings_)
    monkeypatch.setitem(chunk_cipher.PIXELS_AT_ONCE, "cpu", 90)
    assert agile.encrypt_array(array, KEY, settings_) == whole
    assert same(agile.decrypt_array(whole, KEY), array)
    monkeypatch.setattr(chunk_grid, "MAX_CHUNK_PIXELS", 100)
    tiled = agile.encrypt_array(array, KEY, settings_)
    assert header_of(tiled).grid.count == 15
    assert same(agile.decrypt_array(tiled, KEY), array)


def test_tiles_of_one_size_and_two_forms_are_not_put_together(codec: Codec, monkeypatch: pytest.MonkeyPatch) -> None:
    """The tile at the end of a row and the one below it, where a call has room for both."""
    monkeypatch.setattr("encdl.files.container.chunk_grid.MAX_CHUNK_PIXELS", 64)
    array = noise((12, 12), "uint8")
    made = codec.encrypt_array(array, KEY)
    grid = header_of(made).grid
    assert [(grid.place(n).height, grid.place(n).width) for n in range(4)] == [(8, 8), (8, 4), (4, 8), (4, 4)]
    assert same(codec.decrypt_array(made, KEY), array)


@pytest.mark.parametrize("mine", [{0}, {0, 1}])
def test_a_thread_hashes_where_it_has_a_core(codec: Codec, mine: set[int], monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr("encdl.files.codec.THREADED_BYTES", 1)
    monkeypatch.setattr("os.sched_getaffinity", lambda _: mine, raising=False)
    threads: list[bool] = []

    monkeypatch.setattr(
        "encdl.files.codec.background", lambda threaded: threads.append(threaded) or background(threaded)
    )
    array = noise((2, 9, 11), "int16")
    assert same(codec.decrypt_array(codec.encrypt_array(array, KEY), KEY), array)
    assert threads == [len(mine) > 1] * 2


@pytest.mark.parametrize("threads", [2, 3, 9])
def test_the_number_of_threads_changes_nothing(agile: Codec, threads: int, monkeypatch: pytest.MonkeyPatch) -> None:
    """Calls of one chunk or of several, the last one shorter, some of them at once; and the digest beside them."""
    for at_once in (1, 2 * 2 * 70 * 90):
        array, settings_ = noise((5, 70, 90), "int16"), Settings(nonce="synthetic")
        made = agile.encrypt_array(array, KEY, settings_)
        with monkeypatch.context() as patch:
            patch.setattr("encdl.files.codec.SHARED_BYTES", 1)
            patch.setattr("encdl.files.codec.threads", lambda: threads)
            patch.setattr("encdl.files.codec.cores", lambda: threads)
            patch.setattr("encdl.ciphers.compiled_ciphers.ArrayChunks.at_once", at_once)
            assert agile.encrypt_array(array, KEY, settings_) == made
            assert same(agile.decrypt_array(agile.encrypt_array(array, KEY), KEY), array)


def test_slices_are_read_and_written_one_after_the_other(codec: Codec, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setitem(__import__("encdl.files.chunk_cipher", fromlist=["x"]).PIXELS_AT_ONCE, "cpu", 40)
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
    reader = ContainerReader(io.BytesIO(stream.getvalue()), KEY)
    for number, part in enumerate(codec.decrypt(reader).slices()):
        assert same(part, slices[number])
        assert reader._stream.tell() < len(stream.getvalue()) or number >= 3
