"""Reading `.encdl` files with a network: from ciphertext and key to classes and masks, never to the image.

A file is verified, its post-processing undone, and the mask of each pixel computed from ciphertext and key
(`Cipher.field`). Both go into the reader, whose first tensor that depends on the image alone holds features, not
pixels (`encdl.readers.stems`). Decryption is never called, and nothing that it would give is written.
"""

from __future__ import annotations

import os
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np
import numpy.typing as npt
import torch
from torch import Tensor

from encdl import readers
from encdl.ciphers import weights
from encdl.files import container
from encdl.files.chunk_cipher import device_errors
from encdl.files.codec import Codec
from encdl.files.container import Header
from encdl.files.formats.verbatim import CARRIED
from encdl.keys.key import Opener
from encdl.readers import LoadedReader, NoReaderError, PlainStem, Reader
from encdl.utils.errors import ContainerError, UsageError, WeightsError

MAX_MASK_CLASSES = 256


@dataclass(frozen=True)
class Answer:
    """The logits of one file.

    Attributes:
        logits: float32 on the CPU: (classes,) of a classifier, (classes, H, W) of a segmenter.
        ciphertext: The body of the file as it lies on the disk, uint8 (C, H, W).
    """

    logits: Tensor
    ciphertext: npt.NDArray[np.uint8]

    @property
    def probabilities(self) -> npt.NDArray[np.float32]:
        """The softmax of the logits over the classes, of the same shape."""
        values: npt.NDArray[np.float32] = self.logits.softmax(0).numpy()
        return values

    @property
    def best(self) -> npt.NDArray[np.uint8]:
        """Index of the likeliest class: uint8 () of a classifier, (H, W) of a segmenter."""
        indices: npt.NDArray[np.uint8] = self.logits.argmax(0).to(torch.uint8).numpy()
        return indices


class Predictor:
    """Reads encrypted files with one reader.

    Args:
        loaded: The reader.
        trained_on: The cipher in the reader's checkpoint.
        cipher: The cipher that the files were made with; the same one by default.
        any_size: Let a classifier read images of another size than it was trained on.

    Raises:
        WeightsError: The reader cannot read this cipher's files.
    """

    def __init__(
        self,
        loaded: LoadedReader,
        trained_on: weights.LoadedCipher,
        cipher: weights.LoadedCipher | None = None,
        any_size: bool = False,
    ) -> None:
        cipher = cipher or trained_on
        device = next(cipher.cipher.parameters()).device
        self.classes, self.size, self.any_size = loaded.classes, loaded.size, any_size
        self.reader = _for_ciphertext(loaded, trained_on, cipher)
        self.per_pixel = self.reader.backbone.per_pixel
        self.codec = Codec(cipher.cipher, cipher.id, device)
        if len(self.classes) > MAX_MASK_CLASSES:
            raise WeightsError(
                f"the reader tells {len(self.classes)} classes, more than {MAX_MASK_CLASSES}: its answers fit no byte"
            )

    @classmethod
    def load(
        cls,
        checkpoint: str | os.PathLike[str],
        *,
        weights_of_files: str | None = None,
        device: str = "cpu",
        any_size: bool = False,
    ) -> Predictor:
        """Load a checkpoint of a reader, with the cipher that it was trained on.

        Args:
            checkpoint: What training a reader wrote.
            weights_of_files: Name or file of the cipher weights that the files were made with, if others.
            device: Where to compute.
            any_size: See the class.

        Raises:
            WeightsError: A file is missing, damaged or of another kind, or the two do not go together.
        """
        path = Path(checkpoint)
        loaded = _reader_in(path, device)
        trained_on = weights.load(path, device)
        cipher = None if weights_of_files is None else weights.load(weights_of_files, device)
        try:
            return cls(loaded, trained_on, cipher, any_size)
        except WeightsError as error:
            raise WeightsError(f"{path}: {error}") from None

    def read(self, path: str | os.PathLike[str], opener: Opener) -> Answer:
        """Read one file.

        Args:
            path: An `.encdl` file.
            opener: The key, or a grant for the file or its study.

        Raises:
            ContainerError: Missing, damaged, or no such file.
            WrongKeyError: The key or grant is for something else.
            WeightsError: The file was made with other weights, or the reader's diverged in training.
            UsageError: The image is one that this reader cannot read, or is too large for the memory.
        """
        where = Path(path)
        try:
            with container.opened(where, opener) as reader:
                if reader.metadata is not None and reader.metadata.format == CARRIED:
                    raise UsageError(f"{where}: holds no image: another file was sealed there as it is")
                self._check(where, reader.header)
                (image,) = self.codec.cipher_slices(reader)
            with device_errors(self.codec.device):
                logits = self._logits(where, image.ciphertext, image.mask)
        except MemoryError:
            raise UsageError(f"{where}: out of memory: use a smaller image, or a machine with more") from None
        except OSError as error:  # the disk or the network failed while the file was read
            raise ContainerError(f"{where}: cannot be read ({error.strerror or error}): try again") from None
        if not bool(logits.isfinite().all()):
            raise WeightsError(f"{where}: the reader's answer is no number: its training diverged")
        return Answer(logits, image.body)

    @torch.no_grad()
    def _logits(self, where: Path, ciphertext: Tensor, mask: Tensor) -> Tensor:
        try:
            if self.per_pixel:
                logits = readers.read_windows(self.reader, ciphertext, mask, self.size)
            else:
                logits = self.reader(ciphertext, mask)
        except RuntimeError:
            height, width = ciphertext.shape[2:]
            if height >= self.size[0] and width >= self.size[1]:
                raise
            # A network that pools has nothing left to pool.
            raise UsageError(
                f"{where}: {height}x{width} pixels are too few for this reader: it was trained on {_by(self.size)}"
            ) from None
        return logits[0].float().cpu()

    def _check(self, where: Path, header: Header) -> None:
        """Refuse what cannot be read in the ciphertext, before anything is computed."""
        if (header.cipher, header.weights) != (self.codec.cipher.name, self.codec.weights_id):
            raise WeightsError(
                f"{where}: was made by cipher {header.cipher!r} with weights {header.weights}, this reader is for "
                f"{self.codec.cipher.name!r} with {self.codec.weights_id}: give the file's weights with --weights"
            )
        if header.dtype != "uint8":
            raise UsageError(
                f"{where}: holds {header.dtype} levels, which are encrypted byte by byte, and readers take 8-bit "
                "images: convert it to 8 bit before encrypting"
            )
        grid = header.grid
        if grid.slices > 1:
            raise UsageError(
                f"{where}: holds {grid.slices} slices, and readers take one image a file: encrypt each slice"
            )
        channels = grid.channels
        if channels != self.reader.stem.channels:
            raise UsageError(
                f"{where}: has {_channels(channels)}, the reader takes {_channels(self.reader.stem.channels)}: "
                "encrypt the image in that form (of a stack, each slice)"
            )
        if not self.per_pixel and not self.any_size and (grid.height, grid.width) != self.size:
            raise UsageError(
                f"{where}: is {_by((grid.height, grid.width))} pixels, the reader was trained on {_by(self.size)}: "
                "encrypt it at that size, or --any-size reads it as it is, less reliably"
            )


