"""A small HTTP server around a reader: MLflow's protocol, with limits and reasons in one line.

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
LINGER_S, LINGER_BYTES = 10.0, 1 << 27
"""Seconds and bytes that a client may go on sending after a refusal for length."""


class Lingering(JSONResponse):
    """Answers at once, and lets the client send the rest of its request, within bounds, before the connection closes.

    Closed on a client that still sends, it would be reset, and the answer lost on its way.
    """

    async def __call__(self, scope: Scope, receive: Receive, send: Send) -> None:
        """Answer."""
        await send(
            {"type": "http.response.start", "status": self.status_code, "headers": self.raw_headers},
        )
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
        started = time.monotonic()
        status, told = 200, ""
        content: dict[str, object]
        try:
            _check_type(request)
            body = await _body(request, max_body_bytes)
            content = await asyncio.to_thread(answer, body)
        except RefusedError as error:
            status, told, content = error.status, f": {error}", {"error": str(error)}
        except ClientDisconnect:
            return Response(status_code=400)
        except Exception as error:
            # Its text may quote anything; its kind and place cannot.
            status, content = 500, {"error": "the reader failed: see the server's log"}
            told = f": {type(error).__name__} at {_place(error)}"
        LOG.info("%d in %.0f ms%s", status, 1e3 * (time.monotonic() - started), told)
        if status == 413:
            return Lingering(content, status, headers={"Connection": "close"})
        return JSONResponse(content, status)

    async def ping(request: Request) -> Response:
        return PlainTextResponse("\n")

    async def version(request: Request) -> Response:
        return PlainTextResponse(__version__)

    return Starlette(
        routes=[
            Route("/invocations", invocations, methods=["POST"]),
            Route("/ping", ping),
            Route("/health", ping),
            Route("/version", version),
        ]
    )


def serve(app: Starlette, host: str, sockets: list[object]) -> None:
    """Answer requests on bound sockets until a signal ends the process."""
    # No access log: it writes addresses in full, and someone may have put a grant into one.
    config = uvicorn.Config(
        app, host=host, access_log=False, log_level="warning", limit_concurrency=MAX_WAITING
    )
    uvicorn.Server(config).run(sockets=sockets)  # type: ignore[arg-type]


def _check_type(request: Request) -> None:
    given = request.headers.get("content-type", "").partition(";")[0].strip().lower()
    if given != "application/json":
        raise RefusedError("the content type must be application/json", 415)


async def _body(request: Request, limit: int) -> bytes:
    """The body, as long as it is no longer than `limit`."""
    too_long = RefusedError(f"the body is longer than {limit:,} bytes (--max-mb)", 413)
    announced = request.headers.get("content-length", "")
    if announced.isdecimal() and int(announced) > limit:
        raise too_long
    found = bytearray()
    async for part in request.stream():
        found += part
        if len(found) > limit:
            raise too_long
    return bytes(found)


def _place(error: BaseException) -> str:
    """File and line where an error was raised."""
    trace = error.__traceback__
    while trace is not None and trace.tb_next is not None:
        trace = trace.tb_next
    return f"{trace.tb_frame.f_globals.get('__name__')}:{trace.tb_lineno}" if trace else "?"
