"""What is refused of weights files and checkpoints, each in one line."""

from __future__ import annotations

import contextlib
import os
import pickle
import resource
import zipfile
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest
import torch
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st
from torch import Tensor

from encdl import ciphers
from encdl.ciphers import weights
from encdl.ciphers.weights import CHECKPOINT_KEY, SETTINGS_KEY
from encdl.utils.errors import WeightsError
from tests.ciphers.weights_files import SMALL, checkpoint, content, small, small_coupled


def refused(path: Path | str) -> str:
    with pytest.raises(WeightsError) as raised:
        weights.load(path)
    text = str(raised.value)
    assert "\n" not in text
    assert raised.value.__cause__ is None
    return text


class Malicious:
    """Runs a command when a careless reader unpickles it."""

    def __init__(self, witness: Path) -> None:
        self.witness = witness

    def __reduce__(self) -> tuple[Any, ...]:
        return os.mkdir, (str(self.witness),)


@pytest.mark.parametrize("kind", ["torch", "pickle", "in the state", "in the training"])
def test_no_file_can_run_code(kind: str, tmp_path: Path, saved: Path) -> None:
    witness, path = tmp_path / "witness", tmp_path / "malicious.pt"
    bomb = Malicious(witness)
    whole = content(saved)
    if kind == "pickle":
        path.write_bytes(pickle.dumps(bomb))
    elif kind == "torch":
        torch.save(bomb, path)
    elif kind == "in the state":
        torch.save(whole | {"state": whole["state"] | {"decryption.enter.bias": bomb}}, path)
    else:
        torch.save(whole | {"training": {"commit": bomb}}, path)
    refused(path)
    assert not witness.exists()


def test_files_of_another_kind_are_refused(tmp_path: Path) -> None:
    samples = {
        "empty": b"",
        "text": b"these are no weights\n",
        "binary": bytes(range(256)) * 20,
        "zip": b"PK\x03\x04" + bytes(100),
        "pickle": pickle.dumps({"a": 1}),
        "png": b"\x89PNG\r\n\x1a\n" + bytes(50),
    }
    for name, data in samples.items():
        path = tmp_path / name
        path.write_bytes(data)
        text = refused(path)
        assert str(path) in text
        assert "export" in text


def test_missing_files_and_directories_are_refused(tmp_path: Path) -> None:
    for path in (tmp_path / "nowhere.pt", tmp_path, tmp_path / "a" / "b"):
        text = refused(path)
        assert str(path) in text
        assert "default" in text
    assert "no such weights file" in refused("defualt")


@pytest.mark.parametrize("share", [0.0, 0.1, 0.5, 0.9, 0.999])
def test_a_cut_file_is_refused(share: float, saved: Path) -> None:
    data = saved.read_bytes()
    saved.write_bytes(data[: int(len(data) * share)])
    assert "damaged" in refused(saved)


@settings(max_examples=60, deadline=None, suppress_health_check=[HealthCheck.function_scoped_fixture])
@given(st.floats(0, 1, exclude_max=True), st.binary(min_size=1, max_size=16))
def test_a_changed_file_is_loaded_or_refused(saved: Path, place: float, junk: bytes) -> None:
    """No checksum is promised; another error than `WeightsError` would be a traceback for the user."""
    data = bytearray(saved.read_bytes())
    start = int(place * len(data))
    data[start : start + len(junk)] = junk
    path = saved.with_name("changed.pt")
    path.write_bytes(data)
    with contextlib.suppress(WeightsError):
        weights.load(path)


def test_other_contents_are_refused(tmp_path: Path) -> None:
    path = tmp_path / "other.pt"
    for other in ([1, 2], "text", 3, torch.zeros(3), {}, {"state_dict": {}}, small().state_dict()):
        torch.save(other, path)
        assert "not EncDL weights" in refused(path)
    torch.save({"format": weights.FORMAT + 1, "cipher": "agile"}, path)
    assert refused(path).endswith("weights of format 3: this version reads 2")


def test_weights_of_version_0_1_are_refused_by_that_name(tmp_path: Path) -> None:
    path = tmp_path / "old.pt"
    config = {"planes": 8, "field_width": 3, "coupling_width": 6, "restorer_width": 32, "restorer_blocks": 4}
    torch.save({"format": 1, "cipher": "agile", "config": config, "state": {}, "training": {}}, path)
    assert refused(path).endswith("weights of format 1 (EncDL 0.1's): this version reads 2")


