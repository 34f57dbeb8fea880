"""Transforms that encrypt what is in memory and decrypt it again, alone and for the entries of a dictionary.

Encrypted, an image is `bytes`: what a `.encdl` file holds. Pixels and metadata, with affine and file name, are inside;
MONAI collates such entries into lists. Every call takes a fresh nonce from the operating system, never from MONAI's
random state, which is there to be repeated.
"""

from __future__ import annotations

import io
from collections.abc import Hashable, Mapping
from dataclasses import replace
from typing import Any

import numpy as np
import numpy.typing as npt
import torch
from monai.config import KeysCollection
from monai.data.meta_tensor import MetaTensor
from monai.transforms.traits import RandomizableTrait
from monai.transforms.transform import MapTransform, Transform

from encdl.files.codecs import codec_of, load_codec
from encdl.files.container import ContainerReader
from encdl.files.formats import non_pixel_data
from encdl.files.formats.base import Document, array_of, document_of
from encdl.files.settings import Settings, Wrapping
from encdl.keys.key import study_for
from encdl.keys.planes import PlaneSpec
from encdl.transforms import monai_metadata
from encdl.transforms.key_reference import KeyHolder, PipelineKey
from encdl.utils.errors import ContainerError, ImageFileError

Image = npt.NDArray[Any] | torch.Tensor
FORMAT = "monai"
"""The format's name in the sealed metadata."""

_SUFFIX = ".npy"
"""Suffix of the file that `encdl decrypt` makes of such a container."""


class Encrypt(Transform):  # type: ignore[misc]
    """Encrypts an image into a container.

    Args:
        key: the path of a key or grant file, a `KeyRef`, or a key or grant itself, which stays in this process:
            DataLoader workers that are spawned and caches on disk need one of the former.
        study: name of the study; anyone can read it.
        wrap: "aes" to seal the container in AES-256-GCM.
        weights: name or file of the cipher's weights.
        device: where to compute; workers can only use "cpu".

    Raises:
        KeyFileError, UsageError: the key cannot be opened, or is a grant that cannot encrypt.
    """

    def __init__(
        self,
        key: PipelineKey,
        study: str | None = None,
        wrap: Wrapping = "none",
        weights: str = "default",
        device: str = "cpu",
    ) -> None:
        self._key, self._weights, self._device = KeyHolder(key), weights, device
        self._study, self._wrap = study_for(study, self._key.get()), wrap

    def __call__(self, img: Image) -> bytes:
        """Encrypt an array, tensor or `MetaTensor` of 1 to 8 axes; its device and gradients are not kept.

        Raises:
            ImageFileError: it is something else, or of a type that has no bit pattern in NumPy.
        """
        codec = load_codec(self._weights, self._device)
        cipher: Any = codec.cipher
        settings = Settings(PlaneSpec(count=cipher.planes), study=self._study, wrap=self._wrap)
        stream = io.BytesIO()
        codec.encrypt(_document(img), self._key.get(), stream, settings, suffix=_SUFFIX)
        return stream.getvalue()


class Decrypt(Transform, RandomizableTrait):  # type: ignore[misc]
    """Undoes `Encrypt`; also opens the content of any other `.encdl` file, as an array.

    It counts as random for MONAI, so that `CacheDataset` and `PersistentDataset` keep what comes before it: the
    ciphertext.

    Args:
        key: as of `Encrypt`.
        weights: name or file of the cipher's weights; those that each container names by default.
        device: where to compute; workers can only use "cpu".

    Raises:
        KeyFileError, UsageError: the key cannot be opened.
    """

    def __init__(self, key: PipelineKey, weights: str | None = None, device: str = "cpu") -> None:
        self._key, self._weights, self._device = KeyHolder(key), weights, device

    def __call__(self, data: bytes) -> Image:
        """The image: of the type that was encrypted, on the CPU, bit for bit.

        Raises:
            ContainerError: these bytes are no container, or were changed.
            WrongKeyError: the key or grant is for something else.
            WeightsError: the container needs other weights.
        """
        if not isinstance(data, bytes | bytearray | memoryview):
            raise ContainerError(f"a {type(data).__name__} is no container: give the bytes that Encrypt made")
        reader = ContainerReader(io.BytesIO(data), self._key.get())
        document = codec_of(reader.header, self._weights, self._device).decrypt(reader)
        return image_of(document)


