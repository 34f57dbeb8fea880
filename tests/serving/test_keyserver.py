"""The key server: what it gives to whom, what it refuses in one line, and what is left of it when it is killed."""

from __future__ import annotations

import csv
import os
import sqlite3
import time
from pathlib import Path
from typing import Any

import pytest
import requests

from encdl import api
from encdl.cli import main as encdl
from encdl.commands.keyserver import _reload
from encdl.keys.functional import FunctionalKey
from encdl.serving.key_client import KeyServerClient
from encdl.serving.ledger import Ledger
from encdl.serving.requests_seen import HEADER, WINDOW_S, RequestsSeen, new_request
from encdl.serving.service import RefusedError
from encdl.utils.errors import EncdlError, UsageError
from tests import processes
from tests.readers.test_functional_files import CLASSES
from tests.serving.owner import BITS, head, log, policy, reader_id, said_after, server, token


def test_a_host_predicts_without_any_key(address: str, capsys: pytest.CaptureFixture[str]) -> None:
    known = api.predict_functional("a.encdl", api.grant_functional("a.encdl", "k.key", "r.ckpt"), "r.ckpt")
    Path("k.key").unlink()
    words = ["predict", "a.encdl", "--reader", "r.ckpt", "--device", "cpu", "--keyserver", address]
    words += ["--token-file", "ward.token", "--server-key", "server.pub", "--owner-key", "owner.pub"]
    for _ in range(2):
        assert encdl(words) == 0
        [row] = csv.DictReader(capsys.readouterr().out.splitlines())
        assert row["predicted"] == CLASSES[int(known.best)]
    # The second time it is charged nothing: the numbers are the same.
    assert [line["charged"] for line in log()] == [BITS, 0]
    # A file that is not as its owner signed it costs nothing: nobody is asked.
    for option, said, lines in (("owner", "does not fit public key", 2), ("server", "not made by the key", 3)):
        wrong = [{f"{option}.pub": "foreign.pub"}.get(word, word) for word in words]
        assert encdl(wrong) == 2
        assert said in capsys.readouterr().err
        assert len(log()) == lines


def edited(name: str) -> bytes:
    whole = head(name)
    place = whole.index(b'"study"') - 5
    return whole[:place] + bytes([whole[place] ^ 1]) + whole[place + 1 :]


@pytest.mark.parametrize(
    ("client", "reader", "file", "status", "said"),
    [
        ("ward", "second", "a", 403, "ward may not use this reader"),
        ("ward", "third", "a", 404, "this reader is not registered here"),
        ("ward", "r", "b", 403, "ward may not read files without a study"),
        ("ward", "r", "foreign", 403, "was encrypted with key"),
        ("ward", "r", "volume", 403, "holds 2 slices, and keys are given for files of one"),
        ("", "r", "a", 401, "no client has this token"),
    ],
)
def test_refusals_take_one_line(address: str, client: str, reader: str, file: str, status: int, said: str) -> None:
    asking = KeyServerClient(address, token(client) if client else "0" * 64)
    with pytest.raises(UsageError) as caught:
        asking.key_of(head(file), reader_id(reader))
    assert str(caught.value).startswith(f"the key server {address} refused ({status}): ")
    assert said in str(caught.value)
    assert "\n" not in str(caught.value)
    # Strangers write no lines.
    assert [line["refused"] for line in log()] == ([str(caught.value).partition("): ")[2]] if client else [])


@pytest.mark.parametrize("body", ["edited", "cut", "empty", "whole file"])
def test_a_header_that_was_changed_is_refused(address: str, body: str) -> None:
    whole = head("a")
    content = {"edited": edited("a"), "cut": whole[:-1], "empty": b"", "whole file": Path("a.encdl").read_bytes()}[body]
    headers = {"Authorization": f"Bearer {token('ward')}", "Content-Type": "application/octet-stream"}
    headers[HEADER] = new_request()
    answer = requests.post(f"{address}/readers/{reader_id('r')}/key", content, headers=headers, timeout=60)
    assert answer.status_code == 422
    assert len(answer.json()["error"].splitlines()) == 1
    with sqlite3.connect("ledger") as base:
        assert base.execute("SELECT count(*) FROM spent").fetchone() == (0,)


