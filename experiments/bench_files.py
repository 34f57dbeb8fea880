"""Whole files and the steps of their encryption, beside AES-256-GCM on the same files: a part of `bench.py`.

Of the formats it needs PNG and NumPy alone, so that it runs without pydicom, tifffile and monai; the brain slices come
from nilearn's wheel, and where that is missing, images of the same size are drawn, as the record then says.
"""

from __future__ import annotations

import io
import secrets
import time
from collections.abc import Callable
from dataclasses import replace
from pathlib import Path
from typing import Any
from unittest import mock

import numpy as np
import torch
from cryptography.hazmat.primitives.ciphers.aead import AESGCM

from encdl.ciphers import Cipher, postprocess, weights
from encdl.ciphers.nn.plane_tensors import plane_tensor
from encdl.data.embedded import axial_slice, volume
from encdl.files import container, formats, images
from encdl.files.chunk_cipher import PIXELS_AT_ONCE
from encdl.files.codec import Codec
from encdl.files.codecs import codec_with
from encdl.files.formats.base import Document, chunk_groups, content_of
from encdl.files.settings import Settings
from encdl.keys.derivation import ImageKeys
from encdl.keys.key import Key
from encdl.keys.planes import PlaneSpec
from encdl.utils import atomic, compiled
from encdl.utils.errors import DataError

REPEATS = {"cpu": 12, "cuda": 5}
SLICES = {"cpu": 2, "cuda": 16}
"""Of the volume: enough to fill a call of the network."""
SIDE = 512
COMPILED = ("key planes", "mask network", "interleaver", "diffusion")
"""Steps that compiled code takes part in."""
OPTIONS = ("diffusion",)
"""Steps that the default leaves out."""
KEY = Key.generate()


def slices() -> tuple[str, list[Any]]:
    """Four 8-bit images of 233x197, and what they are."""
    try:
        voxels = volume("t1")
    except DataError:
        rows, columns = np.mgrid[-1:1:233j, -1:1:197j]
        inside = np.hypot(rows, columns) < 0.9  # black around, as a scan is
        rng = np.random.default_rng(1)
        tissue = [100 + 60 * np.sin(3 * rows + n) + rng.normal(0, 6, rows.shape) for n in range(4)]
        return "drawn slices", [(inside * one).astype(np.uint8) for one in tissue]
    return "axial slices of MNI152", [axial_slice(voxels, index)[0] for index in range(60, 124, 16)]


def make_files(folder: Path, small: list[Any], slices: int) -> dict[str, list[Path]]:
    """The files, by what they are: small images, and a volume of 16-bit noise, which no format makes smaller."""
    paths = [folder / f"slice-{number}.png" for number in range(len(small))]
    for path, image in zip(paths, small, strict=True):
        images.write(path, image)
    noise = np.random.default_rng(0).integers(-1024, 3072, (slices, SIDE, SIDE), dtype=np.int16)
    np.save(folder / "volume.npy", noise)
    return {
        f"{len(small)} PNG, 233x197, 8 bit": paths,
        f"1 NPY, {slices}x{SIDE}x{SIDE}, 16 bit": [folder / "volume.npy"],
    }


def seconds(steps: dict[str, Callable[[], object]], device: str) -> dict[str, float]:
    """Seconds of the fastest call of each step, after one that does not count: others' work only ever adds to it.

    The steps take turns, so that whatever slows the machine down slows all of them.
    """
    times: dict[str, list[float]] = {name: [] for name in steps}
    for _ in range(REPEATS[device] + 1):
        for name, step in steps.items():
            started = time.perf_counter()
            step()
            if device == "cuda":
                torch.cuda.synchronize()
            times[name].append(time.perf_counter() - started)
    return {name: min(found[1:]) for name, found in times.items()}


def encrypt(codec: Codec, files: list[Path], folder: Path, settings: Settings) -> None:
    """What `encdl encrypt` does to files."""
    for path in files:
        with atomic.writing(folder / f"{path.name}.encdl", force=True) as stream:
            codec.encrypt(formats.load(path), KEY, stream, settings)


def decrypt(codec: Codec, files: list[Path], folder: Path) -> None:
    """What `encdl decrypt` does to them."""
    for path in files:
        with container.opened(folder / f"{path.name}.encdl", KEY) as reader:
            formats.write(folder / path.name, codec.decrypt(reader), force=True)


def aes_encrypt(files: list[Path], folder: Path, key: bytes) -> None:
    """AES-256-GCM of the same files, read and written in the same way."""
    for path in files:
        nonce = secrets.token_bytes(12)
        atomic.write_bytes(
            folder / f"{path.name}.gcm", nonce, AESGCM(key).encrypt(nonce, path.read_bytes(), None), force=True
        )


def aes_decrypt(files: list[Path], folder: Path, key: bytes) -> None:
    """And back."""
    for path in files:
        data = (folder / f"{path.name}.gcm").read_bytes()
        atomic.write_bytes(folder / path.name, AESGCM(key).decrypt(data[:12], data[12:], None), force=True)


