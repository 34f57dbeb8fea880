"""Clients that hold connections, send slowly, take slowly or send what grows: nobody else is shut out."""

from __future__ import annotations

import contextlib
import socket
import threading
import time
import tracemalloc
from collections.abc import Iterator
from typing import Any

import pytest
import requests
from starlette.applications import Starlette
from starlette.responses import Response
from starlette.routing import Route

from encdl.serving import app, connections
from encdl.serving.app import make_app
from encdl.serving.service import RefusedError, parse
from tests.serving.support import is_open, running

LIMIT = 100_000
POST = "POST /invocations HTTP/1.1\r\nHost: x\r\nContent-Type: application/json\r\nContent-Length: %d\r\n\r\n"


class Slow:
    """A service that answers when it may."""

    def __init__(self) -> None:
        self.started, self.may_end = threading.Semaphore(0), threading.Event()

    def answer(self, records: Any, spend: bool) -> list[Any]:
        self.started.release()
        assert self.may_end.wait(30)
        return list(records)


@pytest.fixture
def service() -> Slow:
    return Slow()


@pytest.fixture
def address(service: Slow) -> Iterator[str]:
    with running(make_app(service, LIMIT)) as address:  # type: ignore[arg-type]
        yield address
        service.may_end.set()


@contextlib.contextmanager
def clients(address: str, sent: bytes, count: int = 1) -> Iterator[list[socket.socket]]:
    host, port = address.removeprefix("http://").split(":")
    with contextlib.ExitStack() as stack:
        found = [stack.enter_context(socket.create_connection((host, int(port)), timeout=20)) for _ in range(count)]
        for each in found:
            each.sendall(sent)
        yield found


def answer(client: socket.socket) -> bytes:
    """All that comes before the connection ends."""
    found = b""
    with contextlib.suppress(ConnectionError):
        while part := client.recv(2**16):
            found += part
    return found


def ping(address: str) -> int:
    return requests.get(f"{address}/ping", timeout=5).status_code


@pytest.mark.parametrize("sent", [b"", b"GET /ping HTTP/1.1\r\nX: ", (POST % 1000).encode() + b"{"])
def test_seventy_unfinished_requests_shut_nobody_out(address: str, service: Slow, sent: bytes) -> None:
    """Neither new clients, nor one whose request is being computed."""
    service.may_end.clear()
    whole = b'{"inputs":[1]}'
    with clients(address, (POST % len(whole)).encode() + whole) as [computed]:
        assert service.started.acquire(timeout=20)
        with clients(address, sent, 70) as held:
            for _ in range(3):
                assert ping(address) == 200
            assert sum(map(is_open, held)) <= connections.MAX_A_CLIENT
            service.may_end.set()
            assert computed.recv(100).startswith(b"HTTP/1.1 200")


def test_the_client_with_most_connections_loses_first(address: str, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(connections, "MAX_CONNECTIONS", 12)
    host, port = address.removeprefix("http://").split(":")
    with socket.create_connection((host, int(port)), source_address=("127.0.0.2", 0)) as other:
        with clients(address, b"", 20) as held:
            assert ping(address) == 200
            assert sum(map(is_open, held)) <= 11
        assert is_open(other)


def test_a_head_has_its_time(address: str, monkeypatch: pytest.MonkeyPatch) -> None:
    """Also the second one of a connection, and however steadily its bytes come."""
    monkeypatch.setattr(connections, "HEAD_S", 0.5)
    for first in (b"", b"GET /ping HTTP/1.1\r\nHost: x\r\n\r\n"):
        with clients(address, first) as [client]:
            found = b""
            while first and not found.endswith(b"\r\n\r\n\n"):
                found += client.recv(1000)
            started = time.monotonic()
            with contextlib.suppress(ConnectionError):
                client.sendall(b"GET /ping HTTP/1.1\r\nX: ")
                while is_open(client) and time.monotonic() - started < 10:
                    client.sendall(b"x")
                    time.sleep(0.05)
            assert 0.3 < time.monotonic() - started < 4


def test_a_body_has_its_time(address: str, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(app, "BODY_S", 0.3)
    with clients(address, (POST % 1000).encode() + b"{") as [client]:
        assert client.recv(1000).startswith(b"HTTP/1.1 408")


def test_an_answer_has_its_time(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(connections, "ANSWER_S", 0.3)
    large = Starlette(routes=[Route("/", lambda _: Response(bytes(2**26)))])
    with running(large) as address, clients(address, b"GET / HTTP/1.1\r\nHost: x\r\n\r\n") as [client]:
        time.sleep(1.5)
        assert len(answer(client)) < 2**26
        monkeypatch.undo()  # who shares this machine with others may take longer
        assert len(requests.get(address, timeout=60).content) == 2**26


def test_bodies_share_their_memory(address: str, service: Slow, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(app, "BODIES", 1)
    service.may_end.clear()
    body = b'{"inputs":[1]}'.ljust(LIMIT * 3 // 4)
    request = (POST % len(body)).encode() + body
    with clients(address, request[:-9]) as [unfinished], clients(address, request) as [first]:
        assert unfinished.recv(1000).startswith(b"HTTP/1.1 408")  # the older one of two
        assert service.started.acquire(timeout=20)
        with clients(address, request) as [second]:
            assert second.recv(1000).split(b" ")[1] in (b"408", b"503")
        service.may_end.set()
        assert first.recv(1000).startswith(b"HTTP/1.1 200")


def test_what_would_grow_is_not_parsed() -> None:
    body = b'{"inputs":[' + b"[]," * 5_300_000 + b"[]]}"
    tracemalloc.start()
    try:
        with pytest.raises(RefusedError, match="too many values") as caught:
            parse(body)
        assert tracemalloc.get_traced_memory()[1] < 10**6
    finally:
        tracemalloc.stop()
    assert caught.value.status == 413
    with pytest.raises(RefusedError, match="257 records are too many"):
        parse(b'{"inputs":[' + b",".join([b'{"container":"","grant":""}'] * 257) + b"]}")
