"""MONAI's metadata as JSON: affine, file name, header fields and the record of applied transforms.

Numbers, texts, lists and dictionaries, NumPy arrays and tensors come back as they were. Nothing is unpickled.
"""

from __future__ import annotations

import base64
import json
from typing import Any

import numpy as np
import torch

from encdl.utils.errors import ContainerError, ImageFileError

_KINDS = "biufcSU"
"""Of NumPy types: those that have no objects in them."""


def pack(value: object) -> bytes:
    """Encode a value.

    Raises:
        ImageFileError: something in it is of a type that cannot be kept; says where.
    """
    return json.dumps(_encode(value, "metadata"), separators=(",", ":")).encode()


def unpack(data: bytes) -> Any:
    """Undo `pack`.

    Raises:
        ContainerError: these bytes are not its work.
    """
    try:
        return _decode(json.loads(data))
    except (ValueError, TypeError, KeyError, AttributeError, RecursionError):
        raise ContainerError("what is sealed beside the pixels is not MONAI's metadata") from None


def _encode(value: object, where: str) -> Any:
    if isinstance(value, list):
        return [_encode(item, where) for item in value]
    if isinstance(value, tuple):
        return {"tuple": [_encode(item, where) for item in value]}
    if isinstance(value, dict):
        pairs = [[_encode(name, where), _encode(item, f"{where}[{name!r}]")] for name, item in value.items()]
        return {"dict": pairs}
    if isinstance(value, bytes):
        return {"bytes": base64.b64encode(value).decode()}
    return _leaf(value, where)


def _leaf(value: object, where: str) -> Any:
    if isinstance(value, str) and not isinstance(value, np.generic):
        return str.__str__(value)  # MONAI's names of entries are enumerations of texts
    if value is None or (isinstance(value, bool | int | float) and not isinstance(value, np.generic)):
        return value
    kind = "scalar" if isinstance(value, np.generic) else "array"
    if isinstance(value, torch.Tensor):
        kind, value = "tensor", _as_numpy(value, where)
    if isinstance(value, np.ndarray | np.generic) and value.dtype.kind in _KINDS:
        array = np.asarray(value)
        return {kind: [array.dtype.str, list(array.shape), base64.b64encode(array.tobytes()).decode()]}
    raise ImageFileError(f"{where}: is a {type(value).__name__}, which cannot be sealed: take it out first")


def _as_numpy(value: torch.Tensor, where: str) -> object:
    try:
        return value.detach().cpu().numpy()
    except TypeError:
        raise ImageFileError(f"{where}: is a {value.dtype} tensor, which NumPy does not know: convert it") from None


def _decode(value: Any) -> Any:
    if isinstance(value, list):
        return [_decode(item) for item in value]
    if not isinstance(value, dict):
        return value
    [(kind, content)] = value.items()
    if kind == "tuple":
        return tuple(_decode(item) for item in content)
    if kind == "dict":
        return {_decode(name): _decode(item) for name, item in content}
    if kind == "bytes":
        return base64.b64decode(content)
    return _values(kind, *content)


def _values(kind: str, dtype: str, shape: list[int], data: str) -> Any:
    known = np.dtype(dtype)
    if known.kind not in _KINDS:
        raise ValueError("a type with objects in it")
    array = np.frombuffer(base64.b64decode(data), known).reshape(shape).copy()
    if kind == "tensor":
        return torch.from_numpy(array)
    if kind not in ("array", "scalar"):
        raise ValueError("an unknown kind of value")
    return array if kind == "array" else array[()]
