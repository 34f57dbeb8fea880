"""The commands of the README: what it tells people to type is typed here."""

from __future__ import annotations

import re
import shutil
import subprocess
from pathlib import Path

import numpy as np
import pytest

from encdl.ciphers.names import SHIPPED
from encdl.cli import VERBS
from encdl.cli import main as encdl
from encdl.data.lesions import HEIGHT, WIDTH
from encdl.files import images
from tests.audit.security.tiny import shrink
from tests.pages.typed import TRAINING, Command, commands, is_template
from tests.reader_checkpoint import resnet, save_reader, tiny_reader
from tests.test_makefile import TARGETS

ROOT = Path(__file__).parents[1]
README = (ROOT / "README.md").read_text()
QUICK = {
    "evaluate": ["--images", "1", "--exact-images", "1", "--tune-images", "0", "--jobs", "1"],
    "audit": ["--no-tracking"],
}


COMMANDS = list(commands(README))
MADE = [command for command in COMMANDS if command.words[0] == "make"]
OURS = [command for command in COMMANDS if command.words[0] == "encdl"]
IMAGES = [command for command in COMMANDS if command.words[0] == "cp" or command.words[1:2] == ["samples"]]
"""What gives a reader images."""
FITS = [command for command in OURS if command.words[1:2] == ["fit"]]


@pytest.fixture(scope="module")
def folder(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A working folder with what a user of the README has: the images that it offers, a trained reader, recipes."""
    folder = tmp_path_factory.mktemp("readme")
    with pytest.MonkeyPatch.context() as patch:
        patch.chdir(folder)
        for command in IMAGES:
            program, *words = command.words
            if program == "cp":
                shutil.copy(*words)
            else:
                assert encdl(words) == 0
    save_reader(folder / "reader.ckpt", tiny_reader(resnet), size=[HEIGHT, WIDTH])
    shutil.copytree(ROOT / "experiments", folder / "experiments", ignore=shutil.ignore_patterns("results"))
    return folder


def test_the_extraction() -> None:
    text = "# A\n```sh\nencdl a --b   # c\n\n$ make x \\\n    y\n```\n```python\nencdl no\n```\n"
    text += "## B\n~~~bash\nls\n~~~\nencdl no\n"
    assert list(commands(text)) == [Command("A", "encdl a --b"), Command("A", "make x y"), Command("B", "ls")]
    assert is_template("runs/encdl/RUN/last.ckpt")
    assert is_template("<file>")
    assert not is_template("experiments/encryptor.yaml")


def test_there_is_a_quick_start() -> None:
    assert any(command.words[1:] == ["train-encryptor"] for command in MADE)
    verbs = [command.words[1] for command in OURS]
    assert {"keygen", "encrypt", "decrypt", "inspect"} <= set(verbs)


@pytest.mark.parametrize("command", MADE, ids=lambda command: command.text)
def test_what_is_made_exists(command: Command) -> None:
    targets = [word for word in command.words[1:] if "=" not in word and not word.startswith("-")]
    assert targets
    assert set(targets) <= set(TARGETS)


@pytest.mark.parametrize("command", OURS, ids=lambda command: command.text)
def test_verbs_exist(command: Command) -> None:
    assert command.words[1] in VERBS


def test_commands_that_do_not_train(
    folder: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    """All in one folder and in the order of the README, as a reader types them."""
    monkeypatch.chdir(folder)
    shrink(monkeypatch)
    done = []
    for command in OURS:
        verb, *words = command.words[1:]
        if command in IMAGES or (verb in VERBS and VERBS[verb].whole):
            continue
        for word in words:
            if is_template(word) and "checkpoints" in word:
                words[words.index(word)] = "reader.ckpt" if verb == "predict" else str(_shipped("default"))
        if any(is_template(word) for word in words):
            continue
        code = encdl([verb, *words, *QUICK.get(verb, [])])
        # An audit is carried out; what a few images and attacks say of the cipher does not matter here.
        assert code in ({0, 1} if verb == "audit" else {0}), (command.text, capsys.readouterr().err)
        done.append(verb)
    assert set(done) >= {"keygen", "encrypt", "decrypt", "predict", "audit"}
    what_comes_back_is_the_scan(folder)


def what_comes_back_is_the_scan(folder: Path) -> None:
    """Every image that the commands decrypted."""
    [copied] = [command for command in IMAGES if command.words[0] == "cp"]
    original = images.read(folder / copied.words[-1])
    outputs = [
        words[words.index("-o") + 1]
        for words in (command.words for command in OURS)
        if words[1] == "decrypt" and "-o" in words and not any(map(is_template, words))
    ]
    assert outputs
    for name in outputs:
        np.testing.assert_array_equal(images.read(folder / name), original, strict=True)


@pytest.mark.parametrize("command", FITS, ids=lambda command: command.text)
def test_training_commands_begin(
    folder: Path, command: Command, monkeypatch: pytest.MonkeyPatch, tmp_path: Path
) -> None:
    if any(is_template(word) for word in command.words):
        pytest.skip("a template")
    monkeypatch.chdir(folder)
    assert encdl([*command.words[1:], *TRAINING, "--trainer.default_root_dir", str(tmp_path)]) == 0
    assert list(tmp_path.rglob("*.ckpt"))


def test_keys_lie_where_git_does_not_see_them() -> None:
    keys = [
        words[-1] if words[1] == "keygen" else words[words.index("-o") + 1]
        for words in (command.words for command in OURS)
        if words[1] in {"keygen", "grant"}
    ]
    assert len(keys) >= 3
    if not (ROOT / ".git").exists():
        pytest.skip("the source is no git checkout here")
    ignored = subprocess.run(
        ["git", "check-ignore", *keys], cwd=ROOT, capture_output=True, text=True, check=False
    ).stdout.splitlines()
    assert ignored == keys


def test_it_is_short() -> None:
    assert len(README.split()) <= 1000


def test_links_lead_somewhere() -> None:
    targets = [
        target.partition("#")[0]
        for target in re.findall(r"\]\(([^)\s]+)\)", README)
        if not target.startswith(("http", "#", "mailto:"))
    ]
    missing = [target for target in targets if not (ROOT / target).exists()]
    assert missing == []


def test_verbs_in_the_text_exist() -> None:
    named = set(re.findall(r"`encdl ([a-z]+)[^`]*`", README))
    assert named <= set(VERBS)


def test_targets_in_the_text_exist() -> None:
    assert set(re.findall(r"`make ([a-z-]+)[^`]*`", README)) <= set(TARGETS)


def _shipped(name: str) -> Path:
    return ROOT / "encdl" / "ciphers" / "weights" / SHIPPED[name]