def _reader_in(path: Path, device: str) -> LoadedReader:
    """The reader in a checkpoint; the error of one without says so if a cipher is all that it holds."""
    try:
        return readers.load(path, device)
    except NoReaderError as error:
        try:
            found = weights.load(path)
        except WeightsError:
            raise error from None
        raise WeightsError(
            f"{path}: holds a cipher ({found.cipher.name}, weights {found.id}) and no reader: give the checkpoint of a "
            "classifier or segmenter as the reader, and this as the weights if the files were made with it"
        ) from None


def _for_ciphertext(loaded: LoadedReader, trained_on: weights.LoadedCipher, cipher: weights.LoadedCipher) -> Reader:
    """The reader of this cipher's ciphertext that the checkpoint's weights make."""
    stem = loaded.reader.stem
    plain = isinstance(stem, PlainStem) and loaded.view == "Plaintext"
    if not stem.keyed and not plain:
        raise WeightsError(
            f"was trained without the key (view {loaded.view}, {type(stem).__name__}): give a reader that was trained "
            "on ciphertext with the key, or on plaintext"
        )
    if plain and not cipher.cipher.exact:
        raise WeightsError(
            f"was trained on plaintext, and cipher {cipher.name!r} is not exact: give a reader trained on its "
            "ciphertext"
        )
    # Through a keyed stem a reader sees ciphertext minus mask, which under every exact cipher is the image.
    inexact = [each.name for each in (trained_on, cipher) if not each.cipher.exact]
    if cipher.id != loaded.weights_id and inexact and not plain:
        raise WeightsError(
            f"was trained on cipher weights {loaded.weights_id} and reads no others (cipher {inexact[0]!r} is not "
            f"exact), given are {cipher.id}: leave out --weights, and encrypt the images with the reader's"
        )
    return readers.keyed(loaded.reader) if plain else loaded.reader


def _by(size: Any) -> str:
    return f"{size[0]}x{size[1]}"


def _channels(count: int) -> str:
    return f"{count} channel{'s' * (count != 1)}"
