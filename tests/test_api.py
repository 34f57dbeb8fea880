"""The Python API: arrays and files, keys and grants, and that `import encdl` stays light."""

from __future__ import annotations

import subprocess
import sys
from datetime import UTC, datetime, timedelta
from pathlib import Path
from typing import Any

import nibabel
import numpy as np
import numpy.typing as npt
import pytest
import torch
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st
from hypothesis.extra import numpy as hnp

import encdl
from encdl import api, ciphers
from encdl.ciphers import weights
from encdl.files import images
from encdl.files.container.chunk_grid import DTYPES
from encdl.keys import passphrases
from encdl.keys.planes import PlaneSpec
from encdl.utils.errors import (
    ContainerError,
    ExpiredGrantError,
    ImageFileError,
    KeyFileError,
    OutputExistsError,
    UsageError,
    WeightsError,
    WrongKeyError,
)
from tests.reader_checkpoint import SIZE, resnet, save_reader, tiny_reader

KEY = encdl.Key(bytes(range(32)))
OTHER = encdl.Key(bytes(32))


@pytest.fixture(scope="module")
def agile(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """Weights of a small untrained cipher: exact all the same, and quick."""
    torch.manual_seed(0)
    path = tmp_path_factory.mktemp("weights") / "agile.pt"
    small = {"width": 4, "blocks": 1}
    weights.save(ciphers.create("agile", small), path)
    return path


@pytest.fixture(scope="module")
def coupled(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """Weights that do not come with EncDL, and decide the ciphertext."""
    torch.manual_seed(0)
    path = tmp_path_factory.mktemp("weights") / "coupled.pt"
    weights.save(ciphers.create("coupled", {"width": 4, "blocks": 1}), path)
    return path


def picture(*shape: int, dtype: str = "uint8", seed: int = 0) -> npt.NDArray[Any]:
    return np.random.default_rng(seed).integers(0, 200, shape).astype(dtype)


def same(left: npt.NDArray[Any], right: npt.NDArray[Any]) -> bool:
    """Equal to the bit, not-a-number included."""
    return (left.dtype, left.shape, left.tobytes()) == (right.dtype, right.shape, right.tobytes())


# ---- the package


def test_every_name_is_there() -> None:
    for name in encdl.__all__:
        assert getattr(encdl, name) is not None
    assert set(encdl.__all__) <= set(dir(encdl))
    with pytest.raises(AttributeError, match="no attribute 'nothing'"):
        encdl.nothing  # noqa: B018


def test_import_is_light_and_keys_are_too() -> None:
    code = (
        "import sys, encdl; dir(encdl); encdl.Key.generate().grant_study('S'); encdl.EncdlError;"
        "print(sorted({'torch', 'monai', 'lightning', 'scipy', 'nibabel'} & set(sys.modules)))"
    )
    done = subprocess.run([sys.executable, "-c", code], check=True, capture_output=True, text=True)
    assert done.stdout.strip() == "[]"


# ---- arrays


@pytest.mark.parametrize("wrap", ["none", "aes"])
def test_an_array_comes_back(wrap: Any) -> None:
    """With the shipped weights, which are the default."""
    image = picture(21, 30, dtype="int16")
    data = encdl.encrypt(image, KEY, wrap=wrap)
    assert isinstance(data, bytes)
    assert same(encdl.decrypt(data, KEY), image)
    assert (b"agile" in data) == (wrap == "none")


ARRAYS = hnp.arrays(
    st.sampled_from([np.dtype(name) for name in DTYPES]),
    hnp.array_shapes(min_dims=1, max_dims=4, min_side=1, max_side=7),
)


@settings(max_examples=60, deadline=None, suppress_health_check=[HealthCheck.function_scoped_fixture])
@given(array=ARRAYS)
def test_any_array_comes_back(array: npt.NDArray[Any], agile: Path) -> None:
    data = encdl.encrypt(array, KEY, weights=agile, device="cpu")
    assert same(encdl.decrypt(data, KEY, weights=agile, device="cpu"), array)


def test_other_inputs(agile: Path) -> None:
    for given_ in ([[1, 2], [3, 4]], torch.arange(6).reshape(2, 3), picture(5, 6)[::-1, ::2]):
        array = np.asarray(given_)
        assert same(encdl.decrypt(encdl.encrypt(given_, KEY, weights=agile), KEY, weights=agile), array.copy())
    for bad in (np.zeros((0, 3)), np.float32(3), np.array(["text"]), np.zeros((1,) * 9), np.zeros(2, object)):
        with pytest.raises(ImageFileError):
            encdl.encrypt(bad, KEY, weights=agile)


def test_settings(agile: Path) -> None:
    image = picture(8, 9, 3)
    for extra in ({"postprocess": "both"}, {"nonce": "synthetic"}, {"layout": "SHW"}, {"study": "S"}):
        data = encdl.encrypt(image, KEY, weights=agile, **extra)  # type: ignore[arg-type]
        assert same(encdl.decrypt(data, KEY, weights=agile), image)
    for wrong in ({"postprocess": "no"}, {"nonce": "no"}, {"wrap": "no"}, {"device": "abacus"}, {"study": "a\nb"}):
        with pytest.raises(UsageError):
            encdl.encrypt(image, KEY, **{"weights": agile, **wrong})  # type: ignore[arg-type]


def test_every_encryption_is_another(agile: Path) -> None:
    image = picture(8, 9)
    made = {encdl.encrypt(image, KEY, weights=agile) for _ in range(4)}
    assert len(made) == 4
    synthetic = {encdl.encrypt(image, KEY, weights=agile, nonce="synthetic") for _ in range(3)}
    assert len(synthetic) == 1


def test_wrong_keys_and_damage(agile: Path) -> None:
    data = encdl.encrypt(picture(8, 9), KEY, weights=agile)
    with pytest.raises(WrongKeyError, match="yours is"):
        encdl.decrypt(data, OTHER, weights=agile)
    for place in (0, 40, len(data) // 2, len(data) - 1):
        changed = bytearray(data)
        changed[place] ^= 1
        with pytest.raises((ContainerError, WrongKeyError)):
            encdl.decrypt(bytes(changed), KEY, weights=agile)
    for bad in (b"", b"text", data[:-1], data + b"x"):
        with pytest.raises(ContainerError):
            encdl.decrypt(bad, KEY, weights=agile)


@pytest.mark.parametrize("name", ["agile", "keystream", "thesis"])
def test_a_container_names_weights_that_come_with_encdl(name: str) -> None:
    image = picture(8, 9)
    data = encdl.encrypt(image, KEY, weights=name)
    assert encdl.decrypt(data, KEY).shape == image.shape
    assert name == "thesis" or same(encdl.decrypt(data, KEY), image)


def test_any_weights_of_agile_open_its_containers(agile: Path) -> None:
    """Its mask is fixed: what training changes is the repair of damage."""
    image = picture(8, 9)
    data = encdl.encrypt(image, KEY, weights=agile)
    assert same(encdl.decrypt(data, KEY), image)
    assert same(encdl.decrypt(encdl.encrypt(image, KEY), KEY, weights=agile), image)


def test_fewer_than_eight_planes_are_refused(agile: Path, tmp_path: Path) -> None:
    settings_ = {"planes": 3, "width": 4, "blocks": 1}
    weights.save(ciphers.create("agile", settings_), tmp_path / "three.pt")
    for extra in ({"planes": PlaneSpec(count=7)}, {"weights": tmp_path / "three.pt"}):
        with pytest.raises(UsageError, match="key planes a pixel would let the image show through"):
            encdl.encrypt(picture(8, 9), KEY, **{"weights": agile, **extra})  # type: ignore[arg-type]


def test_weights_that_are_not_there(coupled: Path) -> None:
    data = encdl.encrypt(picture(8, 9), KEY, weights=coupled)
    with pytest.raises(WeightsError, match=f"needs cipher 'coupled' with weights {weights.load(coupled).id}.*ask who"):
        encdl.decrypt(data, KEY)
    with pytest.raises(WeightsError, match="these are not the weights of the file"):
        encdl.decrypt(data, KEY, weights="default")
    with pytest.raises(WeightsError, match="no such weights file"):
        encdl.encrypt(picture(8, 9), KEY, weights="none.pt")


def test_weights_are_loaded_once_and_anew_after_a_change(agile: Path, tmp_path: Path) -> None:
    path = tmp_path / "w.pt"
    path.write_bytes(agile.read_bytes())
    first = api.load_codec(path, "cpu")
    assert api.load_codec(path, "cpu") is first
    torch.manual_seed(1)
    weights.save(ciphers.create("agile", {"width": 8, "blocks": 0}), path)
    assert api.load_codec(path, "cpu") is not first


def test_salvage(agile: Path) -> None:
    volume = picture(6, 16, 16, dtype="uint16")
    data = bytearray(encdl.encrypt(volume, KEY, weights=agile))
    intact = encdl.salvage(bytes(data), KEY, weights=agile)
    assert intact.damaged == intact.problems == []
    assert same(intact.array, volume)
    data[-32 - 2 * 544 - 100] ^= 1  # in the body of the fourth of six chunks of 512 bytes and a tag
    with pytest.raises(ContainerError, match="slice 4 of 6 was changed"):
        encdl.decrypt(bytes(data), KEY, weights=agile)
    for restore in (True, False):
        found = encdl.salvage(bytes(data), KEY, restore=restore, weights=agile)
        assert found.damaged == [3]
        kept = [0, 1, 2, 4, 5]
        assert same(found.array[kept], volume[kept])
        assert restore or not found.array[3].any()
    with pytest.raises(ContainerError):
        encdl.salvage(bytes(data[:50]), KEY, weights=agile)


# ---- keys


def test_open_key(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(passphrases, "COST", 14)
    path = tmp_path / "k.key"
    KEY.save(path)
    assert encdl.open_key(path) == encdl.open_key(str(path)) == KEY
    assert encdl.open_key(content=path.read_bytes()) == KEY
    monkeypatch.setenv("MY_KEY", path.read_text())
    assert encdl.open_key(env="MY_KEY") == KEY
    KEY.save(path, force=True, passphrase=passphrases.Passphrase("correct horse"))
    assert encdl.open_key(path, passphrase="correct horse") == KEY
    assert encdl.open_key(path, passphrase=lambda: "correct horse") == KEY
    for wrong in (None, "battery staple"):
        with pytest.raises(KeyFileError, match="passphrase"):
            encdl.open_key(path, passphrase=wrong)
    for places in ({}, {"path": path, "env": "MY_KEY"}, {"env": "NONE"}):
        with pytest.raises(UsageError):
            encdl.open_key(**places)  # type: ignore[arg-type]


def test_grants(tmp_path: Path, agile: Path) -> None:
    image = picture(8, 9)
    one, two = (encdl.encrypt(image, KEY, study=study, weights=agile) for study in ("S", "T"))
    opener = encdl.grant(KEY, study="S")
    assert same(encdl.decrypt(one, opener, weights=agile), image)
    with pytest.raises(WrongKeyError, match="opens study 'S'"):
        encdl.decrypt(two, opener, weights=agile)
    assert same(encdl.decrypt(encdl.encrypt(image, opener, weights=agile), KEY, weights=agile), image)
    (tmp_path / "one.encdl").write_bytes(one)
    single = encdl.grant(opener, file=tmp_path / "one.encdl")
    single.save(tmp_path / "g")
    assert same(encdl.decrypt(one, tmp_path / "g", weights=agile), image)
    with pytest.raises(UsageError, match="cannot encrypt"):
        encdl.encrypt(image, single, weights=agile)
    with pytest.raises(UsageError, match="only the master key"):
        encdl.grant(opener, study="S")
    for wrong in ({}, {"study": "S", "file": "f"}):
        with pytest.raises(UsageError, match="exactly one"):
            encdl.grant(KEY, **wrong)  # type: ignore[arg-type]
    ended = encdl.grant(KEY, study="S", expires=datetime.now(UTC) - timedelta(days=1))
    ended.save(tmp_path / "ended")
    for key in (ended, tmp_path / "ended"):
        with pytest.raises(ExpiredGrantError):
            encdl.decrypt(one, key, weights=agile)


# ---- files


@pytest.fixture
def scan(tmp_path: Path) -> Path:
    images.write(tmp_path / "scan.png", picture(12, 17))
    return tmp_path / "scan.png"


def test_a_file_comes_back(scan: Path, agile: Path, tmp_path: Path) -> None:
    KEY.save(tmp_path / "k.key")
    before = scan.read_bytes()
    encrypted = encdl.encrypt_file(scan, tmp_path / "k.key", weights=agile, study="S")
    assert encrypted == tmp_path / "scan.encdl"
    assert encdl.read_header(encrypted).study == "S"
    with pytest.raises(OutputExistsError):
        encdl.decrypt_file(encrypted, KEY, weights=agile)
    assert encdl.decrypt_file(encrypted, KEY, tmp_path / "b.png", weights=agile).read_bytes() == before
    assert encdl.decrypt_file(encrypted, KEY, weights=agile, force=True) == scan
    assert scan.read_bytes() == before
    # The same content, from the bytes of the file.
    assert same(encdl.decrypt(encrypted.read_bytes(), KEY, weights=agile), images.read(scan))


def test_rekey_a_file(scan: Path, agile: Path, tmp_path: Path) -> None:
    encrypted = encdl.encrypt_file(scan, KEY, weights=agile, wrap="aes")
    assert encdl.rekey_file(encrypted, KEY, OTHER, tmp_path / "moved.encdl", weights=agile).exists()
    with pytest.raises(OutputExistsError):
        encdl.rekey_file(encrypted, KEY, OTHER, tmp_path / "moved.encdl", weights=agile)
    assert encdl.rekey_file(encrypted, KEY, OTHER, weights=agile) == encrypted
    with pytest.raises(WrongKeyError):
        encdl.decrypt(encrypted.read_bytes(), KEY, weights=agile)
    for path in (encrypted, tmp_path / "moved.encdl"):
        assert same(encdl.decrypt(path.read_bytes(), OTHER, weights=agile), images.read(scan))


def test_a_nifti_file_comes_back(tmp_path: Path, agile: Path) -> None:
    affine = np.array([[2, 0, 0, -7], [0, 3, 0, 5], [0, 0, 4, 1], [0, 0, 0, 1.0]])
    nibabel.save(nibabel.Nifti1Image(picture(5, 6, 7, dtype="int16"), affine), tmp_path / "v.nii")
    before = (tmp_path / "v.nii").read_bytes()
    encrypted = encdl.encrypt_file(tmp_path / "v.nii", KEY, weights=agile)
    back = encdl.decrypt_file(encrypted, KEY, tmp_path / "b.nii", weights=agile)
    assert back.read_bytes() == before


def test_nothing_is_left_of_a_failure(scan: Path, agile: Path, tmp_path: Path) -> None:
    encrypted = encdl.encrypt_file(scan, KEY, weights=agile)
    data = bytearray(encrypted.read_bytes())
    data[-40] ^= 1
    encrypted.write_bytes(data)
    names = {path.name for path in tmp_path.iterdir()}
    with pytest.raises(ContainerError):
        encdl.decrypt_file(encrypted, KEY, tmp_path / "b.png", weights=agile)
    with pytest.raises(ContainerError):
        encdl.rekey_file(encrypted, KEY, OTHER, weights=agile)
    with pytest.raises(ImageFileError):
        encdl.encrypt_file(tmp_path / "none.png", KEY, weights=agile)
    assert {path.name for path in tmp_path.iterdir()} == names
    assert encrypted.read_bytes() == bytes(data)


# ---- folders, prediction, evaluation


def test_a_folder_comes_back_and_goes_on(tmp_path: Path, agile: Path) -> None:
    names = ("a.png", "b/c.png")
    for number, name in enumerate(names):
        (tmp_path / "in" / name).parent.mkdir(parents=True, exist_ok=True)
        images.write(tmp_path / "in" / name, picture(5 + number, 6))
    (tmp_path / "in" / "bad.png").write_bytes(b"no PNG")
    encryption = encdl.encryption(KEY, weights=agile, study="S", planes={"map": "chacha20"})
    for there in (False, True):
        outcomes = encdl.convert_folder(encryption, tmp_path / "in", tmp_path / "enc", jobs=2)
        assert isinstance(outcomes.pop(tmp_path / "in" / "bad.png"), ImageFileError)
        assert [getattr(outcome, "there", None) for outcome in outcomes.values()] == [there, there]
    header = encdl.read_header(tmp_path / "enc" / "b" / "c.png.encdl")
    assert (header.study, header.planes.map) == ("S", "chacha20")
    rekeying = encdl.rekeying(KEY, OTHER, weights=agile)
    encdl.convert_folder(rekeying, tmp_path / "enc", tmp_path / "new")
    encdl.convert_folder(encdl.decryption(OTHER, weights=agile), tmp_path / "new", tmp_path / "out")
    for name in names:
        assert (tmp_path / "out" / name).read_bytes() == (tmp_path / "in" / name).read_bytes()
    (tmp_path / "empty").mkdir()
    with pytest.raises(UsageError, match="no image file in this folder"):
        encdl.convert_folder(encryption, tmp_path / "empty", tmp_path / "enc")


def test_no_folder_replaces_the_key(tmp_path: Path, agile: Path) -> None:
    (tmp_path / "in").mkdir()
    images.write(tmp_path / "in" / "a.png", picture(5, 6))
    key = tmp_path / "out" / "a.png.encdl"
    key.parent.mkdir()
    KEY.save(key)
    how = encdl.encryption(key, weights=agile)
    [outcome] = encdl.convert_folder(how, tmp_path / "in", tmp_path / "out", force=True).values()
    assert isinstance(outcome, UsageError)
    assert encdl.Key.load(key) == KEY


def test_a_prediction_is_that_of_the_reader(tmp_path: Path) -> None:
    checkpoint = save_reader(tmp_path / "r.ckpt", tiny_reader(resnet))
    images.write(tmp_path / "a.png", picture(*SIZE))
    encrypted = encdl.encrypt_file(tmp_path / "a.png", KEY)
    reader = encdl.load_reader(checkpoint, device="cpu")
    first, second = encdl.predict(encrypted, KEY, reader), reader.read(encrypted, KEY)
    assert torch.equal(first.logits, second.logits)
    assert first.probabilities.shape == (3,)
    with pytest.raises(WrongKeyError):
        encdl.predict(encrypted, OTHER, checkpoint)


def test_an_evaluation_refuses_what_the_command_refuses() -> None:
    with pytest.raises(WeightsError, match="nothing: no such weights file"):
        encdl.evaluate(weights=["nothing"], data="embedded", images=1)
