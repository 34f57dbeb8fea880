"""Functional keys of `.encdl` files: made with the key, used without one.

Both sides read the file's reading layer (`encdl.files.reading`). Whoever makes a functional key verifies the file's
header first; who uses it has no key, and so verifies what is signed.
"""

from __future__ import annotations

import hashlib
import os
from collections.abc import Callable
from datetime import datetime
from pathlib import Path

import numpy as np
import torch

from encdl.ciphers.reading_layer import reading_mask
from encdl.files import container
from encdl.files.container import PublicReader
from encdl.files.container.chunk_grid import Grid
from encdl.files.reading import ReadingLayer
from encdl.keys.functional import FunctionalKey
from encdl.keys.functional_map import FunctionalMap, centred
from encdl.keys.key import Opener
from encdl.keys.signing import PublicKey, SigningKey
from encdl.readers.functional import FunctionalStem
from encdl.readers.predictor import Answer
from encdl.readers.reader import LoadedReader, load
from encdl.utils.errors import EncdlError, UsageError, WeightsError


def functional_stem(loaded: LoadedReader) -> FunctionalStem:
    """The stem of a reader that functional keys are made for.

    Raises:
        WeightsError: The reader is of another kind, or reads ciphertexts themselves.
    """
    stem = loaded.reader.stem
    if not isinstance(stem, FunctionalStem) or stem.form != "layer":
        raise WeightsError(
            f"the reader was trained on view {loaded.view} and takes no functional key: give one that was trained with "
            "view Functional, form layer"
        )
    return stem


def grant_functional(
    path: str | os.PathLike[str],
    opener: Opener,
    loaded: LoadedReader,
    *,
    noise: float = 0.0,
    signer: SigningKey | None = None,
    expires: datetime | None = None,
) -> FunctionalKey:
    """The functional key of a file for one reader.

    Args:
        path: An `.encdl` file with a reading layer.
        opener: The key, or a grant for the file or its study.
        loaded: The reader.
        noise: Standard deviation in the layer's levels; see `FunctionalKey.issue`.
        signer: Signs it, so that hosts can tell who made it.
        expires: When EncDL begins to refuse it.

    Raises:
        ContainerError: The file is missing, or its header or layer was changed.
        UsageError: It has no reading layer that this reader reads.
        WrongKeyError: The key or grant is for something else.
        WeightsError: The reader takes no functional keys.
    """
    function = functional_stem(loaded).map.frozen()
    with container.opened(path, opener) as reader:
        _layer(reader, function)
        return grant_from_header(
            reader.head, opener, function, noise=noise, signer=signer, expires=expires, where=reader.where
        )


def grant_from_header(
    head: bytes,
    opener: Opener,
    function: FunctionalMap,
    *,
    noise: float = 0.0,
    signer: SigningKey | None = None,
    expires: datetime | None = None,
    where: object = "header",
) -> FunctionalKey:
    """The functional key of a file of which only the header is here: what a key server needs.

    The mask depends on the layer's shape too, so that a layer of another shape gets the numbers of an unrelated mask.

    Args:
        head: The file's first bytes, as `PublicReader.head` gives them; their tag is verified.
        opener: The key, or a grant for the file or its study.
        function: The reader's map.
        noise: See `FunctionalKey.issue`, as for the others.
        signer: Signs it.
        expires: When EncDL begins to refuse it.
        where: What errors call the file.

    Raises:
        ContainerError: They are no header, or were changed.
        UsageError: The file has several slices, or other channels than the map.
        WrongKeyError: The key or grant is for something else.
    """
    header, keys = container.verified_header(head, opener, where)
    channels = function.weights.shape[1]
    check_channels(header.grid, channels, where)
    mask = reading_mask([keys], (1, channels, *function.size), function.bits)[0]
    digest = hashlib.sha256(head).digest()
    return FunctionalKey.issue(function, mask, keys, digest, noise=noise, signing_key=signer, expires=expires)


