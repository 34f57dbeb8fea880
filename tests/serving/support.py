"""Readers, records and running servers for the tests of serving."""

from __future__ import annotations

import base64
import socket
import ssl
import threading
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import Any

import numpy as np
import uvicorn
from starlette.applications import Starlette

from encdl.ciphers.weights import load
from encdl.files import container
from encdl.files.codec import Codec
from encdl.files.images import Array
from encdl.files.settings import Settings
from encdl.keys.key import Key
from encdl.keys.planes import PlaneSpec
from encdl.readers.predictor import Predictor
from encdl.serving.app import make_app
from encdl.serving.connections import configured
from encdl.serving.service import Service
from tests.reader_checkpoint import SIZE, save_reader, tiny_reader

Record = dict[str, str]


def noise(seed: int = 0, shape: tuple[int, ...] = SIZE) -> Array:
    return np.random.default_rng(seed).integers(0, 256, shape, dtype=np.uint8)


def record(folder: Path, key: Key, image: Array, study: str = "") -> Record:
    """An image as a server takes it: encrypted with the shipped weights, with a grant for it alone."""
    cipher = load("default")
    codec = Codec(cipher.cipher, cipher.id)
    file, grant = folder / "record.encdl", folder / "record.grant"
    file.write_bytes(codec.encrypt_array(image, key, Settings(PlaneSpec(), study=study)))
    key.grant_file(container.read_header(file).nonce_bytes, study).save(grant, force=True)
    return {"container": base64.b64encode(file.read_bytes()).decode(), "grant": grant.read_text().strip()}


def reader_file(folder: Path, backbone: type[Any]) -> Path:
    return save_reader(folder / "reader.ckpt", tiny_reader(backbone))


def service(folder: Path, backbone: type[Any]) -> Service:
    return Service(Predictor.load(reader_file(folder, backbone)))


@contextmanager
def running(
    app: Service | Starlette, max_body_bytes: int = 100_000, tls: ssl.SSLContext | None = None
) -> Iterator[str]:
    """A server in this process; gives its address."""
    made = make_app(app, max_body_bytes) if isinstance(app, Service) else app
    with socket.create_server(("127.0.0.1", 0)) as bound:
        config = configured(made, tls)
        server = uvicorn.Server(config)
        thread = threading.Thread(target=server.run, kwargs={"sockets": [bound]})
        thread.start()
        try:
            yield f"http{'s' if tls else ''}://127.0.0.1:{bound.getsockname()[1]}"
        finally:
            server.should_exit = True
            thread.join(30)
    assert not thread.is_alive()


def is_open(client: socket.socket) -> bool:
    """Nothing was said, and it was not ended."""
    client.settimeout(0.01)
    try:
        client.recv(1)
    except TimeoutError:
        return True
    except OSError:
        pass
    finally:
        client.settimeout(20)
    return False
