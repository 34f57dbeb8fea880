"""The interval of a test's main figure: over patients where they are known."""

from __future__ import annotations

from types import SimpleNamespace
from typing import Any

import pytest
import torch

from encdl.training.patients import by_patient, told_interval


def data(groups: list[str] | None, volumes: list[int] | None = None) -> Any:
    samples = [{} if volumes is None else {"volume": volume} for volume in volumes or range(len(groups or []))]
    return SimpleNamespace(groups=lambda split: groups, samples=lambda split: samples)


def test_images_of_a_patient_count_together() -> None:
    task = SimpleNamespace(right=torch.tensor([1.0, 1.0, 0.0, 1.0]))
    known = by_patient(task, data(["a", "a", "b", "c"]))["patients"]
    assert known == {"figure": "accuracy", "names": ["a", "a", "b", "c"], "values": [1, 1, 0, 1]}
    label, value = told_interval(task, data(["a", "a", "b", "c"])) or ("", "")
    assert label == "accuracy over 3 patients"
    assert value.startswith("0.750 (")
    assert (told_interval(task, data(None)) or ("", ""))[0] == "accuracy over 4 images"


@pytest.mark.parametrize(("missing", "told"), [(False, "0.600 ("), (True, "0.800")])
def test_a_volume_is_of_the_patient_of_its_slices(missing: bool, told: str) -> None:
    dice = torch.tensor([[0.8, 0.8], [torch.nan, torch.nan] if missing else [0.4, 0.4]])
    task = SimpleNamespace(dice_by_volume=dice)
    label, value = told_interval(task, data(["p", "q", "q"], [0, 1, 1])) or ("", "")
    assert label == f"dice over {1 if missing else 2} patients"
    assert value.startswith(told)


def test_other_tasks_have_none() -> None:
    assert told_interval(SimpleNamespace(), data(["a"])) is None
    assert by_patient(SimpleNamespace(right=torch.ones(2)), data(["a"])) == {}
