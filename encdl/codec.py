"""From a picture's array to header and ciphertext, and back: keys, planes, cipher and post-processing."""

from __future__ import annotations

import contextlib
import json
from collections.abc import Callable, Iterator
from typing import TYPE_CHECKING, Any, Literal, Protocol

import numpy as np
import numpy.typing as npt
import torch
from torch import Tensor

from encdl import postprocess as post
from encdl.container import Header
from encdl.errors import ContainerError, UsageError, WeightsError
from encdl.images import check
from encdl.keys.derive import ImageKeys, check_study
from encdl.keys.key import Grant, Opener
from encdl.keys.nonces import random_nonce, synthetic_nonce
from encdl.keys.planes import PlaneSpec, key_planes

if TYPE_CHECKING:
    from encdl.postprocess.base import PostProcess

Array = npt.NDArray[Any]
NonceMode = Literal["random", "synthetic"]
PIXELS_AT_ONCE = 2**22
NONCE_MODES: tuple[NonceMode, ...] = ("random", "synthetic")


class CipherLike(Protocol):
    """What the codec needs of a cipher; every `encdl.ciphers.Cipher` has it.

    Pictures and ciphertexts are uint8 (B, C, H, W), key planes uint8 (B, C, P, H, W), lost bool (B, C, H, W).
    Each channel must be treated by itself: a large picture is handed over some channels at a time.
    """

    @property
    def name(self) -> str:
        """Name of the cipher class, as in the header."""
        ...

    def encrypt(self, image: Tensor, key_planes: Tensor) -> Tensor:
        """Encrypt pictures."""
        ...

    def decrypt(self, ciphertext: Tensor, key_planes: Tensor) -> Tensor:
        """Decrypt intact ciphertexts."""
        ...

    def field(self, ciphertext: Tensor, key_planes: Tensor) -> Tensor:
        """The mask that lies on each pixel, without forming the pictures."""
        ...

    def restore(self, ciphertext: Tensor, key_planes: Tensor, lost: Tensor | None = None) -> Tensor:
        """Guess the pictures behind damaged ciphertexts."""
        ...


