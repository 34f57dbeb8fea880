"""What is refused, and with what error."""

from __future__ import annotations

import dataclasses
import io
from collections.abc import Iterator
from typing import Any

import numpy as np
import pytest
import torch

from encdl.files.codec import Codec
from encdl.files.container import ContainerReader
from encdl.files.formats import Document
from encdl.files.settings import Settings
from encdl.utils.errors import ContainerError, ImageFileError, UsageError, WeightsError
from tests.files.codec.support import KEY, WEIGHTS, Array, document, noise
from tests.stub_cipher import StubCipher


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
            WeightsError, match=f"'stub' with {'f' * 16}.* needs cipher 'stub' with weights {WEIGHTS}.*--weights"
        ):
            read(ContainerReader(io.BytesIO(made), KEY))
    reader = ContainerReader(io.BytesIO(made), KEY)
    object.__setattr__(reader.header, "postprocess", "folding")
    with pytest.raises(ContainerError, match="newer EncDL"):
        codec.decrypt(reader)


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


@pytest.mark.parametrize(("held", "times"), [(2**20, 1), (0, 2)], ids=["small", "large"])
@pytest.mark.parametrize("threaded", [0, 2**20], ids=["thread", "no thread"])
def test_a_small_array_is_read_once_and_a_large_one_twice(
    codec: Codec, monkeypatch: pytest.MonkeyPatch, held: int, times: int, threaded: int
) -> None:
    """What changes between the two is noticed; what is held in memory, nobody changes any more."""
    monkeypatch.setattr("encdl.files.codec.HELD_BYTES", held)
    monkeypatch.setattr("encdl.files.codec.THREADED_BYTES", threaded)
    volume, reads = noise((3, 4, 5)).copy(), []
    before = volume.copy()

    def slices() -> Iterator[Array]:
        reads.append(len(reads))
        for image in volume:
            yield image
            image[:] += len(reads) == times  # once its last reader goes on

    made = dataclasses.replace(document(list(volume), volume.shape), slices=slices)
    stream = io.BytesIO()
    codec.encrypt(made, KEY, stream)
    assert len(reads) == times
    assert not np.array_equal(volume, before)
    np.testing.assert_array_equal(codec.decrypt_array(stream.getvalue(), KEY), before)
    others = iter([noise((3, 4, 5), seed=seed) for seed in range(3)])
    changing = dataclasses.replace(made, slices=lambda: iter(next(others)))
    if times == 1:
        codec.encrypt(changing, KEY, io.BytesIO())
        return
    with pytest.raises(ImageFileError, match="changed while they were read"):
        codec.encrypt(changing, KEY, io.BytesIO())


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
        (RuntimeError("DefaultCPUAllocator: can't allocate memory: you tried to allocate 9 bytes"), MemoryError),
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
