from __future__ import annotations

import json
import stat
from pathlib import Path

import pytest

from encdl.keys import Grant, Key, load_opener, secret_files
from encdl.utils.errors import KeyFileError, OutputExistsError, UsageError, WrongKeyError

KEY = Key(bytes(range(32)))
NONCE, OTHER = bytes(range(16)), bytes(16)


def test_a_study_grant_opens_its_study_only() -> None:
    grant = KEY.grant_study("lungs")
    assert grant == KEY.study("lungs")
    assert (grant.scope, grant.study, grant.nonce, grant.key_id) == ("study", "lungs", None, KEY.id)
    for nonce in (NONCE, OTHER):
        assert grant.image_keys(nonce, "lungs") == KEY.image_keys(nonce, "lungs")
    assert grant.nonce_secret("lungs") == KEY.nonce_secret("lungs")
    with pytest.raises(WrongKeyError, match="opens study 'lungs' alone, and this file belongs to study 'hearts': ask"):
        grant.image_keys(NONCE, "hearts")
    with pytest.raises(WrongKeyError, match="belongs to no study"):
        grant.image_keys(NONCE)
    with pytest.raises(WrongKeyError, match="hearts"):
        grant.nonce_secret("hearts")


@pytest.mark.parametrize("study", ["", "lungs"])
def test_a_file_grant_opens_its_file_only(study: str) -> None:
    grant = KEY.grant_file(NONCE, study)
    assert (grant.scope, grant.study, grant.nonce, grant.key_id) == ("file", study, NONCE, KEY.id)
    assert grant.image_keys(NONCE, study) == KEY.image_keys(NONCE, study)
    with pytest.raises(WrongKeyError, match=f"{NONCE.hex()}.*{OTHER.hex()}.*ask the key's owner"):
        grant.image_keys(OTHER, study)
    with pytest.raises(WrongKeyError, match="study 'hearts'"):
        grant.image_keys(NONCE, "hearts")
    with pytest.raises(WrongKeyError, match="cannot encrypt others"):
        grant.nonce_secret(study)
    with pytest.raises(WrongKeyError, match="cannot grant others"):
        grant.grant_file(OTHER)


def test_a_study_grant_can_grant_a_file() -> None:
    study = KEY.grant_study("lungs")
    assert study.grant_file(NONCE) == KEY.grant_file(NONCE, "lungs")
    assert study.grant_file(NONCE, "lungs") == KEY.grant_file(NONCE, "lungs")
    with pytest.raises(WrongKeyError, match="hearts"):
        study.grant_file(NONCE, "hearts")


def test_refused_grants() -> None:
    with pytest.raises(UsageError, match="name a study, or grant one file"):
        KEY.grant_study("")
    with pytest.raises(UsageError, match="16 bytes"):
        KEY.grant_file(b"short")
    with pytest.raises(UsageError, match="for a study"):
        Grant("study", "lungs", NONCE, KEY.id, bytes(32))
    with pytest.raises(UsageError, match="32 bytes"):
        Grant("study", "lungs", None, KEY.id, bytes(31))


def test_equality() -> None:
    grants = [KEY.grant_study("a"), KEY.grant_study("b"), KEY.grant_file(NONCE), KEY.grant_file(OTHER)]
    for i, left in enumerate(grants):
        for j, right in enumerate(grants):
            assert (left == right) == (i == j)
    assert hash(grants[0]) == hash(KEY.grant_study("a"))
    assert grants[0] != "grant"


@pytest.mark.parametrize(
    "grant",
    [
        KEY.grant_study("lungs"),
        KEY.grant_study("Brustkr\u00f6be: 3/4"),
        KEY.grant_file(NONCE),
        KEY.grant_file(NONCE, "x"),
    ],
    ids=repr,
)
def test_save_and_load(grant: Grant, tmp_path: Path) -> None:
    path = tmp_path / "x.grant"
    grant.save(path)
    assert Grant.load(path) == grant
    assert load_opener(path) == grant
    assert stat.S_IMODE(path.stat().st_mode) == 0o600
    with pytest.raises(OutputExistsError):
        grant.save(path)
    grant.save(path, force=True)
    with pytest.raises(KeyFileError, match="is a grant, and the master key is asked for"):
        Key.load(path)


def test_a_key_is_not_a_grant(tmp_path: Path) -> None:
    KEY.save(tmp_path / "k.key")
    with pytest.raises(KeyFileError, match="master key, and a grant is asked for"):
        Grant.load(tmp_path / "k.key")


def test_the_check_covers_the_header(tmp_path: Path) -> None:
    path = tmp_path / "x.grant"
    KEY.grant_study("lungs").save(path)
    prefix, header, secret = path.read_text().split(":")
    values = json.loads(secret_files.decode_field(header))
    assert prefix == "encdl-grant-2"
    assert values.keys() == {"expires", "key_id", "mark", "nonce", "scope", "study"}
    assert values | {"key_id": KEY.id, "nonce": None, "scope": "study", "study": "lungs"} == values
    forged = secret_files.encode_field(json.dumps(values | {"study": "hearts"}).encode())
    path.write_text(f"{prefix}:{forged}:{secret}")
    with pytest.raises(KeyFileError, match="cut or altered"):
        Grant.load(path)


GOOD = {"key_id": "0" * 16, "nonce": None, "scope": "study", "study": "lungs"}


@pytest.mark.parametrize(
    "header",
    [
        b"",
        b"\xff",
        b"[]",
        b"null",
        b"[" * 3000,
        json.dumps({**GOOD, "extra": 1}).encode(),
        json.dumps({"scope": "study"}).encode(),
        json.dumps({**GOOD, "scope": "world"}).encode(),
        json.dumps({**GOOD, "scope": ["study"]}).encode(),
        json.dumps({**GOOD, "study": ""}).encode(),
        json.dumps({**GOOD, "study": 3}).encode(),
        json.dumps({**GOOD, "study": "a\nb"}).encode(),
        json.dumps({**GOOD, "nonce": "00" * 16}).encode(),
        json.dumps({**GOOD, "scope": "file"}).encode(),
        json.dumps({**GOOD, "scope": "file", "nonce": "00"}).encode(),
        json.dumps({**GOOD, "key_id": "XYZ"}).encode(),
        json.dumps({**GOOD, "key_id": 7}).encode(),
    ],
)
def test_headers_of_another_kind(header: bytes, tmp_path: Path) -> None:
    path = tmp_path / "x.grant"
    fields = ["encdl-grant-1", secret_files.encode_field(header)]
    secret_files.write(path, secret_files.make_line(fields, bytes(32)), force=False)
    with pytest.raises(KeyFileError, match=r"not a grant that this EncDL can read|too large"):
        Grant.load(path)


@pytest.mark.parametrize("fields", [["encdl-grant-1"], ["encdl-grant-1", "a", "b"], ["encdl-key-1", "a"]])
def test_files_with_other_fields(fields: list[str], tmp_path: Path) -> None:
    path = tmp_path / "x"
    secret_files.write(path, secret_files.make_line(fields, bytes(32)), force=False)
    with pytest.raises(KeyFileError, match="that this EncDL can read"):
        load_opener(path)
