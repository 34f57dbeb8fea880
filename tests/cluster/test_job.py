"""What can be asked for, and the record of what was."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import pytest

from encdl.cluster.job import RECORD, Request, Submitted, Surroundings
from encdl.utils.errors import EncdlError, UsageError
from tests.cluster.jobs import JOBS, job


@pytest.mark.parametrize("name", JOBS)
def test_a_record_says_all(name: str, tmp_path: Path) -> None:
    one = Submitted(job(**{**vars(JOBS[name]), "folder": str(tmp_path)}), "12", "2026-01-01T00:00:00", None)
    one.write()
    assert Submitted.read(tmp_path) == one


@pytest.mark.parametrize("content", ["", "{}", "[1]", '{"job": 3}', "\x00"])
def test_a_record_that_is_none(content: str, tmp_path: Path) -> None:
    (tmp_path / RECORD).write_text(content)
    with pytest.raises(EncdlError, match=r"job\.json: not a record of a submitted job"):
        Submitted.read(tmp_path)


@pytest.mark.parametrize(
    ("settings", "said"),
    [
        ({"cpus": 0}, "--cpus is 0: give 1 or more"),
        ({"gpus": -1}, "--gpus is -1: give 0 or more"),
        ({"at_once": -1}, "--at-once is -1"),
        ({"time": "1:00 --uid=0"}, "--time '1:00 --uid=0': Slurm takes one word"),
        ({"partition": "a\n#SBATCH --uid=0"}, "--partition"),
        ({"memory": ""}, "--memory ''"),
        ({"options": ("qos=low",)}, "--sbatch 'qos=low': give one word"),
        ({"options": ("--wrap=a\nreboot",)}, "--sbatch"),
    ],
)
def test_a_request_that_is_none(settings: dict[str, Any], said: str) -> None:
    with pytest.raises(UsageError) as told:
        Request(**settings)
    assert said in str(told.value)


@pytest.mark.parametrize("name", ["", "a b", "../up", ".hidden", "a/b", "a\nb", "-x", "x" * 101])
def test_a_name_that_is_none(name: str) -> None:
    with pytest.raises(UsageError, match="give letters, digits"):
        job(name=name)


@pytest.mark.parametrize("field", ["folder", "workdir", "config"])
@pytest.mark.parametrize("path", ["/a\nb", '/a"b', "/%j", "/a\\b"])
def test_a_path_that_would_not_arrive(field: str, path: str) -> None:
    with pytest.raises(UsageError, match="Slurm and shells trip over"):
        job(**{field: path})


def test_surroundings_that_are_none() -> None:
    with pytest.raises(UsageError, match="--setup takes one line of shell"):
        Surroundings(setup=("a\nb",))
    with pytest.raises(UsageError, match="--env a b: that is no name of a variable"):
        Surroundings(environment=(("a b", "x"),))
