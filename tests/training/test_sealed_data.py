"""`encdl fit` on a folder of encrypted files: what it leaves behind, and what it says without the key."""

from __future__ import annotations

import csv
from pathlib import Path

import nibabel
import numpy as np
import pytest
import torch

import encdl
from encdl.cli import main
from encdl.data.class_folder import ClassFolder
from encdl.data.splits import SPLITS
from encdl.files import images
from encdl.keys.key import Key
from encdl.keys.key_source import KeySource
from encdl.readers import create
from encdl.readers.predictor import Predictor
from tests.reader_checkpoint import save_reader

QUIET = ["--trainer.max_epochs", "1", "--trainer.enable_progress_bar", "false", "--trainer.accelerator", "cpu"]
FIT = [
    "fit",
    "--recipe",
    "classifier-folder",
    "--data.folder",
    "safe",
    "--data.size",
    "16",
    "--trainer.max_epochs",
    "1",
]
SMALL = ["--model.init_args.backbone.arguments.block_inplanes", "[2, 4, 8, 16]", "--trainer.default_root_dir", "run"]


@pytest.fixture
def key(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Key:
    """Its file `k.key`, and a folder `safe` of encrypted images of 16 bits, in the working directory."""
    monkeypatch.chdir(tmp_path)
    key = Key.generate()
    key.save("k.key")
    Key.generate().save("other.key")
    for number, split in enumerate(SPLITS):
        for name, top in {"dark": 1200, "light": 3000}.items():
            place = Path("safe", split, name)
            place.mkdir(parents=True)
            levels = np.random.default_rng(number + top).integers(1000, top, (20, 14), dtype=np.uint16)
            images.write("scan.png", levels, force=True)
            encdl.encrypt_file("scan.png", key, place / "scan.encdl")
    Path("scan.png").unlink()
    return key


def test_training_prediction_and_what_is_left_behind(key: Key, capsys: pytest.CaptureFixture[str]) -> None:
    given = ["--data.key.path", "k.key", "--data.levels", "{window: [2000, 2000]}", "--trainer.logger", "false"]
    assert main([*FIT, *given, *SMALL, *QUIET]) == 0
    secret = Path("k.key").read_bytes().partition(b":")[2].strip()
    written = [path for path in Path("run").rglob("*") if path.is_file()]
    assert {"config.yaml", "last.ckpt", "best.ckpt"} <= {path.name for path in written}
    assert not [path for path in written if path.suffix == ".png" or secret in path.read_bytes()]
    said = capsys.readouterr()
    assert secret.decode() not in said.out + said.err

    assert main(["export", "run/checkpoints/last.ckpt", "-o", "reader.pt"]) == 0
    assert main(["predict", "safe/test", "--key", "k.key", "--reader", "reader.pt", "-o", "said.csv"]) == 0
    rows = list(csv.DictReader(Path("said.csv").read_text().splitlines()))
    predictor = Predictor.load("reader.pt")
    data = ClassFolder("safe", size=16, key=KeySource("k.key"), levels={"window": [2000, 2000]})
    batch = next(iter(data.test_dataloader()))["image"]
    logits = predictor.reader(batch, torch.zeros_like(batch))
    for path, own, row in zip(data.files["test"], logits, rows, strict=True):
        assert row["file"] == str(path)
        assert torch.allclose(predictor.read(path, key).logits, own, atol=1e-5)
        assert float(row["probability of light"]) == pytest.approx(float(own.softmax(0)[1]), abs=2e-6)


@pytest.mark.parametrize(
    ("arguments", "said"),
    [
        (["--data.key.path", "other.key"], "yours is"),
        (["--data.key.path", "none.key"], "none.key"),
        (["--data.key.env", "NO_SUCH"], "NO_SUCH"),
        ([], "training reads .encdl files with --data.key.path K"),
        (["--data.key", "k.key"], "k.key: is a key or grant file: no setting but that of encrypted images takes one"),
        (["--data.size", "k.key"], "k.key: is a key or grant file: no setting but that of encrypted images takes one"),
        (["--data.key.path", "k.key", "--data.beside", "1"], "is one image: with data.init_args.beside give scans"),
    ],
)
@pytest.mark.usefixtures("key")
def test_mistakes_are_one_line(arguments: list[str], said: str, capsys: pytest.CaptureFixture[str]) -> None:
    assert main([*FIT, *arguments, *SMALL, *QUIET, "--trainer.logger", "false"]) == 2
    error = capsys.readouterr().err.strip().splitlines()[-1]
    assert error.startswith("encdl: error: ")
    assert said in error
    assert Path("k.key").read_text().partition(":")[2].strip() not in error


def test_a_volume_of_16_bits_as_byte_planes_is_read_as_the_decrypted_one(tmp_path: Path) -> None:
    """The full view of a 3-D reader: the planes of the ciphertext give the logits that the volume itself gives."""
    key = Key.generate()
    voxels = np.random.default_rng(0).integers(-2000, 9000, (14, 12, 8), dtype=np.int16)
    nibabel.save(nibabel.Nifti1Image(voxels, np.eye(4)), tmp_path / "v.nii.gz")  # type: ignore[no-untyped-call, attr-defined]
    encdl.encrypt_file(tmp_path / "v.nii.gz", key, tmp_path / "v.encdl")
    network = {"network": "UNet", "arguments": {"channels": [4, 8], "strides": [2]}, "multiple": 2, "dimensions": 3}
    parts = {"backbone": "MonaiNet", "backbone_settings": network, "channels": 1}
    plain, keyed = [
        create(parts | {"stem": stem, "stem_settings": {"width": 4, "dimensions": 3}}, 2).eval()
        for stem in ("PlainStem", "KeyedStem")
    ]
    keyed.load_state_dict(plain.state_dict())

    levels = {"": {"window": [3000, 9000]}}
    path = save_reader(tmp_path / "r.ckpt", keyed, size=[8, 12, 14], classes=["rest", "part"], levels=levels)
    answer = next(mask for _, mask in encdl.segment(tmp_path / "v.encdl", key, path))
    decrypted = nibabel.load(encdl.decrypt_file(tmp_path / "v.encdl", key, tmp_path / "back.nii.gz"))  # type: ignore[attr-defined]
    unit = ((np.asarray(decrypted.dataobj).T.astype(np.float64) - -1500) / 9000).clip(0, 1)
    assert np.array_equal(answer.levels, np.rint(255 * unit).astype(np.uint8))
    image = torch.from_numpy(answer.levels)[None, None]
    assert np.array_equal(answer.mask, plain(image)[0].argmax(0).numpy())
    assert 0 < answer.mask.mean() < 1
