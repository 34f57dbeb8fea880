"""The network that `bench.py` reads plaintext and ciphertext with: ResNet-18, from MONAI or else from what is there."""

from __future__ import annotations

from typing import Any

from torch import Tensor, nn

from encdl.readers import Backbone
from encdl.readers.backbones import MonaiNet

CLASSES = 4
ARGUMENTS: dict[str, Any] = {
    "block": "basic", "layers": [2, 2, 2, 2], "block_inplanes": [64, 128, 256, 512],
    "conv1_t_size": 3, "conv1_t_stride": 2, "no_max_pool": False,
}  # fmt: skip


class OtherNet(Backbone):
    """Torchvision's ResNet-18 with the same first convolution, or six convolutions where that is missing too.

    Args:
        channels: Features that the stem gives.
    """

    def __init__(self, channels: int) -> None:
        super().__init__()
        first = nn.Conv2d(channels, 64, 3, 2, 1, bias=False)
        try:
            from torchvision.models import resnet18  # noqa: PLC0415
        except (ImportError, RuntimeError):  # RuntimeError: built for another version of PyTorch
            self.name, layers = "six convolutions", [nn.Sequential(first, nn.BatchNorm2d(64), nn.ReLU())]
            for width in (64, 128, 256, 512, 512):
                conv = nn.LazyConv2d(width, 3, 1 if width == 64 else 2, 1, bias=False)
                layers.append(nn.Sequential(conv, nn.BatchNorm2d(width), nn.ReLU()))
            self.net: nn.Module = nn.Sequential(*layers, nn.AdaptiveAvgPool2d(1), nn.Flatten(), nn.Linear(512, CLASSES))
        else:
            self.name, self.net = "torchvision's ResNet-18", resnet18(num_classes=CLASSES)
            self.net.conv1 = first

    @property
    def title(self) -> str:
        """What it is."""
        return self.name

    def settings(self) -> dict[str, Any]:
        """None."""
        return {}

    def forward(self, features: Tensor) -> Tensor:
        """(B, channels, H, W) to (B, 4)."""
        logits: Tensor = self.net(features)
        return logits


def plaintext_network(channels: int) -> Backbone:
    """A fresh one behind a stem of so many channels; its `title` says what it is."""
    try:
        return MonaiNet(channels, CLASSES, "ResNet", ARGUMENTS)
    except Exception:  # monai is missing, or does not load here
        return OtherNet(channels)
