from __future__ import annotations

from datetime import UTC, datetime
from pathlib import Path

import numpy as np
import pytest

from encdl.files import images
from encdl.files.container import read_header
from encdl.keys import grant as grants
from encdl.keys.key import Grant, Key, load_opener
from tests.commands.conftest import Run
from tests.commands.test_files import failed


def test_keygen(run: Run) -> None:
    code, out, err = run("keygen", "new.key")
    assert (code, err) == (0, "")
    assert Key.load("new.key").id in out
    assert Path("new.key").read_text().split(":")[1].strip() not in out
    assert Path("new.key").stat().st_mode & 0o777 == 0o600


def test_keygen_never_replaces_a_key_by_accident(run: Run) -> None:
    before = Path("k.key").read_bytes()
    failed(run("keygen", "k.key"), "k.key: exists already")
    assert Path("k.key").read_bytes() == before
    assert run("keygen", "k.key", "--force")[0] == 0
    assert Path("k.key").read_bytes() != before
    failed(run("keygen", "no/k.key"), "no folder no")
    failed(run("keygen", ".", "--force"), "is a folder")


def test_a_grant_for_a_study_opens_it_and_nothing_else(run: Run, agile: Path) -> None:
    options = ["--weights", agile]
    for study in ("S", "T"):
        encrypted = ["--study", study, "-o", f"{study}.encdl", *options]
        assert run("encrypt", "scan.png", "--key", "k.key", *encrypted)[0] == 0
    assert run("encrypt", "scan.png", "--key", "k.key", "-o", "none.encdl", *options)[0] == 0
    code, out, _ = run("grant", "--key", "k.key", "--study", "S", "-o", "S.grant")
    assert code == 0
    assert "study 'S'" in out
    opener = load_opener("S.grant")
    assert isinstance(opener, Grant)
    assert opener.study == "S"
    assert run("decrypt", "S.encdl", "--key", "S.grant", *options, "-o", "b.png")[0] == 0
    np.testing.assert_array_equal(images.read("b.png"), images.read("scan.png"))
    failed(run("decrypt", "T.encdl", "--key", "S.grant", *options), "T.encdl: this grant opens study 'S'", "'T'")
    failed(run("decrypt", "none.encdl", "--key", "S.grant", *options), "this grant opens study 'S'")
    assert run("encrypt", "scan.png", "--key", "S.grant", *options, "-o", "more.encdl")[0] == 0
    failed(run("encrypt", "scan.png", "--key", "S.grant", "--study", "T", *options), "study 'S', not 'T'")


def test_a_grant_for_a_file_opens_it_and_nothing_else(run: Run, scan: Path, agile: Path) -> None:
    options = ["--weights", agile]
    assert run("encrypt", "scan.png", "--key", "k.key", "-o", "other.encdl", *options)[0] == 0
    assert run("grant", "--key", "k.key", "--file", scan, "-o", "f.grant")[0] == 0
    assert run("decrypt", scan, "--key", "f.grant", *options, "-o", "b.png")[0] == 0
    failed(
        run("decrypt", "other.encdl", "--key", "f.grant", *options),
        f"other.encdl: this grant opens the file with nonce {read_header(scan).nonce} alone, and this is another file, "
        f"with nonce {read_header('other.encdl').nonce}: ask",
    )
    failed(run("encrypt", "scan.png", "--key", "f.grant", *options, "-o", "c.encdl"), "cannot encrypt")
    new = ["--new-key", "f.grant", "--same-key"]
    failed(run("rekey", scan, "--key", "k.key", *new, *options), "cannot encrypt")


def test_a_study_grant_can_grant_one_of_its_files(run: Run, agile: Path) -> None:
    assert run("encrypt", "scan.png", "--key", "k.key", "--study", "S", "--weights", agile)[0] == 0
    assert run("grant", "--key", "k.key", "--study", "S", "-o", "S.grant")[0] == 0
    assert run("grant", "--key", "S.grant", "--file", "scan.encdl", "-o", "f.grant")[0] == 0
    assert run("decrypt", "scan.encdl", "--key", "f.grant", "--weights", agile, "-o", "b.png")[0] == 0
    failed(run("grant", "--key", "S.grant", "--study", "T", "-o", "g"), "only the key itself can grant a study")
    failed(run("grant", "--key", "f.grant", "--file", "scan.encdl", "-o", "g"), "cannot grant others")


