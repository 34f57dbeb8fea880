"""Backbones of readers, from MONAI: the base of all, and classifiers. Segmenters: `encdl.readers.segmenters`."""

from __future__ import annotations

from abc import ABC, abstractmethod
from collections.abc import Sequence
from typing import Any, ClassVar

from torch import Tensor, nn

from encdl.utils.errors import UsageError
from encdl.utils.lazy import need
from encdl.utils.registry import Registry

PURPOSE = "the backbone of a reader"


class Backbone(nn.Module, ABC):
    """A network behind a stem: (B, channels, H, W) to logits.

    Classifiers give (B, classes), segmenters (B, classes, H, W). In evaluation mode the result of an image does not
    depend on the others in its batch.
    """

    per_pixel: ClassVar[bool] = False
    """Whether it gives logits for each pixel."""

    @abstractmethod
    def settings(self) -> dict[str, Any]:
        """The constructor's arguments but `channels` and `classes`, as plain values."""

    @abstractmethod
    def stages(self) -> dict[str, nn.Module]:
        """The modules whose results are its features, from fine to coarse, by name."""


BACKBONES: Registry[type[Backbone]] = Registry("backbone", "encdl.backbones", Backbone)
"""Backbones by the name that a checkpoint keeps."""


@BACKBONES.register("ResNet18")
class ResNet18(Backbone):
    """MONAI's ResNet with 2 basic blocks a stage (He et al. 2016, arXiv:1512.03385) and a 3x3 first convolution.

    The first convolution's stride decides the cost. At 28 pixels use `stride: 1`; at 128 and up `stride: 2`, which is
    four times cheaper (and without pooling stride 1 costs ten times as much on a CPU).

    Args:
        channels: Features that the stem gives.
        classes: Logits an image.
        width: Channels of the first stage; each following one has twice as many.
        stride: Of the first convolution.
        pool: Whether a max pooling of stride 2 follows.
    """

    def __init__(
        self, channels: int, classes: int, width: int = 64, stride: int = 2, pool: bool = True
    ) -> None:
        super().__init__()
        if width < 1 or stride < 1:
            raise UsageError(f"ResNet18 needs a positive width and stride, not {width} and {stride}")
        self._settings = {"width": width, "stride": stride, "pool": pool}
        self.net = need("monai.networks.nets", PURPOSE).ResNet(
            block="basic",
            layers=[2, 2, 2, 2],
            block_inplanes=[width, 2 * width, 4 * width, 8 * width],
            spatial_dims=2,
            n_input_channels=channels,
            conv1_t_size=3,
            conv1_t_stride=stride,
            no_max_pool=not pool,
            num_classes=classes,
        )

    def settings(self) -> dict[str, Any]:
        """The constructor's arguments but `channels` and `classes`."""
        return dict(self._settings)

    def stages(self) -> dict[str, nn.Module]:
        """The four stages."""
        return {name: getattr(self.net, name) for name in ("layer1", "layer2", "layer3", "layer4")}

    def forward(self, features: Tensor) -> Tensor:
        """(B, channels, H, W) to (B, classes)."""
        logits: Tensor = self.net(features)
        return logits


@BACKBONES.register("DenseNet")
class DenseNet(Backbone):
    """MONAI's DenseNet (Huang et al. 2017, arXiv:1608.06993); its defaults here are DenseNet-121's.

    Args:
        channels: Features that the stem gives.
        classes: Logits an image.
        width: Channels of the first convolution.
        growth: Channels that each layer adds.
        blocks: Layers of each block.
    """

    def __init__(
        self,
        channels: int,
        classes: int,
        width: int = 64,
        growth: int = 32,
        blocks: Sequence[int] = (6, 12, 24, 16),
    ) -> None:
        super().__init__()
        self._settings = {"width": width, "growth": growth, "blocks": list(blocks)}
        self.net = need("monai.networks.nets", PURPOSE).DenseNet(
            spatial_dims=2,
            in_channels=channels,
            out_channels=classes,
            init_features=width,
            growth_rate=growth,
            block_config=tuple(blocks),
        )

    def settings(self) -> dict[str, Any]:
        """The constructor's arguments but `channels` and `classes`."""
        return dict(self._settings)

    def stages(self) -> dict[str, nn.Module]:
        """The dense blocks."""
        named = dict(self.net.features.named_children())
        return {name: module for name, module in named.items() if name.startswith("denseblock")}

    def forward(self, features: Tensor) -> Tensor:
        """(B, channels, H, W) to (B, classes)."""
        logits: Tensor = self.net(features)
        return logits