def test_a_budget_is_for_all_readers_of_an_image(folder: Path) -> None:
    asked, one, two = server(bits_per_image=2 * BITS - 1, hours=2), reader_id("r"), reader_id("second")
    first = asked.answer(token("other"), one, head("a"))
    assert first.given_bits == BITS
    assert first.expires is not None
    for _ in range(2):
        with pytest.raises(EncdlError, match=f"learns {BITS:,} bits of the image, and {BITS - 1:,} of") as caught:
            asked.answer(token("other"), two, head("a"))
        assert caught.value.status == 403  # type: ignore[attr-defined]
    asked.answer(token("other"), one, head("a"))
    asked.answer(token("other"), two, head("b"))  # another image
    # A new policy finds what was spent; another noise would be a second draw.
    with pytest.raises(EncdlError, match=r"and 0 of 10 are left"):
        server(bits_per_image=10).answer(token("other"), two, head("a"))
    with pytest.raises(EncdlError, match="noise of 0 levels, and the policy says 2"):
        server(noise=2).answer(token("other"), one, head("a"))
    # Revocation is refusing: the client is out of the policy.
    gone = token("other")
    with pytest.raises(EncdlError, match="no client has this token"):
        server().answer(gone, one, head("a"))


def test_the_rate_of_a_client(folder: Path) -> None:
    now = [0.0]
    asked = server(clock=lambda: now[0], rate=2)
    for _ in range(2):
        asked.answer(token("ward"), reader_id("r"), head("a"))
    with pytest.raises(EncdlError, match="ward asks more than 2 times a minute: ask again in 30 s"):
        asked.answer(token("ward"), reader_id("r"), head("a"))
    asked.answer(token("other"), reader_id("r"), head("a"))  # others may
    now[0] = 30.5
    asked.answer(token("ward"), reader_id("r"), head("a"))


def test_the_log_shows_what_was_changed(folder: Path, capsys: pytest.CaptureFixture[str]) -> None:
    asked = server()
    for _ in range(3):
        asked.answer(token("ward"), reader_id("r"), head("a"))
    asked.ledger.close()
    assert encdl(["keyserver", "--check-ledger", "ledger"]) == 0
    assert "3 lines, the chain is whole" in capsys.readouterr().out
    with sqlite3.connect("ledger") as base:
        for change in ("UPDATE log SET line = ''", "DELETE FROM log", "DELETE FROM spent"):
            with pytest.raises(sqlite3.IntegrityError, match="only added"):
                base.execute(change)
        base.execute("DROP TRIGGER log_UPDATE")
        base.execute("UPDATE log SET line = replace(line, 'ward', 'other') WHERE number = 2")
    assert encdl(["keyserver", "--check-ledger", "ledger"]) == 2
    assert "line 2 of its log was changed" in capsys.readouterr().err
    assert Path("ledger").stat().st_mode & 0o777 == 0o600


def test_kill_9_loses_nothing_that_was_answered(folder: Path) -> None:
    policy()
    words = ["keyserver", "--key", "k.key", "--policy", "policy.yaml", "--sign", "server.key", "--port", "0"]
    started = processes.start([*words, "--ledger", "ledger"], folder)
    try:
        address = said_after("giving functional keys at ", ",")
        asking = KeyServerClient(address, token("other"))
        keys = [asking.key_of(head(name), reader_id("r")) for name in ("a", "b", "a")]
    finally:
        os.kill(started.pid or 0, 9)
        started.join(30)
    assert isinstance(keys[0], FunctionalKey)
    assert [line["charged"] for line in log()] == [BITS, BITS, 0]
    assert Ledger(Path("ledger")).check()[0] == 3
    with pytest.raises(EncdlError, match="and 0 of"):
        server().answer(token("other"), reader_id("second"), head("a"))


@pytest.mark.parametrize(
    ("changes", "said"),
    [
        ({"readers": {"tumour": "gone.ckpt"}, "clients": {"x": None}}, "client x: give token, readers and studies"),
        ({"bits_per_image": "many"}, "bits-per-image must be a whole number"),
        ({"noise": -1}, "noise is -1: must be from 0"),
        ({"more": 1}, "no setting of a key server's policy: more"),
        ({"readers": {"tumour": "k.key"}}, "no reader of the policy: second"),
        ({"readers": {"tumour": "r.ckpt", "second": "k.key"}}, "k.key: not a checkpoint"),
    ],
)
def test_wrong_policies(folder: Path, changes: dict[str, Any], said: str, capsys: pytest.CaptureFixture[str]) -> None:
    policy(**changes)
    words = ["keyserver", "--key", "k.key", "--policy", "policy.yaml", "--sign", "server.key", "--port", "0"]
    assert encdl(words) == 2
    [line] = capsys.readouterr().err.splitlines()
    assert said in line