class Codec:
    """Encrypts arrays into (header, body) and back with one cipher and its weights.

    Args:
        cipher: the cipher, on the device where it is to run.
        weights_id: 16 hex digits that name its weights; they go into the header and must fit on the way back.
        device: where the cipher's weights are.
    """

    def __init__(self, cipher: CipherLike, weights_id: str, device: str | torch.device = "cpu") -> None:
        self.cipher = cipher
        self.weights_id = weights_id
        self.device = torch.device(device)

    def encrypt_array(
        self,
        array: Array,
        opener: Opener,
        *,
        planes: PlaneSpec,
        postprocess: str = "none",
        nonce: NonceMode = "random",
        study: str = "",
        file_format: str = "png",
    ) -> tuple[Header, bytes]:
        """Encrypt a picture.

        Args:
            array: (H, W) or (H, W, C), uint8, uint16 or int16.
            opener: a key, or a grant for `study`.
            planes: how to make the key planes; as many as the cipher takes.
            postprocess: a name of `encdl.postprocess.NAMES`.
            nonce: "random", or "synthetic": from a keyed hash of the picture and of all settings, so that one
                changed pixel changes every key plane. Equal pictures then give equal files, which shows that
                they are equal.
            study: name of the study that the file belongs to.
            file_format: what to write on decryption: "png", "tiff" or "npy".

        Returns:
            The header, and the ciphertext: uint8 of (channels, H, W), row-major, as many bytes as the array.

        Raises:
            ImageFileError: the array is of another shape or type.
            UsageError: an unknown setting, or a grant that cannot encrypt.
            WrongKeyError: a grant for another study.
        """
        array = check(array)
        if isinstance(opener, Grant) and opener.scope == "file":
            raise UsageError("a grant for one file cannot encrypt: use the key, or a grant for a study")
        study = check_study(study)
        process = post.create(postprocess)
        settings: dict[str, Any] = {
            "cipher": self.cipher.name,
            "weights": self.weights_id,
            "shape": array.shape,
            "dtype": array.dtype.name,
            "layout": "HW" if array.ndim == 2 else "HWC",
            "postprocess": postprocess,
            "planes": planes.to_dict(),
            "format": file_format,
        }
        header = Header(
            **settings,
            nonce=_nonce(nonce, opener, array, settings, study).hex(),
            study=study,
            key_id=opener.key_id,
            body_bytes=array.nbytes,
        )
        with device_errors(self.device):
            keys, key_bits = self._keys(header, opener)
            ciphertext = _by_channels(self.cipher.encrypt, to_tensor(array).to(self.device), key_bits)
            body = process.apply(ciphertext, [keys]).cpu().numpy().tobytes()
        return header, body

    def decrypt_array(self, header: Header, body: bytes, opener: Opener) -> Array:
        """Decrypt what `encrypt_array` made, once the container found it authentic.

        Returns:
            The array that was encrypted: bit-exact where the cipher is.

        Raises:
            WeightsError: the file was made with another cipher or other weights.
            WrongKeyError: a grant for something else.
            ContainerError: the body's length or the post-processing is not what this version knows.
        """
        with device_errors(self.device):
            ciphertext, key_bits = self._unprocessed(header, body, opener)
            return from_tensor(_by_channels(self.cipher.decrypt, ciphertext, key_bits), header)

    def ciphertext_and_mask(self, header: Header, body: bytes, opener: Opener) -> tuple[Tensor, Tensor]:
        """What a reader of ciphertext takes, with the post-processing undone; the picture is not formed.

        Args:
            header: of the file.
            body: its ciphertext, once the container found both authentic.
            opener: a key, or a grant for the file or its study.

        Returns:
            The ciphertext of the network and the mask of each pixel (`Cipher.field`), uint8 (1, C, H, W) each on the
            codec's device; for 16-bit pictures of their byte planes, see `to_tensor`.

        Raises:
            WeightsError, WrongKeyError, ContainerError: as `decrypt_array`.
        """
        with device_errors(self.device):
            ciphertext, key_bits = self._unprocessed(header, body, opener)
            return ciphertext, _by_channels(self.cipher.field, ciphertext, key_bits)

    def salvage_array(
        self, header: Header, body: bytes, lost: npt.NDArray[np.bool_], opener: Opener
    ) -> Array:
        """Guess the picture behind a damaged body; arguments as `container.read_damaged` gives them.

        16-bit pictures are restored byte plane by byte plane: an error in a high byte is a large one.

        Raises:
            WeightsError, WrongKeyError, ContainerError: as `decrypt_array`.
        """
        self._check(header)
        process = _process(header)
        if lost.shape != (header.body_bytes,):
            raise ContainerError(f"the loss map has shape {lost.shape}, not ({header.body_bytes},)")
        with device_errors(self.device):
            keys, key_bits = self._keys(header, opener)
            ciphertext = process.undo(self._ciphertext(header, body), [keys])
            missing = torch.from_numpy(lost.reshape(1, *_planar_shape(header))).to(self.device)
            if not lost.any():  # damaged somewhere: all of it is a guess
                return from_tensor(_by_channels(self.cipher.restore, ciphertext, key_bits), header)
            reached = process.undo_lost(missing, [keys])
            return from_tensor(_by_channels(self._restore, ciphertext, key_bits, reached), header)

    def _restore(self, ciphertext: Tensor, key_bits: Tensor, lost: Tensor) -> Tensor:
        """Restore channels where some of the damage is known to be; channels without any are decrypted."""
        if bool(lost.any()):
            return self.cipher.restore(ciphertext, key_bits, lost)
        return self.cipher.decrypt(ciphertext, key_bits)

    def _unprocessed(self, header: Header, body: bytes, opener: Opener) -> tuple[Tensor, Tensor]:
        """The network's ciphertext (1, C, H, W) and its key planes (1, C, P, H, W)."""
        self._check(header)
        process = _process(header)
        keys, key_bits = self._keys(header, opener)
        return process.undo(self._ciphertext(header, body), [keys]), key_bits

    def _check(self, header: Header) -> None:
        if (header.cipher, header.weights) != (self.cipher.name, self.weights_id):
            raise WeightsError(
                f"the file was made by cipher {header.cipher!r} with weights {header.weights}, loaded are "
                f"{self.cipher.name!r} with {self.weights_id}: give the right ones with --weights"
            )

    def _keys(self, header: Header, opener: Opener) -> tuple[ImageKeys, Tensor]:
        keys = opener.image_keys(header.nonce_bytes, header.study)
        channels, height, width = _planar_shape(header)
        bits = key_planes([keys.planes], header.plane_spec(), channels, height, width)
        return keys, torch.from_numpy(bits).to(self.device)

    def _ciphertext(self, header: Header, body: bytes) -> Tensor:
        if len(body) != header.body_bytes:
            raise ContainerError(f"the body is {len(body)} bytes, the header says {header.body_bytes}")
        planar = np.frombuffer(bytearray(body), np.uint8).reshape(1, *_planar_shape(header))
        return torch.from_numpy(planar).to(self.device)


