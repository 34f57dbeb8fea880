from __future__ import annotations

import pickle
from pathlib import Path

import pytest

from encdl.keys.key import Key
from encdl.keys.passphrases import Passphrase
from encdl.keys.signing import PublicKey, SigningKey
from encdl.utils.errors import KeyFileError, OutputExistsError

# RFC 8032, section 7.1, test 2.
SEED = bytes.fromhex("4ccd089b28ff96da9db6c346ec114e0f5b8a319f35aba624da8cf6ed4fb8a6fb")
SIGNATURE = bytes.fromhex(
    "92a009a9f0d4cab8720e820b5f642540a2b27b5416503f8fb3762223ebdb69da"
    "085ac1e43e15996e458f3613d0f11d8c387b2eaeb4302aeeb00d291612bb0c00"
)


def test_signatures_are_those_of_the_standard() -> None:
    key = SigningKey(SEED)
    signature = key.sign(b"\x72")
    assert (signature[:8].hex(), signature[8:]) == (key.public.id, SIGNATURE)
    assert key.public.verifies(signature, b"\x72")
    assert not key.public.verifies(signature, b"\x73")
    assert not SigningKey(bytes(32)).public.verifies(signature, b"\x72")
    assert not key.public.verifies(bytes(8) + SIGNATURE, b"\x72")


@pytest.mark.parametrize("passphrase", [None, Passphrase("correct horse")])
def test_keys_survive_their_files(tmp_path: Path, passphrase: Passphrase | None) -> None:
    key = SigningKey.generate()
    private, public = tmp_path / "s.key", tmp_path / "s.pub"
    key.save(private, passphrase=passphrase)
    key.public.save(public)
    assert PublicKey.load(public).verifies(SigningKey.load(private, passphrase).sign(b"m"), b"m")
    assert (private.stat().st_mode & 0o777, public.stat().st_mode & 0o777) == (0o600, 0o644)
    with pytest.raises(OutputExistsError):
        key.save(private)
    if passphrase is not None:
        with pytest.raises(KeyFileError, match="passphrase"):
            SigningKey.load(private)


def test_files_of_another_kind_are_named(tmp_path: Path) -> None:
    key, signing, public = tmp_path / "k.key", tmp_path / "s.key", tmp_path / "s.pub"
    Key.generate().save(key)
    SigningKey.generate().save(signing)
    SigningKey.generate().public.save(public)
    for load, path, told in (
        (Key.load, signing, "is a signing key, and a master key is asked for"),
        (SigningKey.load, key, "is a master key, and a signing key is asked for"),
        (SigningKey.load, public, "is a public key, and a signing key is asked for"),
        (PublicKey.load, signing, "is a signing key, and a public key is asked for"),
    ):
        with pytest.raises(KeyFileError, match=told):
            load(path)


def test_a_signing_key_shows_nowhere() -> None:
    key = SigningKey(SEED)
    assert repr(key) == f"SigningKey(id={key.public.id})"
    with pytest.raises(TypeError, match="not pickled"):
        pickle.dumps(key)
