"""A key server behind TLS: what hosts are told that cannot speak with it, and connections that only hold it up."""

from __future__ import annotations

import contextlib
import ipaddress
import socket
import ssl
import threading
import time
from collections.abc import Iterator
from datetime import UTC, datetime, timedelta
from pathlib import Path
from typing import Any

import pytest
import requests
from cryptography import x509
from cryptography.hazmat.primitives import hashes, serialization
from cryptography.hazmat.primitives.asymmetric import ec

from encdl.cli import main as encdl
from encdl.serving import connections
from encdl.serving.key_client import KeyServerClient
from encdl.serving.keyserver import make_app
from encdl.utils.errors import UsageError
from tests.serving.owner import BITS, head, reader_id, server, token
from tests.serving.support import is_open, running


def certificate(name: str, issuer: Any = None, hours: int = 1) -> Any:
    """Write `NAME.pem`, certificate and key, of an authority or signed by one; what the next is signed with."""
    key = ec.generate_private_key(ec.SECP256R1())
    subject = x509.Name([x509.NameAttribute(x509.NameOID.COMMON_NAME, name)])
    signer, signing = issuer or (subject, key)
    here = [x509.IPAddress(ipaddress.ip_address("127.0.0.1"))]
    made = (
        x509.CertificateBuilder(signer, subject, key.public_key(), x509.random_serial_number())
        .not_valid_before(datetime.now(UTC) - timedelta(hours=9))
        .not_valid_after(datetime.now(UTC) + timedelta(hours=hours))
        .add_extension(x509.BasicConstraints(issuer is None, None), critical=True)
        .add_extension(x509.SubjectAlternativeName(here), critical=False)
        .sign(signing, hashes.SHA256())
    )
    pem = serialization.Encoding.PEM
    secret = key.private_bytes(pem, serialization.PrivateFormat.PKCS8, serialization.NoEncryption())
    Path(f"{name}.pem").write_bytes(made.public_bytes(pem) + secret)
    return subject, key


def context(name: str, authority: str | None = None) -> ssl.SSLContext:
    made = ssl.SSLContext(ssl.PROTOCOL_TLS_SERVER)
    made.load_cert_chain(f"{name}.pem")
    if authority is not None:
        made.load_verify_locations(f"{authority}.pem")
        made.verify_mode = ssl.CERT_REQUIRED
    return made


@pytest.fixture
def certificates(folder: Path) -> None:
    authority = certificate("authority")
    for name in ("host", "client"):
        certificate(name, authority)
    certificate("expired", authority, hours=-1)
    certificate("stranger")


@pytest.fixture
def guarded(certificates: None) -> Iterator[str]:
    """The address of a server that asks for certificates."""
    with running(make_app(server()), tls=context("host", "authority")) as address:
        yield address


CLIENTS: dict[str, tuple[str | None, str | None, str]] = {
    "no certificate": ("authority", None, "it asks for a client's certificate: give --tls-certificate"),
    "of another authority": ("authority", "stranger", "it does not accept this client's certificate"),
    "expired": ("authority", "expired", "this client's certificate has expired"),
    "trusts nobody": (
        None,
        "client",
        "its certificate is not trusted (self-signed certificate in certificate chain): check --tls-authority",
    ),
}


def predict(address: str, *options: str) -> int:
    words = ["predict", "a.encdl", "b.encdl", "--reader", "r.ckpt", "--device", "cpu", "--keyserver", address]
    return encdl([*words, "--token-file", "ward.token", *options])


@pytest.mark.parametrize("name", CLIENTS)
def test_certificates_that_are_not_taken(guarded: str, name: str, capsys: pytest.CaptureFixture[str]) -> None:
    trusted, own, said = CLIENTS[name]
    options = [] if trusted is None else ["--tls-authority", f"{trusted}.pem"]
    options += [] if own is None else ["--tls-certificate", f"{own}.pem"]
    assert predict(guarded, *options) == 2
    first, *rest = capsys.readouterr().err.splitlines()
    assert f"a.encdl: the key server {guarded} cannot be asked: {said}" in first
    assert [line for line in rest if "SSL" in line or "_" in line.replace("a.encdl", "")] == []


def test_a_certificate_that_is_taken(guarded: str) -> None:
    client = KeyServerClient(guarded, token("ward"), authority=Path("authority.pem"), certificate=Path("client.pem"))
    assert client.key_of(head("a"), reader_id("r")).given_bits == BITS


