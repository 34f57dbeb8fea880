"""The hyper-parameters of a task as plain values, from which `load_from_checkpoint` makes it again."""

from __future__ import annotations

import inspect
import warnings
from collections.abc import Mapping
from dataclasses import asdict, is_dataclass
from functools import partial
from typing import Any

from lightning.pytorch import LightningModule

from encdl.ciphers.base import Cipher

INSTANTIATOR = "_instantiator"
"""Under this name Lightning keeps which function makes the task again: with this one, class paths become objects."""


def save_settings(task: LightningModule) -> None:
    """Save the hyper-parameters of a task; call in its constructor, as `save_hyperparameters`.

    A task of the command line has its settings as they were written. One made in Python has descriptions of its
    objects; what has none (a function of the caller) is left out, and `load_from_checkpoint` must be given it.
    """
    frame = inspect.currentframe()
    with warnings.catch_warnings():
        warnings.filterwarnings("ignore", "Attribute .* is an instance of `nn.Module`")
        task.save_hyperparameters(frame=frame.f_back if frame else None)
    if INSTANTIATOR in task.hparams:
        return
    given, known = dict(task.hparams), inspect.signature(type(task)).parameters
    described = {name: describe(value) for name, value in given.items() if name in known}
    plain = {name: value for name, value in described.items() if value is not None or given[name] is None}
    task.save_hyperparameters(
        {**plain, INSTANTIATOR: "lightning.pytorch.cli.instantiate_module"},
        ignore=[name for name in given if name not in plain],
        frame=frame,
    )


def describe(value: Any) -> Any:
    """A setting as plain values, as YAML has it; None for what cannot be said so."""
    match value:
        case str() | bool() | int() | float():
            found: Any = value
        case list() | tuple():
            found = [describe(each) for each in value]
        case Mapping():
            found = {name: describe(each) for name, each in value.items()}
        case Cipher():
            found = {"class_path": _path(type(value)), "init_args": value.config()}
        case partial():
            found = {"class_path": _path(value.func), "init_args": describe(value.keywords)}
        case type():
            found = {"class_path": _path(value)}
        case _:
            found = asdict(value) if is_dataclass(value) and not isinstance(value, type) else None
    return found


def _path(kind: Any) -> str:
    return f"{kind.__module__}.{kind.__qualname__}"
