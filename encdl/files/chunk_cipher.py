"""A cipher at work on the chunks of a file: key planes, network and post-processing, some chunks at a time."""

from __future__ import annotations

import contextlib
from collections.abc import Callable, Iterator, Sequence
from dataclasses import dataclass
from typing import TYPE_CHECKING, ClassVar, Protocol

import numpy as np
import numpy.typing as npt
import torch
from torch import Tensor

from encdl.ciphers.nn.plane_tensors import plane_tensor
from encdl.files.container.chunk_grid import Planes
from encdl.files.container.sections import BLOCK_BYTES
from encdl.keys.derivation import ImageKeys
from encdl.keys.planes import PlaneSpec
from encdl.utils.errors import UsageError

if TYPE_CHECKING:
    from encdl.ciphers.postprocess.base import PostProcess

PIXELS_AT_ONCE = {"cpu": 2**19, "cuda": 2**23}
"""Bytes that a call of the network takes."""
PIECE_BYTES = 128
"""Of a damaged block that are judged together to be lost or not: it divides `BLOCK_BYTES`."""
CHANCE = 32
"""Levels between ciphertext and guess, half of what two random bytes are apart: beyond it all of a piece is lost."""


Bytes = npt.NDArray[np.uint8]
Lost = npt.NDArray[np.bool_]


class CipherLike(Protocol):
    """The interface of a cipher for chunks; every `encdl.ciphers.Cipher` has it.

    Images, ciphertexts and key planes, packed, are uint8 (B, C, H, W); lost is bool (B, C, H, W).
    Each channel must be treated by itself: a large image is handed over some channels at a time.
    """

    @property
    def name(self) -> str:
        """Name of the cipher class, as in the header."""
        ...

    @property
    def exact(self) -> bool:
        """Whether an intact ciphertext decrypts to every pixel."""
        ...

    @property
    def keyed_mask(self) -> bool:
        """Whether the mask follows from the key alone, so that a damaged pixel harms no other."""
        ...

    def encrypt(self, image: Tensor, key_planes: Tensor) -> Tensor:
        """Encrypt images."""
        ...

    def decrypt(self, ciphertext: Tensor, key_planes: Tensor) -> Tensor:
        """Decrypt intact ciphertexts."""
        ...

    def field(self, ciphertext: Tensor, key_planes: Tensor) -> Tensor:
        """The mask that lies on each pixel, without forming the images."""
        ...

    def restore(self, ciphertext: Tensor, key_planes: Tensor, lost: Tensor | None = None) -> Tensor:
        """Guess the images behind damaged ciphertexts."""
        ...


@dataclass(frozen=True)
class CipherSlice:
    """A slice as a reader of ciphertext takes it.

    Attributes:
        body: the slice as it lies in the file, uint8 (C, H, W).
        ciphertext: with the post-processing undone, uint8 (1, C, H, W) on the codec's device.
        mask: what lies on each pixel (`Cipher.field`), of the same form.
    """

    body: Planes
    ciphertext: Tensor
    mask: Tensor


