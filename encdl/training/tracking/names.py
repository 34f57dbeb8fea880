"""Names of experiments, runs and tags in MLflow; docs/comparing-runs.md tells users the same."""

from __future__ import annotations

import hashlib
import json
import os
import re
from collections.abc import Iterator, Mapping
from datetime import UTC, datetime
from typing import Any

from lightning.pytorch import LightningModule, Trainer

from encdl import __version__
from encdl.ciphers import Cipher
from encdl.ciphers.weights import weights_id
from encdl.utils import records

LONGEST_PARAMETER = 500
CONFIG_TAG, SEED_TAG, ENDED_TAG = "config_hash", "seed", "ended_by"
WEIGHTS_TAG = "cipher_weights"
PARENT_TAG = "mlflow.parentRunId"
"""MLflow's own; its pages show a run below the one that this names."""

NOT_THE_RECIPE = re.compile(
    r"config|subcommand|panels|ckpt_path|seed_everything|(.*\.)?seed|trainer\.(logger|default_root_dir|enable_.*)(\..*)?"
)
"""Settings that `config_hash` leaves out: seeds, and where things are kept and shown."""


def flatten(config: Any, prefix: str = "") -> Iterator[tuple[str, str]]:
    """The leaves of nested mappings and lists of mappings, as (dotted name, text); None is left out."""
    if isinstance(config, Mapping):
        entries = [(str(name), value) for name, value in config.items()]
    elif isinstance(config, list | tuple) and any(isinstance(item, Mapping | list) for item in config):
        entries = [(str(index), value) for index, value in enumerate(config)]
    else:
        if config is not None:
            yield prefix, str(config)[:LONGEST_PARAMETER]
        return
    for name, value in entries:
        yield from flatten(value, f"{prefix}.{name}" if prefix else name)


def config_hash(config: Mapping[str, Any]) -> str:
    """12 hex digits that runs of one recipe share, whatever their seeds and wherever they are kept."""
    recipe = {name: value for name, value in flatten(config) if not NOT_THE_RECIPE.fullmatch(name)}
    return hashlib.sha256(json.dumps(recipe, sort_keys=True).encode()).hexdigest()[:12]


def data_name(data: object) -> str:
    """A data module's class, and the name of the data set where the class has several."""
    name = getattr(data, "name", None)
    return type(data).__name__ + (f" {name}" if isinstance(name, str) and name else "")


def timed(name: str) -> str:
    """A name with the time behind it, for runs that nobody named."""
    return f"{name}, {datetime.now(UTC).astimezone():%Y-%m-%d %H:%M:%S}"


def run_name(trainer: Trainer, task: LightningModule) -> str:
    """`TASK DATA VIEW seed N, TIME`, as far as there is a view and a seed."""
    data, view, seed = getattr(trainer, "datamodule", None), getattr(task, "view", None), _seed()
    parts = [
        type(task).__name__.removesuffix("Task"),
        data_name(data) if data is not None else "",
        type(view).__name__ if view is not None else "",
        f"seed {seed}" if seed else "",
    ]
    return timed(" ".join(part for part in parts if part))


def tags(trainer: Trainer, task: LightningModule, stage: str) -> dict[str, str]:
    """The tags of a run that a trainer makes; see docs/comparing-runs.md."""
    data, view = getattr(trainer, "datamodule", None), getattr(task, "view", None)
    kind = trainer.strategy.root_device.type
    device = records.device_name(str(trainer.strategy.root_device)) if kind == "cuda" else kind
    found = {
        "task": type(task).__name__,
        "data": data_name(data) if data is not None else "",
        "view": type(view).__name__ if view is not None else "",
        "stage": str(getattr(stage, "value", stage)),
        "device": f"{trainer.world_size} x {device}",
        "commit": records.commit(),
        "versions": ", ".join(f"{name} {version}" for name, version in records.versions().items())
        or f"encdl {__version__}",
        SEED_TAG: _seed(),
    }
    return {name: value for name, value in found.items() if value} | cipher_tags(task)


def cipher_tags(task: LightningModule) -> dict[str, str]:
    """The id of the cipher's weights as they are now, if the task has a cipher."""
    cipher = getattr(task, "cipher", None)
    return {WEIGHTS_TAG: weights_id(cipher)} if isinstance(cipher, Cipher) else {}


def _seed() -> str:
    """The seed of Lightning's `seed_everything`, as the environment has it."""
    return os.environ.get("PL_GLOBAL_SEED", "")
