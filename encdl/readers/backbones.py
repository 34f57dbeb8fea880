"""Backbones of readers: what they are, and any network of MONAI as one."""

from __future__ import annotations

import inspect
from abc import ABC, abstractmethod
from collections.abc import Mapping, Sequence
from functools import partial
from typing import Any

import torch
from torch import Tensor, nn
from torch.overrides import TorchFunctionMode

from encdl.readers.stems import cropped, padded
from encdl.utils.errors import UsageError
from encdl.utils.registry import Registry

SIDE = 64
"""Pixels on a side of the example that tells what a network gives."""


class Backbone(nn.Module, ABC):
    """A network behind a stem: (B, channels, H, W), or (B, channels, D, H, W) of volumes, to logits.

    Classifiers give (B, classes), segmenters (B, classes, H, W) or (B, classes, D, H, W). In evaluation
    mode the result of an image does not depend on the others in its batch.
    """

    per_pixel: bool = False
    """Whether it gives logits for each pixel."""
    dimensions: int = 2
    """2 for images, 3 for volumes."""

    @property
    def title(self) -> str:
        """Its name in messages."""
        return type(self).__name__

    @abstractmethod
    def settings(self) -> dict[str, Any]:
        """The constructor's arguments but `channels` and `classes`, as plain values."""

    @torch.no_grad()
    def stages(self, features: Tensor) -> dict[str, nn.Module]:
        """The modules with the last features of each resolution on the way down, from fine to coarse, by name.

        Args:
            features: What the stem gives of an example, (B, channels, H, H).
        """
        seen: list[tuple[int, str]] = []

        def note(name: str, module: nn.Module, inputs: object, result: object) -> None:
            # Square ones: some modules of MONAI's transformers have the channels last.
            if isinstance(result, Tensor) and result.ndim == 4 and result.shape[2] == result.shape[3] > 1:
                seen.append((result.shape[2], name))

        modules = {name: each for name, each in self.named_modules() if name and [*each.parameters()]}
        handles = [each.register_forward_hook(partial(note, name)) for name, each in modules.items()]
        try:
            self(features)
        finally:
            for handle in handles:
                handle.remove()
        last: dict[int, str] = {}
        for side, name in seen:
            if last and side > min(last):  # upward again
                break
            last[side] = name
        return {name.removeprefix("net."): modules[name] for name in last.values()}


BACKBONES: Registry[type[Backbone]] = Registry("backbone", "encdl.backbones", Backbone)
"""Backbones by the name that a checkpoint keeps."""


@BACKBONES.register("MonaiNet")
class MonaiNet(Backbone):
    """Any network of `monai.networks.nets` for images or volumes, classifier or segmenter.

    Of a `ResNet` the first convolution's stride decides the cost: `conv1_t_stride` 1 at 28 pixels; 2 at 128 and up is
    four times cheaper, and without pooling stride 1 costs ten times as much on a CPU.

    Args:
        channels: Features that the stem gives.
        classes: Logits an image, or a pixel.
        network: The class's name, such as `ResNet`, `DenseNet121`, `UNet`, `SwinUNETR`.
        arguments: Its arguments but dimensions and channels, which follow from the data set.
        multiple: A segmenter is given images padded to a multiple of this, at least twice: as much as it divides
            height and width by.
        dimensions: 2 for images, 3 for volumes.

    Raises:
        UsageError: There is no such network, or it does not take these arguments.
    """

    def __init__(
        self,
        channels: int,
        classes: int,
        network: str,
        arguments: Mapping[str, Any] | None = None,
        multiple: int = 32,
        dimensions: int = 2,
    ) -> None:
        super().__init__()
        self.network, self.arguments, self.multiple = network, dict(arguments or {}), multiple
        if multiple < 1:
            raise UsageError(f"{network}: multiple is {multiple}: give 1 or more")
        self.dimensions = dimensions
        self.net = _made(network, channels, classes, self.arguments, dimensions)
        side = self.arguments.get("img_size", max(SIDE, 2 * multiple) if dimensions == 2 else max(32, 2 * multiple))
        try:
            self.per_pixel = _gives(self.net, channels, (side,) * dimensions if isinstance(side, int) else side) > 2
        except (RuntimeError, ValueError) as error:
            reason = " ".join(str(error).split())[:120]
            raise UsageError(
                f"{network} takes no images of {side} pixels a side, with multiple {multiple} ({reason}): give what it "
                "divides by in all, 32 for SwinUNETR"
            ) from None

    @property
    def title(self) -> str:
        """The network's name."""
        return self.network

    def settings(self) -> dict[str, Any]:
        """The constructor's arguments but `channels` and `classes`."""
        plain = {"network": self.network, "arguments": self.arguments, "multiple": self.multiple}
        return plain | ({"dimensions": self.dimensions} if self.dimensions != 2 else {})

    def forward(self, features: Tensor) -> Tensor:
        """See `Backbone`."""
        if not self.per_pixel:
            return _logits(self.net, features)
        sides = features.shape[2:]
        # Two rows at the coarsest level: normalising a single value over itself would fail in training.
        more = [max(-side % self.multiple, 2 * self.multiple - side) for side in sides]
        return cropped(_logits(self.net, padded(features, more)), sides)


class _OnCpu(TorchFunctionMode):
    """Lets transformers compute their numbers where a network is made without memory, on PyTorch's meta device."""

    def __torch_function__(self, func: Any, types: Any, args: Any = (), kwargs: Any = None) -> Any:
        given = {"device": "cpu"} if func is torch.linspace else {}
        return func(*args, **{**given, **(kwargs or {})})


def _made(network: str, channels: int, classes: int, arguments: Mapping[str, Any], dimensions: int) -> nn.Module:
    """A network of MONAI; see `MonaiNet`."""
    from monai.networks import nets  # noqa: PLC0415

    kind: Any = getattr(nets, network, None)
    known = isinstance(kind, type) and issubclass(kind, nn.Module)
    taken = inspect.signature(kind).parameters if known else {}
    given = {"spatial_dims": dimensions, "in_channels": channels, "n_input_channels": channels}
    given |= {"out_channels": classes, "num_classes": classes, "pretrained": False}
    given = {name: value for name, value in given.items() if name in taken}
    if len(given.keys() - {"pretrained"}) != 3:
        raise UsageError(f"{network!r}: no class of monai.networks.nets for images and classes of any number")
    if clash := given.keys() & arguments.keys():
        names = ", ".join(sorted(clash))
        raise UsageError(f"{network}: leave out {names}: the data set says it, and weights are not downloaded")
    try:
        with _OnCpu():
            made: nn.Module = kind(**given, **arguments)
    except Exception as error:  # whatever a network of MONAI says of its arguments
        reason = " ".join(f"{type(error).__name__}: {error}".split())
        raise UsageError(f"{network} of MONAI does not take {dict(arguments)}: {reason}") from None
    return made


@torch.no_grad()
def _gives(net: nn.Module, channels: int, size: Sequence[int]) -> int:
    """Number of axes of the result: 2 of a classifier, 4 or 5 of a segmenter."""
    axes = _logits(net.eval(), torch.zeros(1, channels, *size)).ndim
    net.train()
    return axes


def _logits(net: nn.Module, features: Tensor) -> Tensor:
    """The result, or its first part: some give more than logits."""
    found = net(features)
    logits: Tensor = found[0] if isinstance(found, tuple | list) else found
    return logits
