"""A small HTTP server around a reader: MLflow's protocol, with limits and reasons in one line (`Intake`).

`POST /invocations` takes what `encdl.serving.service.parse` reads and answers `{"predictions": [...]}`, or a status
from 400 to 499 with `{"error": "one line"}`. `GET /ping` and `/health` answer when the reader is loaded, `/version`
says which EncDL this is. Nothing of a request is logged but its size, its time and why it was refused.
"""

from __future__ import annotations

import asyncio
import contextlib
import logging
import ssl
import threading
import time
from collections.abc import Callable

import uvicorn
from starlette.applications import Starlette
from starlette.requests import ClientDisconnect, Request
from starlette.responses import JSONResponse, PlainTextResponse, Response
from starlette.routing import Route
from starlette.types import Receive, Scope, Send

from encdl import __version__
from encdl.serving.connections import configured
from encdl.serving.service import RefusedError, Service, parse

LOG = logging.getLogger("encdl.serving")
MAX_WAITING = 64
"""Requests that wait to be computed; more are told to come back (503)."""
BODY_S = 120.0
"""Seconds that a client may take to send a request's body."""
BODIES = 8
"""Bodies of the greatest length that are in memory at a time, or as many bytes of shorter ones."""
LINGER_S, LINGER_BYTES = 10.0, 1 << 27
"""Seconds and bytes that a client may go on sending after a refusal for length."""


class Lingering(JSONResponse):
    """Answers at once, and lets the client send the rest of its request, within bounds, before the connection closes.

    Closed on a client that still sends, it would be reset, and the answer lost on its way.
    """

    async def __call__(self, scope: Scope, receive: Receive, send: Send) -> None:
        """Answer."""
        await send({"type": "http.response.start", "status": self.status_code, "headers": self.raw_headers})
        await send({"type": "http.response.body", "body": self.body, "more_body": True})
        length = 0
        with contextlib.suppress(TimeoutError):
            async with asyncio.timeout(LINGER_S):
                while length < LINGER_BYTES:
                    message = await receive()
                    length += len(message.get("body", b""))
                    if not message.get("more_body", False):  # the end, also of a client that has gone
                        break
        await send({"type": "http.response.body", "body": b"", "more_body": False})


def make_app(service: Service, max_body_bytes: int, at_once: int = 1) -> Starlette:
    """The application.

    Args:
        service: Answers records.
        max_body_bytes: Longest body of a request; longer ones are refused, and not kept.
        at_once: Requests that are computed at a time; the others wait.
    """
    turn, intake = threading.Semaphore(at_once), Intake("application/json", max_body_bytes)

    def answer(body: bytearray) -> dict[str, object]:
        with turn:  # JSON may become much larger than its text
            return {"predictions": service.answer(parse(body), spend=True)}

    async def invocations(request: Request) -> Response:
        return await intake.answered(request, lambda body: JSONResponse(answer(body)))

    return Starlette(routes=[Route("/invocations", invocations, methods=["POST"]), *alive()])


def alive() -> list[Route]:
    """The addresses that say that a server runs, and which."""

    async def ping(request: Request) -> Response:
        return PlainTextResponse("\n")

    async def version(request: Request) -> Response:
        return PlainTextResponse(__version__)

    return [Route("/ping", ping), Route("/health", ping), Route("/version", version)]


class Intake:
    """Takes the bodies of requests, within limits of time and memory.

    Args:
        content_type: Bodies of another one are refused.
        max_body_bytes: Longest body; longer ones are refused, and not kept.
    """

    def __init__(self, content_type: str, max_body_bytes: int) -> None:
        self.content_type, self.max_body_bytes = content_type, max_body_bytes
        self._coming: dict[asyncio.Timeout, int] = {}  # bytes, the oldest first
        self._waiting: list[int] = []

    async def answered(self, request: Request, compute: Callable[[bytearray], Response]) -> Response:
        """The result of `compute` on a body, in a thread, or why there is none: a status and `{"error": "one line"}`.

        Args:
            request: The request.
            compute: Answers a body, which it may clear to free memory, or raises `RefusedError`.
        """
        started = time.monotonic()
        told = ""
        try:
            self._check_type(request)
            body = await self._body(request)
            length = len(body)
            if len(self._waiting) >= MAX_WAITING or sum(self._waiting) + length > self._most:
                raise RefusedError("too many requests wait for their turn: ask again later", 503)
            self._waiting.append(length)
            try:
                response = await asyncio.to_thread(compute, body)
            finally:
                self._waiting.remove(length)
        except RefusedError as error:
            told, response = f": {error}", _refusal(error)
        except ClientDisconnect:
            return Response(status_code=400)
        except Exception as error:
            # Its text may quote anything; its kind and place cannot.
            response = JSONResponse({"error": "the server failed: see its log"}, 500)
            told = f": {type(error).__name__} at {_place(error)}"
        LOG.info("%d in %.0f ms%s", response.status_code, 1e3 * (time.monotonic() - started), told)
        return response

    @property
    def _most(self) -> int:
        return BODIES * self.max_body_bytes

    def _check_type(self, request: Request) -> None:
        given = request.headers.get("content-type", "").partition(";")[0].strip().lower()
        if given != self.content_type:
            raise RefusedError(f"the content type must be {self.content_type}", 415)

    async def _body(self, request: Request) -> bytearray:
        """The body, unless it is too long, or too slow while others need the memory."""
        limit = self.max_body_bytes
        too_long = RefusedError(f"the body is longer than {limit:,} bytes", 413)
        announced = request.headers.get("content-length", "")
        if announced.isdecimal() and int(announced) > limit:
            raise too_long
        found = bytearray()
        timer = asyncio.timeout(BODY_S)
        try:
            async with timer:
                async for part in request.stream():
                    found += part
                    if len(found) > limit:
                        raise too_long
                    self._coming[timer] = len(found)
                    if sum(self._coming.values()) + sum(self._waiting) > self._most:
                        oldest = next(iter(self._coming))
                        if not oldest.expired():
                            oldest.reschedule(0)
        except TimeoutError:
            raise RefusedError(
                f"the body took longer than {BODY_S:.0f} s to come, or than others could wait", 408
            ) from None
        finally:
            self._coming.pop(timer, None)
        return found


def serve(app: Starlette, host: str, sockets: list[object], tls: ssl.SSLContext | None = None) -> None:
    """Answer requests on bound sockets until a signal ends the process."""
    uvicorn.Server(configured(app, tls, host=host)).run(sockets=sockets)  # type: ignore[arg-type]


def _refusal(error: RefusedError) -> Response:
    content = {"error": str(error)}
    if error.status == 413:
        return Lingering(content, error.status, headers={"Connection": "close"})
    return JSONResponse(content, error.status, headers={"WWW-Authenticate": "Bearer"} if error.status == 401 else None)


def _place(error: BaseException) -> str:
    """File and line where an error was raised."""
    trace = error.__traceback__
    while trace is not None and trace.tb_next is not None:
        trace = trace.tb_next
    return f"{trace.tb_frame.f_globals.get('__name__')}:{trace.tb_lineno}" if trace else "?"
