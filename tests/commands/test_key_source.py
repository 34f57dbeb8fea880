"""Keys out of the environment, locked keys, and passphrases from wherever they come."""

from __future__ import annotations

import getpass
import os
import subprocess
import sys
from collections.abc import Callable
from pathlib import Path

import numpy as np
import pytest

from encdl.files import images
from encdl.keys import passphrases
from encdl.keys.key import Grant, Key, load_opener
from encdl.keys.passphrases import Passphrase
from tests.commands.conftest import Run
from tests.commands.test_files import failed

WORDS = "correct horse"
Type = Callable[..., list[str]]


@pytest.fixture(autouse=True)
def cheap(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(passphrases, "COST", 14)


@pytest.fixture
def typed(monkeypatch: pytest.MonkeyPatch) -> Type:
    """Answers the terminal's questions in turn; gives the list that they are kept in."""

    def answer(*words: str) -> list[str]:
        left, asked = list(words), []

        def ask(prompt: str) -> str:
            asked.append(prompt)
            return left.pop(0)

        monkeypatch.setattr(getpass, "getpass", ask)
        return asked

    return answer


@pytest.fixture
def variable(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("WORDS", WORDS)


def test_a_key_out_of_the_environment(run: Run, scan: Path, monkeypatch: pytest.MonkeyPatch, agile: Path) -> None:
    monkeypatch.setenv("MY_KEY", Path("k.key").read_text())
    monkeypatch.setenv("NEW", Path("other.key").read_text())
    options = ["--weights", agile]
    assert run("decrypt", scan, "--key-env", "MY_KEY", *options, "-o", "b.png")[0] == 0
    np.testing.assert_array_equal(images.read("b.png"), images.read("scan.png"))
    assert run("encrypt", "scan.png", "--key-env", "MY_KEY", *options, "-o", "c.encdl", "--study", "S")[0] == 0
    assert run("grant", "--key-env", "MY_KEY", "--file", scan, "-o", "f.grant")[0] == 0
    assert run("rekey", scan, "--key-env", "MY_KEY", "--new-key-env", "NEW", *options)[0] == 0
    assert run("decrypt", scan, "--key", "other.key", *options, "-o", "d.png")[0] == 0
    monkeypatch.setenv("GRANT", Path("f.grant").read_text())
    failed(
        run("decrypt", "c.encdl", "--key-env", "GRANT", *options, "-o", "e.png"), "this grant opens the file with nonce"
    )


def test_wrong_variables(run: Run, scan: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    failed(run("decrypt", scan, "--key-env", "NONE"), "there is no environment variable NONE, or it is empty: set it")
    for content, message in {
        "": "there is no environment variable BAD",
        "k.key": "environment variable BAD is not an EncDL key file",
        "two words": "environment variable BAD is not a key file (it is not one line of plain text)",
        Path("k.key").read_text()[:-4]: "environment variable BAD is cut or altered",
        "x" * 5000: "environment variable BAD is too large",
    }.items():
        monkeypatch.setenv("BAD", content)
        failed(run("decrypt", scan, "--key-env", "BAD"), message)
    failed(run("decrypt", scan, "--key", "k.key", "--key-env", "BAD"), "not allowed with argument")
    failed(run("decrypt", scan), "one of the arguments --key --key-env --key-command --key-pkcs11 is required")
    failed(run("rekey", scan, "--key", "k.key"), "one of the arguments --new-key --new-key-env --new-key-command")


def test_keygen_asks_twice(run: Run, typed: Type) -> None:
    asked = typed(WORDS, WORDS)
    code, out, err = run("keygen", "l.key", "--passphrase")
    assert (code, err) == (0, "")
    assert asked == ["New passphrase for l.key: ", "Once more: "]
    assert load_opener("l.key", Passphrase(WORDS)).key_id in out
    assert Path("l.key").stat().st_mode & 0o777 == 0o600
    typed(WORDS, WORDS + "!")
    failed(run("keygen", "m.key", "--passphrase"), "the two passphrases differ")
    typed("short", "short")
    failed(run("keygen", "m.key", "--passphrase"), "at least 8 characters")
    typed("", "")
    failed(run("keygen", "m.key", "--passphrase"), "the passphrase is empty")
    asked = typed()
    failed(run("keygen", "k.key", "--passphrase"), "k.key: exists already")
    assert asked == []


def test_every_verb_opens_a_locked_key(run: Run, typed: Type, agile: Path, variable: None) -> None:
    assert run("keygen", "l.key", "--passphrase-env", "WORDS")[0] == 0
    asked = typed(WORDS, WORDS, WORDS)
    options = ["--weights", agile]
    assert run("encrypt", "scan.png", "--key", "l.key", *options, "--study", "S")[0] == 0
    assert run("decrypt", "scan.encdl", "--key", "l.key", *options, "-o", "b.png")[0] == 0
    assert run("grant", "--key", "l.key", "--study", "S", "-o", "S.grant")[0] == 0
    assert asked == ["Passphrase for l.key: "] * 3
    np.testing.assert_array_equal(images.read("b.png"), images.read("scan.png"))
    use = ["--key", "l.key", "--passphrase-env", "WORDS"]
    assert run("decrypt", "scan.encdl", *use, *options, "-o", "c.png")[0] == 0
    assert run("keygen", "m.key", "--passphrase-env", "WORDS")[0] == 0
    new = ["--new-key", "m.key", "--new-passphrase-env", "WORDS"]
    assert run("rekey", "scan.encdl", *use, *new, *options)[0] == 0
    typed("wrong horse")
    failed(run("decrypt", "scan.encdl", "--key", "m.key", *options, "-o", "d.png"), "m.key: wrong passphrase, or")


def test_a_locked_key_in_the_environment(
    run: Run, typed: Type, variable: None, monkeypatch: pytest.MonkeyPatch
) -> None:
    assert run("keygen", "l.key", "--passphrase-env", "WORDS")[0] == 0
    monkeypatch.setenv("LOCKED", Path("l.key").read_text())
    asked = typed(WORDS)
    assert run("grant", "--key-env", "LOCKED", "--study", "S", "-o", "S.grant")[0] == 0
    assert asked == ["Passphrase for environment variable LOCKED: "]


@pytest.mark.parametrize("ending", [b"", b"\n", b"\r\n", b"\nand more\n"])
def test_a_passphrase_from_a_descriptor(run: Run, ending: bytes) -> None:
    def pipe() -> int:
        reading, writing = os.pipe()
        os.write(writing, WORDS.encode() + ending)
        os.close(writing)
        return reading

    assert run("keygen", "l.key", "--passphrase-fd", pipe())[0] == 0
    assert load_opener("l.key", Passphrase(WORDS))
    assert run("grant", "--key", "l.key", "--passphrase-fd", pipe(), "--study", "S", "-o", "g")[0] == 0


def test_wrong_descriptors(run: Run, tmp_path: Path) -> None:
    failed(run("keygen", "l.key", "--passphrase-fd", "987"), "descriptor 987: no passphrase can be read", "Bad file")
    failed(run("keygen", "l.key", "--passphrase-fd", "-3"), "no passphrase can be read")
    failed(run("keygen", "l.key", "--passphrase-fd", "x"), "invalid", "x")
    failed(run("keygen", "l.key", "--passphrase", "--passphrase-env", "E"), "not allowed with")
    reading, writing = os.pipe()
    os.write(writing, b"\xff\xfe secret \xff\n")
    os.close(writing)
    result = run("keygen", "l.key", "--passphrase-fd", reading)
    failed(result, "not a line of UTF-8")
    assert "secret" not in "".join(map(str, result))


def test_nobody_to_ask(run: Run, variable: None) -> None:
    """Without a terminal nothing is read from stdin, where it would be echoed."""
    assert run("keygen", "l.key", "--passphrase-env", "WORDS")[0] == 0
    done = subprocess.run(
        [sys.executable, "-m", "encdl", "grant", "--key", "l.key", "--study", "S", "-o", "g"],
        input=f"{WORDS}\n",
        capture_output=True,
        text=True,
        start_new_session=True,  # takes the terminal away
        check=False,
    )
    assert done.returncode == 2
    assert "there is no terminal to ask for it: give --passphrase-env or --passphrase-fd" in done.stderr
    assert len(done.stderr.splitlines()) == 1
    assert not Path("g").exists()


def test_passwd(run: Run, typed: Type, variable: None, monkeypatch: pytest.MonkeyPatch) -> None:
    key = Key.load("k.key")
    asked = typed(WORDS, WORDS)
    code, out, _ = run("passwd", "k.key")
    assert code == 0
    assert f"k.key: key {key.id}, under the new passphrase." in out
    assert asked == ["New passphrase for k.key: ", "Once more: "]
    assert Key.load("k.key", Passphrase(WORDS)) == key
    monkeypatch.setenv("NEW", "battery staple")
    assert run("passwd", "k.key", "--passphrase-env", "WORDS", "--new-passphrase-env", "NEW")[0] == 0
    assert Key.load("k.key", Passphrase("battery staple")) == key
    assert Path("k.key").stat().st_mode & 0o777 == 0o600
    before = Path("k.key").read_bytes()
    failed(run("passwd", "k.key", "--passphrase-env", "WORDS", "--remove"), "wrong passphrase")
    failed(run("passwd", "k.key", "--remove", "--new-passphrase-env", "NEW"), "not allowed with")
    typed("battery staple", "tiny", "tiny")
    failed(run("passwd", "k.key"), "at least 8")
    assert Path("k.key").read_bytes() == before
    assert run("passwd", "k.key", "--passphrase-env", "NEW", "--remove")[0] == 0
    assert Key.load("k.key") == key


def test_passwd_of_a_grant_and_of_a_link(run: Run, variable: None) -> None:
    assert run("grant", "--key", "k.key", "--study", "S", "--days", "9", "-o", "S.grant")[0] == 0
    made = load_opener("S.grant")
    assert isinstance(made, Grant)
    Path("link").symlink_to("S.grant")
    assert run("passwd", "link", "--new-passphrase-env", "WORDS")[0] == 0
    assert Path("link").is_symlink()
    opened = load_opener("S.grant", Passphrase(WORDS))
    assert opened == made
    assert Key.load("k.key").has_issued(opened)  # type: ignore[arg-type]
    failed(run("passwd", "none.key"), "no key file none.key")
    failed(run("passwd", "scan.png"), "is not a key file")


def test_keyinfo(run: Run, variable: None) -> None:
    key = Key.load("k.key")
    code, out, _ = run("keyinfo", "k.key")
    assert code == 0
    assert "master key" in out
    assert key.id in out
    assert Path("k.key").read_text().split(":")[1].strip() not in out
    assert run("grant", "--key", "k.key", "--study", "S", "--expires", "2999-12-31", "-o", "S.grant")[0] == 0
    code, out, _ = run("keyinfo", "S.grant", "--issuer", "k.key")
    assert code == 0
    assert "grant: opens every file of its study" in out
    assert "2999-12-31 23:59:59 UTC (advisory)" in out
    assert "k.key made it, as it stands here" in out
    failed(run("keyinfo", "S.grant", "--issuer", "other.key"), "S.grant: other.key did not make this grant")
    failed(run("keyinfo", "k.key", "--issuer", "k.key"), "did not make this key")
    assert run("passwd", "k.key", "--new-passphrase-env", "WORDS")[0] == 0
    assert key.id in run("keyinfo", "k.key", "--passphrase-env", "WORDS")[1]
