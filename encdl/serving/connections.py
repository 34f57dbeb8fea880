"""How long a client may take over a request, and how many connections it may hold: uvicorn has limits for neither.

A connection on which the server waits for its client can be spared; one whose request is being computed cannot. So
whoever opens more connections than it may loses its own oldest that wait, and when all clients together hold too many,
the one with the most loses first: unfinished requests shut nobody out.
"""

from __future__ import annotations

import asyncio
import ssl
from asyncio.sslproto import SSLProtocol
from collections import Counter
from collections.abc import Callable, Sequence
from typing import Any, cast

import uvicorn
from starlette.types import ASGIApp
from uvicorn.protocols.http.h11_impl import H11Protocol

HEAD_S = 10.0
"""Seconds from the first byte (or the connection) to the end of a request's head."""
ANSWER_S = 30.0
"""Seconds in which a client that takes its answer slowly must take some of it."""
MAX_A_CLIENT, MAX_CONNECTIONS = 32, 256
"""Connections at a time, of an address and in all."""
PARTING_S = 1.0
"""Seconds that a client has to read why its connection ends."""
_REFUSAL = b"HTTP/1.1 408 Request Timeout\r\nConnection: close\r\nContent-Length: 0\r\n\r\n"


def configured(app: ASGIApp, tls: ssl.SSLContext | None = None, **settings: Any) -> uvicorn.Config:
    """Settings of a server with these limits, which writes no addresses: someone may have put a grant into one."""
    every = set[Secured]()

    def secured(**given: Any) -> Secured:
        return Secured(LimitedProtocol(**given), cast(ssl.SSLContext, tls), every)

    http: Any = LimitedProtocol if tls is None else secured
    return uvicorn.Config(app, http=http, ws="none", access_log=False, log_level="warning", **settings)


def _loser(new: Limited, every: Sequence[Limited]) -> Limited | None:
    """Which of `every` connection has to end for a new one, if any."""
    held = Counter(each.address for each in every)
    full = len(every) > MAX_CONNECTIONS
    if not full and held[new.address] <= MAX_A_CLIENT:
        return None
    spared = [each for each in every if each.waits and each is not new and (full or each.address == new.address)]
    return max(spared, key=lambda each: (held[each.address], -each.opened), default=new)


class LimitedProtocol(H11Protocol):
    """HTTP/1.1 as uvicorn speaks it, with deadlines for what the client has to do."""

    _deadline: asyncio.TimerHandle | None = None
    ended = False

    def connection_made(self, transport: asyncio.Transport) -> None:  # type: ignore[override]
        """Take a connection, if need be in another's place."""
        super().connection_made(transport)
        self.address = self.client[0] if self.client else ""
        self.opened = self.loop.time()
        self._within(HEAD_S, self.end)
        self._make_room()

    def data_received(self, data: bytes) -> None:
        """A first byte of a next request starts its time; the head's end ends it."""
        if self.ended:
            return
        super().data_received(data)
        if self.cycle is not None and not self.cycle.response_complete:
            self._end_deadline()
        elif self._deadline is None:
            self._within(HEAD_S, self.end)

    def connection_lost(self, exc: Exception | None) -> None:
        """The end."""
        self._end_deadline()
        super().connection_lost(exc)

    def pause_writing(self) -> None:
        """The client does not take its answer."""
        super().pause_writing()
        self._within(ANSWER_S, self.transport.abort)

    def resume_writing(self) -> None:
        """It does."""
        super().resume_writing()
        self._end_deadline()

    @property
    def waits(self) -> bool:
        """Whether it is the client's turn: to send a whole request, or a next one."""
        return self.cycle is None or self.cycle.response_complete or self.cycle.more_body

    def end(self) -> None:
        """Say that it took too long, and end the connection; closed with bytes unread, it would be reset."""
        self.ended = True
        if not self.transport.can_write_eof() or len(self.connections) > 2 * MAX_CONNECTIONS:
            self.transport.abort()
            return
        if self.cycle is None or not self.cycle.response_started:
            self.transport.write(_REFUSAL)
        if self.cycle is not None:
            self.cycle.disconnected = True
            self.cycle.message_event.set()
        self.transport.write_eof()
        self._within(PARTING_S, self.transport.abort)

    def _make_room(self) -> None:
        found = cast("set[LimitedProtocol]", self.connections)
        if loser := _loser(self, [each for each in found if not (each.ended or each.transport.is_closing())]):
            loser.end()

    def _within(self, seconds: float, then: Callable[[], None]) -> None:
        self._end_deadline()
        self._deadline = self.loop.call_later(seconds, then)

    def _end_deadline(self) -> None:
        if self._deadline is not None:
            self._deadline.cancel()
            self._deadline = None


class Secured(SSLProtocol):
    """TLS under a `LimitedProtocol`, which counts a connection from its handshake's end to the server's farewell.

    What comes before and after has times and numbers of its own.

    Args:
        inner: What speaks HTTP.
        context: The server's certificate, and whose clients may come.
        every: All connections of the server.
    """

    waits = True

    def __init__(self, inner: LimitedProtocol, context: ssl.SSLContext, every: set[Secured]) -> None:
        times = {"ssl_handshake_timeout": HEAD_S, "ssl_shutdown_timeout": PARTING_S}
        super().__init__(inner.loop, inner, context, None, server_side=True, **times)  # type: ignore[arg-type]
        self.inner, self.every = inner, every
        self.address, self.opened = "", inner.loop.time()

    def connection_made(self, transport: asyncio.Transport) -> None:  # type: ignore[override]
        """Take a connection, if need be in another's place."""
        super().connection_made(transport)
        self.below, (self.address, *_) = transport, transport.get_extra_info("peername") or ("",)
        self.every.add(self)
        if loser := _loser(self, [each for each in self.every if not each.is_counted]):
            loser.end()

    def connection_lost(self, exc: BaseException | None) -> None:
        """The end."""
        self.every.discard(self)
        super().connection_lost(exc)

    def _fatal_error(self, exc: BaseException, message: str = "") -> None:
        """Send the alert that tells a client what its certificate lacks; asyncio would drop it."""
        self._process_outgoing()  # type: ignore[attr-defined]
        super()._fatal_error(exc, message)

    @property
    def is_counted(self) -> bool:
        """Whether it counts among those of HTTP."""
        above = self.inner.transport
        return above is not None and not above.is_closing()

    def end(self) -> None:
        """End it, without a word: none could be understood."""
        self.every.discard(self)
        self.below.abort()


Limited = LimitedProtocol | Secured