def _by_channels(function: Callable[..., Tensor], *tensors: Tensor) -> Tensor:
    """Call `function` on as many channels at a time as keep its memory near 1 GB, which changes no result."""
    channels, height, width = tensors[0].shape[1:]
    step = max(1, PIXELS_AT_ONCE // (height * width))
    if step >= channels:
        return function(*tensors)
    starts = range(0, channels, step)
    return torch.cat([function(*(tensor[:, n : n + step] for tensor in tensors)) for n in starts], dim=1)


def to_tensor(array: Array) -> Tensor:
    """Lay out an array as the cipher takes it.

    16-bit values are split into bytes: first the low bytes of all channels, then their high bytes; int16 by
    its two's complement pattern.

    Args:
        array: (H, W) or (H, W, C), uint8, uint16 or int16.

    Returns:
        uint8 (1, C, H, W), or (1, 2C, H, W) for 16-bit arrays.
    """
    planar = np.moveaxis(array.reshape(*array.shape[:2], -1), -1, 0)
    if array.dtype.itemsize == 2:
        values = planar.astype(array.dtype, copy=False).view(np.uint16)
        planar = np.concatenate([(values & 0xFF).astype(np.uint8), (values >> 8).astype(np.uint8)])
    return torch.from_numpy(np.ascontiguousarray(planar, dtype=np.uint8)[None].copy())


def from_tensor(tensor: Tensor, header: Header) -> Array:
    """Undo `to_tensor`: uint8 (1, C or 2C, H, W) back to the shape and dtype that the header names."""
    planar = tensor[0].cpu().numpy()
    if header.dtype != "uint8":
        half = planar.shape[0] // 2
        values = planar[:half].astype(np.uint16) | (planar[half:].astype(np.uint16) << 8)
        planar = values.view(header.dtype)
    return np.ascontiguousarray(np.moveaxis(planar, 0, -1)).reshape(header.shape)


def _planar_shape(header: Header) -> tuple[int, int, int]:
    height, width = header.shape[:2]
    return header.body_bytes // (height * width), height, width


def _nonce(mode: str, opener: Opener, array: Array, settings: dict[str, Any], study: str) -> bytes:
    if mode == "random":
        return random_nonce()
    if mode == "synthetic":
        # All settings belong to the context: equal pictures under other settings get other keys.
        context = json.dumps(settings, sort_keys=True).encode()
        return synthetic_nonce(opener, array.tobytes(), context, study)
    raise UsageError(f"nonce {mode!r} is not known: use {' or '.join(NONCE_MODES)}")


def _process(header: Header) -> PostProcess:
    try:
        return post.create(header.postprocess)
    except UsageError as error:
        raise ContainerError(f"the file needs a newer EncDL ({error})") from None


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
