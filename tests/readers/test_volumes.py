"""Readers of volumes: the full and the functional view, networks of MONAI, windows."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch

from encdl.keys.functional_map import FunctionalMap
from encdl.readers import (
    FunctionalStem,
    KeyedStem,
    KeylessStem,
    MonaiNet,
    PlainStem,
    Reader,
    create,
    keyed,
    load,
    read_windows,
)
from encdl.utils.errors import UsageError
from tests.reader_checkpoint import save_reader

SIZE = (8, 9, 12)
NETWORKS: dict[str, dict[str, Any]] = {
    "UNet": {"channels": [4, 8], "strides": [2]},
    "BasicUNet": {"features": [4] * 6},
    "SegResNet": {"init_filters": 8, "blocks_down": [1, 1], "blocks_up": [1]},
    "SwinUNETR": {"feature_size": 12, "depths": [1, 1, 1, 1], "num_heads": [1, 1, 1, 1]},
}


def noise(count: int = 2) -> torch.Tensor:
    return torch.randint(0, 256, (count, 1, *SIZE), dtype=torch.uint8, generator=torch.Generator().manual_seed(count))


@pytest.mark.parametrize("network", NETWORKS)
def test_the_full_view_is_the_plaintext_reader(network: str) -> None:
    backbone = MonaiNet(4, 3, network, NETWORKS[network], multiple=32 if network == "SwinUNETR" else 16, dimensions=3)
    plain = Reader(PlainStem(1, 4, dimensions=3), backbone).eval()
    reader, image, mask = keyed(plain), noise(), noise(3)[:2]
    logits = plain(image)
    assert logits.shape == (2, 3, *SIZE)
    torch.testing.assert_close(reader(image + mask, mask), logits, rtol=1e-4, atol=1e-4)
    again = create(reader.config(), 3).eval()
    again.load_state_dict(reader.state_dict())
    assert torch.equal(again(image, mask), reader(image, mask))


@pytest.mark.parametrize("network", ["SwinUNETR", "SegResNet"])
def test_a_network_is_checked_without_memory_and_loaded(tmp_path: Path, network: str) -> None:
    backbone = MonaiNet(4, 3, network, NETWORKS[network], multiple=32, dimensions=3)
    reader = Reader(KeyedStem(1, 4, 3), backbone).eval()
    path = save_reader(tmp_path / "r.ckpt", reader, classes=["a", "b", "c"], size=list(SIZE))
    again = load(path).reader
    assert all(torch.equal(one, other) for one, other in zip(reader.parameters(), again.parameters(), strict=True))


def test_windows_cover_a_volume() -> None:
    plain = Reader(PlainStem(1, 4, 3), MonaiNet(4, 2, "UNet", NETWORKS["UNet"], multiple=4, dimensions=3)).eval()
    reader, image, mask = keyed(plain), noise(), noise(3)[:2]
    assert torch.equal(read_windows(reader, image, mask, (16, 16, 16)), reader(image, mask))
    parts = read_windows(reader, image + mask, mask, (8, 8, 8))
    torch.testing.assert_close(parts, read_windows(plain, image, None, (8, 8, 8)), rtol=1e-4, atol=1e-4)


def test_host_and_key_server_share_a_volume() -> None:
    """W c - W m = W x modulo 2^32, and what the reader makes of it is what it was trained on."""
    stem = FunctionalStem(1, SIZE, outputs=3, kernel=4, stride=3, width=4, adversary=0.1, dimensions=3).eval()
    function, image = stem.map.frozen(), noise()
    mask = np.random.default_rng(0).integers(0, 2**32, image.shape, dtype=np.uint32)
    seen = function.apply(image.numpy() + mask) - function.apply(mask)
    assert function.numbers == 3 * 3 * 3 * 4
    assert np.array_equal(seen.view(np.int32), stem.map(image).detach().numpy().astype(np.int32))
    torch.testing.assert_close(stem.read(torch.from_numpy(seen.view(np.int32).astype(np.int64))), stem(image))
    assert stem.rebuilt(image).shape == image.shape
    first = np.zeros((1, 1, *SIZE), np.uint32)
    first[0, 0, 3, 3, 6] = 1  # the first voxel of the second window along every axis but one, and of the third there
    assert function.apply(first)[0, :, 1, 1, 2].view(np.int32).tolist() == function.weights[:, 0, 0, 0, 0].tolist()
    assert FunctionalStem(1, **stem.settings()).settings() == stem.settings()


def test_other_dimensions_are_refused() -> None:
    with pytest.raises(UsageError, match="takes no images of 32 pixels a side, with multiple 16"):
        MonaiNet(4, 3, "SwinUNETR", NETWORKS["SwinUNETR"], multiple=16, dimensions=3)
    with pytest.raises(UsageError, match="D, H, W"):
        KeylessStem(1, dimensions=3)(noise()[:, :, 0])
    with pytest.raises(UsageError, match="2 or 3 dimensions"):
        PlainStem(1, dimensions=4)
    with pytest.raises(UsageError, match="weights of a functional map"):
        FunctionalMap(np.ones((1, 1, 2, 2), np.int8), 2, SIZE)
