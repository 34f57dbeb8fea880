"""A host's side of the key server: it sends headers and gets functional keys, and holds no other key."""

from __future__ import annotations

import http.client
import json
import math
import socket
import ssl
import time
from pathlib import Path
from urllib.parse import urlsplit

from encdl.keys.functional import MAX_BYTES, FunctionalKey
from encdl.serving.requests_seen import HEADER, new_request
from encdl.utils.errors import EncdlError, UsageError, without_secrets

LOCAL = ("127.0.0.1", "localhost", "::1")
PATIENCE_S = 60.0
CONNECT_S = 10.0
SAID_CHARACTERS = 300


class KeyServerClient:
    """Asks a key server.

    Args:
        url: `https://HOST:PORT`, or `http://` on this machine.
        token: The client's bearer token.
        authority: Certificates to trust, a PEM file; the system's by default.
        certificate: The client's own and its key, a PEM file, for servers that ask for one.
        again_s: Seconds in which a server that could not be asked is not tried again.

    Raises:
        UsageError: The address is none, would send the token in clear, or a certificate cannot be read.
    """

    def __init__(
        self,
        url: str,
        token: str,
        *,
        authority: Path | None = None,
        certificate: Path | None = None,
        again_s: float = 0.0,
    ) -> None:
        try:
            parts = urlsplit(url)
            host, port = parts.hostname or "", parts.port
        except ValueError:
            host, port = "", None
        if not host or parts.scheme not in {"http", "https"} or parts.path.strip("/") or parts.query:
            raise UsageError(f"--keyserver {url}: give https://HOST:PORT, or http://127.0.0.1:PORT on this machine")
        if parts.scheme == "http" and host not in LOCAL:
            raise UsageError(f"--keyserver {url}: the token would travel in clear: use https://")
        self.url, self._token, self._host, self._port = url, token, host, port
        self._tls = _context(authority, certificate) if parts.scheme == "https" else None
        self._known = certificate is not None
        self._again_s, self._not_before, self._down = again_s, -math.inf, ""

    def key_of(self, head: bytes, reader: str) -> FunctionalKey:
        """The functional key of the file with this header, for the reader with this id.

        Args:
            head: As `PublicReader.head` gives it.
            reader: 64 hexadecimal characters.

        Raises:
            KeyFileError: What the server gave is no functional key.
            UsageError: The server refused, or cannot be reached.
        """
        content = self._ask(f"/readers/{reader}/key", head)
        try:
            return FunctionalKey.from_bytes(content)
        except EncdlError as error:
            raise type(error)(f"what the key server {self.url} gave {error}") from None

    def take_part(self, head: bytes, network: str, port: int) -> int:
        """Ask the server to take part in a two-party reading of the file with this header: the port of its end.

        Args:
            head: As `PublicReader.head` gives it.
            network: Id of the reader's form, 64 hexadecimal characters.
            port: Of this side's end.

        Raises:
            UsageError: The server refused, cannot be reached, or told no port.
        """
        content = self._ask(f"/two-party/{network}/{port}", head)
        try:
            found = json.loads(content)["port"]
            if type(found) is int and 0 < found < 1 << 16:
                return found
        except (ValueError, LookupError, TypeError, RecursionError):
            pass
        raise UsageError(f"the key server {self.url} told no port of its end of the link")

    def _ask(self, path: str, head: bytes) -> bytes:
        """The server's answer; `UsageError` if it refuses."""
        if time.monotonic() < self._not_before:
            raise UsageError(self._down)
        # No redirects and no proxies: the token goes to this server alone.
        connection = (
            http.client.HTTPConnection(self._host, self._port, timeout=CONNECT_S)
            if self._tls is None
            else http.client.HTTPSConnection(self._host, self._port, timeout=CONNECT_S, context=self._tls)
        )
        headers = {"Authorization": f"Bearer {self._token}", "Content-Type": "application/octet-stream"}
        headers[HEADER] = new_request()
        try:
            connection.connect()
            connection.sock.settimeout(PATIENCE_S)
            try:
                connection.request("POST", path, head, headers)
            except OSError:
                connection.sock.recv(1)  # raises what the server said before it hung up, if anything
                raise
            response = connection.getresponse()
            status, content = response.status, response.read(MAX_BYTES + 1)
            if response.length and len(content) <= MAX_BYTES:  # `read` does not tell
                raise http.client.IncompleteRead(content, response.length)
        except (OSError, http.client.HTTPException) as error:
            trouble = _trouble(error, secured=self._tls is not None, known=self._known)
            self._down = f"the key server {self.url} cannot be asked: {trouble}"
            self._not_before = time.monotonic() + self._again_s
            raise UsageError(self._down) from None
        finally:
            connection.close()
        if status != 200:
            raise UsageError(f"the key server {self.url} refused ({status}): {_reason(content)}")
        return content


