"""JSON in one form: equal values have equal bytes, so what is signed or tagged can be written again and compared."""

from __future__ import annotations

import json
from typing import Any


def encoded(values: object) -> bytes:
    """UTF-8, keys sorted, no spaces.

    Raises:
        ValueError: a number is NaN or infinite.
    """
    text = json.dumps(values, sort_keys=True, separators=(",", ":"), ensure_ascii=False, allow_nan=False)
    return text.encode("utf-8")


def decoded(content: bytes) -> dict[str, Any]:
    """An object from untrusted bytes.

    Raises:
        ValueError: it is none, or is written in another form: no duplicate fields, no floats in disguise.
    """
    try:
        values = json.loads(content.decode("utf-8"))
        exact = isinstance(values, dict) and encoded(values) == content
    except RecursionError:
        exact = False
    if not exact:
        raise ValueError("not an object of canonical JSON")
    return dict(values)
