"""Readers: a stem and a backbone, and how a training checkpoint gives them back."""

from __future__ import annotations

import io
import pickle
import zipfile
from collections.abc import Callable, Mapping
from dataclasses import dataclass, field
from functools import partial
from pathlib import Path
from typing import Any

import torch
from torch import Tensor, nn

from encdl.ciphers.weights import CHECKPOINT_KEY
from encdl.files.levels import DEFAULT, ModalityLevels
from encdl.files.scans import AS_IT_IS, Geometry
from encdl.keys.planes import PlaneSpec
from encdl.readers.backbones import BACKBONES, Backbone
from encdl.readers.functional import FunctionalStem
from encdl.readers.keyless_stems import KeylessStem, PositionalStem
from encdl.readers.stems import KeyedStem, PlainStem, Stem
from encdl.readers.strided import StridedStem
from encdl.utils import torch_files
from encdl.utils.errors import EncdlError, UsageError, WeightsError

STEMS: dict[str, type[PlainStem | KeyedStem | KeylessStem | PositionalStem | FunctionalStem | StridedStem]] = {
    stem.__name__: stem for stem in (PlainStem, KeyedStem, KeylessStem, PositionalStem, FunctionalStem, StridedStem)
}
"""Stems by the name that a checkpoint keeps."""

READER_KEY = "encdl_reader"
"""The key of a training checkpoint under which a reader's parts are described."""


class NoReaderError(WeightsError):
    """The file is no checkpoint of a reader, or a damaged one; it may hold something else."""


class Reader(nn.Module):
    """A network that reads images in the form that its stem is made for.

    Args:
        stem: Takes in the image, and the mask if it is keyed.
        backbone: Makes logits of the stem's features.
    """

    def __init__(self, stem: Stem, backbone: Backbone) -> None:
        super().__init__()
        self.stem, self.backbone = stem, backbone

    def forward(self, image: Tensor, mask: Tensor | None = None) -> Tensor:
        """Logits of uint8 (B, C, H, W) images, or (B, C, D, H, W) volumes.

        See `Stem.forward` for the mask, `Backbone` for the logits.
        """
        logits: Tensor = self.backbone(self.stem(image, mask))
        return logits

    def config(self) -> dict[str, Any]:
        """Its parts and their settings as plain values.

        Raises:
            UsageError: The backbone is not registered, so that `create` could not make it again.
        """
        return {
            "stem": type(self.stem).__name__,
            "stem_settings": self.stem.settings(),
            "backbone": BACKBONES.check(type(self.backbone)),
            "backbone_settings": self.backbone.settings(),
            "channels": self.stem.channels,
        }


@dataclass(frozen=True)
class LoadedReader:
    """A reader ready for use.

    Attributes:
        reader: In evaluation mode, on the device asked for.
        classes: Names of the classes, by index of the logit.
        size: Height and width in pixels of the images that it was trained on; of volumes depth, height and width.
        weights_id: Id of the cipher weights that it was trained on.
        planes: Map and expansion of the keys that it was trained under.
        view: What it was trained to read, a class of `encdl.training.tasks.views`: "Ciphertext", "Plaintext", ...
        levels: How stored integers become the levels that it was trained on.
        geometry: How it wants scans to lie.
        leak: Of a functional reader, what the best decoder made of its numbers, if `encdl experiment reader-leak`
            measured it: `decoder`, `dataset`, `psnr_db`, `ssim`, `mean_image_psnr_db`, `thumbnail_psnr_db`.
    """

    reader: Reader
    classes: tuple[str, ...]
    size: tuple[int, ...]
    weights_id: str
    planes: PlaneSpec
    view: str
    levels: ModalityLevels = DEFAULT
    geometry: Geometry = AS_IT_IS
    leak: Mapping[str, Any] = field(default_factory=dict)


def create(config: dict[str, Any], classes: int) -> Reader:
    """A reader with random weights, from what `Reader.config` gave.

    Raises:
        WeightsError: It names a part that this version does not know, or settings that the part does not take.
    """
    if config["backbone"] not in BACKBONES:
        raise WeightsError(BACKBONES.unknown(config["backbone"]))
    try:
        stem = STEMS[config["stem"]](config["channels"], **config["stem_settings"])
        make: Callable[..., Backbone] = BACKBONES[config["backbone"]]
        backbone = make(stem.width, classes, **config["backbone_settings"])
    except (KeyError, TypeError, ValueError, EncdlError) as error:
        raise WeightsError(f"not a reader of this version: {error}") from None
    return Reader(stem, backbone)


def keyed(reader: Reader) -> Reader:
    """A reader of ciphertext with the very parameters of a reader of plaintext.

    On any ciphertext of an exact cipher and its mask it gives the logits that the other gives on the image, up to
    rounding (see `encdl.readers.stems`). Device and mode are the same; training the one changes the other.

    Raises:
        UsageError: The stem is not a `PlainStem`.
    """
    if not isinstance(reader.stem, PlainStem):
        raise UsageError(
            f"a reader with a {type(reader.stem).__name__} has no keyed twin: only one with a PlainStem has"
        )
    stem = KeyedStem(reader.stem.channels, reader.stem.width, reader.stem.dimensions)
    stem.to(reader.stem.convolution.weight.device)
    stem.convolution, stem.norm = reader.stem.convolution, reader.stem.norm
    return Reader(stem, reader.backbone).train(reader.training)


def slim(path: str | Path) -> bytes:
    """A checkpoint of a reader without its optimiser and what else training needs; `load` opens it alike."""
    content = torch_files.read(path)
    kept = {"state_dict", READER_KEY, CHECKPOINT_KEY}
    small = io.BytesIO()
    torch.save({name: value for name, value in content.items() if name in kept}, small)
    return small.getvalue()


def load(path: str | Path, device: str | torch.device = "cpu") -> LoadedReader:
    """The reader in a training checkpoint.

    Raises:
        NoReaderError: `path` is no such checkpoint, or a damaged one.
        WeightsError: There is no such file, or it names a backbone that is not registered.
        UsageError: The package that brings the backbone cannot be loaded.
    """
    if not Path(path).is_file():
        raise WeightsError(f"{path}: no such checkpoint: give one that training a reader wrote")
    try:
        content = torch_files.read(path)
        origin = content[READER_KEY]
        classes, planes = tuple(origin["classes"]), PlaneSpec.from_dict(origin["planes"])
        size = tuple(int(side) for side in origin["size"])
        weights_id, view, leak = str(origin["weights_id"]), str(origin["view"]), dict(origin.get("leak", {}))
        levels, geometry = ModalityLevels.from_dict(origin.get("levels")), Geometry(**origin.get("geometry") or {})
        prefix = "reader."
        state = {
            name.removeprefix(prefix): value for name, value in content["state_dict"].items() if name.startswith(prefix)
        }
        make = partial(create, origin["reader"], len(classes))
        if not torch_files.fits(make, state, path):
            raise WeightsError("holds weights of another network than it says: train the reader, or copy it, again")
        reader = make()
        reader.load_state_dict(state)
    except WeightsError as error:
        raise WeightsError(f"{path}: {error}") from None
    except (
        pickle.UnpicklingError,
        zipfile.BadZipFile,
        OSError,
        EOFError,
        RuntimeError,
        LookupError,
        AttributeError,
        TypeError,
        ValueError,
    ):
        raise NoReaderError(
            f"{path}: not a checkpoint of a reader, or a damaged one: give one that training a reader wrote"
        ) from None
    reader.eval().requires_grad_(False)
    return LoadedReader(reader.to(device), classes, size, weights_id, planes, view, levels, geometry, leak)
