"""The two processes of a reading, each of one party, and the link between them on this machine."""

from __future__ import annotations

import io
import json
import os
import socket
import subprocess
import threading
from collections.abc import Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Any, Final

import numpy as np
import numpy.typing as npt

from encdl.files.reading import level_bits_of
from encdl.readers.two_party import engine
from encdl.readers.two_party.environment import interpreter
from encdl.readers.two_party.network import Network
from encdl.utils.errors import UsageError
from encdl.utils.worker_process import KEPT

HOST, KEYSERVER = RANKS = (0, 1)
BITS: Final = 32
"""Of a word of the reading layer."""
LOCAL: Final = "127.0.0.1"
PATIENCE_S: Final = 600.0
_SAID: Final = 300

Arrays = Mapping[str, npt.NDArray[Any]]


@dataclass(frozen=True)
class Reading:
    """The host's result.

    Attributes:
        logits: float32 (B, classes).
        seconds: Of each repetition; the first one has the parties' oblivious transfers in it.
        moved: Bytes that the host sent and received, of each repetition.
    """

    logits: npt.NDArray[np.float32]
    seconds: list[float]
    moved: list[int]


class Party:
    """A process that takes part in a reading, in the environment of SPU.

    Args:
        rank: `HOST` or `KEYSERVER`.
        network: What is computed.
        ports: Of the host's end of the link, and of the key server's.
        own: The host's `ciphertext` (B, C, H, W) and weights, or the key server's `mask`.
        repeats: How often, to take times.

    Raises:
        UsageError: There is no environment of SPU.
    """

    def __init__(self, rank: int, network: Network, ports: tuple[int, int], own: Arrays, repeats: int = 1) -> None:
        words = own["ciphertext" if rank == HOST else "mask"]
        job = {
            "rank": rank,
            "addresses": [f"{LOCAL}:{port}" for port in ports],
            "images": len(words),
            "shape": network.shape,
            "widths": network.widths,
            "classes": network.classes,
            "bits": BITS,
            "level_bits": level_bits_of((1, *network.shape), BITS),
            "repeats": repeats,
        }
        content = io.BytesIO()
        # Channels last, as the engine's convolutions take them.
        last = {name: array.transpose(0, 2, 3, 1) if array is words else array for name, array in own.items()}
        text = np.frombuffer(json.dumps(job).encode(), np.uint8)
        np.savez(content, job=text, **last)  # type: ignore[arg-type]
        self._job = content.getvalue()
        environment = {name: os.environ[name] for name in KEPT if name in os.environ} | {"JAX_PLATFORMS": "cpu"}
        self._process = subprocess.Popen(
            [interpreter(), "-I", Path(engine.__file__)],
            stdin=subprocess.PIPE,
            stdout=subprocess.PIPE,
            stderr=subprocess.PIPE,
            env=environment,
        )

    def finish(self) -> bytes:
        """Wait for its end; what it answers.

        Raises:
            UsageError: It failed, or took too long.
        """
        try:
            answer, said = self._process.communicate(self._job, PATIENCE_S)
        except subprocess.TimeoutExpired:
            raise UsageError(
                f"the two-party reading took longer than {PATIENCE_S:.0f} s: is the other side there?"
            ) from None
        finally:
            self.stop()
        if self._process.returncode:
            lines = [line for line in said.decode(errors="replace").splitlines() if "rror" in line]
            reason = " ".join((lines or ["it said nothing"])[-1].split())[:_SAID]
            raise UsageError(f"the two-party reading failed ({reason}): is the other side there, and its SPU the same?")
        return answer

    def reading(self) -> Reading:
        """The answer of the host's process; as `finish`."""
        with np.load(io.BytesIO(self.finish()), allow_pickle=False) as archive:
            told = json.loads(bytes(archive["told"]))
            return Reading(archive["logits"].astype(np.float32), told["seconds"], told["bytes"])

    def stop(self) -> None:
        """End it, if it still runs."""
        if self._process.poll() is None:
            self._process.kill()
        self._process.wait()


def free_port() -> int:
    """A port of this machine that nobody listens on."""
    with socket.socket() as bound:
        bound.bind((LOCAL, 0))
        port: int = bound.getsockname()[1]
    return port


def read_here(network: Network, host: Arrays, mask: npt.NDArray[Any], repeats: int = 1) -> Reading:
    """Both parties on this machine, as two processes: to measure.

    Args:
        network: What is computed.
        host: `ciphertext`, uint32 (B, C, H, W), and the weights.
        mask: uint32 (B, C, H, W).
        repeats: How often.

    Raises:
        UsageError: As `Party`.
    """
    ports = free_port(), free_port()
    server = Party(KEYSERVER, network, ports, {"mask": mask}, repeats)
    try:
        client = Party(HOST, network, ports, host, repeats)
        waiting = threading.Thread(target=_quietly, args=(server,))
        waiting.start()
        found = client.reading()
        waiting.join()
    finally:
        server.stop()
    return found


def _quietly(party: Party) -> None:
    """Wait for a party whose failure the other one tells."""
    try:
        party.finish()
    except UsageError:
        return