WRONG_PARTS: dict[str, tuple[dict[str, Any], str]] = {
    "no cipher": ({"cipher": None}, "damaged"),
    "unknown cipher": ({"cipher": "caesar"}, "unknown cipher 'caesar'"),
    "another cipher": ({"cipher": "thesis"}, "do not fit"),
    "no config": ({"config": None}, "damaged"),
    "list for a config": ({"config": [8]}, "damaged"),
    "wrong setting": ({"config": SMALL | {"planes": 0}}, "planes must be"),
    "absurd setting": ({"config": SMALL | {"width": 4 * 10**9}}, "width must be"),
    "wrong type": ({"config": SMALL | {"planes": "8"}}, "planes must be"),
    "unknown setting": ({"config": SMALL | {"colour": 1}}, "colour"),
    "setting of another cipher": ({"config": SMALL | {"field_width": 3}}, "does not take"),
    "number for a setting's name": ({"config": {1: 1}}, "does not take"),
    "other sizes": ({"config": SMALL | {"width": 8}}, "do not fit"),
    "default sizes": ({"config": {}}, "do not fit"),
    "no state": ({"state": None}, "damaged"),
    "empty state": ({"state": {}}, "do not fit"),
    "list for a training": ({"training": [1]}, "damaged"),
}


@pytest.mark.parametrize("what", WRONG_PARTS)
def test_wrong_parts_are_refused(what: str, saved: Path) -> None:
    changes, message = WRONG_PARTS[what]
    torch.save(content(saved) | changes, saved)
    assert message in refused(saved)


def _meta_state(config: dict[str, Any]) -> dict[str, Tensor]:
    with torch.device("meta"):
        return ciphers.create("agile", config).state_dict()


@pytest.mark.parametrize("what", ["no tensors", "views of one number"])
def test_a_small_file_gets_no_memory(what: str, tmp_path: Path) -> None:
    """The network that it asks for has 500 MB of weights."""
    config, path = {"width": 1024, "blocks": 6}, tmp_path / "small.pt"
    state: dict[str, Tensor] = {} if what == "no tensors" else _meta_state(config)
    views = {name: torch.zeros(1).expand(tensor.shape) for name, tensor in state.items()}
    torch.save({"format": weights.FORMAT, "cipher": "agile", "config": config, "state": views}, path)
    assert path.stat().st_size < 2**16
    before = resource.getrusage(resource.RUSAGE_SELF).ru_maxrss
    assert "do not fit" in refused(path)
    assert resource.getrusage(resource.RUSAGE_SELF).ru_maxrss - before < 2**16  # kilobytes


def test_a_deflated_file_is_refused(saved: Path) -> None:
    with zipfile.ZipFile(saved) as parts:
        members = {part.filename: parts.read(part) for part in parts.infolist()}
    with zipfile.ZipFile(saved, "w", zipfile.ZIP_DEFLATED) as parts:
        for name, content_ in members.items():
            parts.writestr(name, content_)
    assert "not a weights file" in refused(saved)


WRONG_TENSORS: dict[str, tuple[Callable[[Tensor], Any], str]] = {
    "NaN": (lambda t: t * float("nan"), "NaN or infinity"),
    "infinity": (lambda t: t / 0.0 + float("inf"), "NaN or infinity"),
    "shape": (lambda t: t[None], "do not fit"),
    "complex": (lambda t: t.to(torch.complex64), "damaged"),
    "list": (lambda t: t.tolist(), "damaged"),
    "text": (lambda t: "0.5", "damaged"),
}


@pytest.mark.parametrize("what", WRONG_TENSORS)
@pytest.mark.parametrize("key", ["decryption.enter.bias", "key_field.out.bias"])
def test_wrong_tensors_are_refused(what: str, key: str, saved: Path) -> None:
    change, message = WRONG_TENSORS[what]
    weights.save(small_coupled(), saved)
    whole = content(saved)
    whole["state"][key] = change(whole["state"][key].float())
    torch.save(whole, saved)
    assert message in refused(saved)


def test_missing_and_extra_tensors_are_refused(saved: Path) -> None:
    whole = content(saved)
    state = whole["state"]
    for wrong in (
        {key: value for key, value in state.items() if key != "decryption.leave.bias"},
        state | {"encryption.f.out.bias": torch.zeros(2)},
        state | {"extra": torch.zeros(1)},
        state | {1: torch.zeros(1)},
    ):
        torch.save(whole | {"state": wrong}, saved)
        assert "do not fit" in refused(saved)


@pytest.mark.parametrize(
    "changes",
    [
        {CHECKPOINT_KEY: "agile"},
        {CHECKPOINT_KEY: {}},
        {CHECKPOINT_KEY: {"cipher": "agile", "config": SMALL, "training": 3}},
        {"state_dict": None},
        {"state_dict": [1]},
        {"state_dict": {}},
        {"state_dict": {3: 4}},
        {SETTINGS_KEY: "settings"},
    ],
    ids=str,
)
def test_wrong_checkpoints_are_refused(changes: dict[str, Any], tmp_path: Path) -> None:
    path = tmp_path / "last.ckpt"
    torch.save(checkpoint(small(), **changes), path)
    refused(path)


def test_a_checkpoint_of_a_diverged_run_is_refused(tmp_path: Path) -> None:
    cipher, path = small(), tmp_path / "last.ckpt"
    with torch.no_grad():
        next(cipher.parameters()).view(-1)[0] = float("nan")
    torch.save(checkpoint(cipher), path)
    assert "diverged" in refused(path)