def groups(readers: list[container.ContainerReader], at_once: int) -> list[tuple[Any, list[ImageKeys]]]:
    """The chunks of files, as many together as one call of the network takes, and their keys."""
    found = []
    for reader in readers:
        grid = reader.header.grid  # of one tile a slice
        chunks = [np.frombuffer(chunk.body, np.uint8).reshape(grid.form(0)) for chunk in reader.chunks()]
        step = max(1, at_once // chunks[0].size)
        for start in range(0, len(chunks), step):
            group = chunks[start : start + step]
            found.append((np.stack(group), [reader.keys(start + n) for n in range(len(group))]))
    return found


def _held(document: Document) -> Document:
    """The document with its array in memory."""
    slices = list(document.slices())
    return replace(document, slices=lambda: iter(slices))


def parts(codec: Codec, cipher: Cipher, files: list[Path], device: str) -> tuple[dict[str, float], dict[str, float]]:
    """Seconds of the steps of encryption, each by itself, over all chunks of the files.

    And, on a CPU, of those among them that compiled code does, without it.
    """
    settings = Settings()
    documents = [_held(formats.load(path)) for path in files]
    made = []
    for document in documents:
        stream = io.BytesIO()
        codec.encrypt(document, KEY, stream, settings)
        made.append(stream.getvalue())
    readers = [container.ContainerReader(io.BytesIO(data), KEY) for data in made]
    chunks = groups(readers, PIXELS_AT_ONCE[device])
    interleave, diffusion = (postprocess.create(name) for name in (settings.postprocess, "diffusion"))
    tensors = [(torch.from_numpy(planes).to(codec.device), keys) for planes, keys in chunks]

    def planes_of(group: Any, keys: list[ImageKeys]) -> torch.Tensor:
        return plane_tensor([one.planes for one in keys], settings.planes, group.shape[1:], codec.device)

    cut = [(document, reader.header.grid) for document, reader in zip(documents, readers, strict=True)]
    bits = [planes_of(group, keys) for group, keys in chunks]
    steps: dict[str, Callable[[], object]] = {
        "read and decode the files": lambda: [list(formats.load(path).slices()) for path in files],
        "digest of the content": lambda: [content_of(document) for document in documents],
        "byte planes": lambda: [list(chunk_groups(document, grid, 1)) for document, grid in cut],
        "key planes": lambda: [planes_of(group, keys) for group, keys in chunks],
        "mask network": lambda: [
            cipher.encrypt(image, planes) for (image, _), planes in zip(tensors, bits, strict=True)
        ],
        "interleaver": lambda: [interleave.apply(image, keys) for image, keys in tensors],
        "diffusion": lambda: [diffusion.apply(image, keys) for image, keys in tensors],
        "tags (read and verify)": lambda: [reader.verify() for reader in readers],
    }
    found = seconds(steps, device)
    if device == "cuda":
        return found, {}
    with mock.patch.object(compiled, "library", return_value=None):
        return found, seconds({name: steps[name] for name in COMPILED}, device)


def measure(device: str, folder: Path, small: list[Any]) -> dict[str, Any]:
    """Megabytes of array a second of each file set, and the seconds of the steps."""
    loaded = weights.load("default", device)
    codec = codec_with(loaded, device)
    out = folder / "out"
    out.mkdir()
    key = AESGCM.generate_key(256)
    result: dict[str, Any] = {}
    for name, files in make_files(folder, small, SLICES[device]).items():
        size = sum(formats.load(path).dtype.itemsize * int(np.prod(formats.load(path).shape)) for path in files)
        rows: dict[str, Callable[[], object]] = {
            "encdl encrypt": lambda files=files: encrypt(codec, files, out, Settings()),  # type: ignore[misc]
            "encdl decrypt": lambda files=files: decrypt(codec, files, out),  # type: ignore[misc]
            "encdl encrypt, map chacha20, diffusion": lambda files=files: encrypt(  # type: ignore[misc]
                codec, files, out, Settings(PlaneSpec(map="chacha20"), "diffusion")
            ),
            "encdl encrypt, wrap aes": lambda files=files: encrypt(  # type: ignore[misc]
                codec, files, out, Settings(wrap="aes")
            ),
            "encdl decrypt, wrap aes": lambda files=files: decrypt(codec, files, out),  # type: ignore[misc]
            "AES-256-GCM encrypt": lambda files=files: aes_encrypt(files, out, key),  # type: ignore[misc]
            "AES-256-GCM decrypt": lambda files=files: aes_decrypt(files, out, key),  # type: ignore[misc]
        }
        rates = {row: size / 1e6 / time_s for row, time_s in seconds(rows, device).items()}
        steps, without = parts(codec, loaded.cipher, files, device)
        result[name] = {
            "array_mb": size / 1e6,
            "mb_per_s": rates,
            "aes_encrypt_to_encdl_encrypt": rates["AES-256-GCM encrypt"] / rates["encdl encrypt"],
            "aes_decrypt_to_encdl_decrypt": rates["AES-256-GCM decrypt"] / rates["encdl decrypt"],
            "seconds_of_steps": steps,
            "seconds_without_compiled_code": without,
            "share_of_network": steps["mask network"]
            / sum(time_s for step, time_s in steps.items() if step not in OPTIONS),
        }
    return result
