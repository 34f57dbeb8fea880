from __future__ import annotations

import contextlib
import os
import pickle
import re
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest
import torch
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st
from torch import Tensor

from encdl import ciphers
from encdl.ciphers import Cipher, weights
from encdl.ciphers.nn.integer import IntegerConv2d
from encdl.ciphers.weights import CHECKPOINT_KEY, SETTINGS_KEY, SHIPPED, weights_id
from encdl.utils.errors import WeightsError

SMALL = {"planes": 8, "width": 4, "blocks": 1}
DEFAULT_ID = "fddc91651b4ad8c6"
KEYSTREAM_ID = "85cba7871dc63a69"
THESIS_ID = "b0ec59c805815e26"


def small(seed: int = 0, name: str = "agile") -> Cipher:
    torch.manual_seed(seed)
    return ciphers.create(name, dict(SMALL))


def small_keystream() -> Cipher:
    return small(name="keystream")


def small_coupled(seed: int = 0) -> Cipher:
    return small(seed, "coupled")


def small_thesis() -> Cipher:
    torch.manual_seed(0)
    return ciphers.create("thesis", {"planes": 2, "width": 4, "blocks": 1})


@pytest.fixture
def saved(tmp_path: Path) -> Path:
    path = tmp_path / "small.pt"
    weights.save(small(), path, {"steps": 3})
    return path


def content(path: Path) -> dict[str, Any]:
    loaded = torch.load(path, weights_only=True)
    assert isinstance(loaded, dict)
    return loaded


def checkpoint(cipher: Cipher, **changes: Any) -> dict[str, Any]:
    """What a training run writes, as far as `load` looks at it."""
    state = {f"cipher.{key}": value for key, value in cipher.state_dict().items()}
    origin = {"cipher": cipher.name, "config": cipher.config(), "training": {"steps": 7}}
    return {
        CHECKPOINT_KEY: origin,
        SETTINGS_KEY: {"files": ["a.yaml"]},
        "state_dict": state | {"adversary.attacker.0.weight": torch.zeros(2), "other": torch.zeros(1)},
        "epoch": 1,
        "optimizer_states": [{"step": torch.tensor(3)}],
    } | changes


def refused(path: Path | str) -> str:
    with pytest.raises(WeightsError) as raised:
        weights.load(path)
    text = str(raised.value)
    assert "\n" not in text
    assert raised.value.__cause__ is None
    return text


# ---- round trips


@pytest.mark.parametrize("make", [small, small_keystream, small_coupled, small_thesis])
def test_what_is_saved_is_loaded(make: Callable[[], Cipher], tmp_path: Path) -> None:
    cipher, path = make(), tmp_path / "w.pt"
    written = weights.save(cipher, path, {"steps": 5, "commit": "abc", "settings": {"lr": 0.1}})
    loaded = weights.load(path)
    assert loaded.id == written == weights_id(cipher) == weights_id(loaded.cipher)
    assert re.fullmatch("[0-9a-f]{16}", loaded.id)
    assert loaded.name == str(path)
    assert loaded.training == {"steps": 5, "commit": "abc", "settings": {"lr": 0.1}}
    assert loaded.cipher.config() == cipher.config()
    assert not loaded.cipher.training
    assert not any(p.requires_grad for p in loaded.cipher.parameters())
    again = tmp_path / "again.pt"
    assert weights.save(loaded.cipher, again, loaded.training) == written
    for key, value in content(path)["state"].items():
        assert torch.equal(value, content(again)["state"][key])


def test_integer_layers_are_stored_as_int8(tmp_path: Path) -> None:
    cipher = small_coupled()
    weights.save(cipher, tmp_path / "w.pt")
    state = content(tmp_path / "w.pt")["state"]
    integer = [name for name, layer in cipher.named_modules() if isinstance(layer, IntegerConv2d)]
    assert len(integer) == 18
    for name in integer:
        for part in ("weight", "bias"):
            assert state[f"{name}.{part}"].dtype == torch.int8
        assert int(state[f"{name}.weight"].abs().max()) <= 7
    rest = [key for key in state if key.rpartition(".")[0] not in integer]
    assert rest
    assert all(state[key].dtype == torch.float32 for key in rest)


