"""Backbones of readers, from MONAI: features of a stem to one row of logits a picture, or one a pixel."""

from __future__ import annotations

from abc import ABC, abstractmethod
from collections.abc import Sequence
from typing import Any, ClassVar

from torch import Tensor, nn
from torch.nn import functional as F

from encdl.errors import UsageError
from encdl.lazy import need

PURPOSE = "the backbone of a reader"


class Backbone(nn.Module, ABC):
    """A network behind a stem: (B, channels, H, W) to logits.

    Classifiers give (B, classes), segmenters (B, classes, H, W). In evaluation mode the result of a picture does not
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


class ResNet18(Backbone):
    """MONAI's ResNet with 2 basic blocks a stage (He et al. 2016, arXiv:1512.03385) and a 3x3 first convolution.

    The first convolution's stride decides the cost. At 28 pixels use `stride: 1`; at 128 and up `stride: 2`, which is
    four times cheaper (and without pooling stride 1 costs ten times as much on a CPU).

    Args:
        channels: Features that the stem gives.
        classes: Logits a picture.
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


class DenseNet(Backbone):
    """MONAI's DenseNet (Huang et al. 2017, arXiv:1608.06993); its defaults here are DenseNet-121's.

    Args:
        channels: Features that the stem gives.
        classes: Logits a picture.
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


class UNet(Backbone):
    """MONAI's residual U-Net (Kerfoot et al. 2019); any height and width.

    Args:
        channels: Features that the stem gives.
        classes: Logits a pixel.
        widths: Channels of each level, the finest first.
        residual_units: Convolutions of a residual unit.
    """

    per_pixel: ClassVar[bool] = True

    def __init__(
        self, channels: int, classes: int, widths: Sequence[int] = (32, 64, 128, 256), residual_units: int = 2
    ) -> None:
        super().__init__()
        if len(widths) < 2:
            raise UsageError(f"UNet needs two widths or more, not {list(widths)}")
        self._settings = {"widths": list(widths), "residual_units": residual_units}
        self.multiple = 2 ** (len(widths) - 1)
        self.net = need("monai.networks.nets", PURPOSE).UNet(
            spatial_dims=2,
            in_channels=channels,
            out_channels=classes,
            channels=tuple(widths),
            strides=(2,) * (len(widths) - 1),
            num_res_units=residual_units,
        )

    def settings(self) -> dict[str, Any]:
        """The constructor's arguments but `channels` and `classes`."""
        return dict(self._settings)

    def stages(self) -> dict[str, nn.Module]:
        """The levels on the way down."""
        found: dict[str, nn.Module] = {}
        level = self.net.model
        while isinstance(level, nn.Sequential):  # down, skip connection around the next level, up
            found[f"down{len(found) + 1}"] = level[0]
            level = level[1].submodule
        return {**found, f"down{len(found) + 1}": level}

    def forward(self, features: Tensor) -> Tensor:
        """(B, channels, H, W) to (B, classes, H, W)."""
        return _padded(self.net, features, self.multiple)


class BasicUNet(Backbone):
    """MONAI's plain U-Net (Ronneberger et al. 2015, arXiv:1505.04597); any height and width.

    Args:
        channels: Features that the stem gives.
        classes: Logits a pixel.
        widths: Channels of the five levels, and of the last convolutions.
    """

    per_pixel: ClassVar[bool] = True
    MULTIPLE = 16

    def __init__(
        self, channels: int, classes: int, widths: Sequence[int] = (32, 32, 64, 128, 256, 32)
    ) -> None:
        super().__init__()
        if len(widths) != 6:
            raise UsageError(f"BasicUNet needs six widths, not {list(widths)}")
        self._settings = {"widths": list(widths)}
        self.net = need("monai.networks.nets", PURPOSE).BasicUNet(
            spatial_dims=2, in_channels=channels, out_channels=classes, features=tuple(widths)
        )

    def settings(self) -> dict[str, Any]:
        """The constructor's arguments but `channels` and `classes`."""
        return dict(self._settings)

    def stages(self) -> dict[str, nn.Module]:
        """The levels on the way down."""
        return {name: getattr(self.net, name) for name in ("conv_0", "down_1", "down_2", "down_3", "down_4")}

    def forward(self, features: Tensor) -> Tensor:
        """(B, channels, H, W) to (B, classes, H, W)."""
        return _padded(self.net, features, self.MULTIPLE)


def _padded(net: nn.Module, features: Tensor, multiple: int) -> Tensor:
    """Run `net` on features padded to a multiple of `multiple` (twice that at the least), and crop the result."""
    height, width = features.shape[-2:]
    # Two rows at the coarsest level: normalising a single value over itself would fail in training.
    rows, columns = (max(-side % multiple, 2 * multiple - side) for side in (height, width))
    logits: Tensor = net(F.pad(features, (0, columns, 0, rows)))
    return logits[..., :height, :width]


BACKBONES: dict[str, type[ResNet18 | DenseNet | UNet | BasicUNet]] = {
    backbone.__name__: backbone for backbone in (ResNet18, DenseNet, UNet, BasicUNet)
}
"""Backbones by the name that a checkpoint keeps."""
