"""Objects that hold a secret neither show nor copy it."""

from __future__ import annotations

import copy
import dataclasses
import io
import json
import logging
import pickle
import pprint
import traceback
from collections.abc import Callable
from typing import Any

import numpy as np
import pytest
import torch

from encdl.keys.key import Key
from tests.leaks.holders import HOLDERS, KEY, SECRETS
from tests.leaks.search import leaks


def _log(value: object) -> str:
    stream = io.StringIO()
    logger = logging.Logger("leaks")
    logger.addHandler(logging.StreamHandler(stream))
    logger.error("%s %r", value, [value])
    return stream.getvalue()


def _trace(value: object) -> str:
    def deep(mine: object) -> None:
        holder = {"mine": [mine]}
        raise LookupError(mine, holder)

    try:
        deep(value)
    except LookupError as error:
        return "".join(traceback.TracebackException.from_exception(error, capture_locals=True).format())
    return ""


SHOWS: list[Callable[[Any], str]] = [
    repr, str, lambda value: f"{value} {value!r} {value!s:>90}", lambda value: f"{value}", lambda value: f"{(value,)}",
    pprint.pformat, lambda value: json.dumps({"k": value}, default=repr), _log, _trace, lambda value: str(dir(value)),
    lambda value: str(hash(value)), lambda value: repr({value: [value]}), lambda value: str(np.array([value], object)),
]  # fmt: skip

COPIES: list[Callable[[Any], object]] = [
    *(lambda value, protocol=protocol: pickle.dumps(value, protocol) for protocol in range(6)),
    copy.copy, copy.deepcopy, lambda value: torch.save({"k": value}, io.BytesIO()), json.dumps, vars,
    lambda value: np.save(io.BytesIO(), np.array([value], object)), dataclasses.asdict, dataclasses.astuple,
]  # fmt: skip


@pytest.mark.parametrize("holder", HOLDERS)
def test_no_way_to_show_an_object_shows_its_secret(holder: str) -> None:
    for show in SHOWS:
        shown = show(HOLDERS[holder])
        assert shown
        assert leaks(shown.encode(), SECRETS) == []


@pytest.mark.parametrize("holder", HOLDERS)
def test_no_way_to_copy_an_object_works(holder: str) -> None:
    for duplicate in COPIES:
        with pytest.raises(TypeError) as caught:
            duplicate(HOLDERS[holder])
        assert leaks(str(caught.value).encode(), SECRETS) == []


def test_errors_that_hold_a_key_as_an_argument() -> None:
    for holder in HOLDERS.values():
        error = ValueError("bad", holder)
        assert leaks(f"{error} {error!r} {error.args}".encode(), SECRETS) == []
        with pytest.raises(TypeError):
            pickle.dumps(error)  # as a worker process would hand it on


def test_comparing_tells_nothing() -> None:
    with pytest.raises(AssertionError) as caught:
        assert Key.generate() == KEY
    assert leaks(str(caught.value).encode(), SECRETS) == []
