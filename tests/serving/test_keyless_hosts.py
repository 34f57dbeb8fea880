"""Hosts of a key server: what is in their memory, and what two parties of a reading are given."""

from __future__ import annotations

import base64
import contextlib
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import requests
import yaml

from encdl import api
from encdl.commands.keyserver import _reload
from encdl.files import container
from encdl.files.container.sections import READING
from encdl.files.reading import ReadingLayer
from encdl.keys import Key
from encdl.readers.two_party.network import Network
from encdl.serving import keyserver
from encdl.serving.key_client import KeyServerClient
from encdl.serving.keyserver import make_app
from encdl.utils.errors import EncdlError, UsageError
from tests import processes
from tests.mni import mni_slice
from tests.readers.test_functional_files import CLASSES, SIDE
from tests.serving.owner import head, log, reader_id, said_after, server, token
from tests.serving.support import running


def test_a_served_reader_takes_ciphertext_alone_and_holds_no_key(folder: Path) -> None:
    """Its memory is searched for the key, the file's sub-keys and rows of the plaintext."""
    key = Key.load("k.key")
    image = mni_slice(86, SIDE, SIDE)[0, 0].numpy()
    with container.opened("a.encdl", key) as opened:
        levels = ReadingLayer.from_bytes(opened.section(READING) or b"").levels(opened.image_keys)
        sub_key = opened.image_keys.reading
    known = api.predict_functional("a.encdl", api.grant_functional("a.encdl", key, "r.ckpt"), "r.ckpt")
    with running(make_app(server())) as address:
        words = ["serve", "--reader", "r.ckpt", "--port", "0", "--device", "cpu", "--keyserver", address]
        started = processes.start([*words, "--token-file", "ward.token", "--server-key", "server.pub"], folder)
        try:
            at = said_after("serving a classifier of well, ill, unsure at ", " ")
            record = {"container": base64.b64encode(Path("a.encdl").read_bytes()).decode()}
            answer = requests.post(at, json={"inputs": [record]}, timeout=60)
            refused = requests.post(at, json={"inputs": [record | {"grant": "x"}]}, timeout=60)
            memory = memory_of(started.pid or 0)
        finally:
            started.kill()
            started.join(30)
    assert answer.json()["predictions"][0]["predicted"] == CLASSES[int(known.best)]
    assert refused.json() == {"error": "record 0: must have the fields container, and no others"}
    assert token("ward").encode() in memory  # what it has is found
    rows = [
        row.tobytes() for kind in (np.uint8, np.uint32, np.int64, np.float32) for row in levels[0, 0, 8:24].astype(kind)
    ]
    rows += [row.tobytes() for row in image[8:24]]
    secrets = [key._secret, key._secret.hex().encode(), sub_key, *rows]
    assert min(map(len, secrets)) >= 32
    assert [found for found in secrets if found in memory] == []


def memory_of(process: int) -> bytes:
    """All that a process has written to its memory."""
    parts = []
    with Path(f"/proc/{process}/mem").open("rb", 0) as memory:
        for line in Path(f"/proc/{process}/maps").read_text().splitlines():
            place, rights, _, _, inode, *_ = line.split()
            start, end = (int(each, 16) for each in place.split("-"))
            if rights.startswith("rw") and inode == "0":
                with contextlib.suppress(OSError, OverflowError):
                    memory.seek(start)
                    parts.append(memory.read(end - start))
    return b"\0".join(parts)


def test_a_party_of_two(folder: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """What the server's party is given, what it is charged, and who is refused; the link itself is SPU's."""
    parties: list[Any] = []

    class Stub:
        def __init__(self, rank: int, network: Network, ports: tuple[int, int], own: Any) -> None:
            parties.append((rank, ports[0], own["mask"]))

        def finish(self) -> None: ...

    monkeypatch.setattr(keyserver, "Party", Stub)
    form = {"channels": 1, "height": SIDE, "width": SIDE, "widths": [4, 6], "classes": 2}
    id_ = Network.of(form).id
    asked = server(two_party={"shares": form}, bits_per_image=300)
    with pytest.raises(EncdlError, match="ward may not use this reader"):
        asked.take_part(token("ward"), id_, 4000, head("a"))
    content = yaml.safe_load(Path("policy.yaml").read_text())
    content["clients"]["ward"]["readers"].append("shares")
    Path("policy.yaml").write_text(yaml.safe_dump(content))
    _reload(asked, Path("policy.yaml"))
    with running(make_app(asked)) as address:
        client = KeyServerClient(address, token("ward"))
        for _ in range(2):  # each reading may be of other weights, and is charged
            assert client.take_part(head("a"), id_, 4000) > 0
        for file, network, said in (
            ("a", id_, "learns 128 bits of the image, and 44 of 300 are left"),
            ("a", "0" * 64, "this reader is not registered here"),
            ("b", id_, "may not read files without a study"),
            ("volume", id_, "holds 2 slices"),
        ):
            with pytest.raises(UsageError, match=said):
                client.take_part(head(file), network, 4000)
        with pytest.raises(UsageError, match="not registered"):  # a functional key's reader is another thing
            client.take_part(head("a"), reader_id("r"), 4000)
    assert [line["charged"] for line in log() if "charged" in line] == [128, 128]
    rank, port, mask = parties[0]
    assert (rank, port) == (1, 4000)
    with container.opened("a.encdl", Key.load("k.key")) as opened:
        layer = ReadingLayer.from_bytes(opened.section(READING) or b"")
        assert np.array_equal((layer.words - mask) & 0xFFFFFFFF, layer.levels(opened.image_keys))