@pytest.mark.parametrize(
    ("name", "scheme", "host", "said"),
    [
        ("expired", "https", "127.0.0.1", "its certificate has expired: ask who runs it"),
        ("host", "https", "localhost", "its certificate is for another host"),
        ("host", "http", "127.0.0.1", "if it speaks TLS, give https://"),
        (None, "https", "127.0.0.1", "it speaks no TLS at this address"),
    ],
)
def test_servers_that_are_not_trusted(certificates: None, name: str | None, scheme: str, host: str, said: str) -> None:
    with running(make_app(server()), tls=None if name is None else context(name)) as address:
        url = f"{scheme}://{host}:{address.rpartition(':')[2]}"
        client = KeyServerClient(url, token("ward"), authority=Path("authority.pem"))
        with pytest.raises(UsageError) as caught:
            client.key_of(head("a"), reader_id("r"))
    assert str(caught.value).startswith(f"the key server {url} cannot be asked: ")
    assert said in str(caught.value)


@pytest.mark.parametrize(
    ("answered", "said"),
    [
        (b"", "what it answers is no HTTP"),
        (b"HTTP/1.1 200 OK\r\nContent-Length: 9\r\n\r\nhalf", "it ended before all of its answer was here: ask again"),
    ],
)
def test_a_server_that_goes_down_is_asked_once(
    folder: Path, answered: bytes, said: str, capsys: pytest.CaptureFixture[str]
) -> None:
    server()
    asked = []

    def answer(bound: socket.socket) -> None:
        with contextlib.suppress(OSError):
            while True:
                connection, _ = bound.accept()
                asked.append(connection)
                connection.sendall(answered)
                connection.shutdown(socket.SHUT_WR)
                while answered and connection.recv(10_000):
                    pass
                connection.close()

    with socket.create_server(("127.0.0.1", 0)) as bound:
        threading.Thread(target=answer, args=(bound,), daemon=True).start()
        assert predict(f"http://127.0.0.1:{bound.getsockname()[1]}") == 2
        bound.shutdown(socket.SHUT_RDWR)
    first, second, _ = capsys.readouterr().err.splitlines()
    assert "a.encdl: the key server" in first
    assert said in first
    assert "b.encdl: the key server" in second
    assert len(asked) == 1


@pytest.mark.parametrize("sent", [b"", bytes.fromhex("16030100c8010000c40303")], ids=["nothing", "half a ClientHello"])
def test_handshakes_have_their_time_and_shut_nobody_out(
    certificates: None, sent: bytes, monkeypatch: pytest.MonkeyPatch
) -> None:
    with running(make_app(server()), tls=context("host")) as address:
        port = int(address.rpartition(":")[2])

        def ping() -> int:
            return requests.get(f"{address}/ping", timeout=5, verify="authority.pem").status_code

        with contextlib.ExitStack() as stack:
            held = [stack.enter_context(socket.create_connection(("127.0.0.1", port))) for _ in range(300)]
            for each in held:
                with contextlib.suppress(OSError):
                    each.sendall(sent)
            assert [ping() for _ in range(3)] == [200] * 3
            assert 0 < sum(map(is_open, held)) <= connections.MAX_A_CLIENT
        monkeypatch.setattr(connections, "HEAD_S", 0.3)
        with socket.create_connection(("127.0.0.1", port), timeout=20) as client:
            client.sendall(sent)
            started = time.monotonic()
            with contextlib.suppress(ConnectionError):
                assert client.recv(1) == b""
            assert 0.2 < time.monotonic() - started < 5


def test_a_farewell_that_is_not_answered_has_its_time(certificates: None) -> None:
    """A client that keeps its end open after its answer."""
    trusting = ssl.create_default_context(cafile="authority.pem")
    with running(make_app(server()), tls=context("host")) as address:
        port = int(address.rpartition(":")[2])
        with socket.create_connection(("127.0.0.1", port), timeout=20) as bare:
            client = trusting.wrap_socket(bare, server_hostname="127.0.0.1", suppress_ragged_eofs=True)
            client.sendall(b"GET /ping HTTP/1.1\r\nHost: x\r\nConnection: close\r\n\r\n")
            assert client.recv(100).startswith(b"HTTP/1.1 200")
            raw, started = socket.socket(fileno=client.detach()), time.monotonic()
            raw.settimeout(20)
            with raw, contextlib.suppress(ConnectionError):
                while raw.recv(1000):
                    pass
            assert time.monotonic() - started < 8
