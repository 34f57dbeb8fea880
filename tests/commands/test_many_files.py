"""Many files in one run: the tree below the output folder, resume, bad files, links that lead elsewhere."""

from __future__ import annotations

import os
import re
import threading
from collections.abc import Callable
from pathlib import Path

import numpy as np
import pytest

from encdl.cli import main
from encdl.commands.many_files import Batch, find
from encdl.files import container, images
from encdl.files.container import Metadata
from encdl.files.folders import Done, Left, Source, below
from encdl.keys.key import Key
from encdl.utils.errors import ContainerError, ImageFileError, UsageError, WrongKeyError

WEIGHTS = str(Path(__file__).parents[1] / "golden" / "containers" / "tiny.pt")

Verb = Callable[..., tuple[int, str]]
"""Runs a verb with key and weights; gives exit code and what was told on stderr."""


@pytest.fixture
def tree(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    """A folder `in` with images in it and below, keys old.key and new.key."""
    monkeypatch.chdir(tmp_path)
    rng = np.random.default_rng(0)
    for name, shape, dtype in [
        ("a.png", (9, 7), np.uint8), ("b/a.png", (5, 6), np.uint8), ("b/c/v.npy", (4, 6, 5), np.int16),
        ("b/a.npy", (5, 6, 3), np.uint8),
    ]:  # fmt: skip
        path = Path("in", name)
        path.parent.mkdir(parents=True, exist_ok=True)
        array = rng.integers(0, 200, shape).astype(dtype)
        images.write(path, array) if path.suffix == ".png" else np.save(path, array)
    for key in ("old.key", "new.key"):
        assert main(["keygen", key]) == 0
    return tmp_path


@pytest.fixture
def verb(tree: Path, capfd: pytest.CaptureFixture[str]) -> Verb:
    def run(name: str, *words: object, key: str = "old.key") -> tuple[int, str]:
        capfd.readouterr()
        options = ["--key", key, "--weights", WEIGHTS, "--device", "cpu"]
        code = main([name, *map(str, words), *options])
        return code, capfd.readouterr().err

    return run


def names(folder: str) -> list[str]:
    return sorted(str(path.relative_to(folder)) for path in Path(folder).rglob("*") if path.is_file())


def contents(folder: str) -> dict[str, bytes]:
    return {name: Path(folder, name).read_bytes() for name in names(folder)}


IMAGES = ["a.png", "b/a.npy", "b/a.png", "b/c/v.npy"]


@pytest.mark.parametrize("jobs", [1, 3])
def test_a_tree_there_and_back(verb: Verb, jobs: int) -> None:
    before = contents("in")
    code, err = verb("encrypt", "in", "--output", "enc", "--jobs", jobs)
    assert code == 0
    assert err.startswith("encdl: 4 files encrypted (")
    assert names("enc") == [f"{name}.encdl" for name in IMAGES]
    assert contents("in") == before
    code, err = verb("decrypt", "enc", "--output", "dec", "--jobs", jobs)
    assert code == 0
    assert "4 files decrypted" in err
    assert contents("dec") == {name: before[name] for name in IMAGES}


def test_an_interrupted_run_goes_on(verb: Verb) -> None:
    assert verb("encrypt", "in", "--output", "enc")[0] == 0
    whole = contents("enc")
    Path("enc/b/a.png.encdl").unlink()
    Path("enc/b/.a.png.encdl.part").write_bytes(b"left by a killed process")
    os.link("enc/a.png.encdl", "enc/.a.png.encdl.part")  # killed in its last moment
    code, err = verb("encrypt", "in", "--output", "enc")
    assert code == 0
    assert "1 file encrypted, 3 finished before" in err
    again = contents("enc")
    assert again.keys() == whole.keys()
    assert {name for name in whole if whole[name] != again[name]} == {"b/a.png.encdl"}
    assert verb("decrypt", "enc", "--output", "dec")[0] == 0
    Path("dec/b/a.png").unlink()
    code, err = verb("decrypt", "enc", "--output", "dec")
    assert (code, "1 file decrypted, 3 finished before" in err) == (0, True)
    assert verb("encrypt", "in", "--output", "enc", "--force")[0] == 0
    assert not contents("enc").items() & whole.items()


def test_what_is_there_and_not_finished_is_told_and_kept(verb: Verb) -> None:
    assert verb("encrypt", "in", "--output", "enc")[0] == 0
    Path("enc/a.png.encdl").write_bytes(b"something else")
    images.write("in/b/a.png", np.zeros((5, 6), np.uint8), force=True)
    data = bytearray(Path("enc/b/c/v.npy.encdl").read_bytes())
    data[-84] ^= 1
    Path("enc/b/c/v.npy.encdl").write_bytes(data)
    before = contents("enc")
    code, err = verb("encrypt", "in", "--output", "enc")
    assert code == 1
    assert "a.png.encdl: is not an EncDL file" in err
    assert "exists already, made from another file" in err
    assert "slice 4 of 4 was changed" in err
    assert err.count("--force replaces it") == 3
    assert "0 files encrypted, 1 finished before, 3 failed" in err
    assert contents("enc") == before
    code, err = verb("encrypt", "in", "--output", "enc", "--postprocess", "both")
    assert (code, "made with other settings" in err) == (2, True)
    code, err = verb("encrypt", "in", "--output", "enc", key="new.key")
    assert (code, "yours is" in err) == (2, True)
    assert contents("enc") == before
    assert verb("encrypt", "in", "--output", "enc", "--force")[0] == 0
    assert verb("decrypt", "enc", "--output", "dec")[0] == 0
    images.write("dec/a.png", np.zeros((9, 7), np.uint8), force=True)
    code, err = verb("decrypt", "enc", "--output", "dec")
    assert (code, "a.png: exists already and is another image" in err) == (1, True)


def test_one_bad_file_does_not_stop_the_others(verb: Verb) -> None:
    Path("in/bad.png").write_bytes(b"\x89PNG\r\n\x1a\n broken")
    Path("in/empty.dcm").touch()
    code, err = verb("encrypt", "in", "--output", "enc")
    assert code == 1
    assert "encdl: error: in/bad.png: " in err
    assert "encdl: error: in/empty.dcm: is empty" in err
    assert "4 files encrypted, 2 failed" in err
    assert names("enc") == [f"{name}.encdl" for name in IMAGES]
    code, err = verb("decrypt", "enc", "in/a.png", "--output", "dec")
    assert (code, "a.png: is not an EncDL file" in err) == (1, True)
    assert verb("decrypt", "enc", "--output", "none", key="new.key")[0] == 2
    assert names("none") == []


def test_rekeying_a_folder_can_be_interrupted(verb: Verb) -> None:
    before = contents("in")
    assert verb("encrypt", "in", "--output", "enc")[0] == 0
    assert verb("rekey", "enc/b/a.png.encdl", "--new-key", "new.key")[0] == 0
    code, err = verb("rekey", "enc", "--new-key", "new.key")
    assert code == 0
    assert "3 files rekeyed, 1 finished before" in err
    assert {container.read_header(Path("enc", name)).key_id for name in names("enc")} == {Key.load("new.key").id}
    assert verb("decrypt", "enc", "--output", "dec", key="new.key")[0] == 0
    assert contents("dec") == {name: before[name] for name in IMAGES}


def test_rekeying_into_another_folder(verb: Verb) -> None:
    assert verb("encrypt", "in", "--output", "enc")[0] == 0
    before = contents("enc")
    for told in ("4 files rekeyed", "0 files rekeyed, 4 finished before"):
        code, err = verb("rekey", "enc", "--new-key", "new.key", "--output", "moved")
        assert (code, told in err) == (0, True)
    assert contents("enc") == before
    with container.opened("moved/a.png.encdl", Key.load("new.key")) as reader:
        assert reader.metadata is not None
        assert (reader.metadata.format, reader.metadata.suffix) == ("png", ".png")
    Path("moved/a.png.encdl").write_bytes(Path("moved/b/a.png.encdl").read_bytes())
    code, err = verb("rekey", "enc", "--new-key", "new.key", "--output", "moved")
    assert (code, "made from another file" in err) == (1, True)


@pytest.mark.parametrize("jobs", [1, 2])
def test_two_inputs_never_share_an_output(verb: Verb, jobs: int) -> None:
    Path("enc").mkdir()
    assert verb("encrypt", "in/b/a.npy", "-o", "enc/A.encdl")[0] == 0
    assert verb("encrypt", "in/b/c/v.npy", "-o", "enc/A.npy.encdl")[0] == 0
    code, err = verb("decrypt", "enc", "--output", "out", "--force", "--jobs", jobs)
    assert (code, err.count("A.npy is that of enc/A.")) == (1, 1)
    assert "1 file decrypted" in err
    assert Path("out/A.npy").read_bytes() in {Path("in/b/a.npy").read_bytes(), Path("in/b/c/v.npy").read_bytes()}


def test_no_output_takes_the_place_of_an_input(verb: Verb) -> None:
    """B decrypts to B.npy, which is a container by its content."""
    for name, source in (("B", "a.npy"), ("B.npy", "c/v.npy")):
        assert verb("encrypt", f"in/b/{source}", "-o", "enc.encdl")[0] == 0
        Path("enc").mkdir(exist_ok=True)
        Path("enc.encdl").rename(Path("enc", name))
    before = contents("enc")
    code, err = verb("decrypt", "enc", "--output", "enc", "--force")
    assert (code, "enc/B: its output enc/B.npy is that of enc/B.npy" in err) == (1, True)
    assert {name: content for name, content in contents("enc").items() if name in before} == before


def test_several_files_and_folders_at_once(verb: Verb) -> None:
    assert verb("encrypt", "in/a.png", "in/b/c", "--output", "enc")[0] == 0
    assert names("enc") == ["a.png.encdl", "v.npy.encdl"]
    with pytest.raises(SystemExit):
        verb("encrypt", "in", "--output", "enc", "--jobs", "0")
    for words, told in [
        (["in"], "need a folder for the results"),
        (["in", "-o", "in/a.png"], "is a file"),
        (["in", "-o", "no/where"], "no folder no"),
        (["in/a.png", "in/b/a.png", "-o", "enc"], "would both become a.png"),
        (["in/b/c/none", "in", "-o", "enc2"], "none: no such file"),
        (["enc", "-o", "enc3"], "there is no image file in this folder"),
    ]:
        code, err = verb("encrypt", *words)
        assert code in (1, 2)
        assert told in err


def test_links_that_lead_out_of_the_folder_are_not_followed(verb: Verb) -> None:
    Path("secret").mkdir()
    images.write("secret/s.png", np.zeros((3, 3), np.uint8))
    os.symlink("../secret", "in/folder")
    os.symlink("../secret/s.png", "in/s.png")
    os.symlink("b/a.png", "in/inside.png")
    os.symlink("nowhere.png", "in/dangling.png")
    code, err = verb("encrypt", "in", "--output", "enc")
    assert code == 1
    for why, name in (
        ("links that lead out of the folder", "s.png"),
        ("links to folders", "folder"),
        ("links that lead nowhere", "dangling.png"),
    ):
        assert f"left alone, NOT encrypted, {why}: in/{name}\n" in err
    assert names("enc") == [f"{name}.encdl" for name in IMAGES]  # inside.png is b/a.png once more


def test_nothing_is_written_through_links_in_the_output_folder(verb: Verb) -> None:
    Path("elsewhere").mkdir()
    Path("enc").mkdir()
    os.symlink("../elsewhere", "enc/b")
    Path("elsewhere/a.txt").write_text("mine")
    os.symlink("../elsewhere/a.txt", "enc/a.png.encdl")
    for force in ([], ["--force"]):
        code, err = verb("encrypt", "in", "--output", "enc", *force)
        assert code == 2
        assert err.count("leads out of the output folder enc") == 2
        assert "2 more files: leads out of" in err
        assert "a.png.encdl: is a symbolic link" in err
        assert names("elsewhere") == ["a.txt"]
        assert Path("elsewhere/a.txt").read_text() == "mine"


@pytest.mark.parametrize("relative", ["../x", "a/../../x", "/etc/x"])
def test_names_that_lead_out_are_refused(tmp_path: Path, relative: str) -> None:
    with pytest.raises(UsageError, match="leads out"):
        below(tmp_path, Path(relative))
    assert list(tmp_path.iterdir()) == []


def test_a_suffix_made_by_someone_else_leads_nowhere() -> None:
    """The one part of a name that comes from within a file."""
    for suffix in ("/../../x", ".a/b", "..", ".png/"):
        with pytest.raises(Exception, match="metadata's field 'suffix'"):
            Metadata("png", suffix)


def test_hidden_and_encrypted_files_are_left_alone(tree: Path) -> None:
    from encdl.files.file_names import is_image

    images.write("in/.hidden.png", np.zeros((3, 3), np.uint8))
    Path("in/x.png.encdl").write_bytes(b"x")
    Path("in/IM0001").write_bytes(bytes(128) + b"DICM")
    left: list[Left] = []
    found = [str(source.relative) for source in find([Path("in")], is_image, "image", left)]
    assert found == ["IM0001", "a.png", "b/a.npy", "b/a.png", "b/c/v.npy"]
    assert sorted(str(each.path) for each in left) == ["in/.hidden.png", "in/x.png.encdl"]


def test_damaged_files_of_a_folder_are_salvaged_and_marked(verb: Verb) -> None:
    assert verb("encrypt", "in", "--output", "enc")[0] == 0
    path = Path("enc/b/c/v.npy.encdl")
    path.write_bytes(path.read_bytes()[:-84])
    code, err = verb("decrypt", "enc", "--output", "dec")
    assert (code, "v.npy.encdl: is cut" in err) == (1, True)
    assert "b/c/v.npy" not in names("dec")
    code, err = verb("decrypt", "enc", "--output", "dec", "--salvage")
    assert code == 0
    assert "1 of 4 slices damaged and restored" in err
    assert "1 file decrypted, 3 finished before" in err
    assert names("dec") == sorted([*IMAGES, "b/c/v.npy.salvage.json"])


def test_a_summary_counts(capsys: pytest.CaptureFixture[str]) -> None:
    sources = [Source(Path(str(number)), Path(str(number))) for number in range(5)]

    def work(source: Source, progress: Callable[[int], None]) -> Done:
        number = int(source.path.name)
        if number == 3:
            raise ImageFileError("3: broken")
        return Done(1_000_000, there=number == 0, note="look" if number == 1 else "")

    for jobs in (1, 2, 9):
        assert Batch(sources, jobs, "made").run(work) == 1
        err = capsys.readouterr().err
        assert "encdl: 3 files made, 1 finished before, 1 failed (3.0 MB in" in err
        assert "encdl: error: 3: broken" in err
        assert "encdl: warning: look" in err
    assert Batch(sources[:1], 1, "made").run(work) == 0
    assert re.fullmatch(r"encdl: 0 files made, 1 finished before \(\d+\.\d s\)\n", capsys.readouterr().err)
    assert Batch(sources[1:2], 1, "made").run(lambda *_: Done(60_480)) == 0
    assert "encdl: 1 file made (60.5 kB in" in capsys.readouterr().err
    with pytest.raises(ZeroDivisionError):  # a mistake of ours is no bad file
        Batch(sources, 2, "made").run(lambda source, progress: Done(1 // 0))


def test_equal_errors_are_told_once_with_their_count(capsys: pytest.CaptureFixture[str]) -> None:
    sources = [Source(Path(f"{number}.encdl"), Path(f"{number}.encdl")) for number in range(50)]

    def work(source: Source, progress: Callable[[int], None]) -> Done:
        number = int(source.path.stem)
        raise ContainerError(f"{source.path}: is cut") if number % 10 else WrongKeyError("give the right key")

    for jobs in (1, 3):
        assert Batch(sources, jobs, "opened").run(work) == 2
        *told, summary = capsys.readouterr().err.splitlines()
        assert len(told) == 4
        assert sorted(line.partition(".encdl: ")[2] for line in told[:2]) == ["give the right key", "is cut"]
        counted = sorted(line.partition(" (")[0] for line in told[2:])
        assert counted == ["encdl: error: 4 more files: give the right key", "encdl: error: 44 more files: is cut"]
        assert sum(line.endswith(" and 24 more)") for line in told) == 1
        assert ", 50 failed" in summary


def test_alike_errors_lose_names_of_files_and_nothing_else(capsys: pytest.CaptureFixture[str]) -> None:
    def work(source: Source, progress: Callable[[int], None]) -> Done:
        raise WrongKeyError(f"out/{source.path.name}.encdl: 1 of 8 keys, 5bd2: give the right one")

    sources = [Source(Path("in", name), Path("out", f"{name}.encdl")) for name in ("1", "2", "5")]
    assert Batch(sources, 1, "opened").run(work) == 2
    told = capsys.readouterr().err.splitlines()
    assert told[1] == "encdl: error: 2 more files: 1 of 8 keys, 5bd2: give the right one (in/2, in/5)"


def test_an_interruption_ends_all_jobs() -> None:
    sources = [Source(Path(str(number)), Path(str(number))) for number in range(100)]
    begun, stopped = threading.Semaphore(0), []

    def work(source: Source, progress: Callable[[int], None]) -> Done:
        if int(source.path.name) == 1:
            begun.acquire(timeout=20)
            raise KeyboardInterrupt
        begun.release()
        try:
            while True:
                progress(1)
                threading.Event().wait(0.01)
        except KeyboardInterrupt:
            stopped.append(source)
            raise

    with pytest.raises(KeyboardInterrupt):
        Batch(sources, 2, "made").run(work)
    assert [source.path.name for source in stopped] == ["0"]
