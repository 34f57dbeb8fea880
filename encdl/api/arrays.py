"""Arrays and containers in memory."""

from __future__ import annotations

import io
from dataclasses import dataclass, field
from typing import Unpack

import numpy as np
import numpy.typing as npt

from encdl.api.openers import AnyPath, Array
from encdl.files import container
from encdl.files.codecs import WeightsName, codec_of
from encdl.files.container import ContainerReader
from encdl.files.encrypting import EncryptionSettings, encryption
from encdl.files.formats.base import array_of
from encdl.files.settings import Salvage
from encdl.keys.key_source import AnyKey, opened
from encdl.utils.errors import ContainerError


@dataclass(frozen=True)
class Salvaged:
    """The result of `salvage` on a damaged container. UNVERIFIED where it was damaged, and not for diagnosis.

    Attributes:
        array: of the original's shape and type.
        damaged: slices of which a part was damaged or missing, counted from 0; these are guesses, or zero.
        problems: what was found wrong with the file as a whole.
    """

    array: Array
    damaged: list[int]
    problems: list[str] = field(default_factory=list)


def encrypt(
    array: npt.ArrayLike,
    key: AnyKey | None = None,
    *,
    layout: str | None = None,
    **settings: Unpack[EncryptionSettings],
) -> bytes:
    """Encrypt an array into a container.

    Args:
        array: 1 to 8 axes of integers or floats; a CPU tensor serves too. Any bit pattern comes back.
        key: the key, or a grant for the study, or the path of its file; None if recipients alone shall open it.
        layout: one letter an axis, such as "SHW"; by default up to four values in the last of three or more axes are
            colour, and the two axes before are an image's.
        settings: see `EncryptionSettings`.

    Returns:
        What a `.encdl` file holds. `encdl decrypt` makes a .npy file of it.

    Raises:
        ImageFileError: an array that no file holds.
        UsageError: a wrong setting, or a grant that cannot encrypt.
        WrongKeyError: a grant for another study.
        WeightsError: no such weights.
    """
    how = encryption(key, **settings)
    return how.codec.encrypt_array(np.asarray(array), how.opener, how.settings, layout=layout)


def decrypt(data: bytes, key: AnyKey, *, weights: WeightsName | None = None, device: str = "auto") -> Array:
    """Decrypt a container into the array of its pixels, bit-exact.

    Args:
        data: what a `.encdl` file holds.
        key: the key, or a grant for the file or its study, or the path of its file.
        weights: name or file of the cipher's weights; those that the container names by default.
        device: where to compute.

    Raises:
        ContainerError: something was changed since it was written; nothing is returned then.
        WrongKeyError: the key or grant is for something else.
        WeightsError: the container needs other weights; says which, and how to get them.
    """
    reader = ContainerReader(io.BytesIO(data), opened(key))
    return array_of(codec_of(reader.header, weights, device).decrypt(reader))


def decrypt_slice(
    source: AnyPath, key: AnyKey, number: int, *, weights: WeightsName | None = None, device: str = "auto"
) -> Array:
    """One slice of a container, on a disk or at an address of fsspec such as `s3://…`: no more of it is fetched.

    Args:
        source: path or address.
        key: as `decrypt`.
        number: of the slice, counted from 0 through all axes before H.
        weights: as `decrypt`.
        device: where to compute.

    Raises:
        ContainerError, WrongKeyError, WeightsError: as `decrypt`, of this slice.
        UsageError: there is no such slice, or nothing at this address.
    """
    with container.opened(source, opened(key)) as reader:
        return codec_of(reader.header, weights, device).decrypt_slice(reader, number)


def salvage(
    data: bytes, key: AnyKey, *, restore: bool = True, weights: WeightsName | None = None, device: str = "auto"
) -> Salvaged:
    """Open a damaged container as far as it goes.

    Args:
        data: what is left of a `.encdl` file.
        key: as `decrypt`.
        restore: guess damaged slices with the cipher's decryption network; if not, they stay zero.
        weights: as `decrypt`.
        device: where to compute.

    Raises:
        ContainerError: not even the header is left.
        WrongKeyError, WeightsError: as `decrypt`.
    """
    reader = ContainerReader(io.BytesIO(data), opened(key), tolerant=True)
    if reader.nothing_left():
        raise ContainerError("data: ends with its header: nothing is left to salvage")
    how = Salvage(restore=restore)
    array = array_of(codec_of(reader.header, weights, device).decrypt(reader, how))
    return Salvaged(array, how.damaged, reader.problems)
