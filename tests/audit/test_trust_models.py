"""The study of trust models: it runs to its record without the environments of others, and pages show it."""

from __future__ import annotations

import json
from pathlib import Path

import numpy as np
import pytest
import torch
from torch.nn import functional as F

from encdl.audit.results.record_values import Records
from encdl.audit.results.tables import trust_models
from encdl.audit.trust_models import plot, study
from encdl.cli import main as encdl
from encdl.readers.two_party.environment import interpreter
from encdl.utils.errors import UsageError
from tests.audit.test_functional_study import slices


def test_a_small_study_runs_to_its_record(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    for name in ("ENCDL_SPU", "ENCDL_TENSEAL"):
        monkeypatch.setenv(name, str(tmp_path / "none"))
    images = slices(60, 18, 28)[:, 0].numpy()
    np.savez(tmp_path / "set.npz", images=images, split=np.arange(18) % 3, labels=np.arange(18) % 2)
    (tmp_path / "functional-t.yaml").write_text(
        "file: set.npz\nmetric: accuracy\nbackbone: {name: StridedNet, settings: {widths: [4, 4]}}\n"
        "settings: [{outputs: 2, kernel: 7, stride: 7, adversary: 0.0}]\nbudget: {steps: 2, batch: 4}\n"
    )
    (tmp_path / "experiments/results").mkdir(parents=True)
    output = tmp_path / "experiments/results/trust-models.json"
    words = ["experiment", "trust-models", "--config", str(tmp_path / "functional-t.yaml")]
    assert encdl([*words, "--data-dir", str(tmp_path), "--output", str(output)]) == 0
    told = capsys.readouterr().err
    assert "left out" in told
    assert "encdl two-party setup --engine tenseal" in told
    rows = json.loads(output.read_text())["metrics"]["rows"]
    assert [row["model"] for row in rows] == ["decrypt_then_infer", "full_grant", "functional_key"]
    assert rows[0]["figure"] == rows[1]["figure"]  # the same network and weights
    assert rows[2]["numbers"] == 2 * 16
    assert rows[2]["host_sees"] == "32 numbers of the image"
    assert all(row["difference"] < 0.05 for row in rows)
    shown = trust_models(Records(tmp_path), ["trust-models"])
    assert "| `functional_key`, k = 32 |" in shown
    assert plot.drawn(rows, "accuracy").startswith(b"\x89PNG")


def test_the_network_for_homomorphic_encryption() -> None:
    torch.manual_seed(0)
    network = study.SquareNet(1, 2, 28)
    image = torch.rand(3, 1, 28, 28) - 0.5
    logits = network(study.Levels(1, 1)((image + 0.5) * 255))
    features = F.conv2d(image, network.convolution.weight, network.convolution.bias, 3)
    assert features.shape == (3, 4, 8, 8)
    assert torch.allclose(logits, network.linear((features**2).flatten(1)), atol=1e-5)


def test_logits_under_homomorphic_encryption_are_those_in_the_clear(tmp_path: Path) -> None:
    try:
        interpreter("tenseal")
    except UsageError as error:
        pytest.skip(str(error))
    torch.manual_seed(0)
    network = study.SquareNet(1, 2, 28).requires_grad_(False)
    images = slices(70, 1, 28)
    found = study.homomorphically(network, images.numpy())
    assert torch.allclose(torch.tensor(found["logits"]), network(images / 255 - 0.5), atol=0.02)
    assert found["bytes"][0] > 100_000
