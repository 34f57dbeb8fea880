"""Mistakes of users and of ours, right beside a secret."""

from __future__ import annotations

import traceback
from pathlib import Path

import numpy as np
import pytest

from encdl.cli import main
from encdl.files import images
from encdl.keys import passphrases
from encdl.keys.passphrases import Passphrase
from tests.leaks.holders import KEY, NONCE, SECRETS
from tests.leaks.search import leaks, secrets_of
from tests.leaks.session import CONFIG
from tests.leaks.verbs import WORDS

MISTAKEN: list[list[str]] = [
    ["fit", "--config", "k.key"],
    ["fit", "--config", "tiny.yaml", "--model", "k.key"],
    ["fit", "--config", "tiny.yaml", "--data", "k.key"],
    ["fit", "--config", "tiny.yaml", "--ckpt_path", "k.key"],
]


@pytest.mark.parametrize("words", MISTAKEN, ids=" ".join)
def test_a_key_file_in_the_place_of_a_setting(
    words: list[str], tmp_path: Path, monkeypatch: pytest.MonkeyPatch, capfd: pytest.CaptureFixture[str]
) -> None:
    monkeypatch.chdir(tmp_path)
    KEY.save("k.key")
    Path("tiny.yaml").write_text(CONFIG)
    assert main(words) == 2
    out, err = capfd.readouterr()
    assert leaks((out + err).encode(), SECRETS) == []


DEEP = [
    "encdl.keys.secret_files._check",
    "encdl.keys.passphrases.Scrypt",
    "encdl.keys.passphrases.AESGCM",
    "encdl.keys.derivation.HKDFExpand",
    "encdl.keys.planes.byte_sequence",
    "encdl.keys.sequences.chunks",
    "encdl.keys.sequences.Cipher",
    "encdl.ciphers.postprocess.diffusion.byte_sequence",
    "encdl.ciphers.postprocess.confusion.integer_sequence",
    "encdl.files.container.sections.hmac.new",
    "encdl.files.container.sections.HKDFExpand",
    "encdl.files.container.sections.AESGCM",
]


@pytest.mark.parametrize("place", DEEP)
def test_a_bug_next_to_the_secret_itself(
    place: str, tmp_path: Path, monkeypatch: pytest.MonkeyPatch, capfd: pytest.CaptureFixture[str]
) -> None:
    """There the local variables are secret bytes; an ordinary traceback shows none of them."""
    monkeypatch.chdir(tmp_path)
    monkeypatch.setenv("WORDS", WORDS)
    monkeypatch.setattr(passphrases, "COST", 14)
    KEY.save("k.key", passphrase=Passphrase(WORDS))
    images.write("scan.png", np.zeros((4, 5), np.uint8))

    def broken(*_: object, **__: object) -> None:
        raise RuntimeError("a bug")

    secrets = secrets_of(KEY, "key", [(NONCE, "")]) | {"passphrase": WORDS.encode()}
    monkeypatch.setattr("encdl.files.codec.random_nonce", lambda: NONCE)
    monkeypatch.setattr(place, broken)
    with pytest.raises(RuntimeError, match="a bug") as caught:
        main(["encrypt", "scan.png", "--key", "k.key", "--passphrase-env", "WORDS", "--postprocess", "both"])
    told = "".join(traceback.format_exception(caught.value)) + "".join(capfd.readouterr())
    assert leaks(told.encode(), secrets) == []
    assert not Path("scan.encdl").exists()
