"""An owner's key server in tests: its policy, what it knows, and what it wrote down."""

from __future__ import annotations

import json
import sqlite3
import time
from pathlib import Path
from typing import Any

import yaml

from encdl.files import container
from encdl.keys import Key
from encdl.keys.signing import SigningKey
from encdl.readers.functional_files import FunctionalPredictor
from encdl.serving.keyserver import KeyServer
from encdl.serving.ledger import Ledger
from encdl.serving.policy import LoadedPolicy
from encdl.serving.tokens import new_token, read_token

BITS = 98 * 32
"""Of one of these readers."""


def policy(rate: int = 600, **changes: Any) -> Path:
    """A policy of two readers, of which the first client may use one."""
    may = {"ward": (["tumour"], ["S"]), "other": (["tumour", "second"], ["S", ""])}
    content = {
        "readers": {"tumour": "r.ckpt", "second": "second.ckpt"},
        "clients": {
            name: {
                "token": new_token(Path(f"{name}.token"), force=True),
                "readers": readers,
                "studies": studies,
                "requests_per_minute": rate,
            }
            for name, (readers, studies) in may.items()
        },
        "bits_per_image": BITS,
    }
    Path("policy.yaml").write_text(yaml.safe_dump(content | changes))
    return Path("policy.yaml")


def server(clock: Any = time.monotonic, **changes: Any) -> KeyServer:
    loaded = LoadedPolicy.load(policy(**changes))
    return KeyServer(Key.load("k.key"), SigningKey.load("server.key"), loaded, Ledger(Path("ledger")), clock)


def head(name: str) -> bytes:
    with container.opened_without_key(f"{name}.encdl") as opened:
        return opened.head


def reader_id(name: str) -> str:
    return FunctionalPredictor.load(f"{name}.ckpt").function.id


def log() -> list[dict[str, Any]]:
    with sqlite3.connect("ledger") as base:
        return [json.loads(line) for (line,) in base.execute("SELECT line FROM log ORDER BY number")]


def token(name: str) -> str:
    return read_token(Path(f"{name}.token"))


def said_after(words: str, end: str, name: str = "log") -> str:
    """What a started process says after some words."""
    for _ in range(600):
        said = Path(name).read_text() if Path(name).exists() else ""
        if words in said:
            return said.partition(words)[2].partition(end)[0]
        time.sleep(0.1)
    raise AssertionError(said)
