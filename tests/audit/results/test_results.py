"""`encdl results`: marked places are rendered from records, and --check finds what differs."""

from __future__ import annotations

import json
from pathlib import Path
from typing import Any

import pytest

from encdl.audit.results.plots import PLOTS, Plot
from encdl.audit.results.record_values import MissingRecordError, RecordError, Records, told
from encdl.audit.results.tables import TABLES
from encdl.cli import main as encdl

DAMAGES = ("salt_pepper_1pct", "salt_pepper_5pct", "gaussian_2", "gaussian_8", "quarter_lost")


def entry(mean: float) -> dict[str, Any]:
    return {"mean": mean, "low": mean - 1, "high": mean + 1, "values": [mean], "std": 0.5}


def evaluation(gain: float, low: float, high: float) -> dict[str, Any]:
    cells: dict[str, Any] = {
        damage: {"none": entry(20.0), "restored": entry(30.0 + gain), "bm3d": entry(30.0)} for damage in DAMAGES
    }
    paired = {"best_classical": "bm3d", "mean": gain, "low": low, "high": high}
    row = cells | {"paired": dict.fromkeys(DAMAGES, paired)}
    return {"dataset": "made up", "seeds": [0, 1], "metrics": {"agile": row}}


@pytest.fixture
def root(tmp_path: Path) -> Path:
    """A repository with records that are made up, and one page that nothing was rendered on yet."""
    (tmp_path / "docs").mkdir()
    (tmp_path / "README.md").write_text("no figures\n")
    results = tmp_path / "experiments" / "results"
    results.mkdir(parents=True)
    for name, content in {
        "evaluate-acdc": evaluation(2.0, 1.5, 2.5),
        "evaluate-embedded": evaluation(-2.0, -2.5, -1.5),
        "evaluate-brain_tumor": evaluation(0.1, -0.1, 0.3),
        "times": {"metrics": {"a b": [{"ms": 1.04}, {"ms": 1.11}], "name": "x"}},
    }.items():
        (results / f"{name}.json").write_text(json.dumps(content))
    return tmp_path


def page(root: Path, text: str) -> Path:
    path = root / "docs" / "page.md"
    path.write_text(text)
    return path


def results(root: Path, *words: str) -> int:
    return encdl(["results", "--root", str(root), *words])


@pytest.mark.parametrize(
    ("call", "text"),
    [
        ("times metrics/a?b/0/ms .1f", "1.0"),
        ("times metrics/*/*/ms span .2f", "1.04 to 1.11"),
        ("times metrics/*/1/ms span .1f", "1.1"),
        ("times metrics/*/*/ms mean .3f", "1.075"),
        ("times metrics/*/*/ms count", "2"),
        ("times metrics/name", "x"),
        ("evaluate-acdc,evaluate-embedded metrics/agile/gaussian_2/restored/mean max .0f", "32"),
    ],
)
def test_values(root: Path, call: str, text: str) -> None:
    assert told(Records(root), call) == text


@pytest.mark.parametrize(
    ("call", "said"),
    [
        ("times metrics/*/*/ms .1f", "2 values: say mean"),
        ("times metrics/other", "nothing at metrics/other"),
        ("times metrics/name mean .1f x", "too much"),
        ("../times x", "no name of a record"),
    ],
)
def test_values_that_are_none(root: Path, call: str, said: str) -> None:
    with pytest.raises(RecordError, match=said):
        told(Records(root), call)


def test_a_missing_record_names_what_makes_it(root: Path) -> None:
    with pytest.raises(MissingRecordError, match="make bench"):
        told(Records(root), "bench-cpu metrics")


def test_a_page_is_rendered_and_then_agrees(root: Path, capsys: pytest.CaptureFixture[str]) -> None:
    path = page(
        root,
        "It takes <!--= times metrics/*/*/ms span .2f --><!--/--> ms.\n\n"
        "<!-- results: repair evaluate-acdc,evaluate-embedded,evaluate-brain_tumor agile -->\n<!-- /results -->\n",
    )
    assert results(root, "--check") == 1
    lines = capsys.readouterr().out.splitlines()
    assert [line.split(": ")[0] for line in lines] == ["docs/page.md:1", "docs/page.md:3"]
    assert all("`encdl results`" in line for line in lines)
    assert results(root) == 0
    text = path.read_text()
    assert "It takes <!--= times metrics/*/*/ms span .2f -->1.04 to 1.11<!--/--> ms." in text
    assert "| 1 % hit | **32.0** (30.0 BM3D) | 28.0 (**30.0** BM3D) | 30.1 (30.0 BM3D) |" in text
    assert "better in 5, as good in 5, worse in 5 of 15 cells" in text
    assert (results(root, "--check"), results(root)) == (0, 0)
    assert path.read_text() == text


@pytest.mark.parametrize("typed", ["32.1", ""])
def test_a_figure_typed_by_hand_is_found(root: Path, typed: str, capsys: pytest.CaptureFixture[str]) -> None:
    page(root, "<!-- results: repair evaluate-acdc agile -->\n<!-- /results -->\n")
    results(root)
    path = root / "docs" / "page.md"
    path.write_text(path.read_text().replace("32.0", typed, 1))
    capsys.readouterr()
    assert results(root, "--check") == 1
    assert "docs/page.md:1: repair evaluate-acdc agile: differs" in capsys.readouterr().out


def test_a_record_that_changes_is_found(root: Path) -> None:
    page(root, "It is <!--= times metrics/name -->x<!--/-->.\n")
    assert results(root, "--check") == 0
    (root / "experiments" / "results" / "times.json").write_text('{"metrics": {"name": "y"}}')
    assert results(root, "--check") == 1


