"""Ends and marks of grants, and that many grants open what they are for and nothing else."""

from __future__ import annotations

import itertools
import json
from datetime import UTC, datetime, timedelta, timezone
from pathlib import Path

import pytest

from encdl.keys import Grant, Key, grant, load_opener, secret_files
from encdl.utils.errors import EncdlError, ExpiredGrantError, KeyFileError, UsageError, WrongKeyError

KEY = Key(bytes(range(32)))
NONCE = bytes(range(16))
NOW = datetime(2026, 11, 24, 12, 0, 0, tzinfo=UTC)
END = datetime(2027, 1, 31, 23, 59, 59, tzinfo=UTC)


class Clock:
    """A clock that tests set."""

    def __init__(self) -> None:
        self.time = NOW

    def __call__(self) -> datetime:
        return self.time


@pytest.fixture
def clock(monkeypatch: pytest.MonkeyPatch) -> Clock:
    made = Clock()
    monkeypatch.setattr(grant, "utc_now", made)
    return made


def uses(it: Grant) -> list[object]:
    """Everything that a grant can do for a file; what fails otherwise than by its end is left out."""
    found: list[object] = [it.image_keys(NONCE, "S")]
    if it.scope == "study":
        found += [it.nonce_secret("S"), it.grant_file(NONCE)]
    return found


@pytest.mark.parametrize("make", [lambda: KEY.grant_study("S", END), lambda: KEY.grant_file(NONCE, "S", END)])
def test_a_grant_ends(make: object, clock: Clock, tmp_path: Path) -> None:
    assert callable(make)
    made: Grant = make()
    made.save(tmp_path / "g")
    loaded = load_opener(tmp_path / "g")
    assert isinstance(loaded, Grant)
    assert loaded == made
    assert made.expires == loaded.expires == END
    assert "expires=2027-01-31T23:59:59Z" in repr(loaded)
    for time in (NOW, END - timedelta(seconds=1)):
        clock.time = time
        assert uses(loaded)
        loaded.check_expiry()
    for time in (END, END + timedelta(days=9999)):
        clock.time = time
        calls = [
            loaded.check_expiry,
            lambda: loaded.image_keys(NONCE, "S"),
            lambda: loaded.nonce_secret("S"),
            lambda: loaded.grant_file(NONCE),
        ]
        for call in calls:
            with pytest.raises(ExpiredGrantError, match=r"expired on 2027-01-31 at 23:59:59 UTC: ask") as caught:
                call()
            assert "\n" not in str(caught.value)
        assert Grant.load(tmp_path / "g") == made  # to look at it is still possible


def test_without_an_end_it_lasts(clock: Clock) -> None:
    clock.time = datetime(9999, 1, 1, tzinfo=UTC)
    assert KEY.grant_study("S").expires is None
    assert uses(KEY.grant_study("S"))


def test_any_time_zone(clock: Clock) -> None:
    local = datetime(2027, 2, 1, 1, 59, 59, 987_654, tzinfo=timezone(timedelta(hours=2)))
    assert KEY.grant_study("S", local).expires == END
    assert KEY.grant_study("S", local) == KEY.grant_study("S", END)
    assert KEY.grant_study("S", local) != KEY.grant_study("S")


@pytest.mark.parametrize("time", [datetime(2027, 1, 1), datetime.max.replace(tzinfo=timezone(-timedelta(hours=5)))])
def test_impossible_ends(time: datetime) -> None:
    with pytest.raises(UsageError, match=r"needs a time zone|cannot end on"):
        KEY.grant_study("S", time)


def test_extreme_ends_survive_their_file(tmp_path: Path) -> None:
    for index, time in enumerate((datetime.min, datetime.max)):
        made = KEY.grant_study("S", time.replace(tzinfo=UTC))
        made.save(tmp_path / str(index))
        assert Grant.load(tmp_path / str(index)) == made


def test_a_grant_made_from_a_grant_does_not_outlive_it(clock: Clock) -> None:
    study = KEY.grant_study("S", END)
    assert study.grant_file(NONCE).expires == END
    assert study.grant_file(NONCE, expires=END - timedelta(days=1)).expires == END - timedelta(days=1)
    with pytest.raises(UsageError, match="ends on 2027-01-31: one made from it cannot end later"):
        study.grant_file(NONCE, expires=END + timedelta(seconds=1))
    assert KEY.grant_study("S").grant_file(NONCE, expires=END).expires == END


def edited(path: Path, **values: object) -> None:
    """What the holder of a grant can always do: write another header, with a check that fits."""
    fields, secret = secret_files.parse(path, secret_files.read(path), secret_files.GRANT_PREFIXES)
    header = json.loads(secret_files.decode_field(fields[1])) | values
    kept = {name: value for name, value in header.items() if value is not ...}
    prefix = "encdl-grant-2" if "mark" in kept else "encdl-grant-1"
    line = secret_files.make_line([prefix, secret_files.encode_field(json.dumps(kept).encode())], secret)
    secret_files.write(path, line, force=True)