def test_extreme_integers_survive(tmp_path: Path) -> None:
    """What acts is stored, so that what a run learnt outside -7..7 or -127..127 does not overflow an int8."""
    cipher = small_coupled()
    layer = next(layer for layer in cipher.modules() if isinstance(layer, IntegerConv2d))
    with torch.no_grad():
        layer.bias.fill_(1000.0)
        layer.weight.fill_(-300.0)
    written = weights.save(cipher, tmp_path / "w.pt")
    loaded = weights.load(tmp_path / "w.pt")
    assert loaded.id == written
    other = next(layer for layer in loaded.cipher.modules() if isinstance(layer, IntegerConv2d))
    assert other.bias.unique().tolist() == [127]
    assert other.weight.unique().tolist() == [-7]


def test_what_is_fixed_is_in_no_file(saved: Path) -> None:
    assert {key.partition(".")[0] for key in content(saved)["state"]} == {"decryption"}


def test_saving_replaces_and_changes_nothing(saved: Path) -> None:
    cipher = small(1)
    before = {key: value.clone() for key, value in cipher.state_dict().items()}
    weights.save(cipher, saved)
    assert weights.load(saved).training == {}
    state = weights.load(saved).cipher.state_dict()
    assert all(torch.equal(value, before[key]) for key, value in state.items())
    assert all(torch.equal(value, before[key]) for key, value in cipher.state_dict().items())


def test_a_checkpoint_is_loaded_without_its_training_code(tmp_path: Path) -> None:
    cipher, path = small_coupled(), tmp_path / "last.ckpt"
    torch.save(checkpoint(cipher), path)
    loaded = weights.load(path)
    assert loaded.id == weights_id(cipher)
    kept = loaded.cipher.get_submodule("decryption").state_dict()
    wanted = cipher.get_submodule("decryption").state_dict()
    assert all(torch.equal(value, wanted[key]) for key, value in kept.items())
    assert loaded.training == {"steps": 7, "files": ["a.yaml"]}
    whole = checkpoint(cipher)
    del whole[SETTINGS_KEY]
    torch.save(whole, path)
    assert weights.load(path).training == {"steps": 7}


def test_a_name_may_be_a_path_or_a_text(saved: Path) -> None:
    assert weights.load(str(saved)).id == weights.load(saved).id


# ---- the id


@pytest.mark.parametrize(("name", "id_"), [("agile", DEFAULT_ID), ("keystream", KEYSTREAM_ID)])
def test_the_id_is_that_of_all_weights_of_a_cipher_whose_mask_is_fixed(name: str, id_: str) -> None:
    for seed in range(2):
        assert weights_id(small(seed, name)) == id_
    assert weights_id(ciphers.create(name, {})) == id_
    assert weights_id(ciphers.create(name, SMALL | {"planes": 7})) != id_


def test_every_integer_of_the_mask_network_is_in_the_id() -> None:
    """None of them is in a weights file: they belong to the code, and another code is another cipher."""
    cipher = small()
    buffers = [buffer for module in cipher.encryption_modules() for buffer in module.buffers()]
    assert sum(buffer.numel() for buffer in buffers) == 2 * (4 * 9 * 16 + 4 + 4 * 9 * 4 + 4 + 9 * 4 * 2 + 2)
    for buffer in buffers:
        kept = buffer.clone()
        buffer.view(-1)[-1] += 1
        assert weights_id(cipher) != DEFAULT_ID
        buffer.copy_(kept)
    assert weights_id(cipher) == DEFAULT_ID


def test_the_id_is_that_of_the_encryption_weights() -> None:
    cipher = small_coupled()
    before = weights_id(cipher)
    assert before != weights_id(small_coupled(1))
    with torch.no_grad():
        for parameter in cipher.get_submodule("decryption").parameters():
            parameter.add_(1.0)
    assert weights_id(cipher) == before
    for module in cipher.encryption_modules():
        for layer in module.modules():
            if isinstance(layer, IntegerConv2d):
                for tensor, acting in (
                    (layer.weight, layer.integer_weight),
                    (layer.bias, layer.integer_bias),
                ):
                    kept, value = tensor.detach().clone(), acting().flatten()[0].item()
                    with torch.no_grad():
                        tensor.view(-1)[0] = value + (1 if value <= 0 else -1)
                    assert weights_id(cipher) != before
                    with torch.no_grad():
                        tensor.copy_(kept)
    assert weights_id(cipher) == before


