"""The key server: given a file's whole header and a reader's id, it returns the functional key, signed.

`POST /readers/ID/key` with the header's bytes (magic to tag) as `application/octet-stream`, the client's token as
`Authorization: Bearer TOKEN` and `Encdl-Request` (`encdl.serving.requests_seen`) answers with the bytes of a `.fkey`
file, or a status and `{"error": "one line"}`. `POST /two-party/ID/PORT` likewise starts the server's party of a reading
whose host listens at this port, and answers `{"port": ...}`. The server takes no ciphertext, and gives no key.
"""

from __future__ import annotations

import logging
import secrets
import threading
import time
from collections.abc import Callable, Mapping
from datetime import timedelta
from typing import TypeVar

from starlette.applications import Starlette
from starlette.requests import Request
from starlette.responses import JSONResponse, Response
from starlette.routing import Route

from encdl.ciphers.reading_layer import reading_mask
from encdl.files import container
from encdl.files.container.chunk_grid import Grid
from encdl.files.container.header import MAX_HEADER_BYTES, PREFIX, TAG_BYTES
from encdl.keys.derivation import ImageKeys
from encdl.keys.functional import FunctionalKey, noisy
from encdl.keys.grant import utc_now
from encdl.keys.key import Opener
from encdl.keys.signing import SigningKey
from encdl.readers.functional_files import check_channels, grant_from_header
from encdl.readers.two_party.session import BITS, KEYSERVER, Party, free_port
from encdl.serving.app import Intake, alive
from encdl.serving.ledger import BudgetError, Ledger
from encdl.serving.policy import Client, LoadedPolicy
from encdl.serving.requests_seen import HEADER, RequestsSeen
from encdl.serving.service import STATUS, RefusedError
from encdl.serving.tokens import is_of
from encdl.utils.errors import EncdlError, UsageError

