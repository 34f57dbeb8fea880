from __future__ import annotations

from pathlib import Path

import pytest

from encdl.keys.key import Grant, Key, load_opener
from encdl.keys.passphrases import Passphrase
from encdl.keys.recipients import RecipientKey, RecipientPublicKey
from encdl.utils.errors import KeyFileError, UsageError
from tests.files.container.slow_reader import hpke_open

# RFC 9180, A.2.1, first message.
SECRET = bytes.fromhex("8057991eef8f1f1af18f4a9491d16a1ce333f695d4db8e38da75975c4478e0fb")
SENT = bytes.fromhex("1afa08d3dec047a643885163f1180476fa7ddb54c6a8029ea33f95796bf2ac4a")
SEALED = bytes.fromhex("1c5250d8034ec2b784ba2cfd69dbdb8af406cfe3ff938e131f0def8c8b60b4db21993c62ce81883d2dd1b51a28")
INFO = b"Ode on a Grecian Urn"
KEY, OTHER = RecipientKey(bytes(range(32))), RecipientKey(bytes(32))


def test_secrets_are_sealed_as_the_standard_has_it() -> None:
    assert hpke_open(SECRET, SENT + SEALED, INFO, b"Count-0") == b"Beauty is truth, truth beauty"
    sealed = KEY.public.seal(b"secret", b"info")
    assert hpke_open(bytes(range(32)), sealed, b"info") == KEY.open(sealed, b"info") == b"secret"
    assert KEY.public.seal(b"secret", b"info") != sealed
    assert KEY.open(sealed, b"other") is OTHER.open(sealed, b"info") is KEY.open(b"", b"info") is None
    for place in range(len(sealed)):
        changed = bytearray(sealed)
        changed[place] ^= 1
        assert KEY.open(bytes(changed), b"info") is None
    with pytest.raises(UsageError, match="not usable"):
        RecipientPublicKey(bytes(32)).seal(b"secret", b"info")


@pytest.mark.parametrize("passphrase", [None, Passphrase("correct horse")])
def test_keys_survive_their_files(tmp_path: Path, passphrase: Passphrase | None) -> None:
    secret, public = tmp_path / "r.key", tmp_path / "r.pub"
    KEY.save(secret, passphrase=passphrase)
    KEY.public.save(public)
    assert (secret.stat().st_mode & 0o777, public.stat().st_mode & 0o777) == (0o600, 0o644)
    loaded = load_opener(secret, passphrase)
    assert isinstance(loaded, RecipientKey)
    assert loaded.public == RecipientPublicKey.load(public) == KEY.public
    with pytest.raises(KeyFileError, match="is a recipient's secret key, and a master key is asked for"):
        Key.load(secret, passphrase)
    with pytest.raises(KeyFileError, match="is a recipient's public key, and a recipient's secret key is asked for"):
        RecipientKey.load(public)
    with pytest.raises(UsageError, match="makes none: give a master key or a grant"):
        loaded.image_keys(bytes(16))


def test_a_sealed_grant_opens_with_its_recipient_alone(tmp_path: Path) -> None:
    path = tmp_path / "x.grant"
    grant = Key(bytes(range(32))).grant_study("S")
    grant.save(path, to=KEY.public)
    assert load_opener(path, recipient=KEY) == grant
    with pytest.raises(KeyFileError, match=f"sealed to recipient {KEY.key_id}: give --recipient-key too"):
        load_opener(path)
    with pytest.raises(KeyFileError, match=f"and yours is {OTHER.key_id}"):
        load_opener(path, recipient=OTHER)
    with pytest.raises(KeyFileError, match="is a sealed grant, and"):
        Grant.load(path)
    line = path.read_text().strip()
    for place in range(len(line)):
        path.write_text(line[:place] + ("A" if line[place] != "A" else "B") + line[place + 1 :])
        with pytest.raises(KeyFileError) as caught:
            load_opener(path, recipient=KEY)
        assert "\n" not in str(caught.value)