@pytest.mark.parametrize(
    ("words", "said"),
    [
        (["keyserver", "--key", "k.key", "--host", "0.0.0.0"], "tokens would travel in clear"),
        (["keyserver", "--key", "k.key"], "--policy is missing"),
        (["keyserver", "--key", "k.key", "--certificate", "k.key"], "TLS cannot use it"),
        (["keyserver", "--check-ledger", "k.key"], "cannot be used as a ledger"),
        (["predict", "a.encdl", "--reader", "r.ckpt", "--keyserver", "http://1.2.3.4"], "--token-file F"),
        (
            ["predict", "a.encdl", "--reader", "r.ckpt", "--keyserver", "http://1.2.3.4", "--token-file", "t"],
            "the token would travel in clear",
        ),
        (["predict", "a.encdl", "--reader", "r.ckpt", "--key", "k.key", "--token-file", "t"], "leave it out"),
        (
            ["predict", "a.encdl", "--reader", "r.ckpt", "--keyserver", "http://[::1", "--token-file", "t"],
            "give https://HOST:PORT",
        ),
    ],
)
def test_wrong_command_lines(folder: Path, words: list[str], said: str, capsys: pytest.CaptureFixture[str]) -> None:
    assert encdl(["keyserver", "--new-token", "t"]) == 0
    assert capsys.readouterr().out.startswith("token: ")
    assert encdl(words) == 2
    [line] = capsys.readouterr().err.splitlines()
    assert said in line
    assert Path("t").read_text().strip() not in line


def test_requests_that_are_old_or_were_sent_before(address: str) -> None:
    url, body = f"{address}/readers/{reader_id('r')}/key", head("a")
    headers = {"Authorization": f"Bearer {token('ward')}", "Content-Type": "application/octet-stream"}
    request = new_request()
    later = request.replace(request.split("-")[0], str(int(time.time()) - 1000))
    ahead = request.replace(request.split("-")[0], str(int(time.time()) + 1000))
    for sent, status, said in (
        (request, 200, ""),
        (request, 409, "this request was answered before"),
        (later, 400, "the request expired: it was sent 100"),
        (ahead, 400, "s ahead: check both clocks"),
        ("1-2", 400, "the request has no time and number"),
    ):
        answer = requests.post(url, body, headers=headers | {HEADER: sent}, timeout=60)
        assert answer.status_code == status
        assert said in (answer.text if said else "")
        assert len(answer.content.splitlines()) == 1 or status == 200
    assert [line["charged"] for line in log()] == [BITS]


def test_a_restarted_server_takes_no_older_request() -> None:
    now = [1000.0]
    seen = RequestsSeen(lambda: now[0])
    with pytest.raises(RefusedError, match="older than this server"):
        seen.check(f"999-{'0' * 32}")
    seen.check(f"1001-{'0' * 32}")
    now[0] += WINDOW_S + 1
    seen.check(f"1100-{'0' * 32}")
    assert len(seen._seen) == 2  # the first is at the window's edge
    now[0] += WINDOW_S
    seen.check(f"1300-{'0' * 32}")
    assert len(seen._seen) == 1


def test_another_policy_on_a_signal(folder: Path, capsys: pytest.CaptureFixture[str]) -> None:
    asked = server()
    old = token("other")
    asked.answer(old, reader_id("r"), head("a"))
    given = policy()  # has new tokens
    _reload(asked, given)
    with pytest.raises(EncdlError, match="no client has this token"):
        asked.answer(old, reader_id("r"), head("a"))
    asked.answer(token("other"), reader_id("r"), head("a"))
    given.write_text("readers: {}")
    _reload(asked, given)
    assert "the policy stays as it was: policy.yaml" in capsys.readouterr().err
    asked.answer(token("other"), reader_id("r"), head("a"))