def _context(authority: Path | None, certificate: Path | None) -> ssl.SSLContext:
    try:
        context = ssl.create_default_context(cafile=authority)
        if certificate is not None:
            context.load_cert_chain(certificate)
    except OSError as error:  # ssl.SSLError is one
        names = ", ".join(str(each) for each in (authority, certificate) if each is not None)
        raise UsageError(f"{names}: no usable PEM file ({error.strerror or error})") from None
    return context


_ALERTS = {
    "EXPIRED": "this client's certificate has expired: get a new one for --tls-certificate",
    "CERTIFICATE_REQUIRED": "it asks for a client's certificate: give --tls-certificate",
    "CERTIFICATE": "it does not accept this client's certificate: give --tls-certificate one that it knows",
    "UNKNOWN_CA": "it does not accept this client's certificate: give --tls-certificate one of an authority it knows",
    "WRONG_VERSION": "it speaks no TLS at this address: check it",
    "HTTP_REQUEST": "it speaks no TLS at this address: check it",
}
"""What OpenSSL's names of what a server said mean, the first that occurs."""
_MISTRUSTED = {
    10: "its certificate has expired: ask who runs it for a new one",
    62: "its certificate is for another host: check the address",
    64: "its certificate is for another host: check the address",
}
"""By OpenSSL's numbers of what is wrong with a certificate."""


def _trouble(error: Exception, *, secured: bool, known: bool) -> str:
    """Why a server gave no answer, and what to do.

    Args:
        error: Of the connection.
        secured: Whether TLS was spoken.
        known: Whether the client has a certificate.
    """
    told = f"{getattr(error, 'strerror', None) or type(error).__name__}: check the address"
    match error:
        case ssl.SSLCertVerificationError():
            other = f"its certificate is not trusted ({error.verify_message}): check --tls-authority"
            told = _MISTRUSTED.get(error.verify_code, other)
        case ssl.SSLError(reason=str(reason)) if found := [each for name, each in _ALERTS.items() if name in reason]:
            told = found[0]
        case socket.gaierror():
            told = "there is no such host: check the address"
        case ConnectionRefusedError():
            told = "nothing listens at this address: check it, and whether the server runs"
        case TimeoutError():
            told = "it does not answer in time: check the address, and whether the server runs"
        case http.client.IncompleteRead():
            told = "it ended before all of its answer was here: ask again"
        case ssl.SSLError() | ConnectionError() if secured and not known:
            told = "it ended the connection: if it asks for a client's certificate, give --tls-certificate"
        case ssl.SSLError() | ConnectionError() if secured:
            told = "it ended the connection: check that it knows the authority of --tls-certificate"
        case ConnectionError() | http.client.HTTPException():
            told = "what it answers is no HTTP: if it speaks TLS, give https://"
    return told


def _reason(content: bytes) -> str:
    """An untrusted server's message, in one printable line."""
    try:
        said = str(json.loads(content)["error"])
    except (ValueError, LookupError, TypeError, RecursionError):
        said = "it gave no reason"
    line = " ".join(said.split())[:SAID_CHARACTERS]
    return without_secrets("".join(each if each.isprintable() else "?" for each in line))
