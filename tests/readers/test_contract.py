"""What every reader does, whatever its stem and backbone."""

from __future__ import annotations

from typing import Any

import pytest
import torch

from encdl import readers
from encdl.readers import KeyedStem, KeylessStem, MonaiNet, PlainStem, Reader
from encdl.utils.errors import UsageError, WeightsError

STEMS = [PlainStem, KeylessStem, KeyedStem]
RESNET = {"block": "basic", "layers": [2] * 4, "block_inplanes": [4, 8, 16, 32], "conv1_t_size": 3}
SMALL: list[tuple[str, dict[str, Any]]] = [
    ("ResNet", RESNET),
    ("ResNet", {**RESNET, "conv1_t_stride": 2, "no_max_pool": True}),
    ("DenseNet", {"init_features": 8, "growth_rate": 4, "block_config": [1, 1, 1]}),
    ("UNet", {"channels": [4, 8, 8], "strides": [2, 2], "num_res_units": 2}),
    ("BasicUNet", {"features": [4] * 6}),
    ("AttentionUnet", {"channels": [4, 8], "strides": [2]}),
    ("SwinUNETR", {"feature_size": 12, "depths": [1] * 4, "num_heads": [1, 1, 2, 2]}),
]
CLASSES = 3


def small(network: str, arguments: dict[str, Any], stem: type[Any] = KeyedStem, channels: int = 1) -> Reader:
    torch.manual_seed(0)
    return Reader(stem(channels, width=4), MonaiNet(4, CLASSES, network, arguments)).eval()


def pictures(count: int = 3, channels: int = 1, height: int = 33, width: int = 28) -> torch.Tensor:
    shape = (count, channels, height, width)
    return torch.randint(0, 256, shape, dtype=torch.uint8, generator=torch.Generator().manual_seed(count))


def mask_for(reader: Reader, image: torch.Tensor) -> torch.Tensor | None:
    return image.flip(0) if reader.stem.keyed else None


@pytest.fixture(params=SMALL, ids=lambda each: f"{each[0]}{len(each[1])}")
def backbone(request: pytest.FixtureRequest) -> tuple[str, dict[str, Any]]:
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
    if side < 32 and not reader.backbone.per_pixel and reader.backbone.title == "DenseNet":
        pytest.skip("it pools images of this size away")
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
    stages = reader.backbone.stages(torch.zeros(1, 4, 64, 64))
    for stage in stages.values():
        stage.register_forward_hook(lambda module, inputs, result: sizes.append(result.shape[-1]))
    reader(image, image)
    assert len(sizes) == len(stages) >= 2
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
    config = small(*SMALL[0]).config()
    other = {"network": "UNet", "arguments": {"channels": 4}}
    for change in ({"stem": "OtherStem"}, {"backbone_settings": other}, {"channels": "one"}):
        with pytest.raises(WeightsError, match="not a reader of this version"):
            readers.create(config | change, CLASSES)


@pytest.mark.parametrize(
    ("network", "arguments", "said"),
    [
        ("Unknown", {}, "'Unknown': no class of monai.networks.nets"),
        ("VAE", {}, "'VAE': no class of"),
        ("load_state_dict", {}, "no class of"),
        ("BasicUNet", {"features": [8]}, "BasicUNet of MONAI does not take {'features': \\[8\\]}: ValueError"),
        ("UNet", {"widths": [8]}, "TypeError: .*'widths'"),
        ("BasicUNet", {"in_channels": 3}, "leave out in_channels"),
        ("EfficientNetBN", {"model_name": "efficientnet-b0", "pretrained": True}, "leave out pretrained"),
    ],
)
def test_networks_and_arguments_that_monai_does_not_have(network: str, arguments: dict[str, Any], said: str) -> None:
    with pytest.raises(UsageError, match=said):
        MonaiNet(4, 2, network, arguments)
    with pytest.raises(UsageError, match="multiple is 0"):
        MonaiNet(4, 2, network, arguments, multiple=0)
