from __future__ import annotations

import copy
import json
import pickle
import stat
import traceback
import unicodedata
from pathlib import Path
from typing import Any

import pytest
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st

from encdl.keys import Grant, Key, load_opener, passphrases, secret_files
from encdl.keys.key import parse_opener
from encdl.keys.passphrases import Passphrase
from encdl.utils.errors import EncdlError, KeyFileError, OutputExistsError, UsageError, without_secrets
from tests.keys.test_key import SECRET, reveals

KEY = Key(SECRET)
WORDS = Passphrase("correct horse")
OTHER = Passphrase("battery staple")
GOLDEN = (
    "encdl-locked-1:eyJjb3N0IjoxNCwia2RmIjoic2NyeXB0Iiwia2V5X2lkIjoiNDI2Y2YxOTkzZTM4M2Y2YiIsImtpbmQiOiJrZXkiLC"
    "JzYWx0IjoiZTQ2MmVmZWQ3NjZlYTFhYWYzYmQwOGNkZjcyN2U2MTMifQ"
    ":iSI6kEgb_3vreFRkCVeANgpJlJt9rtw7l3lmaTXBz50t39gRcC5HvZSAHpM80jzBZms1f7OkIJbO9Bonv-ao6j-tKvLfTM1l6MxoM2A"
)
"""`KEY` under `WORDS` at cost 14: files that exist must open for ever."""