def test_a_change_that_does_not_act_keeps_the_id() -> None:
    cipher = small_coupled()
    before = weights_id(cipher)
    with torch.no_grad():
        for layer in cipher.modules():
            if isinstance(layer, IntegerConv2d):
                layer.weight.copy_(layer.integer_weight() + 0.3)
    assert weights_id(cipher) == before


def test_every_weight_of_the_baseline_is_in_its_id() -> None:
    cipher = small_thesis()
    before = weights_id(cipher)
    for parameter in cipher.parameters():
        with torch.no_grad():
            parameter.view(-1)[0] += 1e-3
        assert weights_id(cipher) != before
        before = weights_id(cipher)


def test_a_change_of_the_arithmetic_is_another_id(monkeypatch: pytest.MonkeyPatch) -> None:
    cipher = small()
    before = weights_id(cipher)
    monkeypatch.setattr(type(cipher), "revision", type(cipher).revision + 1)
    assert weights_id(cipher) != before


# ---- the shipped files


def test_the_shipped_weights_are_those_that_files_were_made_with() -> None:
    """A change here makes files unreadable that were written before."""
    assert weights.load().id == weights.load("default").id == weights.load("agile").id == DEFAULT_ID
    assert weights.load("keystream").id == KEYSTREAM_ID
    assert weights.load("thesis").id == THESIS_ID


def test_keystream_has_the_decryption_network_of_agile() -> None:
    """Damage is the same under both, and so is its repair."""
    loaded = {name: weights.load(name) for name in ("agile", "keystream")}
    assert loaded["keystream"].cipher.name == "keystream"
    agile, keystream = (each.cipher.get_submodule("decryption").state_dict() for each in loaded.values())
    assert agile.keys() == keystream.keys()
    assert all(torch.equal(value, keystream[key]) for key, value in agile.items())
    assert loaded["keystream"].training == loaded["agile"].training


def test_how_to_get_weights() -> None:
    names = {DEFAULT_ID: "default", KEYSTREAM_ID: "keystream", THESIS_ID: "thesis"}
    assert names == weights.SHIPPED_IDS
    assert all(weights.load(name).id == id_ for id_, name in names.items())
    assert weights.how_to_get("thesis", THESIS_ID).endswith("come with EncDL: give --weights thesis")
    other = weights.how_to_get("coupled", "0" * 16)
    assert "cipher 'coupled' with weights 0000000000000000" in other
    assert "`encdl export`" in other


@pytest.mark.parametrize("name", ["default", "thesis"])
def test_the_shipped_weights_say_how_they_were_trained(name: str) -> None:
    training = weights.load(name).training
    assert training["steps"] >= 1000
    assert re.fullmatch("[0-9a-f]{40}", training["commit"])
    assert {"python", "torch", "lightning", "numpy"} <= training["versions"].keys()
    assert training["device"]
    assert re.match(r"\d{4}-\d\d-\d\dT", training["date"])
    cipher = training["settings"]["model"]["init_args"]["cipher"]["init_args"]
    assert cipher == weights.load(name).cipher.config()
    assert training["settings"]["data"]["class_path"] == "encdl.data.mixture.Mixture"


def test_the_shipped_weights_are_small() -> None:
    folder = Path(weights.__file__).parent
    files = sorted(folder.glob("*.pt"))
    assert {path.name for path in files} == set(SHIPPED.values())
    assert sum(path.stat().st_size for path in files) < 4e6


@pytest.mark.skipif(not torch.cuda.is_available(), reason="needs a CUDA device")
def test_weights_go_to_the_device_asked_for() -> None:
    loaded = weights.load("default", "cuda")
    assert loaded.id == DEFAULT_ID
    assert all(parameter.is_cuda for parameter in loaded.cipher.parameters())


# ---- what is refused


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
