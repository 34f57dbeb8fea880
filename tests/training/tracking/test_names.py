from __future__ import annotations

from types import SimpleNamespace
from typing import Any

import pytest

from encdl.training.tracking.names import config_hash, data_name

CONFIG: dict[str, Any] = {
    "seed_everything": 0,
    "model": {"init_args": {"seed": 0, "learning_rate": 1e-3}},
    "data": {"init_args": {"seed": 0, "crop": 64}},
    "trainer": {"max_epochs": 2, "logger": {"init_args": {"root": "runs"}}, "default_root_dir": "runs"},
    "ckpt_path": None,
}


def changed(path: str, value: Any) -> dict[str, Any]:
    first, _, rest = path.partition(".")
    if not rest:
        return {first: value}
    return {first: changed(rest, value)}


def merged(one: dict[str, Any], two: dict[str, Any]) -> dict[str, Any]:
    both = {name: merged(one[name], two[name]) for name in set(one) & set(two) if isinstance(two[name], dict)}
    return {**one, **two, **both}


@pytest.mark.parametrize(
    ("path", "value", "same"),
    [
        ("seed_everything", 1, True),
        ("model.init_args.seed", 1, True),
        ("data.init_args.seed", 1, True),
        ("trainer.logger", False, True),
        ("trainer.default_root_dir", "elsewhere", True),
        ("ckpt_path", "last.ckpt", True),
        ("trainer.enable_progress_bar", False, True),
        ("model.init_args.learning_rate", 2e-3, False),
        ("data.init_args.crop", 32, False),
        ("trainer.max_epochs", 3, False),
        ("data.init_args.seeds_per_slice", 1, False),
    ],
)
def test_the_hash_of_a_recipe(path: str, value: Any, same: bool) -> None:
    other = merged(CONFIG, changed(path, value))
    assert (config_hash(other) == config_hash(CONFIG)) is same


def test_names_of_data() -> None:
    assert data_name(SimpleNamespace(name="bloodmnist")) == "SimpleNamespace bloodmnist"
    assert data_name(SimpleNamespace(name=None)) == "SimpleNamespace"
