"""Mistakes that a user can mend end in one line: checkpoints, recipes, places."""

from __future__ import annotations

from pathlib import Path

import pytest
import torch

from encdl.training.cli import main
from encdl.utils.errors import UsageError
from tests.training.test_cli import CONFIG

PLAIN = ["--trainer.logger", "false", "--no-panels"]


@pytest.fixture
def config(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> list[str]:
    monkeypatch.chdir(tmp_path)
    Path("tiny.yaml").write_text(CONFIG)
    return ["--config", "tiny.yaml", *PLAIN]


@pytest.mark.parametrize("content", ["password: hunter2", "hunter2", "- hunter2", "hunter2: [", "\x00hunter2", ""])
@pytest.mark.parametrize("how", ["--config {}", "--config={}"])
def test_a_file_that_is_no_recipe_is_not_quoted(
    config: list[str], how: str, content: str, capfd: pytest.CaptureFixture[str]
) -> None:
    Path("secret").write_text(content)
    with pytest.raises(UsageError, match="secret: is no recipe") as caught:
        main(["fit", *how.format("secret").split()])
    assert "hunter2" not in f"{caught.value}{capfd.readouterr()}"


def test_places_of_other_runs_are_refused(config: list[str], capfd: pytest.CaptureFixture[str]) -> None:
    fit = ["fit", *config, "--resume", "place"]
    assert main(fit) == 0
    last = Path("place/last.ckpt")
    whole = torch.load(last, weights_only=True)
    with pytest.raises(UsageError, match=r"batch_size 4, and this is 3: .* \(--resume\)"):
        main([*fit, "--data.init_args.batch_size", "3"])
    name, value = next((name, value) for name, value in whole["state_dict"].items())
    for state in ({}, {name: torch.zeros(*value.shape, 2)}):
        torch.save({**whole, "state_dict": state}, last)
        with pytest.raises(UsageError, match="is of another network"):
            main(fit)
        for verb in ("fit", "validate"):
            with pytest.raises(UsageError, match=r"is of another network .* \(--ckpt_path\)"):
                main([verb, *config, "--ckpt_path", str(last)])
    for content in (b"", b"text", last.read_bytes()[:500]):
        last.write_bytes(content)
        with pytest.raises(UsageError, match=r"last\.ckpt: not a checkpoint of a training run, or a damaged one"):
            main(fit)
    capfd.readouterr()
    assert main(["validate", *config]) == 0
    assert (
        "validate without --ckpt_path measures the network as its settings make it: UNTRAINED" in capfd.readouterr().err
    )
