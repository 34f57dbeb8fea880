"""Checkpoints of readers without training: what `ReadTask` and `CipherTask` write, of given parts."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from pathlib import Path
from typing import Any

import numpy as np
import torch

from encdl.ciphers.weights import CHECKPOINT_KEY, LoadedCipher, load
from encdl.files import images
from encdl.keys.planes import PlaneSpec
from encdl.readers import READER_KEY, KeyedStem, MonaiNet, Reader, Stem

SIZE = (21, 30)


def resnet(channels: int, classes: int, width: int = 4, stride: int = 1) -> MonaiNet:
    """A ResNet-18 of few channels."""
    widths = [width << stage for stage in range(4)]
    arguments = {"block": "basic", "layers": [2] * 4, "block_inplanes": widths}
    return MonaiNet(channels, classes, "ResNet", {**arguments, "conv1_t_size": 3, "conv1_t_stride": stride})


def unet(channels: int, classes: int, widths: Sequence[int] = (4, 8)) -> MonaiNet:
    """A U-Net of few levels."""
    arguments = {"channels": list(widths), "strides": [2] * (len(widths) - 1), "num_res_units": 1}
    return MonaiNet(channels, classes, "UNet", arguments, multiple=2 ** (len(widths) - 1))


CLASSES = {resnet: ("well", "ill", "unsure"), unet: ("background", "tumour", "oedema")}


def tiny_reader(
    backbone: Callable[[int, int], MonaiNet], stem: type[Stem] = KeyedStem, channels: int = 1, seed: int = 3
) -> Reader:
    """A reader with random weights, among them the statistics of batches, whose answers differ between images."""
    torch.manual_seed(seed)
    body = backbone(4, len(CLASSES[backbone]))
    reader = Reader(stem(channels, width=4), body)  # type: ignore[call-arg]
    for norm in (module for module in reader.modules() if isinstance(module, torch.nn.BatchNorm2d)):
        torch.nn.init.uniform_(norm.running_mean, -0.2, 0.2)
        torch.nn.init.uniform_(norm.weight, 0.5, 1.5)
    return reader.eval()


def save_reader(
    path: Path | str, reader: Reader, cipher: LoadedCipher | None = None, view: str = "Ciphertext", **changes: Any
) -> Path:
    """Write a checkpoint; `changes` replace what it says of the reader."""
    cipher = cipher or load("default")
    state = {f"reader.{name}": value for name, value in reader.state_dict().items()}
    state |= {f"cipher.{name}": value for name, value in cipher.cipher.state_dict().items()}
    origin = {
        "reader": reader.config(),
        "view": view,
        "classes": list(CLASSES[unet if reader.backbone.per_pixel else resnet]),
        "size": list(SIZE),
        "weights_id": cipher.id,
        "planes": PlaneSpec(count=cipher.cipher.planes).to_dict(),
    }
    content = {
        "state_dict": state,
        READER_KEY: origin | changes,
        CHECKPOINT_KEY: {"cipher": cipher.cipher.name, "config": cipher.cipher.config(), "training": {}},
    }
    torch.save(content, path)
    return Path(path)


def smooth(seed: int = 0, shape: tuple[int, ...] = SIZE) -> images.Array:
    """An image with something in it."""
    y, x = np.mgrid[: shape[0], : shape[1]]
    return (120 + 90 * np.sin(x / (4 + seed)) * np.cos(y / 5 + seed)).round().astype(np.uint8)