class ChunkCipher:
    """Encrypts chunks and back. Chunks of one call have one shape, and each has its own keys.

    Args:
        cipher: the cipher, on the device where it is to run.
        device: where the cipher's weights are.
        planes: how to make the key planes.
        process: what follows the network.
    """

    together: ClassVar[int] = 1
    """Calls at once: PyTorch has threads of its own, and a device works on one call after the other."""

    def __init__(self, cipher: CipherLike, device: torch.device, planes: PlaneSpec, process: PostProcess) -> None:
        self.cipher, self._device, self._planes, self._process = cipher, device, planes, process
        self.at_once = PIXELS_AT_ONCE.get(device.type, PIXELS_AT_ONCE["cpu"])
        """Bytes of chunks that one call should hold."""

    def encrypt(self, chunks: Sequence[Planes], keys: Sequence[ImageKeys]) -> Planes:
        """Byte planes uint8 (planes, h, w) of B chunks to their ciphertexts, uint8 (B, planes, h, w)."""
        with device_errors(self._device):
            images = self._tensor(chunks)
            ciphertext = self._by_channels(self.cipher.encrypt, images, self._key_bits(images, keys))
            return _array(self._process.apply(ciphertext, keys))

    def decrypt(self, bodies: Sequence[Planes], keys: Sequence[ImageKeys]) -> Planes:
        """Undo `encrypt`, once the ciphertexts were found authentic."""
        with device_errors(self._device):
            ciphertext, key_bits = self.unprocessed(bodies, keys)
            return _array(self._by_channels(self.cipher.decrypt, ciphertext, key_bits))

    def unprocessed(self, bodies: Sequence[Planes], keys: Sequence[ImageKeys]) -> tuple[Tensor, Tensor]:
        """The network's ciphertexts, and their key planes, both uint8 (B, C, h, w)."""
        ciphertext = self._process.undo(self._tensor(bodies), keys)
        return ciphertext, self._key_bits(ciphertext, keys)

    def ciphertext_and_mask(self, bodies: Sequence[Planes], keys: Sequence[ImageKeys]) -> tuple[Tensor, Tensor]:
        """The network's ciphertexts, and what lies on each of their pixels (`Cipher.field`), uint8 (B, C, h, w)."""
        with device_errors(self._device):
            ciphertext, key_bits = self.unprocessed(bodies, keys)
            return ciphertext, self._by_channels(self.cipher.field, ciphertext, key_bits)

    def restore(self, body: Planes, keys: ImageKeys, present: int, damaged: Sequence[int]) -> Planes:
        """Guess what is behind the damaged blocks of a chunk.

        Wider values are restored byte plane by byte plane: an error in a high byte is a large one. What the restorer is
        told to be lost is missing, or in a damaged block and constant, as no ciphertext is; and what turns out to fit a
        first guess no better than chance. Where the mask follows from the key alone, the rest of the chunk stays exact.

        Args:
            body: uint8 (planes, h, w), the ciphertext.
            keys: of the chunk.
            present: bytes of it that were there.
            damaged: numbers of the blocks of 4 KiB whose tags are wrong.
        """
        flat, hit = body.reshape(-1), np.zeros(body.size, np.bool_)
        for block in damaged:
            hit[block * BLOCK_BYTES : (block + 1) * BLOCK_BYTES] = True
        starts = np.arange(0, body.size, PIECE_BYTES)
        constant = np.maximum.reduceat(flat, starts) == np.minimum.reduceat(flat, starts)
        lost = hit & _by_bytes(constant, body.size)
        lost[present:] = True
        with device_errors(self._device):
            ciphertext, key_bits = self.unprocessed([body], [keys])

            def guess() -> Tensor:
                reached = self._reached(lost, body, keys)
                return self._by_channels(self.cipher.restore, ciphertext, key_bits, reached)

            found = guess()
            if not self._process.spreads and not lost[hit].all():
                again = self._process.apply(self._by_channels(self.cipher.encrypt, found, key_bits), [keys])
                more = _by_bytes(_overwritten(flat, _array(again).reshape(-1), ~lost, starts), body.size)
                if (more & hit & ~lost).any():
                    lost |= more & hit
                    found = guess()
            if self.cipher.keyed_mask:
                exact = self._by_channels(self.cipher.decrypt, ciphertext, key_bits)
                found = torch.where(self._reached(hit | lost, body, keys), found, exact)
            return _array(found[0])

    def _reached(self, lost: Lost, body: Planes, keys: ImageKeys) -> Tensor:
        """Where bytes that are lost in the file lie in the image, bool (1, planes, h, w)."""
        tensor = torch.from_numpy(lost.reshape(1, *body.shape)).to(self._device)
        return self._process.undo_lost(tensor, [keys])

    def _tensor(self, chunks: Sequence[Planes]) -> Tensor:
        alone = len(chunks) == 1 and chunks[0].flags.writeable  # PyTorch takes no memory that is not
        return torch.from_numpy(chunks[0][None] if alone else np.stack(chunks)).to(self._device)

    def _key_bits(self, images: Tensor, keys: Sequence[ImageKeys]) -> Tensor:
        return plane_tensor([key.planes for key in keys], self._planes, images.shape[1:], self._device)

    def _by_channels(self, function: Callable[..., Tensor], *tensors: Tensor) -> Tensor:
        """Call `function` on as many channels at a time as bound its memory, which changes no result."""
        batch, channels, height, width = tensors[0].shape
        step = max(1, self.at_once // (batch * height * width))
        if step >= channels:
            return function(*tensors)
        starts = range(0, channels, step)
        return torch.cat([function(*(tensor[:, n : n + step] for tensor in tensors)) for n in starts], dim=1)


def _overwritten(body: Bytes, guess: Bytes, known: Lost, starts: npt.NDArray[np.int64]) -> Lost:
    """Which pieces of a ciphertext fit that of a guess, where it is known at all, no better than chance."""
    apart = body - guess
    apart = np.minimum(apart, -apart)  # the shorter way around the circle of 256 levels
    sums, counts = (np.add.reduceat(each, starts, dtype=np.int64) for each in (apart * known, known))
    return sums > CHANCE * np.maximum(counts, PIECE_BYTES // 2)


def _by_bytes(pieces: Lost, size: int) -> Lost:
    """Flags of pieces, repeated for each of their bytes."""
    return np.repeat(pieces, PIECE_BYTES)[:size]


def _array(tensor: Tensor) -> Planes:
    array: Planes = tensor.cpu().numpy()
    return array


@contextlib.contextmanager
def device_errors(device: torch.device) -> Iterator[None]:
    """Say in one line that memory ran out.

    Raises:
        UsageError: On an accelerator.
        MemoryError: On the CPU.
    """
    try:
        yield
    except torch.OutOfMemoryError:
        raise UsageError(f"device {str(device)!r} ran out of memory: use --device cpu") from None
    except RuntimeError as error:
        if "allocate memory" not in str(error):  # what the CPU's allocator says
            raise
        raise MemoryError from None
