"""Data sets as MLflow shows them: name, digest and profile of each split that a run reads."""

from __future__ import annotations

import json
from typing import Any

from encdl.data.base import ImageDataModule, Split
from encdl.data.split_digest import digest
from encdl.training.tracking.names import data_name

CONTEXTS: dict[str, dict[Split, str]] = {
    "fit": {"train": "training", "val": "validation"},
    "validate": {"val": "validation"},
    "test": {"test": "testing"},
}
"""By stage: the splits that it reads, and MLflow's word for what for."""


def inputs(data: ImageDataModule, stage: str) -> list[Any]:
    """The data of a stage, as MLflow's `DatasetInput`s.

    Args:
        data: Set up for the stage.
        stage: One of `CONTEXTS`; others read nothing that is recorded.
    """
    from mlflow import entities  # noqa: PLC0415

    found = []
    for split, context in CONTEXTS.get(stage, {}).items():
        samples = data.raw(split)
        dataset = entities.Dataset(
            name=f"{data_name(data)} {split}",
            digest=digest(samples),
            source_type="code",
            source=json.dumps({"tags": {"class": f"{type(data).__module__}.{type(data).__qualname__}"}}),
            profile=json.dumps(_profile(data, len(samples))),
        )
        tag = entities.InputTag("mlflow.data.context", context)
        found.append(entities.DatasetInput(dataset, [tag]))
    return found


def _profile(data: ImageDataModule, images: int) -> dict[str, Any]:
    spec = data.spec
    return {
        "pictures": images,
        "channels": spec.channels,
        "height": spec.height,
        "width": spec.width,
        "classes": ", ".join(spec.classes),
    }
