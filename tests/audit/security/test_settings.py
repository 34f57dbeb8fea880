"""Settings of an audit: from a file, from the command line, and what is refused."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import pytest

from encdl.audit.security.request import Order
from encdl.audit.security.settings import BUDGETS, Settings, read
from encdl.utils.errors import UsageError

RECIPES = sorted(Path("experiments").glob("audit*.yaml"))


def test_nothing_given_is_the_default() -> None:
    assert read(None, {"weights": None, "size": None}) == Settings()


def test_the_command_line_goes_before_the_file(tmp_path: Path) -> None:
    file = tmp_path / "audit.yaml"
    file.write_text("weights: mine.pt\nbudget: quick\nsize: 24\nmap: chacha20\n")
    found = read(file, {"size": 48, "weights": None})
    assert found == Settings("mine.pt", budget="quick", size=48, map="chacha20")
    assert Settings(**found.to_dict()) == found


@pytest.mark.parametrize(
    ("content", "message"),
    [
        ("wights: a", "no setting of an audit: wights: there are attacker_seeds, budget, data"),
        ("- a", "holds no settings"),
        ("size: large", "and the command line: --size must be a whole number, got 'large'"),
        ("size: 18", "--size must be a multiple of 4, got 18"),
        ("size: 12", "--size must be at least 16, got 12"),
        ("images: 10", "--images must be at least 64, got 10"),
        ("attacker_seeds: 0", "--attacker-seeds must be at least 1, got 0"),
        ("budget: huge", "--budget is 'huge': give one of quick, cpu, accelerator"),
        ("device: tpu", "--device is 'tpu': give one of auto, cpu, cuda"),
        ("weights: 3", "--weights must be a name, got 3"),
        ("map: none", "unknown map 'none'"),
        ("a: [", "is no readable YAML file"),
    ],
)
def test_what_a_file_may_not_say(tmp_path: Path, content: str, message: str) -> None:
    file = tmp_path / "audit.yaml"
    file.write_text(content)
    with pytest.raises(UsageError) as caught:
        read(file, {})
    assert message in str(caught.value)
    assert str(caught.value).startswith(str(file))


def test_a_file_that_is_none(tmp_path: Path) -> None:
    with pytest.raises(UsageError, match="no such file"):
        read(tmp_path / "none.yaml", {})


def test_settings_become_an_order() -> None:
    settings = Settings("agile", data="acdc", data_dir="d", size=32, seed=3, map="tent")
    order = Order.of(settings, "cuda")
    assert (order.weights, order.reference, order.data, order.data_dir) == ("agile", False, "acdc", "d")
    assert (order.device, order.seed, order.sequence, order.budget.side) == ("cuda", 3, "tent", 32)
    assert order.budget.train == BUDGETS["accelerator"].train
    reference = Order.of(Settings(reference="fixed_xor"), "cpu")
    assert (reference.weights, reference.reference, reference.budget) == ("fixed_xor", True, BUDGETS["cpu"])


@pytest.mark.parametrize("recipe", RECIPES, ids=lambda path: path.name)
def test_recipes_can_be_read(recipe: Path) -> None:
    found: Any = read(recipe, {})
    assert found.budget in BUDGETS


def test_there_are_recipes() -> None:
    assert {recipe.name for recipe in RECIPES} == {"audit.yaml", "audit-accelerator.yaml"}
