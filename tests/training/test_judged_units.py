"""The interval of a test's main figure: over patients where they are known."""

from __future__ import annotations

from types import SimpleNamespace
from typing import Any

import pytest
import torch

from encdl.training.judged_units import by_unit, told_interval


def data(groups: list[str] | None, volumes: list[int] | None = None) -> Any:
    samples = [{} if volumes is None else {"volume": volume} for volume in volumes or range(len(groups or []))]
    return SimpleNamespace(groups=lambda split: groups, samples=lambda split: samples)


def test_images_of_a_patient_count_together() -> None:
    task = SimpleNamespace(right=torch.tensor([1.0, 1.0, 0.0, 1.0]))
    known = by_unit(task, data(["a", "a", "b", "c"]))["patients"]
    assert known == {"figure": "accuracy", "names": ["a", "a", "b", "c"], "values": [1, 1, 0, 1]}
    label, value = told_interval(task, data(["a", "a", "b", "c"])) or ("", "")
    assert label == "accuracy over 3 patients"
    assert value.startswith("0.750 (")
    assert (told_interval(task, data(None)) or ("", ""))[0] == "accuracy over 4 images"
    alike = SimpleNamespace(**vars(data(["a", "a", "b", "c"])), grouping="clusters")
    assert (told_interval(task, alike) or ("", ""))[0] == "accuracy over 3 clusters"


@pytest.mark.parametrize(("missing", "told"), [(False, "0.600 ("), (True, "0.800")])
def test_a_volume_is_of_the_patient_of_its_slices(missing: bool, told: str) -> None:
    dice = torch.tensor([[0.8, 0.8], [torch.nan, torch.nan] if missing else [0.4, 0.4]])
    task = SimpleNamespace(dice_by_volume=dice)
    label, value = told_interval(task, data(["p", "q", "q"], [0, 1, 1])) or ("", "")
    assert label == f"dice over {1 if missing else 2} patients"
    assert value.startswith(told)


def test_other_tasks_have_none() -> None:
    assert told_interval(SimpleNamespace(), data(["a"])) is None
    assert by_unit(SimpleNamespace(), data(["a"])) == {}


@pytest.mark.parametrize(("volumes", "unit"), [([0, 0, 1], "volumes"), (None, "images")])
def test_without_patients_intervals_are_over_volumes_or_images(volumes: list[int] | None, unit: str) -> None:
    known = data(["a", "b"], volumes)
    known.groups = lambda split: None
    task = SimpleNamespace(dice_by_volume=torch.tensor([[0.8], [0.4]]))
    assert list(by_unit(task, known)) == [unit]
    assert (told_interval(task, known) or ("", ""))[0] == f"dice over 2 {unit}"
