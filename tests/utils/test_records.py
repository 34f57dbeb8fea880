"""Result records: their fields, their origin, and that they never hold what JSON cannot."""

from __future__ import annotations

import datetime
import json
import math
import re
import statistics
import subprocess
from pathlib import Path
from typing import Any

import pytest
import torch
from hypothesis import given
from hypothesis import strategies as st

from encdl.utils import records
from encdl.utils.errors import OutputExistsError, UsageError

FIELDS = {
    "name", "task", "config", "dataset", "seeds", "metrics", "wall_s", "device", "versions", "commit", "date",
}  # fmt: skip


def make(**more: Any) -> dict[str, Any]:
    return records.record(
        "tiny", "evaluate", config=None, dataset="embedded", seeds=range(2), metrics={"a": 1.0}, wall_s=1.26,
        device="cpu", **more,
    )  # fmt: skip


def test_fields() -> None:
    made = make(cipher="agile")
    assert set(made) == FIELDS | {"cipher"}
    assert made["seeds"] == [0, 1]
    assert made["wall_s"] == 1.3
    assert made["device"].startswith("CPU (")
    assert made["versions"]["torch"] == torch.__version__
    assert {"python", "encdl", "numpy"} <= set(made["versions"])
    when = datetime.datetime.fromisoformat(made["date"])
    assert when.utcoffset() == datetime.timedelta(0)
    assert abs((datetime.datetime.now(datetime.UTC) - when).total_seconds()) < 60
    assert json.loads(json.dumps(made)) == made


@given(st.lists(st.floats(-1e6, 1e6), min_size=1, max_size=9))
def test_summary(values: list[float]) -> None:
    found = records.summary(values)
    assert found["mean"] == pytest.approx(sum(values) / len(values), abs=1e-6)
    expected = statistics.stdev(values) if len(values) > 1 else 0.0
    assert found["std"] == pytest.approx(expected, abs=1e-6)
    assert found["values"] == values


@pytest.mark.parametrize("odd", [math.nan, math.inf, -math.inf])
def test_summary_of_what_is_no_number(odd: float) -> None:
    assert records.summary([1.0, odd]) == {"mean": None, "std": None, "values": [1.0, None]}
    assert records.summary([odd]) == {"mean": None, "std": None, "values": [None]}


def test_write(tmp_path: Path) -> None:
    path = tmp_path / "tiny.json"
    records.write(path, make())
    assert path.read_text().endswith("}\n")
    assert json.loads(path.read_text())["name"] == "tiny"
    before = path.read_bytes()
    with pytest.raises(OutputExistsError, match="--force"):
        records.write(path, make(more=1))
    assert path.read_bytes() == before
    records.write(path, make(more=1), force=True)
    assert json.loads(path.read_text())["more"] == 1
    with pytest.raises(UsageError, match="there is no folder"):
        records.write(tmp_path / "none" / "tiny.json", make())


@pytest.mark.parametrize("odd", [math.nan, math.inf])
def test_a_record_never_holds_nan(tmp_path: Path, odd: float) -> None:
    with pytest.raises(ValueError, match="not JSON compliant"):
        records.write(tmp_path / "tiny.json", {"metrics": {"a": odd}})
    assert not list(tmp_path.iterdir())


def test_commit(monkeypatch: pytest.MonkeyPatch) -> None:
    def git(status: str) -> Any:
        def run(command: list[str], **settings: Any) -> subprocess.CompletedProcess[str]:
            return subprocess.CompletedProcess(command, 0, status if "status" in command else "0123abc\n", "")

        return run

    monkeypatch.setattr(subprocess, "run", git(""))
    assert records.commit() == "0123abc"
    monkeypatch.setattr(subprocess, "run", git(" M encdl/cli.py\n"))
    assert records.commit() == "0123abc+changes"


def test_commit_where_there_is_no_checkout(monkeypatch: pytest.MonkeyPatch) -> None:
    def missing(*_: Any, **__: Any) -> Any:
        raise FileNotFoundError("git")

    monkeypatch.setattr(subprocess, "run", missing)
    monkeypatch.delenv("ENCDL_COMMIT", raising=False)
    assert records.commit() == "unknown"
    monkeypatch.setenv("ENCDL_COMMIT", "fedcba9")
    assert records.commit() == "fedcba9"


def test_a_library_that_is_not_installed_is_left_out(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(records, "LIBRARIES", ("numpy", "no-such-library"))
    assert set(records.versions()) == {"python", "compiled", "numpy"}


RESULTS = sorted((Path(__file__).parents[2] / "experiments" / "results").glob("*.json"))


@pytest.mark.parametrize("path", RESULTS, ids=lambda path: path.name)
def test_the_records_of_the_project_are_records(path: Path) -> None:
    def refuse(word: str) -> None:
        raise AssertionError(f"{path} holds {word}")

    content = json.loads(path.read_text(), parse_constant=refuse)
    assert set(content) >= FIELDS
    assert content["name"] == path.stem
    config = content["config"]  # settings themselves, or their file
    assert config is None or isinstance(config, dict) or (path.parents[2] / config).is_file()
    assert re.fullmatch(r"[0-9a-f]{40}(\+changes)?", content["commit"])


def test_lists_of_plain_values_take_one_line(tmp_path: Path) -> None:
    content = {
        "numbers": [1, 2.5, None],
        "texts": ["a [b]", "c, d", 'e "f"\n'],
        "nested": [[1, 2], [3]],
        "empty": [],
        "of dictionaries": [{"a": [True, False]}],
    }
    records.write(tmp_path / "r.json", content)
    text = (tmp_path / "r.json").read_text()
    assert json.loads(text) == content
    assert '"numbers": [1, 2.5, null]' in text
    assert "[1, 2]" in text
    assert '"a": [true, false]' in text


def test_records_do_not_say_where_data_lie() -> None:
    fields = {
        "settings": {"data": "acdc", "data_dir": "/somewhere"},
        "weights": [{"training": {"data_dir": "x", "seed": 1}}],
    }
    found = records.without_places(fields)
    assert found["settings"] == {"data": "acdc", "data_dir": None}
    assert found["weights"] == [{"training": {"data_dir": None, "seed": 1}}]
    assert fields["settings"]["data_dir"] == "/somewhere"
