"""The names that YAML and command line give classes: short ones, and those of earlier versions.

jsonargparse finds a class by its bare name (`EncryptTask`) once its module is imported: so all are imported here.
"""

from __future__ import annotations

import importlib
import re
from typing import Any

import yaml
from jsonargparse import get_loader, set_loader

from encdl.utils.recipes import with_base

MODE = "encdl"
"""jsonargparse's name of YAML in which earlier names are read too."""

OFFERED = (
    *(
        f"encdl.data.{name}"
        for name in ("class_folder", "decathlon", "decathlon_volumes", "embedded", "image_folder", "lesions")
    ),
    *(f"encdl.data.{name}" for name in ("mask_folder", "mednist", "medmnist", "mixture", "npz")),
    *(f"encdl.training.tasks.{name}" for name in ("classify", "encrypt", "segment", "views")),
    *(
        "encdl.ciphers",
        "encdl.readers",
        "encdl.training.best_checkpoint",
        "encdl.training.callbacks",
        "encdl.training.tracking",
    ),
)
"""Modules of tasks, data sets, ciphers, parts of readers, callbacks and loggers."""

MOVED = {
    "encdl.tasks": "encdl.training.tasks",
    "encdl.tracking": "encdl.training.tracking",
    "encdl.callbacks": "encdl.training.callbacks",
    "encdl.data.classes": "encdl.data.class_folder",
    "encdl.data.folder": "encdl.data.image_folder",
}
"""Modules as earlier versions called them, and as they are called now."""

RENAMED = {
    "EncryptTask": {"weights": "loss_weights"},
    "RunLogger": {"experiment": "experiment_name", "log_model": "keep_reader"},
}
"""Settings of classes as earlier versions called them, and as they are called now."""

_OLD = re.compile(rf"(.*=)?({'|'.join(map(re.escape, MOVED))})((?:\.\w+)+)")


def import_offered() -> None:
    """Import what is offered by short names."""
    for module in OFFERED:
        importlib.import_module(module)


def current(name: str) -> str:
    """A dotted name, or SETTING=NAME, as it is now; anything else comes back as it is."""
    old = _OLD.fullmatch(name)
    return f"{old[1] or ''}{MOVED[old[2]]}{old[3]}" if old else name


def _load(text: str) -> Any:
    return _updated(with_base(get_loader("yaml")(text)))


def _updated(value: Any) -> Any:
    """Plain values as YAML gives them, with the names of now."""
    if isinstance(value, str):
        return current(value)
    if isinstance(value, list):
        return [_updated(each) for each in value]
    if not isinstance(value, dict):
        return value
    found = {name: _updated(each) for name, each in value.items()}
    settings = found.get("init_args")
    renamed = RENAMED.get(str(found.get("class_path")).rpartition(".")[2], {})
    if isinstance(settings, dict):
        found["init_args"] = {renamed.get(name, name): each for name, each in settings.items()}
    return found


set_loader(MODE, _load, exceptions=(yaml.YAMLError,))
