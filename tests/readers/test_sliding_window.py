"""Windows: what is read window by window is what a reader sees of the whole image."""

from __future__ import annotations

from typing import Any

import pytest
import torch
from torch import Tensor, nn

from encdl.ciphers import weights
from encdl.keys.planes import PlaneSpec
from encdl.readers import Backbone, KeyedStem, PlainStem, Reader, read_windows
from encdl.training.tasks.key_planes import fresh_planes
from encdl.utils.errors import UsageError
from tests.reader_checkpoint import resnet, unet


class Local(Backbone):
    """Two convolutions: a pixel's logits depend on neighbours within 2 pixels (3 with the stem)."""

    per_pixel = True

    def __init__(self, channels: int, classes: int) -> None:
        super().__init__()
        self.net = nn.Sequential(nn.Conv2d(channels, 4, 3, padding=1), nn.ReLU(), nn.Conv2d(4, classes, 3, padding=1))

    def settings(self) -> dict[str, Any]:
        return {}

    def stages(self) -> dict[str, nn.Module]:
        return {"net": self.net}

    def forward(self, features: Tensor) -> Tensor:
        result: Tensor = self.net(features)
        return result


def reader(stem: type[Any] = KeyedStem, channels: int = 1) -> Reader:
    torch.manual_seed(0)
    return Reader(stem(channels, width=4), Local(4, 3)).eval().requires_grad_(False)


def noise(*shape: int, seed: int = 0) -> Tensor:
    return torch.randint(0, 256, shape, dtype=torch.uint8, generator=torch.Generator().manual_seed(seed))


class Watched(nn.Module):
    """A reader that remembers what it was shown."""

    def __init__(self, inner: Reader) -> None:
        super().__init__()
        self.inner, self.backbone = inner, inner.backbone
        self.shown: list[tuple[Tensor, Tensor | None]] = []

    def forward(self, image: Tensor, mask: Tensor | None = None) -> Tensor:
        self.shown.append((image, mask))
        logits: Tensor = self.inner(image, mask)
        return logits


def inside_windows(side: int) -> Tensor:
    """Which of `side` rows or columns are 3 pixels or more from every end of a window of 32, a quarter overlapping."""
    inside = torch.ones(side, dtype=torch.bool)
    for start in {min(start, max(side - 32, 0)) for start in range(0, side, 24)}:
        for end in (start, start + 32):
            if 0 < end < side:
                inside[max(end - 3, 0) : end + 3] = False
    return inside


@pytest.mark.parametrize("channels", [1, 3])
@pytest.mark.parametrize("size", [(70, 50), (33, 32), (32, 97), (20, 90)])
def test_windows_give_what_the_whole_gives(channels: int, size: tuple[int, int]) -> None:
    """But within 3 pixels of where a window ends: there nothing beyond it is seen."""
    image, mask = noise(2, channels, *size), noise(2, channels, *size, seed=1)
    read = reader(channels=channels)
    whole, cut = read(image, mask), read_windows(read, image, mask, (32, 32), overlap=0.25)
    assert cut.shape == (2, 3, *size)
    inside = inside_windows(size[0])[:, None] & inside_windows(size[1])
    assert inside.float().mean() > 0.3
    assert torch.allclose(cut[..., inside], whole[..., inside], atol=1e-5)
    assert (cut - whole).abs().max() < 6 * whole.std()


def test_the_windows_are_cut_alike_from_ciphertext_and_mask() -> None:
    loaded = weights.load("default")
    image = noise(1, 1, 48, 80)
    planes = fresh_planes(PlaneSpec(), image.shape, seed=0, rank=0, purpose="windows", step=0)
    ciphertext = loaded.cipher.encrypt(image, planes)
    watched = Watched(reader())
    read_windows(watched, ciphertext, loaded.cipher.field(ciphertext, planes), (32, 32))  # type: ignore[arg-type]
    assert len(watched.shown) == 1
    [(images, masks)] = watched.shown
    assert masks is not None
    assert images.dtype == masks.dtype == torch.uint8
    assert images.shape == masks.shape == (6, 1, 32, 32)
    unmasked = images - masks
    assert torch.equal(unmasked[0, 0], image[0, 0, :32, :32])
    assert torch.equal(unmasked[-1, 0], image[0, 0, -32:, -32:])


def test_a_small_image_is_read_whole() -> None:
    watched, image = Watched(reader(PlainStem)), noise(2, 1, 32, 20)
    logits = read_windows(watched, image, None, (32, 32))  # type: ignore[arg-type]
    assert [tuple(shown.shape) for shown, _ in watched.shown] == [(2, 1, 32, 20)]
    assert torch.equal(logits, watched.inner(image))


def test_a_image_alone_is_read_as_in_a_batch() -> None:
    torch.manual_seed(0)
    read = Reader(KeyedStem(1, 4), unet(4, 3, widths=[4, 8])).eval().requires_grad_(False)
    image, mask = noise(3, 1, 40, 70), noise(3, 1, 40, 70, seed=1)
    together = read_windows(read, image, mask, (32, 32))
    for index in range(3):
        alone = read_windows(read, image[index : index + 1], mask[index : index + 1], (32, 32))
        assert torch.allclose(alone[0], together[index], atol=1e-4)


def test_what_does_not_fit_is_refused() -> None:
    image = noise(1, 1, 40, 40)
    with pytest.raises(UsageError, match="ResNet gives no logits for each pixel"):
        read_windows(Reader(PlainStem(1), resnet(16, 2, width=4)), image, None, (32, 32))
    for window, overlap in (((0, 32), 0.25), ((32, 32), 1.0), ((32, 32), -0.1), ((32, 32), float("nan"))):
        with pytest.raises(UsageError, match="a window needs"):
            read_windows(reader(), image, image, window, overlap)
    with pytest.raises(UsageError, match=r"the mask has the shape \(1, 1, 40, 39\)"):
        read_windows(reader(), image, image[..., :-1], (32, 32))
    with pytest.raises(UsageError, match="needs the mask of each pixel"):
        read_windows(reader(), image, None, (32, 32))
