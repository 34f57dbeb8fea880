"""A small HTTP server around a reader: MLflow's protocol, with limits and reasons in one line (`answered`).

`POST /invocations` takes what `encdl.serving.service.parse` reads and answers `{"predictions": [...]}`, or a status
from 400 to 499 with `{"error": "one line"}`. `GET /ping` and `/health` answer when the reader is loaded, `/version`
says which EncDL this is. Nothing of a request is logged but its size, its time and why it was refused.
"""

from __future__ import annotations

import asyncio
import contextlib
import logging
import threading
import time
from collections.abc import Callable
from typing import Any

import uvicorn
from starlette.applications import Starlette
from starlette.requests import ClientDisconnect, Request
from starlette.responses import JSONResponse, PlainTextResponse, Response
from starlette.routing import Route
from starlette.types import Receive, Scope, Send

from encdl import __version__
from encdl.serving.service import RefusedError, Service, parse

LOG = logging.getLogger("encdl.serving")
MAX_WAITING = 64
"""Connections at a time; more are told to come back (503)."""
BODY_S = 120.0
"""Seconds that a client may take to send a request's body."""
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
    turn = threading.Semaphore(at_once)

    def answer(body: bytes) -> dict[str, object]:
        records = parse(body)
        with turn:
            return {"predictions": service.answer(records)}

    async def invocations(request: Request) -> Response:
        return await answered(request, "application/json", max_body_bytes, lambda body: JSONResponse(answer(body)))

    return Starlette(routes=[Route("/invocations", invocations, methods=["POST"]), *alive()])


def alive() -> list[Route]:
    """The addresses that say that a server runs, and which."""

    async def ping(request: Request) -> Response:
        return PlainTextResponse("\n")

    async def version(request: Request) -> Response:
        return PlainTextResponse(__version__)

    return [Route("/ping", ping), Route("/health", ping), Route("/version", version)]


async def answered(
    request: Request, content_type: str, max_body_bytes: int, compute: Callable[[bytes], Response]
) -> Response:
    """What `compute` makes of a request's body in a thread, or why not: a status and `{"error": "one line"}`.

    Args:
        request: The request.
        content_type: Bodies of another one are refused.
        max_body_bytes: As `make_app`'s.
        compute: Answers a body, or raises `RefusedError`.
    """
    started = time.monotonic()
    told = ""
    try:
        _check_type(request, content_type)
        body = await _body(request, max_body_bytes)
        response = await asyncio.to_thread(compute, body)
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


def serve(app: Starlette, host: str, sockets: list[object], **tls: Any) -> None:
    """Answer requests on bound sockets until a signal ends the process; `tls` are settings of `uvicorn.Config`."""
    # No access log: it writes addresses in full, and someone may have put a grant into one.
    config = uvicorn.Config(app, host=host, access_log=False, log_level="warning", limit_concurrency=MAX_WAITING, **tls)
    uvicorn.Server(config).run(sockets=sockets)  # type: ignore[arg-type]


def _refusal(error: RefusedError) -> Response:
    content = {"error": str(error)}
    if error.status == 413:
        return Lingering(content, error.status, headers={"Connection": "close"})
    return JSONResponse(content, error.status, headers={"WWW-Authenticate": "Bearer"} if error.status == 401 else None)


def _check_type(request: Request, wanted: str) -> None:
    given = request.headers.get("content-type", "").partition(";")[0].strip().lower()
    if given != wanted:
        raise RefusedError(f"the content type must be {wanted}", 415)


async def _body(request: Request, limit: int) -> bytes:
    """The body, as long as it is no longer than `limit`."""
    too_long = RefusedError(f"the body is longer than {limit:,} bytes", 413)
    announced = request.headers.get("content-length", "")
    if announced.isdecimal() and int(announced) > limit:
        raise too_long
    found = bytearray()
    try:
        async with asyncio.timeout(BODY_S):
            async for part in request.stream():
                found += part
                if len(found) > limit:
                    raise too_long
    except TimeoutError:
        raise RefusedError(f"the body took longer than {BODY_S:.0f} s to come", 408) from None
    return bytes(found)


def _place(error: BaseException) -> str:
    """File and line where an error was raised."""
    trace = error.__traceback__
    while trace is not None and trace.tb_next is not None:
        trace = trace.tb_next
    return f"{trace.tb_frame.f_globals.get('__name__')}:{trace.tb_lineno}" if trace else "?"
