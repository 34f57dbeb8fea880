"""Backbones that segment, from MONAI: features of a stem to one row of logits a pixel."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any, ClassVar

from torch import Tensor, nn
from torch.nn import functional as F

from encdl.readers.backbones import BACKBONES, PURPOSE, Backbone
from encdl.utils.errors import UsageError
from encdl.utils.lazy import need

LEVELS = 4
"""Levels of the Swin transformer."""


@BACKBONES.register("UNet")
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


@BACKBONES.register("BasicUNet")
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


@BACKBONES.register("SwinUNETR")
class SwinUNETR(Backbone):
    """MONAI's U-Net with a Swin transformer as encoder (Hatamizadeh et al. 2022, arXiv:2201.01266); any size.

    Args:
        channels: Features that the stem gives.
        classes: Logits a pixel.
        width: Channels of the finest level, a multiple of 12; each of the four coarser ones has twice as many.
        depths: Transformer blocks of each level.
        heads: Attention heads of each level; each number divides its level's channels.
    """

    per_pixel: ClassVar[bool] = True
    MULTIPLE = 32

    def __init__(
        self,
        channels: int,
        classes: int,
        width: int = 24,
        depths: Sequence[int] = (2, 2, 2, 2),
        heads: Sequence[int] = (3, 6, 12, 24),
    ) -> None:
        super().__init__()
        if width < 12 or width % 12:
            raise UsageError(f"SwinUNETR needs a width that is a multiple of 12, not {width}")
        if len(depths) != LEVELS or len(heads) != LEVELS:
            raise UsageError(f"SwinUNETR needs four depths and heads, not {list(depths)} and {list(heads)}")
        if min(*depths, *heads) < 1 or any(width * 2**level % count for level, count in enumerate(heads)):
            raise UsageError(
                f"SwinUNETR needs positive depths, and heads that divide a level's channels ({width}, then doubling), "
                f"not {list(depths)} and {list(heads)}"
            )
        self._settings = {"width": width, "depths": list(depths), "heads": list(heads)}
        self.net = need("monai.networks.nets", PURPOSE).SwinUNETR(
            in_channels=channels,
            out_channels=classes,
            depths=tuple(depths),
            num_heads=tuple(heads),
            feature_size=width,
            spatial_dims=2,
        )

    def settings(self) -> dict[str, Any]:
        """The constructor's arguments but `channels` and `classes`."""
        return dict(self._settings)

    def stages(self) -> dict[str, nn.Module]:
        """The encoder's levels."""
        return {
            name: getattr(self.net, name)
            for name in ("encoder1", "encoder2", "encoder3", "encoder4", "encoder10")
        }

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
