"""The codec that weights or a container ask for, loaded once in a process."""

from __future__ import annotations

import functools
import os
import threading
from pathlib import Path
from typing import TYPE_CHECKING

from encdl.ciphers.compiled_ciphers import FixedMask, available
from encdl.ciphers.names import FIXED, SHIPPED, SHIPPED_IDS, how_to_get
from encdl.files.codec import Codec
from encdl.files.container import Header
from encdl.utils.devices import usable_device
from encdl.utils.errors import EncdlError, WeightsError

if TYPE_CHECKING:
    from encdl.ciphers.weights import LoadedCipher

WeightsName = str | os.PathLike[str]
"""Name or file of a cipher's weights."""

_one_at_a_time = threading.Lock()


def load_codec(weights_of: WeightsName, device: str = "auto") -> Codec:
    """The codec with the weights of this name or file.

    Raises:
        WeightsError: no such weights.
        UsageError: no such device.
    """
    name = os.fspath(weights_of)
    where = Path(name)
    status = where.stat() if name not in SHIPPED and where.is_file() else None
    stamp = status and (where.absolute(), status.st_mtime_ns, status.st_size)
    with _one_at_a_time:
        return _codec(name, usable_device(device), stamp)


def codec_of(
    header: Header, weights_of: WeightsName | None = None, device: str = "auto", where: object = "data"
) -> Codec:
    """The codec that a container asks for; `weights_of` names the weights if they do not come with EncDL.

    Raises:
        WeightsError: they do not and none are given; says which are needed and how to get them.
    """
    name = SHIPPED_IDS.get(header.weights) if weights_of is None else weights_of
    if name is None:
        raise WeightsError(f"{where}: {how_to_get(header.cipher, header.weights)}")
    return load_codec(name, device)


def load_cipher(name: str, device: str) -> LoadedCipher:
    """As `weights.load`, also of a file of another kind, over which the unpickler stumbles in many ways.

    Raises:
        WeightsError: unknown name, or an unreadable file.
    """
    from encdl.ciphers import weights  # noqa: PLC0415 - loads PyTorch

    try:
        return weights.load(name, device=device)
    except EncdlError:
        raise
    except (LookupError, TypeError, AttributeError, ValueError) as error:
        raise WeightsError(f"{name}: not a weights file ({type(error).__name__}): give one, or default") from None


def codec_with(loaded: LoadedCipher, device: str) -> Codec:
    """The codec of a cipher; where its weights decide no mask, compiled code does what it can without PyTorch."""
    if device == "cpu" and available() and (loaded.cipher.name, loaded.id) in FIXED.values():
        return Codec(FixedMask(loaded.cipher.name), loaded.id, device, lambda: loaded.cipher)
    return Codec(loaded.cipher, loaded.id, device)


@functools.lru_cache(maxsize=4)
def _codec(name: str, device: str, stamp: object) -> Codec:
    if name in FIXED and device == "cpu" and available():
        kind, identity = FIXED[name]
        return Codec(FixedMask(kind), identity, device, functools.cache(lambda: load_cipher(name, device).cipher))
    return codec_with(load_cipher(name, device), device)
