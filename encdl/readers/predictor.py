"""Reading `.encdl` files with a network: from ciphertext and key to classes and masks, never to the image.

A file is verified, its post-processing undone, and the mask of each pixel computed from ciphertext and key
(`Cipher.field`). Both go into the reader, whose first tensor that depends on the image alone holds features, not
pixels (`encdl.readers.stems`). Decryption is never called, and nothing that it would give is written.

Images of other types than bytes, or with levels of their own (`encdl.files.levels`), take one step more: their levels
are no sum of ciphertext and mask, so they are formed in memory, and the reader gets them with a mask of zeros. So do
scans, which are turned and resampled as the reader wants them.
"""

from __future__ import annotations

import contextlib
import os
from collections.abc import Callable, Iterator, Sequence
from pathlib import Path
from typing import Any

import numpy as np
import numpy.typing as npt
import torch
from torch import Tensor

from encdl import readers
from encdl.ciphers.names import SHIPPED_IDS
from encdl.ciphers.weights import load as load_weights
from encdl.files import container
from encdl.files.chunk_cipher import CipherSlice, device_errors
from encdl.files.codec import Codec
from encdl.files.codecs import load_codec
from encdl.files.container import Header
from encdl.files.container.chunk_grid import Place, paste
from encdl.files.formats.base import Document
from encdl.files.formats.verbatim import CARRIED
from encdl.files.levels import Levels, ModalityLevels, Stored, tell_of_window
from encdl.files.resize import FitImage
from encdl.files.scans import Volume, flat_scan, image_of, is_volume, load_volume
from encdl.files.scans.geometry import counted, resized, sampled
from encdl.keys.key import Opener
from encdl.readers import FunctionalStem, LoadedReader, NoReaderError, PlainStem, Reader
from encdl.readers.answers import Answer, Classification, Segmentation
from encdl.utils.errors import ContainerError, NoImageError, UsageError, WeightsError
from encdl.utils.frames import framed, middle

MAX_MASK_CLASSES = 256


