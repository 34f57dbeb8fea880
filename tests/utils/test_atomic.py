from __future__ import annotations

import errno
import fcntl
import os
from pathlib import Path

import pytest

from encdl.utils import atomic
from encdl.utils.errors import OutputExistsError, UsageError


def test_writes_all_parts_and_leaves_nothing_else(tmp_path: Path) -> None:
    atomic.write_bytes(tmp_path / "a", b"one", memoryview(b"two"))
    assert [path.name for path in tmp_path.iterdir()] == ["a"]
    assert (tmp_path / "a").read_bytes() == b"onetwo"


def test_an_existing_file_is_replaced_only_when_told(tmp_path: Path) -> None:
    target = tmp_path / "a"
    target.write_bytes(b"old")
    target.chmod(0o640)
    with pytest.raises(OutputExistsError, match="--force"):
        atomic.write_bytes(target, b"new")
    assert target.read_bytes() == b"old"
    atomic.write_bytes(target, b"new", force=True)
    assert target.read_bytes() == b"new"
    assert target.stat().st_mode & 0o777 == 0o640


def test_a_file_that_appears_meanwhile_is_not_replaced(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    target = tmp_path / "a"
    fsync = os.fsync

    def intruder(descriptor: int) -> None:
        target.write_bytes(b"theirs")
        fsync(descriptor)

    monkeypatch.setattr(os, "fsync", intruder)
    with pytest.raises(OutputExistsError):
        atomic.write_bytes(target, b"ours")
    assert target.read_bytes() == b"theirs"
    assert len(list(tmp_path.iterdir())) == 1


@pytest.mark.parametrize("links", [True, False])
def test_file_systems_without_hard_links_work_too(tmp_path: Path, monkeypatch: pytest.MonkeyPatch, links: bool) -> None:
    def link(source: object, target: object) -> None:
        raise OSError(errno.EPERM, "no links here")

    if not links:
        monkeypatch.setattr(os, "link", link)
    atomic.write_bytes(tmp_path / "a", b"x")
    with pytest.raises(OutputExistsError):
        atomic.write_bytes(tmp_path / "a", b"y")
    assert (tmp_path / "a").read_bytes() == b"x"


@pytest.mark.parametrize("failure", [OSError(errno.ENOSPC, "No space left on device"), KeyboardInterrupt()])
@pytest.mark.parametrize("existing", [True, False])
def test_nothing_changes_when_writing_fails(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, failure: BaseException, existing: bool
) -> None:
    target = tmp_path / "a"
    if existing:
        target.write_bytes(b"old")

    def fail(descriptor: int) -> None:
        raise failure

    monkeypatch.setattr(os, "fsync", fail)
    with pytest.raises(type(failure)) as caught:
        atomic.write_bytes(target, b"new", force=True)
    assert [path.name for path in tmp_path.iterdir()] == (["a"] if existing else [])
    assert not existing or target.read_bytes() == b"old"
    if isinstance(caught.value, OSError):
        assert caught.value.filename == str(target)


def test_bad_names_are_told(tmp_path: Path) -> None:
    with pytest.raises(UsageError, match="folder"):
        atomic.write_bytes(tmp_path, b"")
    with pytest.raises(UsageError, match="device or pipe"):
        atomic.write_bytes("/dev/null", b"", force=True)
    with pytest.raises(UsageError, match="no folder"):
        atomic.write_bytes(tmp_path / "no" / "a", b"")


def test_a_link_stays_a_link(tmp_path: Path) -> None:
    (tmp_path / "real").write_bytes(b"old")
    (tmp_path / "link").symlink_to(tmp_path / "real")
    atomic.write_bytes(tmp_path / "link", b"new", force=True)
    assert (tmp_path / "link").is_symlink()
    assert (tmp_path / "real").read_bytes() == b"new"


def test_a_stream_can_seek_and_be_read_back(tmp_path: Path) -> None:
    with atomic.writing(tmp_path / "a") as stream:
        stream.write(b"12345")
        stream.seek(1)
        stream.write(b"x")
        stream.seek(0)
        assert stream.read() == b"1x345"
        assert [path.name for path in tmp_path.iterdir()] == [".a.part"]
    assert [path.name for path in tmp_path.iterdir()] == ["a"]
    assert (tmp_path / "a").read_bytes() == b"1x345"


def test_an_error_in_the_block_leaves_nothing(tmp_path: Path) -> None:
    def broken() -> None:
        with atomic.writing(tmp_path / "a") as stream:
            stream.write(b"1")
            raise ZeroDivisionError

    with pytest.raises(ZeroDivisionError):
        broken()
    assert list(tmp_path.iterdir()) == []


def test_an_error_about_another_file_keeps_its_name(tmp_path: Path) -> None:
    with pytest.raises(FileNotFoundError) as caught, atomic.writing(tmp_path / "a"):
        (tmp_path / "other").read_bytes()
    assert caught.value.filename == str(tmp_path / "other")


def test_what_a_killed_process_left_goes(tmp_path: Path) -> None:
    (tmp_path / ".a.part").write_bytes(b"left by a killed process")
    atomic.write_bytes(tmp_path / "a", b"x")
    assert [path.name for path in tmp_path.iterdir()] == ["a"]


def test_two_writers_of_one_file(tmp_path: Path) -> None:
    def both() -> None:
        with atomic.writing(tmp_path / "a") as first:
            first.write(b"first")
            first.flush()
            atomic.write_bytes(tmp_path / "a", b"second")
            assert (tmp_path / ".a.part").read_bytes() == b"first"

    with pytest.raises(OutputExistsError):
        both()
    assert [path.name for path in tmp_path.iterdir()] == ["a"]
    assert (tmp_path / "a").read_bytes() == b"second"


@pytest.mark.parametrize("kind", ["symlink", "folder"])
def test_something_else_under_the_hidden_name_stays(tmp_path: Path, kind: str) -> None:
    (tmp_path / "real").write_bytes(b"mine")
    if kind == "symlink":
        (tmp_path / ".a.part").symlink_to(tmp_path / "real")
    else:
        (tmp_path / ".a.part").mkdir()
    atomic.write_bytes(tmp_path / "a", b"x")
    assert (tmp_path / "a").read_bytes() == b"x"
    assert (tmp_path / "real").read_bytes() == b"mine"


def test_a_file_taken_for_a_leftover_before_it_was_locked_is_made_anew(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    flock, calls = fcntl.flock, []

    def stolen(descriptor: int, how: int) -> None:
        if not calls:
            (tmp_path / ".a.part").unlink()
        calls.append(how)
        flock(descriptor, how)

    monkeypatch.setattr(fcntl, "flock", stolen)
    atomic.write_bytes(tmp_path / "a", b"x")
    assert len(calls) == 2
    assert [path.name for path in tmp_path.iterdir()] == ["a"]


def test_long_names_of_wide_characters(tmp_path: Path) -> None:
    name = "ü" * 120
    atomic.write_bytes(tmp_path / name, b"x")
    assert [path.name for path in tmp_path.iterdir()] == [name]


def test_what_lies_beside_a_finished_file_goes_unless_it_is_being_written(tmp_path: Path) -> None:
    (tmp_path / "a").write_bytes(b"finished")
    os.link(tmp_path / "a", tmp_path / ".a.part")  # killed between the two names
    atomic.remove_leftover(tmp_path / "a")
    assert [path.name for path in tmp_path.iterdir()] == ["a"]
    with atomic.writing(tmp_path / "a", force=True):
        atomic.remove_leftover(tmp_path / "a")
        assert (tmp_path / ".a.part").exists()
    atomic.remove_leftover(tmp_path / "none")
