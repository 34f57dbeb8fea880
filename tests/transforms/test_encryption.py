from __future__ import annotations

import copy
import logging
import pickle
from pathlib import Path
from typing import Any

import nibabel
import numpy as np
import pytest
import torch
from monai.data import CacheDataset, DataLoader, Dataset, MetaTensor, PersistentDataset
from monai.transforms import Compose, EnsureChannelFirstd, LoadImaged, RandFlipd, ScaleIntensityd

import encdl
from encdl.cli import main
from encdl.transforms import monai_metadata
from encdl.utils.errors import ContainerError, ImageFileError, KeyFileError, UsageError, WrongKeyError
from tests.transforms.conftest import KEY

AFFINE = np.array([[2, 0, 0, -7], [0, 3, 0, 5], [0, 0, 4, 1], [0, 0, 0, 1.0]])


@pytest.fixture
def volumes(tmp_path: Path) -> list[dict[str, str]]:
    """Four NIfTI files of 6x7x5 voxels."""
    for number in range(4):
        voxels = np.random.default_rng(number).integers(-9, 99, (6, 7, 5)).astype(np.int16)
        nibabel.save(nibabel.Nifti1Image(voxels, AFFINE), tmp_path / f"v{number}.nii.gz")
    return [{"image": str(tmp_path / f"v{number}.nii.gz")} for number in range(4)]


def equal(left: Any, right: Any) -> bool:
    """Of the same type, values, metadata and history."""
    if isinstance(left, dict):
        return left.keys() == right.keys() and all(equal(left[name], right[name]) for name in left)
    if isinstance(left, list | tuple):
        return len(left) == len(right) and all(map(equal, left, right))
    if isinstance(left, MetaTensor):
        history = (left.applied_operations, right.applied_operations)
        return equal(left.as_tensor(), right.as_tensor()) and equal(left.meta, right.meta) and equal(*history)
    if isinstance(left, torch.Tensor | np.ndarray | np.generic):
        return type(left) is type(right) and left.dtype == right.dtype and _bytes(left) == _bytes(right)
    return left == right or (left != left and right != right)


def _bytes(value: Any) -> tuple[tuple[int, ...], bytes]:
    array = np.asarray(value)
    return array.shape, array.tobytes()


@pytest.mark.parametrize(
    "image",
    [
        np.arange(12, dtype=np.uint8).reshape(3, 4),
        np.array([[np.nan, -0.0], [np.inf, 1e-40]], np.float32),
        torch.arange(24, dtype=torch.int16).reshape(1, 2, 3, 4),
        torch.rand(1, 5, 6, requires_grad=True),
        torch.rand(2, 3, 4).transpose(0, 2),
        MetaTensor(torch.rand(1, 4, 5), affine=torch.eye(4), meta={"filename_or_obj": "patient Müller.nii"}),
    ],
    ids=lambda image: f"{type(image).__name__} {image.dtype}",
)
@pytest.mark.parametrize("wrap", ["none", "aes"])
def test_an_image_comes_back(image: Any, wrap: Any, small: str) -> None:
    sealed = encdl.Encrypt(KEY, weights=small, wrap=wrap)(image)
    assert isinstance(sealed, bytes)
    assert b"ller" not in sealed
    back = encdl.Decrypt(KEY, weights=small)(sealed)
    assert equal(back, image.detach() if isinstance(image, torch.Tensor) else image)


def test_metadata_of_a_pipeline_come_back(volumes: list[dict[str, str]], small: str) -> None:
    """Affine, header fields, file name and the history that `inverse` needs."""
    load = Compose([LoadImaged("image"), EnsureChannelFirstd("image"), RandFlipd("image", prob=1, spatial_axis=0)])
    sample = load(volumes[0])
    assert sample["image"].applied_operations
    sealed = encdl.Encryptd("image", KEY, weights=small)(sample)
    assert sealed.keys() == sample.keys()
    back = encdl.Decryptd("image", KEY, weights=small)(sealed)
    assert equal(back["image"], sample["image"])
    torch.testing.assert_close(back["image"].affine, sample["image"].affine, rtol=0, atol=0)
    assert equal(load.inverse(back)["image"].as_tensor(), load.inverse(sample)["image"].as_tensor())


def test_a_fresh_nonce_each_time(small: str) -> None:
    """Also under MONAI's and torch's seeds."""
    transform = encdl.Encryptd(["a", "b"], KEY, weights=small)
    made = set()
    for _ in range(3):
        torch.manual_seed(0)
        np.random.seed(0)
        Compose([transform]).set_random_state(0)
        result = transform({"a": np.ones((4, 4)), "b": np.ones((4, 4))})
        made |= {result["a"], result["b"]}
    assert len(made) == 6