class Predictor:
    """Reads encrypted files with one reader.

    Args:
        loaded: The reader.
        trained_on: Of the cipher in the reader's checkpoint.
        codec: Of the cipher that the files were made with; the same one by default.
        any_size: Let a classifier read images of another size than it was trained on.
        levels: How stored integers become levels, whatever the file's modality; the reader's own rules by default.

    Raises:
        WeightsError: The reader cannot read this cipher's files.
    """

    def __init__(
        self,
        loaded: LoadedReader,
        trained_on: Codec,
        codec: Codec | None = None,
        any_size: bool = False,
        levels: Levels | None = None,
    ) -> None:
        self.codec = codec or trained_on
        self.classes, self.size, self.any_size = loaded.classes, loaded.size, any_size
        self.levels = loaded.levels if levels is None else ModalityLevels.from_dict(levels)
        self.geometry, self._window = loaded.geometry, None if levels is None else levels.window
        self.reader = _for_ciphertext(loaded, trained_on, self.codec)
        self.per_pixel = self.reader.backbone.per_pixel
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
        levels: Levels | None = None,
    ) -> Predictor:
        """Load a checkpoint of a reader, with the cipher that it was trained on.

        Args:
            checkpoint: What training a reader wrote.
            weights_of_files: Name or file of the cipher weights that the files were made with, if others.
            device: Where to compute.
            any_size: See the class.
            levels: See the class.

        Raises:
            WeightsError: A file is missing, damaged or of another kind, or the two do not go together.
        """
        path = Path(checkpoint)
        loaded = _reader_in(path, device)
        # Where its id names weights that come with EncDL, its masks are theirs, mostly without building a network.
        trained_on = load_codec(SHIPPED_IDS.get(loaded.weights_id, path), device)
        codec = None if weights_of_files is None else load_codec(weights_of_files, device)
        try:
            return cls(loaded, trained_on, codec, any_size, levels)
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
                _check_image(where, reader)
                self._check(where, reader.header)
                meaning = image_of(where, self.codec.decrypt(reader))
                (image,) = self.codec.cipher_slices(reader)
            ciphertext, mask = self._levels(reader.header, image, *meaning)
            self._check_size(where, (ciphertext.shape[2], ciphertext.shape[3]))
            with device_errors(self.codec.device):
                logits = self._logits(where, ciphertext, mask)
        except MemoryError:
            raise UsageError(f"{where}: out of memory: use a smaller image, or a machine with more") from None
        except OSError as error:  # the disk or the network failed while the file was read
            raise ContainerError(f"{where}: cannot be read ({error.strerror or error}): try again") from None
        if not bool(logits.isfinite().all()):
            raise WeightsError(f"{where}: the reader's answer is no number: its training diverged")
        return Answer(logits, image.body)

    @property
    def reads_scans(self) -> bool:
        """Whether it was trained on scans, or slices of them, so that their files are put together."""
        return self.per_pixel or len(self.size) == 3 or bool(self.geometry.fit or self.geometry.beside)

    @property
    def turns_slices(self) -> bool:
        """Whether it segments slices, and wants them turned, resampled or fitted: then `read` is not enough."""
        wanted = self.geometry.orientation or self.geometry.spacing or self.geometry.fit
        return self.per_pixel and len(self.size) == 2 and bool(wanted)

    def answer(
        self, path: Path, opener: Opener, progress: Callable[[float], object] = lambda share: None
    ) -> Answer | Segmentation | Classification:
        """As `read`; also a file that is a volume by itself, as `read_volume`."""
        if self.reads_scans:
            with self.opened(path, opener) as document:
                if is_volume(document):
                    return self.read_volume(load_volume(path, document), progress)
        return self.read(path, opener)

    def read_volume(
        self, volume: Volume, progress: Callable[[float], object] = lambda share: None
    ) -> Answer | Segmentation | Classification:
        """Read a scan: `segment`, or of a classifier `classify`; one of volumes has a single answer."""
        if self.per_pixel:
            return self.segment(volume, progress)
        return self.classify(volume, progress) if len(self.size) == 2 else self._whole(volume)

    def classify(self, volume: Volume, progress: Callable[[float], object] = lambda share: None) -> Classification:
        """Read each slice of a scan, with those beside it if the reader was trained so (2.5-D).

        Args:
            volume: The scan.
            progress: Is told what share more of it is done.

        Raises:
            UsageError: The reader takes colour, or was not trained on folders of images and scans; or the scan has one
                slice, and the reader wants several.
        """
        tell_of_window(self._window, volume.stored[volume.present[0]])
        scan, where = flat_scan(volume, self.levels, self.geometry), Path("scan")
        if not self.geometry.fit or self.reader.stem.channels != 1 + 2 * scan.beside:
            raise UsageError("this classifier reads images alone: train one on scans, with ClassFolder")
        if scan.beside and len(scan) == 1:
            raise UsageError(f"this classifier reads {1 + 2 * scan.beside} slices of a scan at once: give all of it")
        fit, logits = FitImage(self.geometry.fit), []
        with device_errors(self.codec.device):
            for index in range(len(scan)):
                levels = torch.from_numpy(fit(scan.image(index), scan.spacing)[None]).to(self.codec.device)
                logits.append(self._logits(where, levels, torch.zeros_like(levels)))
                progress(1 / len(scan))
        found = torch.stack(logits)
        if not bool(found.isfinite().all()):
            raise WeightsError("the reader's answer is no number: its training diverged")
        return Classification(found, tuple(scan.file(index, volume) for index in range(len(scan))), scan.numbers)

    def _whole(self, volume: Volume) -> Answer:
        """What a classifier of volumes says of one; `UsageError` if it is larger than those of training."""
        levels = volume.to_bytes(self.levels.choose(volume.stored[volume.present[0]]))
        source, affine = self.geometry.turned(levels, volume.affine)
        scales = self.geometry.scales(affine, source.shape)
        small = framed(counted(resized(source, scales), scales, self.size), self.size)
        if small.shape != self.size or self.reader.stem.channels != 1:
            raise UsageError(f"this reader takes volumes of {_by(self.size)}, not {_by(small.shape)}: cut it to that")
        given = torch.from_numpy(np.ascontiguousarray(small)).to(self.codec.device)[None, None]
        with device_errors(self.codec.device):
            logits = self._logits(Path("scan"), given, torch.zeros_like(given))
        if not bool(logits.isfinite().all()):
            raise WeightsError("the reader's answer is no number: its training diverged")
        return Answer(logits, small[:1])

    @contextlib.contextmanager
    def opened(self, path: Path, opener: Opener) -> Iterator[Document]:
        """A file's document, for `encdl.files.scans`; its slices are decrypted as they are asked for."""
        with container.opened(path, opener) as reader:
            _check_image(path, reader)
            yield self.codec.decrypt(reader)

    def segment(self, volume: Volume, progress: Callable[[float], object] = lambda share: None) -> Segmentation:
        """Read a scan on its own grid: a network for images slice by slice, one for volumes as a whole.

        Args:
            volume: The scan.
            progress: Is told what share more of it is done.

        Raises:
            UsageError: The reader is no segmenter, or takes several channels.
        """
        if not self.per_pixel or self.reader.stem.channels != 1:
            raise UsageError("scans of several slices are read by segmenters of one channel alone")
        stored = volume.stored[volume.present[0]]
        tell_of_window(self._window, stored)
        levels = volume.to_bytes(self.levels.choose(stored))
        mask = np.zeros(levels.shape, np.uint8)
        source, affine = self.geometry.turned(levels, volume.affine)
        target, _ = self.geometry.turned(mask, volume.affine)
        scales = self.geometry.scales(affine, source.shape)
        with device_errors(self.codec.device):
            if getattr(self.reader.backbone, "dimensions", 2) == 3:
                target[:] = self._best(source, scales)
                progress(1)
            else:
                for image, answer in zip(source, target, strict=True):
                    answer[:] = self._best(image, scales[1:])
                    progress(1 / len(source))
        for number, path in enumerate(volume.files):
            if path is None:
                mask[number] = 0
        return Segmentation(mask, levels, volume)

    def _best(self, levels: npt.NDArray[np.uint8], scales: Sequence[float]) -> npt.NDArray[np.uint8]:
        """The likeliest class of each voxel of an image or volume, read at another scale."""
        small = resized(levels, scales)
        if isinstance(self.reader.stem, FunctionalStem) and small.ndim == 3:
            small = counted(small, scales, self.size)  # as the layer that hosts read
        # Of scans that were fitted, and of volumes, training padded with black around the middle.
        outer = self.size if self.geometry.fit or small.ndim == 3 else small.shape
        padded = torch.from_numpy(np.ascontiguousarray(framed(small, outer))).to(self.codec.device)[None, None]
        logits = self._logits(Path("scan"), padded, torch.zeros_like(padded)).numpy()
        logits = logits[middle(small.shape, outer)]
        if all(scale == 1 for scale in scales):
            return logits.argmax(0).astype(np.uint8)  # type: ignore[no-any-return]
        back = [1 / scale for scale in scales]
        likeliest, best = sampled(logits[0], back, levels.shape), np.zeros(levels.shape, np.uint8)
        for index, each in enumerate(logits[1:], start=1):  # of a volume two classes at a time are in memory
            logit = sampled(each, back, levels.shape)
            best[logit > likeliest] = index
            np.maximum(likeliest, logit, out=likeliest)
        return best

    def _levels(
        self,
        header: Header,
        image: CipherSlice,
        stored: Stored,
        own_bits: Callable[[npt.NDArray[Any]], npt.NDArray[Any]],
        sides: tuple[float, float],
    ) -> tuple[Tensor, Tensor]:
        """The reader's input: ciphertext and mask, or levels and zeros; these at the size of training."""
        tell_of_window(self._window, stored)
        rule = self.levels.choose(stored)
        as_stored = not rule.of_image and not (rule.invert and stored.inverted)
        fit = 0 if self.per_pixel else self.geometry.fit
        grid = header.grid
        as_stored = as_stored and (not fit or ((grid.height, grid.width) == self.size and sides[0] == sides[1]))
        if header.dtype == "uint8" and as_stored and rule.bounds(None, stored) == (0, 255):
            return image.ciphertext, image.mask
        values = np.empty((grid.height, grid.width, grid.channels), np.dtype(header.dtype).newbyteorder("<"))
        paste(values, Place(0, 0, 0, grid.height, grid.width), (image.ciphertext - image.mask)[0].cpu().numpy())
        planes = np.moveaxis(rule.to_bytes(own_bits(values), stored), -1, 0)
        planes = FitImage(fit)(planes, sides) if fit else np.ascontiguousarray(planes)
        levels = torch.from_numpy(planes)[None].to(self.codec.device)
        return levels, torch.zeros_like(levels)

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
        if header.dtype != "uint8" and not self.codec.cipher.exact:
            raise UsageError(f"{where}: holds {header.dtype} levels, and cipher {header.cipher!r} is not exact")
        grid = header.grid
        if len(self.size) != 2:  # files that are scans do not come here
            raise UsageError(f"{where}: this reader takes volumes of {_by(self.size)}: give it series or volumes")
        if grid.slices > 1:
            raise UsageError(
                f"{where}: holds {grid.slices} slices, and this reader takes one image a file: encrypt each slice, or "
                "train one on scans (encdl fit --recipe classifier-folder)"
            )
        if self.geometry.beside:
            raise UsageError(f"{where}: is one image, and this reader takes slices of scans with those beside them")
        channels = grid.channels
        if channels != self.reader.stem.channels:
            raise UsageError(
                f"{where}: has {_channels(channels)}, the reader takes {_channels(self.reader.stem.channels)}: "
                "encrypt the image in that form (of a stack, each slice)"
            )

    def _check_size(self, where: Path, size: tuple[int, int]) -> None:
        functional = isinstance(self.reader.stem, FunctionalStem)
        if not self.per_pixel and (functional or not self.any_size) and size != self.size:
            other = "read it by a functional key, of a layer by `encdl encrypt --readable READER`"
            raise UsageError(
                f"{where}: is {_by(size)} pixels, the reader was trained on {_by(self.size)}: encrypt it at that size, "
                "or " + (other if functional else "--any-size reads it as it is, less reliably")
            )