def test_the_issuer_sees_a_changed_end(tmp_path: Path, clock: Clock) -> None:
    """The holder can move the end, hence it is advisory; the mark tells the issuer."""
    made = KEY.grant_study("S", END)
    assert KEY.has_issued(made)
    path = tmp_path / "g"
    made.save(path)
    assert KEY.has_issued(Grant.load(path))
    edited(path, expires="2099-01-01T00:00:00Z")
    moved = Grant.load(path)
    clock.time = END
    assert moved.image_keys(NONCE, "S") == KEY.image_keys(NONCE, "S")
    assert not KEY.has_issued(moved)
    edited(path, expires=..., mark=...)
    assert Grant.load(path).expires is None
    assert not KEY.has_issued(Grant.load(path))


def test_whose_mark_it_is(clock: Clock) -> None:
    other = Key(bytes(32))
    study, file = KEY.grant_study("S", END), KEY.grant_file(NONCE, "S", END)
    assert KEY.has_issued(file)
    assert KEY.grant_study("S").grant_file(NONCE, expires=END) == file
    assert study.has_issued(file)
    assert study.has_issued(study.grant_file(NONCE))
    assert not study.has_issued(study)
    assert not file.has_issued(file)
    assert not KEY.grant_study("T").has_issued(file)
    assert not other.has_issued(study)
    assert not other.has_issued(file)
    # A mark of one grant serves no other one.
    stolen = Grant("study", "S", None, KEY.id, study._secret, mark=study._mark)
    assert not KEY.has_issued(stolen)
    # Nor does the right mark beside a secret that opens nothing.
    assert not KEY.has_issued(Grant("study", "S", None, KEY.id, bytes(32), expires=END, mark=study._mark))


def test_the_mark_does_not_change_what_it_opens() -> None:
    assert KEY.grant_study("S", END).image_keys(NONCE, "S") == KEY.image_keys(NONCE, "S")


@pytest.mark.parametrize(
    "values",
    [
        {"expires": 3}, {"expires": ""}, {"expires": "2027-01-31"}, {"expires": "2027-01-31T23:59:59"},
        {"expires": "2027-01-31T23:59:59+00:00"}, {"expires": "2027-01-31T23:59:59.5Z"},
        {"expires": "20270131T235959Z"},
        {"expires": "2027-02-30T00:00:00Z"}, {"expires": ["2027"]}, {"expires": ...}, {"mark": ""}, {"mark": 3},
        {"mark": "0" * 31}, {"mark": "Z" * 32},
    ],
    ids=str,
)  # fmt: skip
def test_headers_of_another_kind(values: dict[str, object], tmp_path: Path) -> None:
    path = tmp_path / "g"
    KEY.grant_study("S", END).save(path)
    edited(path, **values)
    with pytest.raises(KeyFileError, match="not a grant that this EncDL can read"):
        Grant.load(path)


def test_each_of_many_grants_opens_its_own_and_nothing_else() -> None:
    """2 keys, 4 studies, 6 files in each: every grant against every file."""
    keys = [KEY, Key(bytes(31) + b"\1")]
    studies = ["", "S", "S ", "T"]
    nonces = [bytes([n]) * 16 for n in range(5)] + [NONCE]
    files = list(itertools.product(keys, studies, nonces))
    grants = [(key, key.grant_study(study), study, None) for key in keys for study in studies if study]
    grants += [(key, key.grant_file(nonce, study), study, nonce) for key, study, nonce in files]
    assert len(grants) * len(files) == 54 * 48
    opened = 0
    for (owner, made, of_study, of_nonce), (key, study, nonce) in itertools.product(grants, files):
        meant = study == of_study and of_nonce in (None, nonce)
        try:
            keys_found = made.image_keys(nonce, study)
        except WrongKeyError:
            assert not meant
            continue
        # The files of another key carry another key id, which the container compares; its sub-keys differ anyway.
        assert meant
        assert (keys_found == key.image_keys(nonce, study)) == (owner is key)
        opened += owner is key
    assert opened == 6 * len(nonces) + len(files)


def test_no_secret_is_another_ones() -> None:
    """Study and file grants with texts that could be taken for one another."""
    made = [KEY.grant_study(name) for name in ("S", "S2", "encdl image", "nonce")]
    made += [KEY.grant_file(nonce, study) for nonce in (NONCE, bytes(16)) for study in ("", "S", "S2")]
    assert len({it._secret for it in made}) == len(made)
    assert issubclass(ExpiredGrantError, EncdlError)
