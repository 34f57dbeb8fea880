"""Recipes by name: found at once, listed, and refused with the nearest names."""

from __future__ import annotations

import subprocess
import sys
from pathlib import Path

import pytest

from encdl.cli import VERBS
from encdl.cli import main as encdl
from encdl.utils import recipes
from encdl.utils.errors import UsageError

ROOT = Path(__file__).parents[2]
SHIPPED = sorted(path.stem for path in (ROOT / "experiments").glob("*.yaml"))


def test_every_recipe_belongs_to_some_verb() -> None:
    of = {verb: recipes.names(verb) for verb in recipes.VERBS}
    assert sorted({name for names in of.values() for name in names}) == SHIPPED
    assert "classifier-folder" in of["fit"] == of["submit"]
    assert "audit" in of["audit"]
    assert "evaluate-embedded" in of["evaluate"]
    assert not set(of["fit"]) & {*of["audit"], *of["evaluate"]}
    assert set(VERBS) >= recipes.VERBS


@pytest.mark.parametrize("verb", sorted(recipes.VERBS))
@pytest.mark.parametrize("more", [[], ["--seed_everything", "1"]])
def test_without_a_name_they_are_listed(
    verb: str, more: list[str], capsys: pytest.CaptureFixture[str], monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setenv("COLUMNS", "100")
    assert encdl([verb, "--recipe", *more]) == 0
    lines = capsys.readouterr().out.splitlines()
    assert [line.split()[0] for line in lines] == recipes.names(verb)
    assert all(len(line.split()) > 3 and len(line) <= 100 for line in lines)


@pytest.mark.parametrize("words", [["--recipe", "encryptor"], ["--recipe=encryptor"]])
def test_a_name_stands_for_its_file(words: list[str], tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.chdir(tmp_path)
    whole = str(ROOT / "experiments" / "encryptor.yaml")
    assert recipes.resolved("fit", [*words, "--x", "1"]) == ["--config", whole, "--x", "1"]
    monkeypatch.chdir(ROOT)
    below = str(Path("experiments", "encryptor.yaml"))
    assert recipes.resolved("sweep", ["losses", *words]) == ["losses", "--config", below]


def test_later_files_over_earlier_ones_where_a_verb_merges(tmp_path: Path) -> None:
    (tmp_path / "mine.yaml").touch()
    words = ["--recipe", "audit", "--config", str(tmp_path / "mine.yaml")]
    with pytest.raises(UsageError, match="--recipe and --config: audit takes one recipe"):
        recipes.resolved("audit", words)
    words[1] = "encryptor"
    assert recipes.resolved("fit", words)[2:] == words[2:]


def test_words_of_other_verbs_and_settings_in_place_of_files_are_left_alone() -> None:
    words = ["--recipe", "none", "--config", "none.yaml"]
    assert recipes.resolved("encrypt", words) == words
    assert not recipes.asks_for_listing("encrypt", ["--recipe"])
    assert not recipes.asks_for_listing("fit", [])
    assert recipes.resolved("fit", []) == []
    words = ["--config", "{trainer: {max_steps: 1}}", "--ckpt_path", "best", f"--config={__file__}", "--config"]
    assert recipes.resolved("fit", words) == words


def test_a_recipe_says_what_it_changes_of_its_base() -> None:
    base = recipes.read(ROOT / "experiments" / "encryptor.yaml")
    model = {"init_args": {"cipher": {"class_path": "KeystreamCipher"}, "learning_rate": 1.0}}
    found = recipes.with_base({"base": "encryptor", "model": model, "trainer": {"callbacks": None}})
    assert found["data"] == base["data"]
    assert found["model"]["class_path"] == "EncryptTask"
    assert found["model"]["init_args"] == {**base["model"]["init_args"], **model["init_args"]}
    assert found["trainer"] == {**base["trainer"], "callbacks": None}
    for other in ({"base": {"a": 1}}, [1], None):
        assert recipes.with_base(other) == other


@pytest.mark.parametrize("verb", ["fit", "audit"])
def test_a_base_that_is_none(verb: str, tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    (tmp_path / "mine.yaml").write_text("base: encryptr\n")
    assert encdl([verb, "--config", str(tmp_path / "mine.yaml")]) == 2
    [line] = capsys.readouterr().err.splitlines()
    assert "base: encryptr: no recipe of that name comes with EncDL" in line


MISTAKES = [
    ("fit", ["--recipe", "classifier-foldr"], "did you mean classifier-folder"),
    ("fit", ["--recipe", "audit"], "no recipe audit for fit: `encdl fit --recipe` lists them"),
    ("evaluate", ["--recipe", "acdc"], "did you mean evaluate-acdc?"),
    ("fit", ["--config", "experiments/classifer-folder.yml"], "--recipe classifier-folder comes with EncDL"),
    ("submit", ["--config=xyz"], "xyz: no such recipe: `encdl submit --recipe` lists EncDL's own"),
    ("audit", ["--config", "xyz.yaml"], "xyz.yaml: no such file: `encdl audit --recipe` lists EncDL's own"),
    ("fit", ["--recipe", "encryptor", "--ckpt_path", "none.ckpt"], "none.ckpt: no such checkpoint"),
]


@pytest.mark.parametrize(("verb", "words", "said"), MISTAKES)
def test_a_mistake_is_told_in_one_line(
    verb: str, words: list[str], said: str, tmp_path: Path, capsys: pytest.CaptureFixture[str],
    monkeypatch: pytest.MonkeyPatch,
) -> None:  # fmt: skip
    monkeypatch.chdir(tmp_path)
    assert encdl([verb, *words]) == 2
    [line] = capsys.readouterr().err.splitlines()
    assert line.startswith("encdl: error: ")
    assert said in line


@pytest.mark.parametrize("words", [["--recipe"], *(words for verb, words, _ in MISTAKES if verb == "fit")])
def test_before_anything_heavy_is_imported(words: list[str]) -> None:
    code = f"import sys; from encdl.cli import main; main(['fit', *{words}]); "
    code += "print([name for name in ('torch', 'numpy', 'lightning', 'yaml') if name in sys.modules])"
    done = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, check=True, timeout=60)
    assert done.stdout.splitlines()[-1] == "[]"
