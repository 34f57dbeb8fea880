"""A search for secret bytes in any usual spelling."""

from __future__ import annotations

import base64
import json
import zipfile
from collections.abc import Iterator
from pathlib import Path

from encdl.keys import derivation
from encdl.keys.derivation import ImageKeys
from encdl.keys.key import Grant, Key
from encdl.keys.sequences import DEFAULT_MAP, MAPS, MaskedSequence


def spellings(secret: bytes) -> dict[str, bytes]:
    """What a leak of a secret, or of either half of it, could look like."""
    found: dict[str, bytes] = {}
    for half, piece in {"whole": secret, "start": secret[:16], "end": secret[16:]}.items():
        found[f"{half} raw"] = piece
        found[f"{half} raw reversed"] = piece[::-1]
        found[f"{half} hex"] = piece.hex().encode()
        found[f"{half} HEX"] = piece.hex().upper().encode()
        found[f"{half} hex of reversed"] = piece[::-1].hex().encode()
        found[f"{half} reversed hex"] = piece.hex()[::-1].encode()
        found[f"{half} base32"] = base64.b32encode(piece)[: len(piece) * 8 // 5]
        found[f"{half} list"] = ", ".join(map(str, piece)).encode()
        found[f"{half} repr"] = repr(piece)[2:-1].encode()
        found[f"{half} json repr"] = json.dumps(repr(piece)[2:-1])[1:-1].encode()
        found[f"{half} integer"] = str(int.from_bytes(piece, "big")).encode()
        found[f"{half} integer, low byte first"] = str(int.from_bytes(piece, "little")).encode()
        for shift in range(3):  # base64 of something that the piece begins 0, 1 or 2 bytes late in
            text = base64.b64encode(bytes(shift) + piece)
            cut = text[4 if shift else 0 : (len(piece) + shift) // 3 * 4]
            found[f"{half} base64, {shift} late"] = cut
            found[f"{half} base64url, {shift} late"] = cut.replace(b"+", b"-").replace(b"/", b"_")
    return found


def leaks(data: bytes, secrets: dict[str, bytes]) -> list[str]:
    """Which secrets are in `data`, and how they are spelt there."""
    return [
        f"{name}: {spelling}"
        for name, secret in secrets.items()
        for spelling, text in spellings(secret).items()
        if text in data
    ]


def contents(path: Path) -> Iterator[bytes]:
    """A file's bytes, and those of each member if it is an archive (checkpoints and weights are)."""
    yield path.read_bytes()
    if zipfile.is_zipfile(path):
        with zipfile.ZipFile(path) as archive:
            yield from (archive.read(name) for name in archive.namelist())


def secrets_of(opener: Key | Grant, name: str, nonces: list[tuple[bytes, str]]) -> dict[str, bytes]:
    """Every secret that the files of a key derive from it."""
    found = {name: opener._secret}
    if isinstance(opener, Grant):
        return found
    for nonce, study in nonces:
        of_study = derivation.study_secret(opener._secret, study)
        of_image = derivation.image_secret(of_study, nonce)
        found[f"{name}, study {study}"] = of_study
        found[f"{name}, nonces of study {study}"] = derivation.hkdf(of_study, derivation.OF_NONCES)
        found[f"{name}, image {nonce.hex()}"] = of_image
        for field, value in secret_fields(derivation.image_keys(of_image, nonce)).items():
            found[f"{name}, {field} of {nonce.hex()}"] = value
            if field == "planes":
                sequence = MAPS[DEFAULT_MAP]
                assert isinstance(sequence, MaskedSequence)
                parts = sequence.subkeys(value)
                found |= {f"{name}, part {i} of the planes of {nonce.hex()}": parts[i] for i in (0, 1)}
    return found


def secret_fields(keys: ImageKeys) -> dict[str, bytes]:
    names = [name for name in keys.__slots__ if name != "nonce"]
    assert sorted(names) == ["authentication", "diffusion", "permutation", "planes", "reading", "wrap"]
    return {name: getattr(keys, name) for name in names}
