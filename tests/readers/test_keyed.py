"""The keyed twin of a plaintext reader."""

from __future__ import annotations

from typing import Any

import pytest
import torch

from encdl.readers import KeyedStem, KeylessStem, PlainStem, Reader, keyed
from encdl.utils.errors import UsageError
from tests.reader_checkpoint import resnet, tiny_reader, unet


@pytest.mark.parametrize("backbone", [resnet, unet])
@pytest.mark.parametrize("channels", [1, 3])
def test_it_reads_ciphertext_as_the_other_reads_the_image(backbone: type[Any], channels: int) -> None:
    plain = tiny_reader(backbone, PlainStem, channels)
    twin = keyed(plain)
    draw = torch.Generator().manual_seed(0)
    image, mask = torch.randint(0, 256, (2, 2, channels, 33, 28), dtype=torch.uint8, generator=draw)
    assert torch.allclose(twin(image + mask, mask), plain(image), atol=1e-4)
    assert not torch.allclose(twin(image + mask, mask.flip(0)), plain(image), atol=1e-2)


@pytest.mark.parametrize("training", [True, False])
def test_it_shares_parameters_and_mode(training: bool) -> None:
    plain = tiny_reader(resnet, PlainStem).train(training)
    twin = keyed(plain)
    assert isinstance(twin.stem, KeyedStem)
    assert [id(value) for value in twin.parameters()] == [id(value) for value in plain.parameters()]
    assert all(module.training == training for module in twin.modules())
    assert isinstance(plain.stem, PlainStem)


@pytest.mark.parametrize("stem", [KeyedStem, KeylessStem])
def test_other_readers_have_none(stem: type[Any]) -> None:
    reader: Reader = tiny_reader(resnet, stem)
    with pytest.raises(UsageError, match=f"a {stem.__name__} has no keyed twin"):
        keyed(reader)