Given = TypeVar("Given")
LOCAL = ("127.0.0.1", "::1")
BINARY = "application/octet-stream"
LOG = logging.getLogger("encdl.serving")
PARTIES = 2
"""Two-party readings at a time."""
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
        self.ledger, self.requests = ledger, RequestsSeen()
        self._turn, self._parties = threading.Lock(), threading.BoundedSemaphore(PARTIES)
        self.loaded: LoadedPolicy
        self.clients: list[Client] = []
        self._free: dict[str, tuple[float, float]] = {}
        self.use(loaded)

    def use(self, loaded: LoadedPolicy) -> None:
        """Go by another policy from the next request on; what clients asked in the last minute still counts."""
        clients = loaded.policy.known_clients()
        with self._turn:
            now = self._clock()
            self._free = {
                each.name: self._free.get(each.name, (float(each.requests_per_minute), now)) for each in clients
            }
            self.loaded, self.clients = loaded, clients

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
        return self._logged(token, reader, lambda client, event: self._given(client, reader, head, event))

    def take_part(self, token: str, network: str, port: int, head: bytes) -> int:
        """Start this side of a two-party reading, in a process of its own; the port of its end of the link.

        Every reading is charged anew: the weights are the host's secret, and may be others each time.

        Args:
            token: The client's.
            network: Id of the reader's form.
            port: Of the host's end, on this machine.
            head: The file's header with its tag.

        Raises:
            RefusedError: As `answer`.
        """
        party, own = self._logged(token, network, lambda client, event: self._party(client, network, port, head, event))
        threading.Thread(target=self._finish, args=(party,), daemon=True).start()
        return own

    def _logged(self, token: str, reader: str, give: Callable[[Client, dict[str, object]], Given]) -> Given:
        client = self._admitted(token)
        event: dict[str, object] = {"client": client.name, "reader": ascii(reader)[1:65]}
        try:
            return give(client, event)
        except EncdlError as error:
            kinds = (status for kind, status in STATUS.items() if isinstance(error, kind))
            status = error.status if isinstance(error, RefusedError) else next(kinds, 422)
            refused = RefusedError(str(error), 403 if isinstance(error, BudgetError) else status)
        self.ledger.note({**event, "refused": str(refused)})
        raise refused

    def _given(self, client: Client, reader: str, head: bytes, event: dict[str, object]) -> FunctionalKey:
        loaded, policy = self.loaded, self.loaded.policy
        nonce, grid, _ = self._permitted(loaded, loaded.maps, client, reader, head, event)
        images = 1 if len(loaded.maps[reader].size) == 3 else grid.slices  # a volume that is read as a whole is one
        if images > policy.slices:
            most = f"of at most {policy.slices}" if policy.slices > 1 else "of one"
            raise RefusedError(
                f"the file holds {grid.slices} slices, and keys are given for files {most}: ask for `slices` in the "
                "policy, or encrypt each slice",
                403,
            )
        end = None if policy.hours is None else utc_now() + timedelta(hours=policy.hours)
        noise = float(policy.noise)
        key = grant_from_header(head, self._opener, loaded.maps[reader], noise=noise, signer=self._signer, expires=end)
        budget = policy.bits_per_image * images
        self.ledger.charge(nonce, reader, key.given_bits, noise, budget, event | {"slices": grid.slices})
        return key

    def _party(
        self, client: Client, reader: str, port: int, head: bytes, event: dict[str, object]
    ) -> tuple[Party, int]:
        loaded, noise = self.loaded, float(self.loaded.policy.noise)
        nonce, grid, keys = self._permitted(loaded, loaded.networks, client, reader, head, event)
        network = loaded.networks[reader]
        check_channels(grid, network.channels, "header")
        if grid.slices > 1:
            raise UsageError(f"the file holds {grid.slices} slices, and two parties read one: encrypt each slice")
        if not self._parties.acquire(blocking=False):
            raise RefusedError(f"{PARTIES} two-party readings run already: ask again in a minute", 429)
        try:
            session = f"{reader} {secrets.token_hex(8)}"
            self.ledger.charge(nonce, session, network.given_bits, noise, loaded.policy.bits_per_image, event)
            mask = reading_mask([keys], (1, *network.shape), BITS)[0]
            ports = port, free_port()
            return Party(KEYSERVER, network, ports, {"mask": noisy(mask, keys, noise, BITS)}), ports[1]
        except BaseException:
            self._parties.release()
            raise

    def _finish(self, party: Party) -> None:
        try:
            party.finish()
        except UsageError as error:
            LOG.info("%s", error)
        finally:
            self._parties.release()

    def _permitted(
        self,
        loaded: LoadedPolicy,
        known: Mapping[str, object],
        client: Client,
        reader: str,
        head: bytes,
        event: dict[str, object],
    ) -> tuple[str, Grid, ImageKeys]:
        """Nonce, grid and keys of a file that the client may read with one of the known readers."""
        if reader not in known:
            raise RefusedError("this reader is not registered here: ask the owner of the images", 404)
        if not loaded.names[reader] & set(client.readers):
            raise RefusedError(f"{client.name} may not use this reader: ask the owner of the images", 403)
        header, keys = container.verified_header(head, self._opener)
        event |= {"nonce": header.nonce, "study": header.study}
        if header.study not in client.studies:
            study = f"files of study {header.study}" if header.study else "files without a study"
            raise RefusedError(f"{client.name} may not read {study}: ask the owner of the images", 403)
        return header.nonce, header.grid, keys

    def _admitted(self, token: str) -> Client:
        """The client with this token, if it does not ask too often."""
        with self._turn:
            # No early end: the time tells nothing of whose token is nearly right.
            found = [client for client in self.clients if is_of(token, client.token)]
            if not found:
                raise RefusedError("no client has this token: send yours as `Authorization: Bearer TOKEN`", 401)
            client, rate = found[0], found[0].requests_per_minute
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

    async def asked(request: Request, answer: Callable[[str, bytes], Response]) -> Response:
        scheme, _, token = request.headers.get("authorization", "").partition(" ")
        token = token.strip() if scheme.lower() == "bearer" else ""

        def checked(head: bytearray) -> Response:
            server.requests.check(request.headers.get(HEADER, ""))
            return answer(token, bytes(head))

        return await intake.answered(request, checked)

    async def key(request: Request) -> Response:
        reader = request.path_params["reader"]
        return await asked(
            request, lambda token, head: Response(server.answer(token, reader, head).to_bytes(), media_type=BINARY)
        )

    async def two_party(request: Request) -> Response:
        network, port = request.path_params["network"], request.path_params["port"]

        def answer(token: str, head: bytes) -> Response:
            if request.client is None or request.client.host not in LOCAL or not 0 < port < 1 << 16:
                raise RefusedError("two-party readings are for hosts on this machine, with a port of 1 to 65535", 403)
            return JSONResponse({"port": server.take_part(token, network, port, head)})

        return await asked(request, answer)

    routes = [
        Route("/readers/{reader}/key", key, methods=["POST"]),
        Route("/two-party/{network}/{port:int}", two_party, methods=["POST"]),
    ]
    return Starlette(routes=[*routes, *alive()])
