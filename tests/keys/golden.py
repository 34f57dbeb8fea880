"""Golden vectors of keys, maps and planes: what any other implementation, and every later version, must give.

    python -m tests.keys.golden

rewrites tests/golden/keys.json, maps.json and planes.json. Do so only with a new format version: files that were
encrypted under the old vectors could no longer be opened.
"""

from __future__ import annotations

import json
import tempfile
import warnings
from collections.abc import Callable
from datetime import UTC, datetime
from hashlib import sha256
from pathlib import Path
from typing import Any

from encdl.keys import MAPS, Grant, Key, PlaneSpec, byte_sequence, integer_sequence, key_planes, synthetic_nonce

FOLDER = Path(__file__).parent.parent / "golden"
SEEDS = [bytes(32), bytes(range(32)), sha256(b"golden").digest()]
SPECS = [
    *(PlaneSpec(map=name, count=3) for name in MAPS),
    PlaneSpec(),
    PlaneSpec(expansion="coprime", count=4, period=5),
    PlaneSpec(expansion="periodic", count=2, period=3),
]
END = datetime(2031, 1, 31, 23, 59, 59, tzinfo=UTC)
CHANNELS, HEIGHT, WIDTH = 2, 9, 7


def keys() -> dict[str, Any]:
    """Every derived secret of a known key, and the files of that key and its grants."""
    key, nonce, study = Key(bytes(range(32))), bytes(range(16)), "Thorax \u00e9tude"
    subkeys = {
        name: {
            field: getattr(key.image_keys(nonce, name), field).hex()
            for field in ("planes", "permutation", "diffusion", "authentication", "wrap")
        }
        for name in ("", study)
    }
    return {
        "master": bytes(range(32)).hex(),
        "nonce": nonce.hex(),
        "id": key.id,
        "subkeys_by_study": subkeys,
        "synthetic_nonce": synthetic_nonce(key, b"image", b"context", study).hex(),
        "key_file": _file(key),
        "study_grant_file": _file(_unmarked(key.grant_study(study))),
        "file_grant_file": _file(_unmarked(key.grant_file(nonce, study))),
        "study_grant_file_version_2": _file(key.grant_study(study)),
        "file_grant_file_version_2": _file(key.grant_file(nonce, study, END)),
    }


def maps() -> list[dict[str, Any]]:
    """The first words, and a digest of a longer sequence, of every map and seed."""
    return [
        {
            "map": name,
            "seed": seed.hex(),
            "words": integer_sequence(name, [seed], 8)[0].tolist(),
            "sha256_of_100000_bytes": sha256(byte_sequence(name, [seed], 100_000)[0].tobytes()).hexdigest(),
        }
        for name in MAPS
        for seed in SEEDS
    ]


def planes() -> list[dict[str, Any]]:
    """Packed key planes of a 2 x 9 x 7 image: its first and last rows in hexadecimal, and a digest of all."""
    records = []
    for spec in SPECS:
        with warnings.catch_warnings():
            warnings.simplefilter("ignore")
            array = key_planes([SEEDS[1]], spec, CHANNELS, HEIGHT, WIDTH)[0]
        record = {"spec": spec.to_dict(), "subkey": SEEDS[1].hex(), "shape": list(array.shape)}
        first, last = (array[0, 0].tobytes().hex(), array[-1, -1].tobytes().hex())
        records.append(record | {"first_row": first, "last_row": last, "sha256": sha256(array.tobytes()).hexdigest()})
    return records


GOLDEN: dict[str, Callable[[], Any]] = {"keys": keys, "maps": maps, "planes": planes}


def _unmarked(grant: Grant) -> Grant:
    """As from a file of version 1."""
    return Grant(grant.scope, grant.study, grant.nonce, grant.key_id, grant._secret)


def _file(secret: Key | Grant) -> str:
    with tempfile.TemporaryDirectory() as folder:
        path = Path(folder) / "file"
        secret.save(path)
        return path.read_text()


def main() -> None:
    """Write the vectors."""
    FOLDER.mkdir(exist_ok=True)
    for name, make in GOLDEN.items():
        text = json.dumps(make(), indent=1, ensure_ascii=True)
        (FOLDER / f"{name}.json").write_text(text + "\n")


if __name__ == "__main__":
    main()
