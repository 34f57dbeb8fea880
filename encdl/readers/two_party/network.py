"""The form of a reader, which both parties know, without the weights, which are the host's alone."""

from __future__ import annotations

import hashlib
from collections.abc import Mapping
from dataclasses import asdict, dataclass
from functools import cached_property
from typing import Any, Final

import numpy as np
import numpy.typing as npt
from torch import nn

from encdl.readers.reader import LoadedReader
from encdl.readers.strided import StridedNet, StridedStem, folded
from encdl.utils import canonical_json
from encdl.utils.errors import UsageError, WeightsError

WORD_BITS: Final = 64
"""Of a logit as the parties compute it: so much of an image, at the most, does one give away."""
_MOST: Final = {"channels": 16, "height": 512, "width": 512, "classes": 64}
_MOST_LAYERS, _MOST_WIDTH = 8, 512


@dataclass(frozen=True)
class Network:
    """The form of a reader for two parties: `StridedStem`, then `StridedNet`.

    Attributes:
        channels: Of the reading layer.
        height: Of the reading layer.
        width: Of the reading layer.
        widths: Channels of each convolution, the stem's first.
        classes: Logits.

    Raises:
        UsageError: On construction, if a value is no whole number in its range.
    """

    channels: int
    height: int
    width: int
    widths: tuple[int, ...]
    classes: int

    def __post_init__(self) -> None:
        object.__setattr__(self, "widths", tuple(self.widths))
        sizes = all(_whole(getattr(self, name), most) for name, most in _MOST.items())
        layers = 2 <= len(self.widths) <= _MOST_LAYERS and all(_whole(each, _MOST_WIDTH) for each in self.widths)
        if not sizes or not layers:
            raise UsageError(
                f"no network for two parties has {asdict(self)}: give channels, height, width, classes, and widths of "
                "2 convolutions or more"
            )

    @classmethod
    def of(cls, values: Mapping[str, Any]) -> Network:
        """From the settings of a policy; raises `UsageError` for others."""
        try:
            return cls(**values)
        except TypeError:
            raise UsageError("a network for two parties needs channels, height, width, widths and classes") from None

    @cached_property
    def id(self) -> str:
        """SHA-256 of its form: 64 hexadecimal characters."""
        content = canonical_json.encoded({**asdict(self), "widths": list(self.widths)})
        return hashlib.sha256(b"encdl two-party network v1\0" + content).hexdigest()

    @property
    def given_bits(self) -> int:
        """Bits of an image that one reading gives away at most: the answer's, whatever the host's weights are."""
        return self.classes * WORD_BITS

    @property
    def shape(self) -> tuple[int, int, int]:
        """(C, H, W) of the reading layer."""
        return self.channels, self.height, self.width


def network_of(loaded: LoadedReader) -> tuple[Network, dict[str, npt.NDArray[np.float32]]]:
    """The form and the weights of a reader, batch normalisation folded in.

    Returns:
        The form, and arrays by name: `kernel0` (3, 3, inputs, outputs), `bias0`, and so on, `kernel` and `bias` of the
        linear layer.

    Raises:
        WeightsError: The reader is of another kind.
    """
    stem, backbone = loaded.reader.stem, loaded.reader.backbone
    if not isinstance(stem, StridedStem) or not isinstance(backbone, StridedNet):
        raise WeightsError(
            f"the reader was trained on view {loaded.view} with {backbone.title}, and two parties take view TwoParty "
            "with StridedNet: train one with --recipe classifier-two-party"
        )
    layers: list[tuple[Any, Any]] = [
        (stem.convolution, stem.norm),
        *zip(backbone.convolutions, backbone.norms, strict=True),
    ]
    weights: dict[str, npt.NDArray[np.float32]] = {}
    for number, (convolution, norm) in enumerate(layers):
        kernel, bias = folded(convolution, norm)
        weights[f"kernel{number}"] = kernel.permute(2, 3, 1, 0).contiguous().cpu().numpy()
        weights[f"bias{number}"] = bias.cpu().numpy()
    linear: nn.Linear = backbone.linear
    weights["kernel"], weights["bias"] = linear.weight.T.contiguous().cpu().numpy(), linear.bias.cpu().numpy()
    widths = (stem.width, *backbone.widths)
    height, width = loaded.size
    return Network(stem.channels, height, width, widths, len(loaded.classes)), weights


def _whole(value: object, most: int) -> bool:
    return type(value) is int and 1 <= value <= most
