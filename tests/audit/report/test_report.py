"""`encdl report`: what it shows of two runs, and that the page needs nothing beside it."""

from __future__ import annotations

import base64
import re
from html.parser import HTMLParser
from pathlib import Path

import pytest
from mlflow import MlflowClient

from encdl.audit.report import gather
from encdl.audit.report.gather import RunData
from encdl.audit.report.page import _curves, _metrics
from encdl.cli import main
from encdl.training.callbacks import ImagePanel
from encdl.training.tracking import RunGroup, RunLogger
from tests.stores import make_store
from tests.tiny_task import TinyTask
from tests.training.tracking.test_logger import fit


class Page(HTMLParser):
    """What a page links to, its images, and the rows of its tables by their ids."""

    def __init__(self, text: str) -> None:
        super().__init__()
        self.addresses: list[str] = []
        self.tags: set[str] = set()
        self.tables: dict[str, list[list[str]]] = {}
        self._table, self._cell = "", False
        self.feed(text)

    def handle_starttag(self, tag: str, attrs: list[tuple[str, str | None]]) -> None:
        given = dict(attrs)
        self.tags.add(tag)
        self.addresses += [value or "" for name, value in attrs if name in {"src", "href"}]
        if tag == "table":
            self._table = given.get("id") or ""
        if tag == "tr":
            self.tables.setdefault(self._table, []).append([])
        self._cell = tag in {"td", "th"}
        if self._cell:
            self.tables[self._table][-1].append("")

    def handle_endtag(self, tag: str) -> None:
        self._cell = self._cell and tag not in {"td", "th"}

    def handle_data(self, data: str) -> None:
        if self._cell:
            self.tables[self._table][-1][-1] += data


