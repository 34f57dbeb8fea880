"""Keys out of programs and tokens; files and the environment are tested through the commands."""

from __future__ import annotations

import subprocess
import sys
import time
from pathlib import Path

import pytest

from encdl.cli import main
from encdl.keys.key import Grant, Key
from encdl.keys.key_source import REQUEST, TOKEN_TEXT, KeySource
from encdl.keys.passphrases import Passphrase
from encdl.utils.errors import EncdlError

KEY = Key(bytes(range(32)))
LIBRARIES = (Path("/usr/lib/softhsm/libsofthsm2.so"), Path("/usr/lib64/pkcs11/libsofthsm2.so"))


@pytest.fixture
def helper(tmp_path: Path) -> str:
    """A key command that gives what it is told to by its first argument."""
    KEY.save(tmp_path / "k.key")
    KEY.grant_study("S").save(tmp_path / "s.grant")
    code = f"""
import pathlib, subprocess, sys, time
request, (how, action) = sys.stdin.buffer.read(), sys.argv[1:]
assert (request, action) == ({REQUEST!r}, "get")
folder = pathlib.Path({str(tmp_path)!r})
if how == "hang": subprocess.run(["sleep", "60"])
if how == "fail": sys.exit(3)
if how.endswith((".key", ".grant")): print("later=x\\nkey=" + (folder / how).read_text())
if how == "twice": print("key=a\\nkey=b")
if how == "other": print("key=SECRET")
"""
    path = tmp_path / "vault.py"
    path.write_text(code)
    return f"{sys.executable} '{path}'"


def test_a_program_gives_a_key_or_a_grant(helper: str) -> None:
    assert KeySource(command=f"{helper} k.key").open() == KEY
    assert isinstance(KeySource(command=f"{helper} s.grant").open(), Grant)


@pytest.mark.parametrize(
    ("how", "told"),
    [
        ("{} fail", r"gave no key \(exit code 3\)"),
        ("{} none", "0 lines key=..., not one"),
        ("{} twice", "2 lines key=..., not one"),
        ("{} other", "is not an EncDL key file"),
        ("{} hang", "gave no answer within 0.5 s"),
        ("/no/such/vault --token T", r"key command vault: cannot be run \(No such file"),
        ("'", "cannot be run"),
        ("", "cannot be run"),
    ],
)
def test_programs_that_give_none_are_told_of_in_one_line(
    helper: str, how: str, told: str, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setenv("ENCDL_KEY_COMMAND_TIMEOUT", "0.5" if "hang" in how else "30")
    started = time.monotonic()
    with pytest.raises(EncdlError, match=told) as caught:
        KeySource(command=how.format(helper)).open()
    assert time.monotonic() - started < 20
    for hidden in ("\n", "SECRET", "--token", "vault.py"):
        assert hidden not in str(caught.value)


def test_a_timeout_that_is_none(helper: str, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("ENCDL_KEY_COMMAND_TIMEOUT", "soon")
    with pytest.raises(EncdlError, match="ENCDL_KEY_COMMAND_TIMEOUT: give seconds"):
        KeySource(command=f"{helper} k.key").open()


def test_a_verb_asks_the_program(helper: str, tmp_path: Path, capfd: pytest.CaptureFixture[str]) -> None:
    out = str(tmp_path / "x.grant")
    assert main(["grant", "--key-command", f"{helper} k.key", "--study", "S", "-o", out]) == 0
    assert KEY.has_issued(Grant.load(out))
    assert main(["grant", "--key-command", f"{helper} fail", "--study", "S", "-o", out, "--force"]) == 2
    assert capfd.readouterr().err.count("\n") == 1


@pytest.fixture
def token(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> tuple[str, bytes]:
    """URI of a key in a SoftHSM of this test's own, and the key that it has to give."""
    pkcs11 = pytest.importorskip("pkcs11", reason="python-pkcs11 is not installed")
    found = [path for path in LIBRARIES if path.exists()]
    if not found:
        pytest.skip("SoftHSM is not installed (apt install softhsm2)")
    (tmp_path / "tokens").mkdir()
    (tmp_path / "softhsm2.conf").write_text(f"directories.tokendir = {tmp_path}/tokens\nlog.level = ERROR\n")
    monkeypatch.setenv("SOFTHSM2_CONF", str(tmp_path / "softhsm2.conf"))
    words = ["softhsm2-util", "--init-token", "--free", "--label", "ward", "--pin", "12345678", "--so-pin", "87654321"]
    subprocess.run(words, check=True, capture_output=True)
    with pkcs11.lib(str(found[0])).get_token(token_label="ward").open(rw=True, user_pin="12345678") as session:
        kind, mechanisms = pkcs11.KeyType.GENERIC_SECRET, pkcs11.MechanismFlag.SIGN
        key = session.generate_key(kind, 256, label="scans", store=True, capabilities=mechanisms)
        right = bytes(key.sign(TOKEN_TEXT, mechanism=pkcs11.Mechanism.SHA256_HMAC))
    return f"pkcs11:token=ward;object=scans?module-path={found[0]}", right


def test_a_token_makes_the_master_key(token: tuple[str, bytes]) -> None:
    uri, secret = token
    assert KeySource(token=uri).open(Passphrase("12345678")) == Key(secret)
    for changed, pin, told in (
        (uri, "00000000", "PKCS#11 token 'ward': gives no key .PinIncorrect"),
        (uri.replace("scans", "other"), "12345678", "gives no key .NoSuchKey"),
        (uri.replace("ward", "other"), "12345678", "gives no key .NoSuchToken"),
        (uri.replace(".so", ".none"), "12345678", "gives no key"),
        (f"{uri}&pin-value=12345678", "12345678", "and nothing else"),
        ("scans", "12345678", "and nothing else"),
    ):
        with pytest.raises(EncdlError, match=told) as caught:
            KeySource(token=changed).open(Passphrase(pin))
        assert "\n" not in str(caught.value)
        assert "12345678" not in str(caught.value)
    with pytest.raises(EncdlError, match="needs its PIN"):
        KeySource(token=uri).open()
