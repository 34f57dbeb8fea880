"""What `encdl inspect` says that key planes are worth, and what the help says of maps."""

from __future__ import annotations

import json
from pathlib import Path

import pytest

from encdl.cli import main
from encdl.keys.planes import PlaneSpec
from tests.files.container.support import header, make


@pytest.mark.parametrize(("name", "bits"), [("logistic+chacha20", 240), ("logistic", 64), ("tent", 94)])
def test_inspect_tells_true_bits(name: str, bits: int, tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    """A chunk of 3 x 5 pixels has no more than 240 bits of planes: 8 of each byte of a value."""
    file = tmp_path / "scan.encdl"
    made = header(planes=PlaneSpec(map=name))
    file.write_bytes(make(made))
    assert main(["inspect", str(file)]) == 0
    told = capsys.readouterr().out

    assert f"key bits      {bits} in the planes of a chunk" in told
    assert ("guess-and-determine" in told) is ("+" not in name)
    assert main(["inspect", "--json", str(file)]) == 0
    assert json.loads(capsys.readouterr().out)["key_bits"] == bits


def test_the_help_tells_what_a_map_alone_is_worth(capsys: pytest.CaptureFixture[str]) -> None:
    with pytest.raises(SystemExit):
        main(["encrypt", "--help"])
    told = " ".join(capsys.readouterr().out.split())
    assert "default: logistic+chacha20" in told
    assert "logistic 64, chebyshev 64, piecewise_linear 94, tent 94" in told
