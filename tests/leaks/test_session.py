"""No key byte in whatever EncDL prints, logs, stores or raises.

One process runs every verb, some of them wrongly, some with a bug in the middle. Then all that it printed and every
file that it left are searched for the secrets in any usual spelling.
"""

from __future__ import annotations

from pathlib import Path

from encdl.keys.key import load_opener
from encdl.keys.passphrases import Passphrase
from tests.leaks.search import contents, leaks
from tests.leaks.session import Session, session
from tests.leaks.verbs import BROKEN, KEY_FILES, RIGHT, WORDS, WRONG


def every_command_ended_as_meant(session: Session) -> None:
    ends = [line.removeprefix("$ -> ") for line in session.stdout.splitlines() if line.startswith("$ -> ")]
    right, wrong, broken = ends[: len(RIGHT)], ends[len(RIGHT) : -len(BROKEN)], ends[-len(BROKEN) :]
    assert right == ["0"] * len(RIGHT), session.stderr[-3000:]
    assert wrong == ["2"] * len(WRONG)
    assert broken == ["an exception"] * len(BROKEN)
    assert session.stderr.count("RuntimeError: a bug") >= 2 * len(BROKEN)
    assert "opener = Key(id=" in session.stderr  # local variables are shown indeed
    assert session.stderr.count("DEBUG:") > 10


def nothing_printed_holds_a_secret(session: Session) -> None:
    assert len(session.secrets) > 20
    assert leaks(session.stdout.encode(), session.secrets) == []
    assert leaks(session.stderr.encode(), session.secrets) == []


def no_file_but_the_key_files_holds_a_secret(session: Session) -> None:
    paths = [path for path in session.folder.rglob("*") if path.is_file()]
    names = {path.relative_to(session.folder).as_posix() for path in paths}
    assert names >= {*KEY_FILES, "scan.encdl", "moved.encdl", "runs/mlflow.db"}
    assert names >= {"table.csv", "masks/scan.mask.png", "masks/scan.overlay.png"}
    assert any(name.endswith("last.ckpt") for name in names)
    assert any(name.endswith("config.yaml") for name in names)
    found = {
        path.name: leaks(data, session.secrets)
        for path in paths
        if path.name not in KEY_FILES
        for data in contents(path)
        if leaks(data, session.secrets)
    }
    assert found == {}


def a_key_file_holds_its_own_secret_only(session: Session) -> None:
    for name in sorted(KEY_FILES):
        secret = load_opener(session.folder / name, Passphrase(WORDS))._secret
        others = {other: value for other, value in session.secrets.items() if value != secret}
        content = (session.folder / name).read_bytes()
        assert leaks(content, session.secrets if name.startswith("locked") else others) == []
        assert (session.folder / name).stat().st_mode & 0o777 == 0o600


def nothing_is_left_of_a_failure(session: Session) -> None:
    assert not [path for path in session.folder.rglob("b.*") if path.is_file()]
    assert not list(session.folder.glob("b.masks/*"))
    assert not list(session.folder.glob(".*"))
    assert not list(session.folder.glob("*.tmp"))


def test_a_session_leaks_nothing(tmp_path: Path) -> None:
    """One test, because the session takes long and parallel workers would each have their own."""
    found = session(tmp_path)
    every_command_ended_as_meant(found)
    nothing_printed_holds_a_secret(found)
    no_file_but_the_key_files_holds_a_secret(found)
    a_key_file_holds_its_own_secret_only(found)
    nothing_is_left_of_a_failure(found)
