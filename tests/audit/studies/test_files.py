"""Every way from a file to a reader's answer gives the same answer, and is timed."""

from __future__ import annotations

from pathlib import Path

import pytest
import torch

from encdl.audit.studies import files
from encdl.ciphers.weights import LoadedCipher, weights_id
from encdl.files import images
from encdl.keys.planes import PlaneSpec
from encdl.readers import Backbone, LoadedReader, PlainStem, Reader
from tests.reader_checkpoint import resnet, unet
from tests.training.tasks.support import tiny_cipher


@pytest.fixture(scope="module")
def cipher() -> LoadedCipher:
    made = tiny_cipher().eval()
    return LoadedCipher(made, weights_id(made), made.name)


@pytest.mark.parametrize(("backbone", "channels"), [(resnet(4, 2, width=4), 1), (unet(4, 2), 3)])
def test_all_routes_give_the_same_logits(
    backbone: Backbone, channels: int, cipher: LoadedCipher, tmp_path: Path
) -> None:
    reader = Reader(PlainStem(channels, 4), backbone).eval()
    loaded = LoadedReader(reader, ("a", "b"), (32, 32), cipher.id, PlaneSpec(), "Plaintext")
    routes = files._Routes(tmp_path, loaded, cipher)
    wanted = torch.stack(routes.plaintext())
    assert len(wanted) == 10
    assert wanted.std(0).max() > 0  # the images differ, and so do the answers
    for route in (routes.ciphertext, routes.decrypt_then_infer, routes.decrypt_in_memory):
        torch.testing.assert_close(torch.stack(route()), wanted, rtol=1e-3, atol=1e-3)
    [(hosted, key), *_] = routes.hosted
    assert torch.equal(routes.functional()[0], routes.host.read(hosted, key).logits)
    for clear, opened in zip(routes.clear, routes.opened, strict=True):
        assert (images.read(clear) == images.read(opened)).all()


def test_times_and_ratios(cipher: LoadedCipher, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(files, "ROUNDS", 2)
    reader = Reader(PlainStem(1, 4), resnet(4, 2, width=4))
    found = files.file_cost(reader, ("a", "b"), cipher, PlaneSpec(), tmp_path, (32, 40))
    assert list(found) == ["32px", "40px"]
    for clocks in found.values():
        assert list(clocks) == ["own", "wall"]
        for times in clocks.values():
            assert all(times[name] > 0 for name in ("ciphertext", "decrypt_then_infer", "decrypt_in_memory", "plain"))
            assert set(times) >= {f"{one}_to_{other}_quartiles" for one, other in files.RATIOS}
    assert not list(tmp_path.iterdir())
