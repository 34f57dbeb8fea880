"""Cost of reading encrypted files, beside decrypting them to image files and reading those."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import replace
from pathlib import Path
from tempfile import TemporaryDirectory
from typing import Any

import numpy as np
import torch

from encdl.audit.studies.cost import MAP
from encdl.audit.studies.timing import milliseconds, ratios, take_turns
from encdl.ciphers.weights import LoadedCipher
from encdl.data.embedded import EmbeddedMRI
from encdl.files import container, formats, images
from encdl.files.codecs import codec_with
from encdl.files.formats.base import array_of
from encdl.files.reading import Readable
from encdl.files.resize import FitImage
from encdl.files.settings import Settings
from encdl.keys.functional import FunctionalKey
from encdl.keys.key import Key
from encdl.keys.planes import PlaneSpec
from encdl.readers import FunctionalStem, LoadedReader, PlainStem, Reader
from encdl.readers.functional_files import FunctionalPredictor, grant_functional
from encdl.readers.predictor import Predictor

ROUNDS = 15
RATIOS = (
    ("ciphertext", "decrypt_then_infer"),
    ("ciphertext", "decrypt_in_memory"),
    ("ciphertext", "plain"),
    ("functional", "plain"),
)


def file_cost(
    reader: Reader, classes: Sequence[str], cipher: LoadedCipher, spec: PlaneSpec, folder: Path, sizes: tuple[int, ...]
) -> dict[str, dict[str, Any]]:
    """Milliseconds a file of each way from a file to a reader's logits, and their ratios.

    The files are the embedded MRI slices for testing, at each size. All is done by the functions behind
    `encdl predict`, `encdl decrypt` and the reading of images, in one process that has loaded what it needs. What is
    made of the logits is the same on every way, and not timed.

    Args:
        reader: Gives the backbone; its stem's width is that of the stem used.
        classes: Names of its classes.
        cipher: Makes the files, and decrypts them.
        spec: Map and expansion of the key planes.
        folder: On the disk that counts. What is written there is removed again.
        sizes: Heights and widths of the images, in pixels.

    Returns:
        For each size (`128px`) and clock (`own`, `wall`: see `encdl.audit.studies.timing`), times in ms: `ciphertext`
        (the encrypted file, as `encdl predict` reads it), `decrypt_then_infer` (decrypted into a PNG file as `encdl
        decrypt` does it, and that read by the plaintext network), `decrypt_in_memory` (the same without the PNG file),
        `plain` (a PNG file that lies there in clear) and `functional` (an encrypted file with a reading layer of its
        size, as a host without a key reads it, its parity checked); see `RATIOS` and `encdl.audit.studies.timing`.
    """
    plain = Reader(PlainStem(reader.stem.channels, reader.stem.width), reader.backbone).eval()
    found = {}
    for size in sizes:
        loaded = LoadedReader(plain, tuple(classes), (size, size), cipher.id, spec, "Plaintext")
        with TemporaryDirectory(dir=folder) as place:
            found[f"{size}px"] = _Routes(Path(place), loaded, cipher).times()
    return found


class _Routes:
    """The ways from files to logits, each over the same images.

    Args:
        folder: Gets the images, in clear and encrypted.
        loaded: Reads plaintext.
        cipher: On the reader's device after this.
    """

    def __init__(self, folder: Path, loaded: LoadedReader, cipher: LoadedCipher) -> None:
        self.key = Key.generate()
        self.predictor = Predictor(loaded, codec_with(cipher, str(next(cipher.cipher.parameters()).device)))
        self.codec = self.predictor.codec
        self.plain = loaded.reader.to(self.codec.device)
        self.clear, self.sealed, self.opened = ([] for _ in range(3))
        self.hosted: list[tuple[Path, FunctionalKey]] = []
        channels, width = self.plain.stem.channels, self.plain.stem.width
        stem = FunctionalStem(channels, loaded.size, width=width, **MAP)
        functional = replace(loaded, reader=Reader(stem, self.plain.backbone).eval(), view="Functional")
        self.host = FunctionalPredictor(functional)
        for number, image in enumerate(_images(loaded.reader.stem.channels, loaded.size[0])):
            clear, sealed = folder / f"{number}.png", folder / f"{number}{container.SUFFIX}"
            images.write(clear, image)
            settings = Settings(planes=loaded.planes)
            sealed.write_bytes(self.codec.encrypt_array(image, self.key, settings, file_format="png"))
            hosted = folder / f"{number}-hosted{container.SUFFIX}"
            readable = replace(settings, readable=Readable(loaded.size[0]))
            hosted.write_bytes(self.codec.encrypt_array(image, self.key, readable, file_format="png"))
            self.hosted.append((hosted, grant_functional(hosted, self.key, functional)))
            self.clear.append(clear)
            self.sealed.append(sealed)
            self.opened.append(folder / f"{number}-opened.png")

    def times(self) -> dict[str, Any]:
        """Of one file."""
        steps = {
            "ciphertext": self.ciphertext,
            "decrypt_then_infer": self.decrypt_then_infer,
            "decrypt_in_memory": self.decrypt_in_memory,
            "plain": self.plaintext,
            "functional": self.functional,
        }
        turns = take_turns(steps, ROUNDS, self.codec.device)
        found: dict[str, Any] = {}
        for clock, seconds in (("own", turns.own), ("wall", turns.wall)):
            medians = {name: median / len(self.sealed) for name, median in milliseconds(seconds).items()}
            found[clock] = medians | ratios(seconds, RATIOS)
        return found

    def ciphertext(self) -> list[torch.Tensor]:
        """As `encdl predict` does it."""
        return [self.predictor.read(path, self.key).logits for path in self.sealed]

    def decrypt_then_infer(self) -> list[torch.Tensor]:
        """As `encdl decrypt` does it, and then read as an image."""
        for sealed, opened in zip(self.sealed, self.opened, strict=True):
            with container.opened(sealed, self.key) as reader:
                formats.write(opened, self.codec.decrypt(reader), force=True)
        return [self._read(images.read(path)) for path in self.opened]

    def decrypt_in_memory(self) -> list[torch.Tensor]:
        """Without leaving an image behind."""
        return [self._read(self._decrypted(path)) for path in self.sealed]

    def functional(self) -> list[torch.Tensor]:
        """As `encdl predict --functional-key` does it."""
        return [self.host.logits(path, key) for path, key in self.hosted]

    def plaintext(self) -> list[torch.Tensor]:
        """No encryption anywhere."""
        return [self._read(images.read(path)) for path in self.clear]

    def _decrypted(self, path: Path) -> np.ndarray:
        with container.opened(path, self.key) as reader:
            return array_of(self.codec.decrypt(reader))

    @torch.no_grad()
    def _read(self, image: np.ndarray) -> torch.Tensor:
        planes = np.moveaxis(image.reshape(*image.shape[:2], -1), -1, 0)
        logits: torch.Tensor = self.plain(torch.from_numpy(planes[None].copy()).to(self.codec.device))
        return logits[0].float().cpu()


def _images(channels: int, size: int) -> list[np.ndarray]:
    """The embedded test slices, uint8 (size, size), or (size, size, channels) with equal channels."""
    fit = FitImage(size)
    slices = [fit(sample["image"])[0] for sample in EmbeddedMRI().samples("test")]
    return [each if channels == 1 else np.repeat(each[..., None], channels, axis=2) for each in slices]