class Encryptd(MapTransform):  # type: ignore[misc]
    """`Encrypt` for entries of a dictionary.

    Args:
        keys: the entries.
        key: as of `Encrypt`, like all that follow but the last.
        study: name of the study.
        wrap: "aes" or "none".
        weights: name or file of the cipher's weights.
        device: where to compute.
        allow_missing_keys: do not raise if an entry is missing.
    """

    def __init__(
        self,
        keys: KeysCollection,
        key: PipelineKey,
        study: str | None = None,
        wrap: Wrapping = "none",
        weights: str = "default",
        device: str = "cpu",
        allow_missing_keys: bool = False,
    ) -> None:
        super().__init__(keys, allow_missing_keys)
        self.encrypt = Encrypt(key, study, wrap, weights, device)

    def __call__(self, data: Mapping[Hashable, Any]) -> dict[Hashable, Any]:
        """Encrypt each entry."""
        result = dict(data)
        for name in self.key_iterator(result):
            result[name] = self.encrypt(result[name])
        return result


class Decryptd(MapTransform, RandomizableTrait):  # type: ignore[misc]
    """`Decrypt` for entries of a dictionary; counts as random, like it.

    Args:
        keys: the entries.
        key: as of `Decrypt`, like all that follow but the last.
        weights: name or file of the cipher's weights.
        device: where to compute.
        allow_missing_keys: do not raise if an entry is missing.
    """

    def __init__(
        self,
        keys: KeysCollection,
        key: PipelineKey,
        weights: str | None = None,
        device: str = "cpu",
        allow_missing_keys: bool = False,
    ) -> None:
        super().__init__(keys, allow_missing_keys)
        self.decrypt = Decrypt(key, weights, device)

    def __call__(self, data: Mapping[Hashable, Any]) -> dict[Hashable, Any]:
        """Decrypt each entry."""
        result = dict(data)
        for name in self.key_iterator(result):
            result[name] = self.decrypt(result[name])
        return result


def image_of(document: Document) -> Image:
    """The image in a document: of its own type if `Encrypt` made it, else an array of the document's layout."""
    array = array_of(document)
    if document.format != FORMAT:
        return array
    told = told_of(document)
    if told["kind"] == "ndarray":
        return array
    tensor = torch.from_numpy(array)
    if told["kind"] == "tensor":
        return tensor
    made: torch.Tensor = MetaTensor(tensor, meta=told["meta"], applied_operations=told["applied"])
    return made


def told_of(document: Document) -> dict[str, Any]:
    """The metadata that `Encrypt` sealed beside the pixels: `kind`, and for a `MetaTensor` `meta` and `applied`.

    Raises:
        ContainerError: it is something else.
    """
    try:
        _, [packed] = non_pixel_data.unpack(document.rest)
    except (ValueError, RecursionError):
        raise ContainerError("what is sealed beside the pixels is not MONAI's metadata") from None
    told = monai_metadata.unpack(packed)
    if not isinstance(told, dict) or told.get("kind") not in ("ndarray", "tensor", "MetaTensor"):
        raise ContainerError("what is sealed beside the pixels is not MONAI's metadata")
    return {"meta": {}, "applied": [], **told}


def _document(img: Image) -> Document:
    told: dict[str, Any] = {"kind": "ndarray"}
    if isinstance(img, MetaTensor):
        if img.pending_operations:
            raise ImageFileError("the image has pending lazy transforms: apply them before it is encrypted")
        told = {"kind": "MetaTensor", "meta": dict(img.meta), "applied": list(img.applied_operations)}
    elif isinstance(img, torch.Tensor):
        told = {"kind": "tensor"}
    elif not isinstance(img, np.ndarray):
        raise ImageFileError(f"a {type(img).__name__} is no image: give an array or a tensor")
    array = img if isinstance(img, np.ndarray) else _numpy(img)
    packed = non_pixel_data.pack("MONAI's metadata", {"kind": FORMAT}, monai_metadata.pack(told))
    return replace(document_of(array), format=FORMAT, rest=packed)


def _numpy(tensor: torch.Tensor) -> npt.NDArray[Any]:
    plain = tensor.as_tensor() if isinstance(tensor, MetaTensor) else tensor
    try:
        return plain.detach().cpu().numpy()
    except TypeError:
        raise ImageFileError(f"a {tensor.dtype} tensor has no bit pattern in NumPy: convert it first") from None