def test_missing_entries(small: str) -> None:
    with pytest.raises(KeyError):
        encdl.Encryptd("a", KEY, weights=small)({"b": 1})
    data = {"b": 1}
    assert encdl.Encryptd("a", KEY, weights=small, allow_missing_keys=True)(data) == data
    assert encdl.Decryptd("a", KEY, weights=small, allow_missing_keys=True)(data) == data


# ---- caches and workers


def steps(key: Any, small: str) -> list[Any]:
    return [
        LoadImaged("image"),
        EnsureChannelFirstd("image"),
        encdl.Encryptd("image", key, weights=small),
        encdl.Decryptd("image", key, weights=small),
        ScaleIntensityd("image"),
    ]


def test_a_cache_holds_ciphertext(volumes: list[dict[str, str]], key: Path, small: str) -> None:
    plain = Dataset(volumes, Compose([*steps(key, small)[:2], ScaleIntensityd("image")]))
    cached = CacheDataset(volumes, Compose(steps(key, small)), num_workers=2, progress=False)
    assert all(isinstance(item["image"], bytes) for item in cached._cache)
    for number in range(len(volumes)):
        for _ in range(2):
            assert equal(cached[number]["image"].as_tensor(), plain[number]["image"].as_tensor())


def test_a_cache_on_disk_holds_ciphertext(volumes: list[dict[str, str]], key: Path, small: str, tmp_path: Path) -> None:
    stored = PersistentDataset(volumes, Compose(steps(key, small)), cache_dir=tmp_path / "cache")
    first = [stored[number]["image"] for number in range(4)]
    files = list((tmp_path / "cache").glob("*.pt"))
    assert len(files) == 4
    for file in files:
        data = file.read_bytes()
        assert b"ENCDL" in data
        assert b"srow_x" not in data
        assert KEY._secret not in data
    for number in range(4):
        assert equal(stored[number]["image"], first[number])


@pytest.mark.parametrize("context", ["fork", pytest.param("spawn", marks=pytest.mark.slow)])
def test_workers(volumes: list[dict[str, str]], key: Path, small: str, context: str) -> None:
    cached = CacheDataset(volumes, Compose(steps(key, small)), progress=False)
    expected = torch.stack([cached[number]["image"].as_tensor() for number in range(4)])
    loader = DataLoader(cached, batch_size=2, num_workers=1, multiprocessing_context=context)
    found = torch.cat([batch["image"].as_tensor() for batch in loader])
    assert equal(found, expected)


def test_ciphertext_is_collated(volumes: list[dict[str, str]], key: Path, small: str) -> None:
    loader = DataLoader(Dataset(volumes, Compose(steps(key, small)[:3])), batch_size=4)
    [batch] = list(loader)
    assert [type(item) for item in batch["image"]] == [bytes] * 4
    decrypt = encdl.Decrypt(key, weights=small)
    assert [decrypt(item).shape for item in batch["image"]] == [(1, 6, 7, 5)] * 4


# ---- keys


def test_a_key_itself_stays_in_its_process(key: Path, small: str) -> None:
    held = encdl.Encryptd("image", KEY, weights=small)
    with pytest.raises(TypeError, match=r"is not pickled.*give the path"):
        pickle.dumps(held)
    assert copy.deepcopy(held)({"image": np.ones((2, 2))})
    for place in (key, str(key), encdl.KeyRef(path=str(key))):
        transform = encdl.Decryptd("image", place, weights=small)
        data = pickle.dumps(transform)
        assert KEY._secret not in data
        sealed = held({"image": np.ones((2, 2))})
        assert equal(pickle.loads(data)(sealed)["image"], np.ones((2, 2)))


def test_keys_do_not_show(key: Path, small: str, caplog: pytest.LogCaptureFixture) -> None:
    caplog.set_level(logging.DEBUG)
    for place in (KEY, key):
        for transform in (encdl.Encrypt(place, weights=small), encdl.Decrypt(place, weights=small)):
            shown = f"{transform!r} {vars(transform)} {Compose([transform])!r}"
            assert KEY._secret.hex() not in shown
            assert repr(KEY._secret)[2:20] not in shown
    image = MetaTensor(torch.rand(1, 3, 3))
    back = encdl.Decrypt(key, weights=small)(encdl.Encrypt(key, weights=small)(image))
    assert "key" not in str(back.meta).lower()
    assert KEY._secret.hex() not in caplog.text


