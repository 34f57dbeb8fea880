"""SIGKILL of a key server under load, over TLS: what was answered stands in its ledger, and no budget is exceeded."""

from __future__ import annotations

import contextlib
import io
import json
import os
import random
import sqlite3
import threading
import time
from collections import Counter, defaultdict
from pathlib import Path

import pytest

from encdl import api
from encdl.cli import main as encdl
from encdl.files.container import PublicReader
from encdl.serving.key_client import KeyServerClient
from encdl.serving.ledger import Ledger
from encdl.utils.errors import UsageError
from tests import processes
from tests.mni import mni_slice
from tests.readers.test_functional_files import SIDE
from tests.serving.owner import BITS, policy, reader_id, said_after, token
from tests.serving.test_keyserver_tls import certificate

KILLS, CLIENTS, IMAGES = 50, 4, 8
Answers = Counter[tuple[str, str, bool]]
"""By nonce, reader, and whether it was refused."""


def new_heads() -> dict[str, bytes]:
    """Headers of new files, by nonce."""
    image = mni_slice(85, SIDE, SIDE)[0, 0].numpy()
    files = [api.encrypt(image, "k.key", readable=SIDE, study="S") for _ in range(IMAGES)]
    return {reader.header.nonce: reader.head for reader in (PublicReader(io.BytesIO(data)) for data in files)}


def ask(
    address: str, seed: int, heads: dict[str, bytes], readers: list[str], answered: Answers, last: list[str]
) -> None:
    """Ask for keys of all files until the server is gone."""
    rng, client = random.Random(seed), KeyServerClient(address, token("other"), authority=Path("authority.pem"))
    while True:
        nonce, reader = rng.choice(list(heads)), rng.choice(readers)
        try:
            client.key_of(heads[nonce], reader)
        except UsageError as error:
            if "refused (403)" not in str(error):
                last.append(str(error))
                return
            answered[nonce, reader, True] += 1
        else:
            answered[nonce, reader, False] += 1


def killed(trial: int, heads: dict[str, bytes], readers: list[str], after: float) -> Answers:
    """What a server that is killed had answered."""
    words = ["keyserver", "--key", "k.key", "--policy", "policy.yaml", "--sign", "server.key", "--port", "0"]
    started = processes.start([*words, "--ledger", "ledger", "--certificate", "host.pem"], Path(), f"log-{trial}")
    answers: list[Answers] = [Counter() for _ in range(CLIENTS)]
    last: list[str] = []
    try:
        address = said_after("giving functional keys at ", ",", f"log-{trial}")
        assert address.startswith("https://")
        asking = [
            threading.Thread(target=ask, args=(address, CLIENTS * trial + number, heads, readers, each, last))
            for number, each in enumerate(answers)
        ]
        for each in asking:
            each.start()
        until = time.monotonic() + 60
        while not any(answers) and time.monotonic() < until:
            time.sleep(0.001)
        time.sleep(after)
    finally:
        os.kill(started.pid or 0, 9)
        started.join(30)
    for each in asking:
        each.join(30)
        assert not each.is_alive()
    assert started.exitcode == -9
    assert len(last) == CLIENTS
    assert all("cannot be asked" in said for said in last), last
    return sum(answers, Counter())


@pytest.mark.slow
def test_fifty_kills_of_a_server_lose_nothing(folder: Path) -> None:
    authority = certificate("authority")
    certificate("host", authority)
    policy(rate=10**6)
    readers = [reader_id(name) for name in ("r", "second")]
    heads, rng, lines = {}, random.Random(0), 0
    given, found = defaultdict(set), Counter()
    for trial in range(KILLS):
        heads = dict(list(heads.items())[-IMAGES:]) | new_heads()  # of the last trial, too
        answered = killed(trial, heads, readers, rng.uniform(0, 0.3))
        assert answered
        with contextlib.closing(Ledger(Path("ledger"))) as ledger:  # checks the chain
            count, _ = ledger.found
        with contextlib.closing(sqlite3.connect("ledger")) as base:
            assert base.execute("PRAGMA integrity_check").fetchall() == [("ok",)]
            log = [json.loads(line) for (line,) in base.execute("SELECT line FROM log ORDER BY number")]
            spent = {(nonce, reader): bits for nonce, reader, bits, _ in base.execute("SELECT * FROM spent")}
        entered = Counter((line["nonce"], line["reader"], "refused" in line) for line in log[lines:])
        assert answered <= entered
        assert entered.total() - answered.total() <= CLIENTS  # those that were being answered
        found, lines = found + answered, count
        for nonce, reader, refused in answered:
            if not refused:
                assert spent[nonce, reader] == BITS
                given[nonce].add(reader)
        charged = Counter()
        for line in log:
            charged[line["nonce"], line["reader"]] += line.get("charged", 0)
        assert +charged == spent
        assert max(Counter(nonce for nonce, _ in spent).values()) == 1  # the budget is one key an image
    assert {len(readers) for readers in given.values()} == {1}
    print(f"{KILLS} kills, {found.total()} answers, {lines} lines, {len(spent)} keys charged")
    assert encdl(["keyserver", "--check-ledger", "ledger"]) == 0
