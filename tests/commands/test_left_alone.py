"""Nothing is passed over in silence, and what cannot be done is said in one line."""

from __future__ import annotations

import os
import subprocess
import sys
from pathlib import Path

import numpy as np
import pytest

from encdl.cli import main
from encdl.data.class_folder import ClassFolder
from encdl.data.folder_files import PLAIN
from encdl.files import folders, images
from encdl.files.folders import Left
from encdl.utils.errors import DataError

WEIGHTS = ["--weights", str(Path(__file__).parents[1] / "golden" / "containers" / "tiny.pt"), "--device", "cpu"]


@pytest.fixture
def closed(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    """A folder whose sub-folder cannot be listed, whoever runs the tests."""
    monkeypatch.chdir(tmp_path)
    for name in ("in/a.png", "in/closed/b.png"):
        Path(name).parent.mkdir(parents=True, exist_ok=True)
        images.write(name, np.zeros((9, 9), np.uint8))
    scandir = os.scandir

    def refusing(path: str) -> object:
        if Path(path).name == "closed":
            raise PermissionError(13, "Permission denied", path)
        return scandir(path)

    monkeypatch.setattr(os, "scandir", refusing)
    return tmp_path


def test_folders_that_cannot_be_listed_are_named(closed: Path, capfd: pytest.CaptureFixture[str]) -> None:
    assert main(["keygen", "k.key"]) == main(["keygen", "new.key"]) == 0
    assert main(["encrypt", "in", "--key", "k.key", "-o", "enc", *WEIGHTS]) == 1
    told = "NOT {}, cannot be listed (Permission denied): {}/closed\n"
    assert told.format("encrypted", "in") in capfd.readouterr().err
    Path("enc/closed").mkdir()
    for verb, done, more in [
        ("rekey", "rekeyed", ["--new-key", "new.key"]),
        ("decrypt", "decrypted", ["-o", "dec"]),
        ("inspect", "inspected", []),
    ]:
        key = [] if verb == "inspect" else ["--key", "new.key" if verb == "decrypt" else "k.key", *WEIGHTS]
        assert main([verb, "enc", *key, *more]) == 1
        assert told.format(done, "enc") in capfd.readouterr().err
    assert main(["encrypt", "in/closed", "--key", "k.key", "-o", "none", *WEIGHTS]) == 2
    assert "cannot be listed (Permission denied)" in capfd.readouterr().err
    with pytest.raises(DataError, match="closed: cannot be listed"):
        PLAIN.below(Path("in"))


def test_thousands_of_files_are_found_at_once(tmp_path: Path) -> None:
    for number in range(3_000):
        (tmp_path / f"{number}.png").touch()
    left: list[Left] = []
    assert len(folders.gather([tmp_path], lambda path: path.suffix == ".png", "image", left)) == 3_000
    assert not left


def test_training_tells_of_what_it_does_not_read(tmp_path: Path, capfd: pytest.CaptureFixture[str]) -> None:
    images.write(tmp_path / "a.png", np.zeros((9, 9), np.uint8))
    for name in ("b.mha", "c.txt", ".hidden"):
        (tmp_path / name).touch()
    assert PLAIN.below(tmp_path) == [tmp_path / "a.png"]
    assert "2 of 3 files are left out" in (err := capfd.readouterr().err)
    assert f"{tmp_path}/b.mha, {tmp_path}/c.txt\n" in err


@pytest.mark.parametrize("names", [("Train", "Val", "Test"), ("Training", "Testing"), ("TRAIN", "Validation")])
def test_splits_are_known_by_usual_names(tmp_path: Path, names: tuple[str, ...]) -> None:
    for index, split in enumerate(names):
        for number in range(8):
            path = tmp_path / split / "ab"[number % 2] / f"{number}.png"
            path.parent.mkdir(parents=True, exist_ok=True)
            images.write(path, np.full((9, 9), index, np.uint8))
    data = ClassFolder(str(tmp_path), size=9)
    assert data.classes == ("a", "b")
    assert {path["image"].relative_to(tmp_path).parts[0] for path in data.samples("train")} == {names[0]}
    (tmp_path / "train").mkdir(exist_ok=True)
    with pytest.raises(DataError, match="for one split"):
        ClassFolder(str(tmp_path), size=9).samples("train")


@pytest.mark.parametrize("words", [["encrypt", "-", "-o", "x.encdl"], ["decrypt", "x.encdl", "-o", "-"]])
def test_standard_streams_are_refused(words: list[str], capfd: pytest.CaptureFixture[str]) -> None:
    with pytest.raises(SystemExit, match="2"):
        main([*words, "--key", "k.key"])
    err = capfd.readouterr().err
    assert "standard input and output are not used" in err
    assert err.count("\n") == 1


def test_a_removed_working_directory_is_told(tmp_path: Path) -> None:
    code = "import os, sys; from encdl.cli import main; os.rmdir(os.getcwd()); sys.exit(main(['keygen', 'k.key']))"
    (tmp_path / "x").mkdir()
    done = subprocess.run([sys.executable, "-c", code], cwd=tmp_path / "x", capture_output=True, text=True, check=False)
    assert (done.returncode, done.stderr.count("\n")) == (2, 1)
    assert "the working directory was removed" in done.stderr


def test_what_a_killed_run_left_is_no_file(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.chdir(tmp_path)
    Path("in").mkdir()
    for name in "ab":
        images.write(f"in/{name}.png", np.zeros((9, 9), np.uint8))
    assert main(["keygen", "k.key"]) == main(["keygen", "new.key"]) == main(["keygen", "--recipient", "one.key"]) == 0
    assert main(["encrypt", "in", "--key", "k.key", "-o", "enc", *WEIGHTS]) == 0
    whole = Path("enc/a.png.encdl").read_bytes()
    for verb, key, *more in [
        ("recipients", "add", "enc", "--key", "k.key", "--recipient", "one.pub"),
        ("rekey", "enc", "--key", "k.key", "--new-key", "new.key", *WEIGHTS),
        ("inspect", "enc", "--key", "new.key"),
        ("decrypt", "enc", "--key", "new.key", "-o", "dec", *WEIGHTS),
    ]:
        for name, left in (("a", whole[:-9]), ("b", whole)):
            Path(f"enc/.{name}.png.encdl.part").write_bytes(left)
        assert main([verb, key, *more]) == 0
    assert sorted(path.name for path in Path("dec").iterdir()) == ["a.png", "b.png"]