def check_channels(grid: Grid, channels: int, where: object) -> None:
    """Refuse, by a `UsageError`, a file of several slices, or of other channels than a reader takes."""
    if grid.slices != 1:
        raise _several(where, grid.slices)
    if grid.channels != channels:
        raise UsageError(f"{where}: has {grid.channels} channels, the reader takes {channels}")


class FunctionalPredictor:
    """Reads encrypted files with functional keys; there is no key in this process.

    Args:
        loaded: The reader.
        server: The key server's public key: functional keys that it did not sign are refused.
        owner: The owner's public key: files that they did not sign, or that were changed since, are refused.

    Raises:
        WeightsError: The reader takes no functional keys.
    """

    def __init__(self, loaded: LoadedReader, server: PublicKey | None = None, owner: PublicKey | None = None) -> None:
        self.stem = functional_stem(loaded)
        self.function = self.stem.map.frozen()
        self.reader, self.classes, self.server, self.owner = loaded.reader, loaded.classes, server, owner
        self.per_pixel = loaded.reader.backbone.per_pixel

    @classmethod
    def load(
        cls,
        checkpoint: str | os.PathLike[str],
        *,
        device: str = "cpu",
        server: PublicKey | None = None,
        owner: PublicKey | None = None,
    ) -> FunctionalPredictor:
        """Load a checkpoint of a reader; errors name it."""
        path = Path(checkpoint)
        loaded = load(path, device)
        try:
            return cls(loaded, server, owner)
        except WeightsError as error:
            raise WeightsError(f"{path}: {error}") from None

    def read(self, path: str | os.PathLike[str], key: FunctionalKey | Callable[[bytes], FunctionalKey]) -> Answer:
        """Read one file.

        Args:
            path: An `.encdl` file with a reading layer.
            key: Of this file, for this reader; or what gives it for the file's header, and is asked only for a file
                that this reader can read, as its owner signed it.

        Returns:
            Logits, of a segmenter at the layer's size; the lowest byte of the layer's words stands for the ciphertext.

        Raises:
            ContainerError: Missing, damaged, or not as its owner signed it.
            WrongKeyError: The functional key is for another file or reader, is over, or is not the server's.
            UsageError: The file has no reading layer that this reader reads.
        """
        with container.opened_without_key(path, mend=self.owner is None) as reader:
            if self.owner is not None:
                reader.check_signature(self.owner)
            layer = _layer(reader, self.function)
            try:
                key = key if isinstance(key, FunctionalKey) else key(reader.head)
                key.check(self.function, hashlib.sha256(reader.head).digest(), self.server)
                numbers = centred(key.seen(self.function, layer.words))
            except EncdlError as error:
                raise type(error)(f"{path}: {error}") from None
        logits = self._logits(torch.from_numpy(numbers), layer)
        return Answer(logits, (layer.words[0] & 255).astype(np.uint8))

    @torch.no_grad()
    def _logits(self, numbers: torch.Tensor, layer: ReadingLayer) -> torch.Tensor:
        device = next(self.reader.parameters()).device
        features = self.stem.of_centred(numbers.to(device), layer.level_bits, layer.whole)
        logits: torch.Tensor = self.reader.backbone(features)
        return logits[0].float().cpu()


def _layer(reader: PublicReader, function: FunctionalMap) -> ReadingLayer:
    """A file's reading layer, if the map can read it."""
    where = reader.where
    layer = ReadingLayer.mended(reader)
    side = max(function.size)
    if layer is None:
        raise UsageError(f"{where}: has no reading layer: encrypt it with --readable {side}")
    slices, *shape = layer.words.shape
    wanted = [function.weights.shape[1], *function.size]
    if slices != 1:
        raise _several(where, slices)
    if shape != wanted or layer.bits != function.bits:
        found, expected = ("x".join(map(str, each)) for each in (shape, wanted))
        raise UsageError(
            f"{where}: its reading layer is {found} in {layer.bits} bits, the reader takes {expected} in "
            f"{function.bits}: encrypt an image of that form with --readable {side}"
        )
    return layer


def _several(where: object, slices: int) -> UsageError:
    return UsageError(f"{where}: holds {slices} slices, and readers take one image a file: encrypt each slice")