def test_what_was_not_measured_is_said(root: Path) -> None:
    path = page(
        root,
        "took <!--= losses wall_s .0f --><!--/--> s\n\n<!-- results: losses losses -->\n<!-- /results -->\n"
        "<!-- results: repair evaluate-acdc,evaluate-none agile -->\n<!-- /results -->\n",
    )
    assert results(root) == 0
    text = path.read_text()
    assert "-->not measured<!--/--> s" in text
    assert "*Not measured: experiments/results/losses.json does not exist, `encdl experiment losses" in text
    assert "| **32.0** (30.0 BM3D) | not measured |" in text
    assert results(root, "--check") == 0


@pytest.mark.parametrize(
    ("text", "said"),
    [
        ("<!-- results: repair evaluate-acdc agile -->\n", "not closed"),
        ("<!--= times metrics/name -->", "not closed"),
        ("<!-- results: nothing times -->\n<!-- /results -->\n", "give one of repair"),
        ("<!-- results: repair times agile -->\n<!-- /results -->\n", "of another layout"),
        ("It is <!--= times metrics/none --><!--/-->", "nothing at metrics/none"),
        ("It is\n <!--= times metrics/name --><!--/-->", "begins its line"),
    ],
)
def test_faults_stay_as_they_are(root: Path, text: str, said: str, capsys: pytest.CaptureFixture[str]) -> None:
    path = page(root, text)
    assert results(root) == 1
    assert said in capsys.readouterr().out
    assert path.read_text() == text


def test_code_blocks_are_left_alone(root: Path) -> None:
    page(root, "```\n<!-- results: x y -->\n<!--= a b --><!--/-->\n```\n")
    assert results(root, "--check") == 0


def test_plots_are_drawn_and_drawn_anew_when_their_record_changes(root: Path) -> None:
    path = page(root, "<!-- results: repair-plot evaluate-acdc agile -->\n<!-- /results -->\n")
    assert results(root) == 0
    image = root / "docs" / "images" / "results" / "repair-plot-evaluate-acdc-agile.png"
    assert "(images/results/repair-plot-evaluate-acdc-agile.png)" in path.read_text()
    before = image.read_bytes()
    assert results(root, "--check") == 0
    changed = json.dumps(evaluation(3.0, 1.5, 3.5))
    (root / "experiments" / "results" / "evaluate-acdc.json").write_text(changed)
    assert results(root, "--check") == 1
    assert image.read_bytes() == before
    assert results(root) == 0
    assert image.read_bytes() != before
    assert results(root, "--check") == 0


def test_no_repository_is_an_error(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    assert results(tmp_path) == 2
    assert "give --root" in capsys.readouterr().err


COMMITTED = Path(__file__).parents[3]
CALLS = {
    "repair": ["evaluate-acdc", "agile"],
    "differences": ["evaluate-acdc", "agile"],
    "readers": ["readers-brain_tumor"],
    "readers-damaged": ["readers-acdc"],
    "readers-summary": ["readers-acdc,readers-brain_tumor"],
    "reader-costs": ["readers-cost"],
    "attacks": ["audit-agile"],
    "statistics": ["audit-agile"],
    "throughput": ["bench-cpu"],
    "steps": ["bench-cpu"],
    "speed": ["bench-cpu"],
    "trust-models": ["trust-models"],
    "functional": ["functional-pneumoniamnist,functional-brain_tumor,functional-acdc"],
    "functional-further": ["functional-brain_tumor"],
    "scaling": ["ddp"],
}


@pytest.mark.parametrize("view", [view for view in TABLES if view != "losses"])
def test_every_view_makes_a_table_of_a_committed_record(view: str) -> None:
    names, *words = CALLS[view]
    if view == "trust-models" and not (COMMITTED / "experiments" / "results" / "trust-models.json").exists():
        pytest.skip("the record of the models of trust is not made yet")
    head, rule, *lines = TABLES[view](Records(COMMITTED), names.split(","), *words).splitlines()
    columns = head.count("|")
    assert columns > 2
    assert set(rule) == set("| -")
    lines = [line for line in lines if line.startswith("|")]
    assert lines
    assert all(line.count("|") == columns for line in lines)


def test_the_table_of_losses(root: Path) -> None:
    cells = {"restored_psnr_db": {damage: entry(40.0) for damage in DAMAGES}}
    better = {"restored_psnr_db": {damage: entry(41.0) for damage in DAMAGES}}
    content = {"metrics": {"l1": {"acdc": cells}, "mse": {"acdc": better}}}
    (root / "experiments" / "results" / "losses.json").write_text(json.dumps(content))
    text = TABLES["losses"](Records(root), ["losses"])
    assert "| acdc | `l1` | 40.00 ± 0.50 |" in text
    assert text.endswith("Mean over all cells, dB: `mse` 41.00, `l1` 40.00.")


@pytest.mark.parametrize(
    ("view", "words"),
    [
        ("attacks-plot", ["audit-agile", "dB"]),
        ("robustness-plot", ["audit-agile"]),
        ("repair-plot", ["evaluate-acdc", "agile"]),
        ("growth-plot", ["bench-cpu"]),
        ("functional-plot", ["functional-pneumoniamnist,functional-brain_tumor,functional-acdc"]),
    ],
)
def test_every_plot_has_data_in_a_committed_record(view: str, words: list[str]) -> None:
    assert view in PLOTS
    assert len(Plot.of(view, words, COMMITTED, Records(COMMITTED)).digest) == 32
