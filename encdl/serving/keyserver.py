"""The key server: given a file's whole header and a reader's id, it returns the functional key, signed.

`POST /readers/ID/key` with the header's bytes (magic to tag) as `application/octet-stream` and the client's token as
`Authorization: Bearer TOKEN` answers with the bytes of a `.fkey` file, or a status and `{"error": "one line"}`. It
takes no ciphertext, and gives no key.
"""

from __future__ import annotations

import threading
import time
from collections.abc import Callable
from datetime import timedelta

from starlette.applications import Starlette
from starlette.requests import Request
from starlette.responses import Response
from starlette.routing import Route

from encdl.files import container
from encdl.files.container.header import MAX_HEADER_BYTES, PREFIX, TAG_BYTES
from encdl.keys.functional import FunctionalKey
from encdl.keys.grant import utc_now
from encdl.keys.key import Opener
from encdl.keys.signing import SigningKey
from encdl.readers.functional_files import grant_from_header
from encdl.serving.app import Intake, alive
from encdl.serving.ledger import BudgetError, Ledger
from encdl.serving.policy import Client, LoadedPolicy
from encdl.serving.service import STATUS, RefusedError
from encdl.serving.tokens import is_of
from encdl.utils.errors import EncdlError

BINARY = "application/octet-stream"
MAX_BODY_BYTES = PREFIX.size + MAX_HEADER_BYTES + TAG_BYTES


class KeyServer:
    """Answers clients by the policy; may be called by several threads at a time.

    Args:
        opener: The key, or a grant for a study.
        signer: Signs functional keys.
        loaded: The policy and its readers.
        ledger: Of what was given.
        clock: Seconds, for the rate.
    """

    def __init__(
        self,
        opener: Opener,
        signer: SigningKey,
        loaded: LoadedPolicy,
        ledger: Ledger,
        clock: Callable[[], float] = time.monotonic,
    ) -> None:
        self._opener, self._signer, self._clock = opener, signer, clock
        self.loaded, self.ledger = loaded, ledger
        self.clients = loaded.policy.known_clients()
        self._free = {client.name: (float(client.requests_per_minute), clock()) for client in self.clients}
        self._turn = threading.Lock()

    def answer(self, token: str, reader: str, head: bytes) -> FunctionalKey:
        """The functional key of a file.

        Args:
            token: The client's.
            reader: Id of the reader's map.
            head: The file's header with its tag.

        Raises:
            RefusedError: It is not given. Refusals are logged, but for those of strangers and for the rate: nobody
                shall fill the disk with them.
        """
        client = self._admitted(token)
        event: dict[str, object] = {"client": client.name, "reader": ascii(reader)[1:65]}
        try:
            return self._given(client, reader, head, event)
        except EncdlError as error:
            kinds = (status for kind, status in STATUS.items() if isinstance(error, kind))
            status = error.status if isinstance(error, RefusedError) else next(kinds, 422)
            refused = RefusedError(str(error), 403 if isinstance(error, BudgetError) else status)
        self.ledger.note({**event, "refused": str(refused)})
        raise refused

    def _given(self, client: Client, reader: str, head: bytes, event: dict[str, object]) -> FunctionalKey:
        policy, function = self.loaded.policy, self.loaded.maps.get(reader)
        if function is None:
            raise RefusedError("this reader is not registered here: ask the owner of the images", 404)
        if not self.loaded.names[reader] & set(client.readers):
            raise RefusedError(f"{client.name} may not use this reader: ask the owner of the images", 403)
        header, _ = container.verified_header(head, self._opener)
        event |= {"nonce": header.nonce, "study": header.study}
        if header.study not in client.studies:
            study = f"files of study {header.study}" if header.study else "files without a study"
            raise RefusedError(f"{client.name} may not read {study}: ask the owner of the images", 403)
        end = None if policy.hours is None else utc_now() + timedelta(hours=policy.hours)
        noise = float(policy.noise)
        key = grant_from_header(head, self._opener, function, noise=noise, signer=self._signer, expires=end)
        self.ledger.charge(header.nonce, reader, key.given_bits, noise, policy.bits_per_image, event)
        return key

    def _admitted(self, token: str) -> Client:
        """The client with this token, if it does not ask too often."""
        # No early end: the time tells nothing of whose token is nearly right.
        found = [client for client in self.clients if is_of(token, client.token)]
        if not found:
            raise RefusedError("no client has this token: send yours as `Authorization: Bearer TOKEN`", 401)
        client, rate = found[0], found[0].requests_per_minute
        with self._turn:
            free, since = self._free[client.name]
            now = self._clock()
            free = min(float(rate), free + (now - since) * rate / 60)
            self._free[client.name] = (free - 1 if free >= 1 else free, now)
        if free < 1:
            raise RefusedError(
                f"{client.name} asks more than {rate} times a minute: ask again in {60 / rate:.0f} s", 429
            )
        return client


def make_app(server: KeyServer) -> Starlette:
    """The application."""
    intake = Intake(BINARY, MAX_BODY_BYTES)

    async def key(request: Request) -> Response:
        scheme, _, token = request.headers.get("authorization", "").partition(" ")
        token = token.strip() if scheme.lower() == "bearer" else ""
        reader = request.path_params["reader"]
        return await intake.answered(
            request, lambda head: Response(server.answer(token, reader, head).to_bytes(), media_type=BINARY)
        )

    return Starlette(routes=[Route("/readers/{reader}/key", key, methods=["POST"]), *alive()])