@pytest.fixture(autouse=True)
def cheap(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(passphrases, "COST", 14)


@pytest.fixture
def path(tmp_path: Path) -> Path:
    return tmp_path / "k.key"


def changed(line: str, **values: Any) -> str:
    """The line with other values in its header, and the same ciphertext."""
    prefix, header, sealed = line.split(":")
    fields = json.loads(secret_files.decode_field(header)) | values
    fields = {name: value for name, value in fields.items() if value is not ...}
    return f"{prefix}:{secret_files.encode_field(json.dumps(fields).encode())}:{sealed}"


def test_the_golden_file_opens() -> None:
    assert parse_opener("here", GOLDEN.encode(), WORDS) == KEY


def test_the_format_again_from_its_description() -> None:
    """docs/keys.md, with another library's scrypt."""
    import hashlib

    from cryptography.hazmat.primitives.ciphers.aead import AESGCM

    prefix, header, sealed = GOLDEN.split(":")
    fields = json.loads(secret_files.decode_field(header))
    assert fields.keys() == {"cost", "kdf", "key_id", "kind", "salt"}
    assert (prefix, fields["kdf"], fields["kind"], fields["key_id"]) == ("encdl-locked-1", "scrypt", "key", KEY.id)
    key = hashlib.scrypt(
        b"correct horse", salt=bytes.fromhex(fields["salt"]), n=2 ** fields["cost"], r=8, p=1, maxmem=2**26, dklen=32
    )
    inner = AESGCM(key).decrypt(bytes(12), secret_files.decode_field(sealed), f"{prefix}:{header}".encode())
    assert inner == secret_files.make_line(["encdl-key-1"], SECRET)


@pytest.mark.parametrize("opener", [KEY, KEY.grant_study("S"), KEY.grant_file(bytes(16), "x" * 256)], ids=repr)
def test_save_and_load(opener: Key | Grant, path: Path) -> None:
    opener.save(path, passphrase=WORDS)
    assert load_opener(path, WORDS) == opener
    assert load_opener(path, lambda: WORDS) == opener
    assert type(opener).load(path, WORDS) == opener
    assert stat.S_IMODE(path.stat().st_mode) == 0o600
    assert path.read_text().count("\n") == 1
    assert not reveals(path.read_text())
    header = passphrases.read_header(path, path.read_text().strip())
    assert (header.kind, header.key_id) == ("key" if opener is KEY else "grant", KEY.id)
    assert header.mebibytes == 16
    with pytest.raises(OutputExistsError):
        opener.save(path, passphrase=WORDS)


def test_every_file_has_its_own_salt(path: Path) -> None:
    lines = set()
    for _ in range(3):
        KEY.save(path, force=True, passphrase=WORDS)
        lines.add(path.read_text())
    assert len(lines) == 3


def test_the_usual_cost_is_128_mebibytes(monkeypatch: pytest.MonkeyPatch, path: Path) -> None:
    monkeypatch.undo()
    KEY.save(path, passphrase=WORDS)
    assert passphrases.read_header(path, path.read_text().strip()).mebibytes == 128
    assert load_opener(path, WORDS) == KEY


def test_a_wrong_passphrase(path: Path) -> None:
    KEY.save(path, passphrase=WORDS)
    for wrong in (OTHER, Passphrase("correct horse "), Passphrase("Correct horse"), Passphrase("c")):
        with pytest.raises(
            KeyFileError, match=r"k\.key: wrong passphrase, or the file is damaged: try again"
        ) as caught:
            load_opener(path, wrong)
        assert not reveals("".join(traceback.format_exception(caught.value)))
    with pytest.raises(KeyFileError, match="is locked with a passphrase: give"):
        load_opener(path)


def test_it_is_asked_only_if_needed(path: Path) -> None:
    def ask() -> Passphrase:
        raise AssertionError("nobody should be asked")

    KEY.save(path)
    assert load_opener(path, ask) == KEY
    path.write_text(changed(GOLDEN, cost=40))
    with pytest.raises(KeyFileError, match="not a locked key that this EncDL can read"):
        load_opener(path, ask)


def test_a_locked_grant_is_no_key(path: Path) -> None:
    KEY.grant_study("S").save(path, passphrase=WORDS)
    with pytest.raises(KeyFileError, match="is a grant, and the master key is asked for"):
        Key.load(path, WORDS)
    KEY.save(path, force=True, passphrase=WORDS)
    with pytest.raises(KeyFileError, match="is a master key, and a grant is asked for"):
        Grant.load(path, WORDS)


def test_unicode_is_the_same_on_every_machine(path: Path) -> None:
    composed = unicodedata.normalize("NFC", "Schl\u00fcssel \u00e9")
    KEY.save(path, passphrase=Passphrase(composed))
    assert load_opener(path, Passphrase(unicodedata.normalize("NFD", composed))) == KEY


@pytest.mark.parametrize(
    ("text", "message"),
    [("", "is empty"), ("a\nb", "control"), ("a\0b", "control"), ("\udc80", "Unicode"), ("x" * 1025, "1024 bytes")],
)
def test_impossible_passphrases(text: str, message: str) -> None:
    with pytest.raises(UsageError, match=message):
        Passphrase(text)


def test_a_new_one_needs_eight_characters(path: Path) -> None:
    with pytest.raises(UsageError, match="at least 8 characters"):
        KEY.save(path, passphrase=Passphrase("1234567"))
    assert not path.exists()
    KEY.save(path, passphrase=Passphrase("\u00e9" * 8))


BAD_HEADERS: list[dict[str, Any]] = [
    {"cost": 13}, {"cost": 19}, {"cost": 31}, {"cost": 10**9}, {"cost": -1}, {"cost": 14.0}, {"cost": "14"},
    {"cost": True}, {"cost": None}, {"cost": ...}, {"kdf": "argon2id"}, {"kdf": ...}, {"kdf": 3}, {"salt": ""},
    {"salt": "00"}, {"salt": "0" * 33}, {"salt": 7}, {"salt": "Z" * 32}, {"kind": "world"}, {"kind": ["key"]},
    {"key_id": "X"}, {"key_id": 3}, {"r": 8}, {"extra": 1},
]  # fmt: skip


@pytest.mark.parametrize("values", BAD_HEADERS, ids=str)
def test_headers_that_no_file_of_ours_has(values: dict[str, Any]) -> None:
    """Above all those that would eat the memory: they are refused before scrypt is called."""
    with pytest.raises(KeyFileError, match="here is not a locked key that this EncDL can read"):
        parse_opener("here", changed(GOLDEN, **values).encode(), WORDS)


@pytest.mark.parametrize("values", [{"cost": 15}, {"salt": "0" * 32}, {"kind": "grant"}, {"key_id": "0" * 16}], ids=str)
def test_the_header_is_authenticated(values: dict[str, Any]) -> None:
    with pytest.raises(KeyFileError, match="wrong passphrase, or the file is damaged"):
        parse_opener("here", changed(GOLDEN, **values).encode(), WORDS)


@pytest.mark.parametrize(
    "line",
    [
        GOLDEN[:-1], GOLDEN[:-30], GOLDEN + "AAAA", GOLDEN.replace(":", "::"), GOLDEN.rpartition(":")[0],
        GOLDEN.rpartition(":")[0] + ":", GOLDEN.rpartition(":")[0] + ":!", "encdl-locked-1:", "encdl-locked-1::",
        "encdl-locked-1:" + "W" * 2000 + ":x", "encdl-locked-1:" + secret_files.encode_field(b"[" * 2000) + ":x",
    ],
)  # fmt: skip
def test_damaged_lines(line: str) -> None:
    with pytest.raises(KeyFileError) as caught:
        parse_opener("here", line.encode(), WORDS)
    assert "\n" not in str(caught.value)
    assert line not in str(caught.value)


def test_newer_versions() -> None:
    with pytest.raises(KeyFileError, match="newer EncDL"):
        parse_opener("here", GOLDEN.replace("locked-1", "locked-2").encode(), WORDS)


@settings(max_examples=50, deadline=None, suppress_health_check=[HealthCheck.function_scoped_fixture])
@given(st.integers(0, len(GOLDEN) - 1), st.integers(33, 126), st.sampled_from(["replace", "insert", "cut"]))
def test_any_change_fails_politely(place: int, code: int, how: str) -> None:
    head = GOLDEN[:place]
    line = {
        "replace": head + chr(code) + GOLDEN[place + 1 :],
        "insert": head + chr(code) + GOLDEN[place:],
        "cut": head,
    }[how]
    if line == GOLDEN:
        return
    with pytest.raises(EncdlError):
        parse_opener("here", line.encode(), WORDS)


def test_one_locked_inside_another() -> None:
    """A line that holds a locked line is no key: nothing is unlocked twice."""
    double = passphrases.lock(GOLDEN.encode(), "key", KEY.id, WORDS)
    with pytest.raises(KeyFileError, match="not an EncDL key file"):
        parse_opener("here", double, WORDS)


def test_passphrases_do_not_show() -> None:
    for text in (repr(WORDS), str(WORDS), f"{WORDS!r} {[WORDS]}", str(vars(type(WORDS)))):
        assert "horse" not in text
    assert not hasattr(WORDS, "__dict__")
    for make in (pickle.dumps, copy.copy, copy.deepcopy):
        with pytest.raises(TypeError, match="holds a secret"):
            make(WORDS)  # type: ignore[operator]
    assert Passphrase("correct horse") == WORDS != OTHER
    assert WORDS != "correct horse"


def test_messages_lose_locked_lines() -> None:
    assert without_secrets(f"cannot parse '{GOLDEN}'") == "cannot parse 'encdl-locked-\u2026'"
