from __future__ import annotations

import re
from collections.abc import Callable
from pathlib import Path

import pytest
import torch

from encdl import ciphers
from encdl.ciphers import Cipher, weights
from encdl.ciphers.compiled_ciphers import FixedMask, available
from encdl.ciphers.names import FIXED, SHIPPED, SHIPPED_IDS, how_to_get
from encdl.ciphers.nn.integer import IntegerConv2d
from encdl.ciphers.weights import SETTINGS_KEY, weights_id
from tests.ciphers.weights_files import SMALL, checkpoint, content, small, small_coupled, small_keystream, small_thesis

DEFAULT_ID = "fddc91651b4ad8c6"
KEYSTREAM_ID = "85cba7871dc63a69"
THESIS_ID = "b0ec59c805815e26a3517f9a0ecd85b3"


# ---- round trips


@pytest.mark.parametrize("make", [small, small_keystream, small_coupled, small_thesis])
def test_what_is_saved_is_loaded(make: Callable[[], Cipher], tmp_path: Path) -> None:
    cipher, path = make(), tmp_path / "w.pt"
    written = weights.save(cipher, path, {"steps": 5, "commit": "abc", "settings": {"lr": 0.1}})
    loaded = weights.load(path)
    assert loaded.id == written == weights_id(cipher) == weights_id(loaded.cipher)
    trained = cipher.name in {"coupled", "thesis"}
    assert re.fullmatch("[0-9a-f]{32}" if trained else "[0-9a-f]{16}", loaded.id)
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
                for tensor, acting in ((layer.weight, layer.integer_weight), (layer.bias, layer.integer_bias)):
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
    assert names == SHIPPED_IDS
    assert all(weights.load(name).id == id_ for id_, name in names.items())
    assert how_to_get("thesis", THESIS_ID).endswith("come with EncDL: give --weights thesis")
    other = how_to_get("coupled", "0" * 16)
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


@pytest.mark.skipif(not available(), reason="no compiled code for this processor")
@pytest.mark.parametrize("name", FIXED)
def test_what_encrypts_alone_is_what_the_shipped_weights_encrypt_with(name: str) -> None:
    kind, identity = FIXED[name]
    whole = weights.load(name)
    assert (whole.cipher.name, whole.id) == (kind, identity)
    key_bytes = torch.randint(0, 256, (2, 3, 20, 30), dtype=torch.uint8)
    alone = torch.from_numpy(FixedMask(kind).mask(key_bytes.numpy()))
    assert torch.equal(alone, whole.cipher.field(key_bytes, key_bytes))