def test_a_key_ref(key: Path, small: str, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("MY_KEY", key.read_text())
    sealed = encdl.Encrypt(encdl.KeyRef(env="MY_KEY"), weights=small)(np.ones((3, 3)))
    assert equal(encdl.Decrypt(key, weights=small)(sealed), np.ones((3, 3)))
    monkeypatch.setattr("encdl.keys.passphrases.COST", 14)
    KEY.save(key, force=True, passphrase=encdl.keys.passphrases.Passphrase("correct horse"))
    monkeypatch.setenv("WORDS", "correct horse")
    locked = encdl.KeyRef(path=str(key), passphrase_env="WORDS")
    assert "horse" not in repr(encdl.Decrypt(locked))
    assert equal(pickle.loads(pickle.dumps(encdl.Decrypt(locked, weights=small)))(sealed), np.ones((3, 3)))
    with pytest.raises(UsageError, match="no environment variable NONE"):
        encdl.Decrypt(encdl.KeyRef(path=str(key), passphrase_env="NONE"))


def test_wrong_keys_show_at_once(tmp_path: Path, small: str) -> None:
    with pytest.raises(KeyFileError, match="no key file"):
        encdl.Encryptd("image", tmp_path / "none")
    with pytest.raises(UsageError, match="cannot encrypt"):
        encdl.Encrypt(KEY.grant_file(bytes(16)))
    sealed = encdl.Encrypt(KEY.grant_study("S"), weights=small)(np.ones((3, 3)))
    assert equal(encdl.Decrypt(KEY, weights=small)(sealed), np.ones((3, 3)))
    for wrong in (KEY.grant_study("T"), encdl.Key(bytes(32))):
        with pytest.raises(WrongKeyError):
            encdl.Decrypt(wrong, weights=small)(sealed)


# ---- what is refused


def test_what_is_no_image(small: str) -> None:
    encrypt = encdl.Encrypt(KEY, weights=small)
    lazy = MetaTensor(torch.rand(1, 3, 3))
    lazy.push_pending_operation({})
    held = MetaTensor(torch.rand(1, 3, 3), meta={"holder": object()})
    for bad in ("text", [1, 2], None, torch.rand(2, 2).bfloat16(), np.zeros((0, 2)), np.float32(1), lazy, held):
        with pytest.raises(ImageFileError) as caught:
            encrypt(bad)  # type: ignore[arg-type]
        assert "\n" not in str(caught.value)


def test_what_is_no_ciphertext(small: str) -> None:
    decrypt = encdl.Decrypt(KEY, weights=small)
    sealed = encdl.Encrypt(KEY, weights=small)(MetaTensor(torch.rand(1, 3, 3)))
    changed = bytearray(sealed)
    changed[-40] ^= 1
    for bad in (np.ones((3, 3)), "text", b"", b"text", sealed[:-1], bytes(changed)):
        with pytest.raises(ContainerError):
            decrypt(bad)  # type: ignore[arg-type]


@pytest.mark.parametrize(
    "data",
    [
        b"", b"\xff", b"[", b'{"pickle":[]}', b'{"array":["|O",[1],""]}', b'{"array":["<i4",[9],"AAAA"]}',
        b'{"tensor":["nothing",[1],"AAAA"]}', b'{"dict":3}', b'{"a":1,"b":2}', b"[" * 5000, b'{"tuple":null}',
        b'{"array":["<i4",["x"],"AAAA"]}', b'{"array":3}',
    ],
)  # fmt: skip
def test_foreign_metadata(data: bytes) -> None:
    with pytest.raises(ContainerError, match="is not MONAI's metadata"):
        monai_metadata.unpack(data)


def test_metadata_of_every_kind() -> None:
    value = {
        "text": "x\u00e9", "number": 3, "real": float("nan"), "none": None, "yes": True, "raw": b"\0\xff",
        7: ("a", [1]),
        "array": np.array(["x", "yy"]), "scalar": np.float32(2.5), "tensor": torch.rand(2), "zero": np.array(3),
        "enum": np.int64(9), "nested": {"deep": [{"x": (None,)}]},
    }  # fmt: skip
    assert equal(monai_metadata.unpack(monai_metadata.pack(value)), value)


def test_other_containers_open_as_arrays(small: str, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """And what `Encrypt` made is a file that the command line opens."""
    image = np.arange(12, dtype=np.int16).reshape(3, 4)
    data = encdl.encrypt(image, KEY, weights=small)
    assert equal(encdl.Decrypt(KEY, weights=small)(data), image)
    monkeypatch.chdir(tmp_path)
    KEY.save("k.key")
    Path("x.encdl").write_bytes(encdl.Encrypt(KEY, weights=small)(MetaTensor(torch.from_numpy(image))))
    assert main(["decrypt", "x.encdl", "--key", "k.key", "--weights", small]) == 0
    assert equal(np.load("x.npy"), image)
