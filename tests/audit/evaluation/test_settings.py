"""Settings from a file and from the command line."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import pytest

from encdl.audit.evaluation.settings import Settings, read
from encdl.utils.errors import UsageError

RECIPES = sorted((Path(__file__).parents[3] / "experiments").glob("evaluate-*.yaml"))


def write(folder: Path, text: str) -> Path:
    path = folder / "e.yaml"
    path.write_text(text)
    return path


def test_defaults() -> None:
    assert read(None, {"seed": None}) == Settings()
    assert Settings(**Settings().to_dict()) == Settings()


def test_the_command_line_goes_before_the_file(tmp_path: Path) -> None:
    path = write(tmp_path, "data: acdc\nseed: 4\nweights: {agile: [a.pt, b.pt], plain: c.pt}\nrepairs: telea\n")
    found = read(path, {"seed": 5, "data": None})
    assert (found.data, found.seed, found.repairs) == ("acdc", 5, ["telea"])
    assert found.weights == ["agile=a.pt", "agile=b.pt", "plain=c.pt"]
    assert read(write(tmp_path, "weights: a.pt\n"), {}).weights == ["a.pt"]


@pytest.mark.parametrize(
    ("text", "said"),
    [
        ("image: 3", "no setting of an evaluation: image: there are data, "),
        ("images: 0", "--images must be at least 1, got 0"),
        ("images: many", "--images must be a whole number, got 'many'"),
        ("seed: true", "--seed must be a whole number"),
        ("device: tpu", "--device is 'tpu': give one of auto, cpu, cuda"),
        ("repairs: [bm4d]", "there is no bm4d: give some of median, decision_median"),
        ("weights: []", "no weights"),
        ("weights: {agile: 3}", "weights of agile: give a file or a list of files"),
        ("- a", "holds no settings"),
        ("a: [", "is no readable YAML file"),
    ],
)
def test_bad_files(tmp_path: Path, text: str, said: str) -> None:
    with pytest.raises(UsageError) as caught:
        read(write(tmp_path, text), {})
    assert said in str(caught.value)
    assert str(tmp_path / "e.yaml") in str(caught.value)


def test_a_missing_file(tmp_path: Path) -> None:
    with pytest.raises(UsageError, match="no such file"):
        read(tmp_path / "none.yaml", {})


@pytest.mark.parametrize("given", [{"tune_images": -1}, {"jobs": -1}, {"exact_images": 0}, {"statistics_images": 0}])
def test_bad_numbers(given: dict[str, Any]) -> None:
    [name] = given
    with pytest.raises(UsageError, match=f"--{name.replace('_', '-')} must be at least"):
        read(None, given)


@pytest.mark.parametrize("recipe", RECIPES, ids=lambda path: path.stem)
def test_recipes(recipe: Path) -> None:
    found = read(recipe, {})
    assert recipe.stem == f"evaluate-{found.data}"
    rows: dict[str, list[str]] = {}
    for name in found.weights:
        rows.setdefault(name.partition("=")[0], []).append(name)
    assert list(rows) == ["agile", "keystream", "coupled", "thesis"]
    assert {len(names) for names in rows.values()} == {3}


def test_there_are_recipes_for_the_four_sets() -> None:
    assert [path.stem for path in RECIPES] == [
        f"evaluate-{name}" for name in ("acdc", "brain_tumor", "embedded", "pneumoniamnist")
    ]