def _check_image(where: Path, reader: container.ContainerReader) -> None:
    if reader.metadata is not None and reader.metadata.format == CARRIED:
        raise NoImageError(f"{where}: holds no image: another file was sealed there as it is")


def _reader_in(path: Path, device: str) -> LoadedReader:
    """The reader in a checkpoint; the error of one without says so if a cipher is all that it holds."""
    try:
        return readers.load(path, device)
    except NoReaderError as error:
        try:
            found = load_weights(path)
        except WeightsError:
            raise error from None
        raise WeightsError(
            f"{path}: holds a cipher ({found.cipher.name}, weights {found.id}) and no reader: give the checkpoint of a "
            "classifier or segmenter as the reader, and this as the weights if the files were made with it"
        ) from None


def _for_ciphertext(loaded: LoadedReader, trained_on: Codec, codec: Codec) -> Reader:
    """The reader of this cipher's ciphertext that the checkpoint's weights make."""
    stem = loaded.reader.stem
    plain = isinstance(stem, FunctionalStem) or (isinstance(stem, PlainStem) and loaded.view == "Plaintext")
    if not stem.keyed and not plain:
        raise WeightsError(
            f"was trained without the key (view {loaded.view}, {type(stem).__name__}): give a reader that was trained "
            "on ciphertext with the key, on plaintext, or for functional keys"
        )
    if plain and not codec.cipher.exact:
        raise WeightsError(
            f"was trained on plaintext, and cipher {codec.cipher.name!r} is not exact: give a reader trained on its "
            "ciphertext"
        )
    # Through a keyed stem a reader sees ciphertext minus mask, which under every exact cipher is the image.
    inexact = [each.cipher.name for each in (trained_on, codec) if not each.cipher.exact]
    if codec.weights_id != loaded.weights_id and inexact and not plain:
        raise WeightsError(
            f"was trained on cipher weights {loaded.weights_id} and reads no others (cipher {inexact[0]!r} is not "
            f"exact), given are {codec.weights_id}: leave out --weights, and encrypt the images with the reader's"
        )
    return readers.keyed(loaded.reader) if isinstance(stem, PlainStem) else loaded.reader


def _by(size: Any) -> str:
    return "x".join(map(str, size))


def _channels(count: int) -> str:
    return f"{count} channel{'s' * (count != 1)}"
