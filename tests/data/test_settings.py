"""Every data set can be made from YAML, with its own settings, those that all have, and its own defaults."""

from __future__ import annotations

from typing import Any

import pytest
from jsonargparse import ArgumentError, ArgumentParser

from encdl.data.base import ImageDataModule

CASES: dict[str, dict[str, Any]] = {
    "encdl.data.embedded.EmbeddedMRI": {},
    "encdl.data.embedded.EmbeddedTissue": {},
    "encdl.data.image_folder.ImageFolder": {"folder": "x", "group": "prefix", "size": 99},
    "encdl.data.class_folder.ClassFolder": {"folder": "x", "group": "folder", "cache": False, "crop": 0},
    "encdl.data.npz.NpzImages": {"file": "x.npz", "class_names": ["a", "b"]},
    "encdl.data.medmnist.MedMNIST": {"name": "bloodmnist", "data_dir": "y", "size": 64},
    "encdl.data.mixture.Mixture": {
        "parts": {"embedded": 0.5, "acdc": 1.0},
        "data_dir": "y",
        "crop": 48,
        "smaller": 0.1,
    },
    "encdl.data.mednist.MedNIST": {"data_dir": "y", "download": True},
    "encdl.data.decathlon.Decathlon": {
        "task": "Task02_Heart",
        "window": [-100, 240],
        "channels": [0, 1],
        "axis": "coronal",
    },
}


def parse(name: str, /, **settings: Any) -> ImageDataModule:
    parser = ArgumentParser(exit_on_error=False)
    parser.add_subclass_arguments(ImageDataModule, "data")
    parsed = parser.parse_object({"data": {"class_path": name, "init_args": settings}})
    made: ImageDataModule = parser.instantiate(parsed).data
    return made


@pytest.mark.parametrize("name", CASES)
def test_settings(name: str) -> None:
    common = {"batch_size": 3, "eval_batch_size": 4, "repeats": 2, "num_workers": 1, "seed": 7, "augment": False}
    data = parse(name, **CASES[name], **common)
    assert type(data).__name__ == name.rpartition(".")[2]
    for setting, value in (CASES[name] | common).items():
        given = getattr(data, setting)
        assert (list(given) if isinstance(given, tuple) else given) == value


@pytest.mark.parametrize("name", CASES)
def test_unknown_setting(name: str) -> None:
    with pytest.raises(ArgumentError, match="sise"):
        parse(name, **CASES[name], sise=3)


def test_what_is_fixed_cannot_be_set() -> None:
    for name, fixed in {
        "encdl.data.lesions.SyntheticLesionMRI": {"crop": 32},
        "encdl.data.mednist.MedNIST": {"folder": "x"},
        "encdl.data.medmnist.MedMNIST": {"name": "bloodmnist", "file": "x.npz"},
    }.items():
        with pytest.raises(ArgumentError, match=list(fixed)[-1]):
            parse(name, **fixed)


def test_defaults() -> None:
    crops = {name: parse(name, **settings).crop for name, settings in CASES.items()}
    assert {name.rpartition(".")[2] for name, crop in crops.items() if crop == 0} == {
        "ClassFolder",
        "NpzImages",
        "MedMNIST",
        "MedNIST",
    }
    assert parse("encdl.data.medmnist.MedMNIST", name="octmnist").data_dir == "data"  # type: ignore[attr-defined]
