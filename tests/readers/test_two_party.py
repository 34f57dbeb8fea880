"""Two-party reading: the form that both know, what a host may read, and, where SPU is, the answer on shares."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch
from torch.nn import functional as F

from encdl import api, readers
from encdl.cli import main as encdl
from encdl.keys import Key
from encdl.readers import Reader, StridedNet, StridedStem
from encdl.readers.two_party import environment, files, session
from encdl.readers.two_party.network import Network, network_of
from encdl.utils.errors import UsageError
from tests.mni import mni_slice
from tests.reader_checkpoint import save_reader

SIDE, CLASSES = 20, ["well", "ill", "unsure"]
FORM = {"channels": 1, "height": SIDE, "width": SIDE, "widths": [4, 6, 5], "classes": 3}


def two_party_reader(path: Path | str, side: int = SIDE) -> Path:
    torch.manual_seed(0)
    reader = Reader(StridedStem(1, 4), StridedNet(4, 3, [6, 5]))
    for _ in range(3):  # statistics of batches
        reader(torch.cat([mni_slice(index, side, side) for index in (60, 80, 100)]))
    return save_reader(path, reader.eval(), view="TwoParty", classes=CLASSES, size=[side, side])


def computed(weights: Any, levels: torch.Tensor) -> torch.Tensor:
    """What the engine's program computes, of levels from 0 to 1, channels first."""
    features = levels - 0.5
    for number in range(3):
        kernel = torch.from_numpy(weights[f"kernel{number}"]).permute(3, 2, 0, 1)
        features = F.relu(F.conv2d(features, kernel, torch.from_numpy(weights[f"bias{number}"]), 2, 1))
    return features.mean((2, 3)) @ torch.from_numpy(weights["kernel"]) + torch.from_numpy(weights["bias"])


def test_the_form_and_the_folded_weights_are_those_of_the_reader(tmp_path: Path) -> None:
    loaded = readers.load(two_party_reader(tmp_path / "r.ckpt"))
    network, weights = network_of(loaded)
    assert network == Network.of(FORM)
    assert network.given_bits == 3 * 64
    assert network.id != Network.of({**FORM, "classes": 4}).id
    image = mni_slice(85, SIDE, SIDE)
    assert torch.allclose(computed(weights, image / 255), loaded.reader(image), atol=1e-5)


@pytest.mark.parametrize("change", [{"widths": [4]}, {"classes": 0}, {"height": "20"}, {"channels": 17}, {"more": 1}])
def test_forms_that_are_none(change: dict[str, Any]) -> None:
    with pytest.raises(UsageError, match="network for two parties"):
        Network.of({**FORM, **change})


def test_setting_up_where_it_cannot_be(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    monkeypatch.setenv("ENCDL_SPU", str(tmp_path / "spu"))
    with pytest.raises(UsageError, match="make it with `encdl two-party setup`"):
        environment.interpreter()
    assert encdl(["two-party", "setup", "--python", "/no/python"]) == 2
    assert "cannot be run" in capsys.readouterr().err
    assert encdl(["two-party", "network", "--reader", str(two_party_reader(tmp_path / "r.ckpt"))]) == 0
    assert '"widths": [4, 6, 5]' in capsys.readouterr().out


def test_the_server_is_asked_for_readable_files_alone(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("ENCDL_SPU", str(tmp_path))
    (tmp_path / "bin").mkdir()
    (tmp_path / "bin/python").touch()
    Key.generate().save(tmp_path / "k.key")
    image = mni_slice(85, SIDE, SIDE)[0, 0].numpy()
    for name, side in (("good", SIDE), ("small", 10), ("bare", None)):
        (tmp_path / f"{name}.encdl").write_bytes(api.encrypt(image, tmp_path / "k.key", readable=side))
    predictor = files.TwoPartyPredictor(two_party_reader(tmp_path / "r.ckpt"))
    asked = []

    def ask(head: bytes, network: str, port: int) -> int:
        asked.append((network, port))
        raise UsageError("the key server refused (403)")

    for name in ("small", "bare"):
        with pytest.raises(UsageError, match=r"has no reading layer of 1x20x20 in 32 bits: .* --readable 20"):
            predictor.read(tmp_path / f"{name}.encdl", ask)
    assert not asked
    with pytest.raises(UsageError, match=r"good.encdl: the key server refused \(403\)"):
        predictor.read(tmp_path / "good.encdl", ask)
    assert asked[0][0] == Network.of(FORM).id


def test_options_that_do_not_go_together(capsys: pytest.CaptureFixture[str], tmp_path: Path) -> None:
    file = tmp_path / "a.encdl"
    file.touch()
    assert encdl(["predict", str(file), "--two-party", "--key", "k.key", "--reader", "r.ckpt"]) == 2
    assert "--two-party: give --keyserver" in capsys.readouterr().err


def test_the_answer_on_shares_is_that_on_the_image(tmp_path: Path) -> None:
    try:
        environment.interpreter()
    except UsageError as error:
        pytest.skip(str(error))
    loaded = readers.load(two_party_reader(tmp_path / "r.ckpt"))
    network, weights = network_of(loaded)
    levels = torch.cat([mni_slice(index, SIDE, SIDE) for index in (70, 90)]).numpy().astype(np.uint32) * 16
    mask = np.random.default_rng(0).integers(0, 1 << 32, levels.shape, dtype=np.uint32)
    found = session.read_here(network, {"ciphertext": levels + mask, **weights}, mask)
    with torch.no_grad():
        expected = loaded.reader(torch.from_numpy(levels.astype(np.float32) * (255 / 4095)))
    assert np.abs(found.logits - expected.numpy()).max() < 1e-3
    assert found.moved[0] > 100_000
