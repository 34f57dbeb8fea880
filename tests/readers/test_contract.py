"""What every reader does, whatever its stem and backbone."""

from __future__ import annotations

from typing import Any

import pytest
import torch

from encdl import readers
from encdl.readers import (
    Backbone,
    BasicUNet,
    DenseNet,
    KeyedStem,
    KeylessStem,
    PlainStem,
    Reader,
    ResNet18,
    SwinUNETR,
    UNet,
)
from encdl.utils.errors import UsageError, WeightsError

STEMS = [PlainStem, KeylessStem, KeyedStem]
SMALL: list[tuple[type[Any], dict[str, Any]]] = [
    (ResNet18, {"width": 4}),
    (ResNet18, {"width": 4, "stride": 1, "pool": False}),
    (DenseNet, {"width": 8, "growth": 4, "blocks": [1, 1, 1]}),
    (UNet, {"widths": [4, 8, 8]}),
    (BasicUNet, {"widths": [4, 4, 4, 4, 4, 4]}),
    (SwinUNETR, {"width": 12, "depths": [1, 1, 1, 1], "heads": [1, 1, 2, 2]}),
]
CLASSES = 3


def small(
    kind: type[Any], settings: dict[str, Any], stem: type[Any] = KeyedStem, channels: int = 1
) -> Reader:
    torch.manual_seed(0)
    return Reader(stem(channels, width=4), kind(4, CLASSES, **settings)).eval()


def pictures(count: int = 3, channels: int = 1, height: int = 33, width: int = 28) -> torch.Tensor:
    shape = (count, channels, height, width)
    return torch.randint(0, 256, shape, dtype=torch.uint8, generator=torch.Generator().manual_seed(count))


def mask_for(reader: Reader, image: torch.Tensor) -> torch.Tensor | None:
    return image.flip(0) if reader.stem.keyed else None


@pytest.fixture(params=SMALL, ids=lambda each: f"{each[0].__name__}{len(each[1])}")
def backbone(request: pytest.FixtureRequest) -> tuple[type[Backbone], dict[str, Any]]:
    return request.param  # type: ignore[no-any-return]


@pytest.mark.parametrize("stem", STEMS)
@pytest.mark.parametrize("channels", [1, 3])
def test_shapes(backbone: tuple[Any, dict[str, Any]], stem: type[Any], channels: int) -> None:
    reader = small(*backbone, stem, channels)
    image = pictures(2, channels)
    logits = reader(image, mask_for(reader, image))
    assert logits.shape == ((2, CLASSES, 33, 28) if reader.backbone.per_pixel else (2, CLASSES))
    assert logits.isfinite().all()


@pytest.mark.parametrize("training", [False, True])
@pytest.mark.parametrize("side", [1, 5, 32])
def test_any_size(backbone: tuple[Any, dict[str, Any]], side: int, training: bool) -> None:
    reader = small(*backbone).train(training)
    if side < 32 and not reader.backbone.per_pixel and isinstance(reader.backbone, DenseNet):
        pytest.skip("DenseNet pools images of this size away")
    image = pictures(2, 1, side, side)
    logits = reader(image, image)
    assert logits.shape[-1] == (side if reader.backbone.per_pixel else CLASSES)


def test_a_image_alone_is_read_as_in_a_batch(backbone: tuple[Any, dict[str, Any]]) -> None:
    reader, image = small(*backbone), pictures()
    together = reader(image, image.flip(2))
    for index in range(len(image)):
        alone = reader(image[index : index + 1], image[index : index + 1].flip(2))
        assert torch.allclose(alone[0], together[index], atol=1e-5)


def test_stages_give_ever_coarser_features(backbone: tuple[Any, dict[str, Any]]) -> None:
    reader, image = small(*backbone), pictures(2, 1, 64, 64)
    sizes: list[int] = []
    for stage in reader.backbone.stages().values():
        stage.register_forward_hook(lambda module, inputs, result: sizes.append(result.shape[-1]))
    reader(image, image)
    assert len(sizes) == len(reader.backbone.stages()) >= 3
    assert sizes == sorted(sizes, reverse=True)


def test_gradients_reach_everything(backbone: tuple[Any, dict[str, Any]]) -> None:
    reader, image = small(*backbone).train(), pictures(4, 1, 64, 64)
    reader(image, image.flip(2)).square().mean().backward()
    assert all(parameter.grad is not None for parameter in reader.parameters())


@pytest.mark.parametrize("stem", STEMS)
def test_config_makes_the_same_reader(backbone: tuple[Any, dict[str, Any]], stem: type[Any]) -> None:
    reader, image = small(*backbone, stem), pictures()
    again = readers.create(reader.config(), CLASSES).eval()
    again.load_state_dict(reader.state_dict())
    mask = mask_for(reader, image)
    assert torch.equal(again(image, mask), reader(image, mask))


def test_config_of_another_version_is_refused() -> None:
    config = small(ResNet18, {"width": 4}).config()
    for change in ({"stem": "OtherStem"}, {"backbone_settings": {"depth": 4}}, {"channels": "one"}):
        with pytest.raises(WeightsError, match="not a reader of this version"):
            readers.create(config | change, CLASSES)


def test_backbones_out_of_range() -> None:
    with pytest.raises(UsageError, match="positive width and stride"):
        ResNet18(4, 2, width=0)
    with pytest.raises(UsageError, match="two widths or more"):
        UNet(4, 2, widths=[8])
    with pytest.raises(UsageError, match="six widths"):
        BasicUNet(4, 2, widths=[8])
    with pytest.raises(UsageError, match="multiple of 12, not 20"):
        SwinUNETR(4, 2, width=20)
    with pytest.raises(UsageError, match="four depths and heads"):
        SwinUNETR(4, 2, depths=[2, 2])
    with pytest.raises(UsageError, match="heads that divide"):
        SwinUNETR(4, 2, width=12, heads=[5, 6, 12, 24])