def test_wrong_inputs_of_grant(run: Run, scan: Path) -> None:
    grant = ["grant", "--key", "k.key"]
    failed(run(*grant, "--study", "", "-o", "g"), "name a study")
    failed(run(*grant, "--study", "a\nb", "-o", "g"), "control characters")
    failed(run(*grant, "--study", "S"), "required: -o/--output")
    failed(run(*grant, "-o", "g"), "one of the arguments --study --file --reader is required")
    failed(run(*grant, "--study", "S", "--file", scan, "-o", "g"), "not allowed with")
    failed(run(*grant, "--study", "S", "-o", "k.key"), "k.key: exists already")
    failed(run(*grant, "--study", "S", "-o", "k.key", "--force"), "same file as the input k.key")
    failed(run(*grant, "--file", scan, "-o", scan, "--force"), "same file as the input scan.encdl")
    failed(run(*grant, "--file", "none.encdl", "-o", "g"), "none.encdl: no such file")
    failed(run(*grant, "--file", "scan.png", "-o", "g"), "not an EncDL file")
    failed(run("grant", "--key", "other.key", "--file", scan, "-o", "g"), "yours is")
    data = bytearray(scan.read_bytes())
    data[-84] ^= 1
    Path("bad.encdl").write_bytes(data)
    failed(run(*grant, "--file", "bad.encdl", "-o", "g"), "changed after it was written")


@pytest.mark.parametrize(
    ("option", "last"),
    [
        (["--expires", "2027-01-31"], datetime(2027, 1, 31, 23, 59, 58, tzinfo=UTC)),
        (["--days", "2"], datetime(2026, 11, 26, 12, 0, 29, tzinfo=UTC)),
    ],
)
@pytest.mark.parametrize("scope", ["study", "file"])
def test_a_grant_that_ends(
    scope: str, option: list[str], last: datetime, run: Run, agile: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(grants, "utc_now", lambda: datetime(2026, 11, 24, 12, 0, 30, tzinfo=UTC))
    options = ["--weights", agile]
    assert run("encrypt", "scan.png", "--key", "k.key", "--study", "S", *options)[0] == 0
    what = ["--study", "S"] if scope == "study" else ["--file", "scan.encdl"]
    code, out, _ = run("grant", "--key", "k.key", *what, *option, "-o", "g")
    assert code == 0
    assert f"until {last:%Y-%m-%d}" in out
    assert "(advisory)" in out
    monkeypatch.setattr(grants, "utc_now", lambda: last)
    assert run("decrypt", "scan.encdl", "--key", "g", *options, "-o", "b.png")[0] == 0
    monkeypatch.setattr(grants, "utc_now", lambda: datetime(2027, 2, 1, tzinfo=UTC))
    for verb in (["decrypt", "scan.encdl"], ["encrypt", "scan.png"], ["rekey", "scan.encdl", "--new-key", "k.key"]):
        failed(run(*verb, "--key", "g", *options, "-o", "c"), f"the grant for {scope_of(scope)}", "expired on 202")
    failed(run("grant", "--key", "g", "--file", "scan.encdl", "-o", "h"), "expired on 202")
    assert ", is over" in run("keyinfo", "g")[1]


def scope_of(scope: str) -> str:
    return "study 'S'" if scope == "study" else "the file with nonce"


@pytest.mark.parametrize(
    ("option", "message"),
    [
        (["--expires", "tomorrow"], "--expires tomorrow: give a date as YYYY-MM-DD"),
        (["--expires", "2027-02-30"], "give a date as YYYY-MM-DD"),
        (["--expires", "2020-01-31"], "that day is over"),
        (["--days", "0"], "--days 0: give a whole number from 1 to 36525"),
        (["--days", "99999"], "give a whole number"),
        (["--days", "1" * 5000], "give a whole number"),
        (["--days", "1.5"], "give a whole number"),
        (["--days", "-1"], "--days"),
        (["--days", "1", "--expires", "2027-01-31"], "not allowed with"),
    ],
)
def test_wrong_ends(option: list[str], message: str, run: Run) -> None:
    failed(run("grant", "--key", "k.key", "--study", "S", *option, "-o", "g"), message)
    assert not Path("g").exists()
