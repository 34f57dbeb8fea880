"""Two-party reading of `.encdl` files: the host's part."""

from __future__ import annotations

import os
from collections.abc import Callable
from pathlib import Path

import numpy as np
import torch

from encdl.files import container
from encdl.files.reading import ReadingLayer
from encdl.keys.signing import PublicKey
from encdl.readers.answers import Answer
from encdl.readers.reader import load
from encdl.readers.two_party.environment import interpreter
from encdl.readers.two_party.network import network_of
from encdl.readers.two_party.session import BITS, HOST, Party, free_port
from encdl.utils.errors import EncdlError, UsageError, WeightsError

Ask = Callable[[bytes, str, int], int]
"""Asks a key server to take part: a file's header, the network's id, the port of the host's end; its own end's port."""


class TwoPartyPredictor:
    """Reads encrypted files together with a key server; learns the answers, and nothing else of the images.

    Args:
        checkpoint: Of a reader of view TwoParty.
        owner: The owner's public key: files that they did not sign, or that were changed since, are refused.

    Raises:
        WeightsError: The checkpoint is missing, or of another kind.
        UsageError: There is no environment of SPU.
    """

    per_pixel = False

    def __init__(self, checkpoint: str | os.PathLike[str], owner: PublicKey | None = None) -> None:
        path = Path(checkpoint)
        loaded = load(path)
        try:
            self.network, self._weights = network_of(loaded)
        except WeightsError as error:
            raise WeightsError(f"{path}: {error}") from None
        self.classes, self.owner = loaded.classes, owner
        interpreter()

    def read(self, path: str | os.PathLike[str], ask: Ask) -> Answer:
        """Read one file; the key server is asked only for a file that this reader can read, as its owner signed it.

        Raises:
            ContainerError: Missing, damaged, or not as its owner signed it.
            UsageError: It has no reading layer that this reader reads, or the key server or SPU failed.
        """
        with container.opened_without_key(path, mend=self.owner is None) as reader:
            if self.owner is not None:
                reader.check_signature(self.owner)
            layer = ReadingLayer.mended(reader)
            if layer is None or layer.words.shape != (1, *self.network.shape) or layer.bits != BITS:
                shape = "x".join(map(str, self.network.shape))
                raise UsageError(
                    f"{path}: has no reading layer of {shape} in {BITS} bits: encrypt such an image with --readable "
                    f"{max(self.network.shape[1:])}"
                )
            head = reader.head
        port = free_port()
        try:
            ports = port, ask(head, self.network.id, port)
            found = Party(HOST, self.network, ports, {"ciphertext": layer.words, **self._weights}).reading()
        except EncdlError as error:
            raise type(error)(f"{path}: {error}") from None
        return Answer(torch.from_numpy(found.logits[0]), (layer.words[0] & 255).astype(np.uint8))