@pytest.fixture(scope="module")
def root(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A folder with a group of two finished runs of one recipe, and a run that failed."""
    root = tmp_path_factory.mktemp("runs")
    make_store(root)
    with pytest.MonkeyPatch.context() as patch:
        patch.delenv("MLFLOW_TRACKING_URI", raising=False)
        with RunGroup("tiny", "both", str(root)) as group:
            for seed in range(2):
                logger = RunLogger(root=str(root), run_name=f"<b>seed</b> {seed}")
                logger.log_config({"seed_everything": seed, "data": {"crop": 8}}, "crop: 8\n")
                fit(root, logger, more=[ImagePanel()])
            group.log({"val/loss": 0.25})
        logger = RunLogger(root=str(root), run_name="broken")
        with pytest.raises(ArithmeticError):
            fit(root, logger, TinyTask(fails="oh no"))
    return root


@pytest.fixture
def page(root: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> str:
    """The report of all runs."""
    monkeypatch.delenv("MLFLOW_TRACKING_URI", raising=False)
    client = MlflowClient(f"sqlite:///{root / 'mlflow.db'}")
    [group] = client.search_runs(
        [client.get_experiment_by_name("tiny").experiment_id],  # type: ignore[union-attr]
        "tags.kind = 'group'",
    )
    output = tmp_path / "r.html"
    words = ["report", group.info.run_id[:8], "broken", "--root", str(root), "--output", str(output)]
    assert main(words) == 0
    return output.read_text()


def test_the_page(page: str) -> None:
    found = Page(page)
    assert "script" not in found.tags
    assert "link" not in found.tags
    assert all(address.startswith("data:image/png;base64,") for address in found.addresses)
    assert len(found.addresses) >= 2
    for address in found.addresses:
        assert base64.b64decode(address.partition(",")[2]).startswith(b"\x89PNG")
    assert "<b>seed" not in page  # names are text
    assert "&lt;b&gt;seed&lt;/b&gt; 1" in page
    metrics = {row[0]: row[1:] for row in found.tables["metrics"]}
    assert metrics["val/exact_fraction"] == ["", "1", "1", ""]
    assert metrics["val/loss"] == ["0.25", "0.25", "0.25", ""]
    assert "epoch" not in metrics
    settings = {row[0]: [value.strip() for value in row[1:]] for row in found.tables["settings"]}
    assert settings["seed_everything"] == ["", "0", "1", ""]
    assert "ArithmeticError: oh no" in page
    assert "FAILED" in page
    assert re.search(r"Recipe [0-9a-f]{12}, 2 runs", page)
    assert page.count('class="panel"') == 2
    datasets = found.tables["datasets"]
    assert [row[:2] for row in datasets[1:]] == [["TinyData train", "training"], ["TinyData val", "validation"]]
    assert datasets[1][5].split() == ["2", "3", "4"]
    origins = {row[0]: row[1:] for row in found.tables["origins"]}
    assert origins["task"] == ["", "TinyTask", "TinyTask", "TinyTask"]
    assert "torch" in origins["versions"][1]


@pytest.mark.parametrize(
    ("words", "said"),
    [
        (["nothing"], "nothing: no such run"),
        (["broken", "--root", "gone"], "no runs are recorded there"),
        (["broken", "--output", "there.html"], "exists already"),
    ],
)
def test_mistakes(
    root: Path,
    words: list[str],
    said: str,
    tmp_path: Path,
    monkeypatch: pytest.MonkeyPatch,
    capsys: pytest.CaptureFixture[str],
) -> None:
    monkeypatch.chdir(tmp_path)
    monkeypatch.delenv("MLFLOW_TRACKING_URI", raising=False)
    Path("there.html").touch()
    assert main(["report", "--root", str(root), *words]) == 2
    [line] = capsys.readouterr().err.splitlines()
    assert said in line
    assert [file.name for file in tmp_path.iterdir()] == ["there.html"]


def test_one_run_and_the_store_of_the_environment(root: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    # Spelt otherwise than this process's own stores, whose names MLflow leaves in the environment.
    monkeypatch.setenv("MLFLOW_TRACKING_URI", f"sqlite:///{root}/./mlflow.db")
    monkeypatch.chdir(tmp_path)
    assert main(["report", "broken"]) == 0
    text = Path("report.html").read_text()
    assert "Report of 1 run<" in text
    assert "none were recorded" in text


def test_a_step_that_was_logged_twice_counts_once(root: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.delenv("MLFLOW_TRACKING_URI", raising=False)
    logger = RunLogger(root=str(root), run_name="resumed")
    # Through MLflow itself, as a logger that does not know what was logged before.
    for time, (step, value) in enumerate(((0, 1.0), (1, 2.0), (1, 2.5), (2, 3.0))):
        logger.experiment.log_metric(logger.run_id, "train/loss", value, timestamp=time, step=step)
    logger.finalize()
    [run] = gather.gather(logger.experiment, ["resumed"])
    assert run.curves["train/loss"] == [(0, 1.0), (1, 2.5), (2, 3.0)]


def run_with(**curves: list[tuple[int, float]]) -> RunData:
    named = {name.replace("__", "/"): curve for name, curve in curves.items()}
    return RunData("1", "run", "FINISHED", 1.0, {}, {}, named)


def test_a_figure_under_two_names_is_told_once() -> None:
    one = run_with(val__dice=[(1, 0.5)], val__dice__ciphertext=[(1, 0.5)], epoch=[(1, 0.0)], system__cpu=[(1, 9.0)])
    two = run_with(val__dice=[(1, 0.6)], val__dice__ciphertext=[(1, 0.7)])
    assert _metrics([one]) == {"val/dice/ciphertext"}
    assert _metrics([one, two]) == {"val/dice", "val/dice/ciphertext"}


def test_what_kept_one_value_has_no_curve() -> None:
    still = [(1, 0.5), (2, 0.5)]
    one = run_with(val__accuracy=[(1, 0.5), (2, 0.75)], val__majority=still, test__accuracy=[(2, 0.75)])
    two = run_with(val__accuracy=still, val__majority=[(1, 0.25), (2, 0.25)])
    names = ["val/accuracy", "val/majority", "test/accuracy"]
    assert [name for name, _ in _curves([one, two], names)] == ["val/accuracy"]
    assert _curves([two], names) == []
