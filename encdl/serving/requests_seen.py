"""Requests that are too old, or that were answered before: what someone recorded and sends again gets nothing."""

from __future__ import annotations

import re
import secrets
import threading
import time
from collections.abc import Callable
from typing import Final

from encdl.serving.service import RefusedError

HEADER: Final = "Encdl-Request"
"""Of HTTP: seconds since 1970 in UTC, a hyphen, 32 hexadecimal characters that no other request has."""
WINDOW_S: Final = 120
"""How far the clocks of a client and of the server may be apart."""
_FORM = re.compile(r"([0-9]{1,12})-([0-9a-f]{32})")


def new_request() -> str:
    """The header's value for a request that is sent now."""
    return f"{int(time.time())}-{secrets.token_hex(16)}"


class RequestsSeen:
    """Remembers the requests of the last minutes; may be called by several threads at a time.

    Args:
        clock: Seconds since 1970.
    """

    def __init__(self, clock: Callable[[], float] = time.time) -> None:
        self._clock, self._turn = clock, threading.Lock()
        self._seen: dict[str, int] = {}
        self._started = clock()

    def check(self, given: str) -> None:
        """Take a request, once.

        Raises:
            RefusedError: It has no time and number, is older or younger than the window, or was sent before.
        """
        found = _FORM.fullmatch(given)
        if found is None:
            raise RefusedError(f"the request has no time and number: send {HEADER}: SECONDS-32 hexadecimal characters")
        sent, now = int(found[1]), self._clock()
        if sent < now - WINDOW_S:
            raise RefusedError(f"the request expired: it was sent {now - sent:.0f} s ago: check both clocks, ask anew")
        if sent > now + WINDOW_S:
            raise RefusedError(f"the request is from {sent - now:.0f} s ahead: check both clocks")
        with self._turn:
            # What was taken before a restart is forgotten, so that what was sent before it is taken for replayed.
            if given in self._seen or sent < int(self._started):
                raise RefusedError("this request was answered before, or is older than this server: ask anew", 409)
            self._seen = {each: at for each, at in self._seen.items() if at >= now - WINDOW_S}
            self._seen[given] = sent
