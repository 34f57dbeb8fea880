"""MONAI bundles: a reader written as one says the same of decrypted and encrypted images; others run as they are."""

from __future__ import annotations

import csv
import json
import shutil
from functools import partial
from pathlib import Path
from typing import Any

import nibabel
import numpy as np
import pytest
import torch
from monai.bundle import run as run_monai

from encdl.files import images
from encdl.readers import KeyedStem, MonaiNet, Reader
from tests.commands.conftest import KEYED, Run, failed
from tests.files.scans.phantom import SHAPE, write_series
from tests.reader_checkpoint import SIZE, resnet, save_reader, smooth, tiny_reader, unet

pytestmark = [pytest.mark.filterwarnings("ignore")]  # of MONAI, and of PyTorch about TorchScript
BUNDLE = Path("r.bundle")
CONFIG = BUNDLE / "configs" / "inference.json"


def write_images(folder: str, count: int = 2, deep: bool = False) -> None:
    """8-bit images of the size of training; or those of 16 bits, larger and smaller."""
    Path(folder).mkdir()
    for number in range(count):
        image = smooth(number)
        if deep:
            image = smooth(number, (52, 40) if number else (19, 23)).astype(np.uint16) * 200
        images.write(Path(folder, f"scan{number}.png"), image)


def monai_says(images: str, output: str) -> None:
    """As `python -m monai.bundle run` does it."""
    given = {"bundle_root": str(BUNDLE), "dataset_dir": images, "output_dir": output}
    with torch.set_grad_enabled(True):  # the workflow switches gradients off, and its own process would end
        run_monai(
            config_file=str(CONFIG), meta_file=str(CONFIG.with_name("metadata.json")), logging_file=False, **given
        )


def test_a_segmenter_says_the_same_as_a_bundle(run: Run, folder: Path) -> None:
    save_reader("r.ckpt", tiny_reader(unet))
    write_images("plain")
    assert run("encrypt", "plain", *KEYED, "-o", "safe")[0] == 0
    code, out, err = run("export", "r.ckpt", "-o", BUNDLE)
    assert (code, err) == (0, "")
    assert out.startswith("r.bundle: MONAI bundle of EncDL reader UNet, view Ciphertext")
    code, out, err = run("predict", "safe", *KEYED, "--bundle", BUNDLE, "-o", "by-bundle")
    assert (code, err) == (0, "")
    assert out == "by-bundle: 2 images read by the bundle r.bundle\n"
    monai_says("plain", "by-monai")
    assert run("predict", "safe", *KEYED, "--reader", "r.ckpt", "-o", "by-reader")[0] == 0
    for number in range(2):
        masks = [
            images.read(next(Path(place).glob(f"scan{number}*.png")))
            for place in ("by-bundle", "by-monai", "by-reader")
        ]
        assert len(np.unique(masks[2])) > 1
        assert np.array_equal(masks[0], masks[1])
        assert np.array_equal(masks[0], masks[2])


def rows(path: str) -> dict[str, np.ndarray]:
    with Path(path).open() as stream:
        return {Path(name).name.partition(".")[0]: np.array(values, float) for name, *values in csv.reader(stream)}


@pytest.mark.parametrize(("fit", "levels"), [(0, None), (32, None), (32, {"": {"window": [22000, 30000]}})])
def test_a_classifier_says_the_same_as_a_bundle(
    run: Run, folder: Path, fit: int, levels: dict[str, Any] | None
) -> None:
    """With `fit` as readers that learnt from folders."""
    size: dict[str, Any] = {"size": [fit, fit], "geometry": {"fit": fit}, "levels": levels}
    save_reader("r.ckpt", tiny_reader(resnet), **(size if fit else {}))
    write_images("plain", deep=bool(fit))
    assert run("encrypt", "plain", *KEYED, "-o", "safe")[0] == 0
    assert run("export", "r.ckpt", "-o", BUNDLE)[0] == 0
    assert run("predict", "safe", *KEYED, "--bundle", BUNDLE, "-o", "by-bundle")[0] == 0
    monai_says("plain", "by-monai")
    assert run("predict", "safe", *KEYED, "--reader", "r.ckpt", "-o", "r.csv")[0] == 0
    ours, theirs = rows("by-bundle/predictions.csv"), rows("by-monai/predictions.csv")
    assert ours.keys() == theirs.keys() == {"scan0", "scan1"}
    with Path("r.csv").open() as stream:
        told = {
            Path(name).name.partition(".")[0]: np.array(values, float) for name, _, *values in [*csv.reader(stream)][1:]
        }
    for name, values in ours.items():
        assert np.allclose(values, theirs[name], atol=1e-6)
        assert np.allclose(values, told[name], atol=1e-5)


@pytest.mark.parametrize("others", [{}, {"MR": {"percentiles": [1, 99]}}])
def test_a_bundle_has_the_only_rule_of_levels(run: Run, folder: Path, others: dict[str, Any]) -> None:
    save_reader("r.ckpt", tiny_reader(resnet), levels={"CT": {"window": [40, 400]}, **others})
    code, _, err = run("export", "r.ckpt", "-o", BUNDLE)
    assert (code, "`encdl predict` has others for CT, MR" in err) == (0, bool(others))
    steps = json.loads(CONFIG.read_text())["preprocessing"]["transforms"]
    windows = [(step["a_min"], step["a_max"]) for step in steps if step["_target_"] == "ScaleIntensityRanged"]
    assert windows == ([] if others else [(-160, 240)])


def deeper(content: dict[str, Any]) -> dict[str, Any]:
    content["dataset"]["transform"]["transforms"][2]["roi_size"] = [16, 16, -1]
    return content


def test_a_series_of_a_folder_is_one_image(run: Run, folder: Path) -> None:
    bundle(deeper)
    write_series(folder / "ct", shape=(3, *SHAPE[1:]))
    assert run("encrypt", "ct", *KEYED, "-o", "safe")[0] == 0
    code, _, err = run("predict", "safe", *KEYED, "--bundle", BUNDLE, "-o", "out")
    assert (code, err) == (0, "")
    [path] = Path("out").rglob("*.nii.gz")
    assert nibabel.load(path).shape[2] == 3
    save_reader("r.ckpt", tiny_reader(unet))
    assert run("export", "r.ckpt", "-o", "flat.bundle")[0] == 0
    failed(run("predict", "safe", *KEYED, "--bundle", "flat.bundle", "-o", "out2"), "takes single slices", "--reader")
    write_series(folder / "ct", shape=(4, *SHAPE[1:]), number=2, name="other")
    assert run("encrypt", "ct", *KEYED, "-o", "safe")[0] == 0
    code, out, err = run("predict", "safe", *KEYED, "--bundle", BUNDLE, "-o", "both")
    assert (code, err, out) == (0, "", "both: 2 images read by the bundle r.bundle\n")
    assert sorted(nibabel.load(path).shape[2] for path in Path("both").rglob("*.nii.gz")) == [3, 4]


@pytest.mark.parametrize("spacing", [None, [3.0, 1.0, 0.0]])
@pytest.mark.parametrize("orientation", [None, "SPL"])
def test_a_reader_of_volumes_says_the_same_as_a_bundle(
    run: Run, folder: Path, orientation: str | None, spacing: list[float] | None
) -> None:
    body = MonaiNet(4, 2, "BasicUNet", {"features": [4, 4, 8, 8, 8, 4]}, 16, dimensions=3)
    torch.manual_seed(1)
    reader = Reader(KeyedStem(1, 4, 3), body).eval()
    geometry = {"orientation": orientation, "spacing": spacing}
    save_reader("r.ckpt", reader, classes=["background", "organ"], size=[16, 32, 32], geometry=geometry)
    x, y, z = np.mgrid[:32, :34, :16]
    values = (900 * np.sin(x / 4) * np.cos(y / 5) + 40 * z).astype(np.int16)
    affine = np.diag([-1.5, 1.5, 2.0, 1.0])
    Path("plain").mkdir()
    nibabel.save(nibabel.Nifti1Image(values, affine), "plain/v.nii.gz")
    assert run("encrypt", "plain", *KEYED, "-o", "safe")[0] == 0
    assert run("export", "r.ckpt", "-o", BUNDLE)[0] == 0
    code, _, err = run("predict", "safe", *KEYED, "--bundle", BUNDLE, "-o", "by-bundle")
    assert (code, err) == (0, "")
    monai_says("plain", "by-monai")
    assert run("predict", "safe", *KEYED, "--reader", "r.ckpt", "-o", "by-reader")[0] == 0
    read: Any = [nibabel.load(next(Path(at).glob("v*.nii.gz"))) for at in ("by-bundle", "by-monai", "by-reader")]
    masks = [np.asarray(each.dataobj).squeeze() for each in read]
    assert 0.01 < masks[2].mean() < 0.99
    assert np.array_equal(masks[0], masks[1])
    assert (masks[0] == masks[2]).mean() > 0.999
    assert np.allclose(read[0].affine, affine)


def bundle(change: Any = None, scripts: bool = False) -> None:
    """A bundle of someone else's: MONAI's network, weights in model.pt, reader and transforms of its own."""
    (BUNDLE / "models").mkdir(parents=True)
    CONFIG.parent.mkdir()
    from monai.networks.nets import UNet

    torch.manual_seed(0)
    settings = {"spatial_dims": 2, "in_channels": 1, "out_channels": 2, "channels": [4, 8], "strides": [2]}
    torch.save(UNet(**settings).state_dict(), BUNDLE / "models" / "model.pt")
    content: dict[str, Any] = {
        "imports": ["$import torch", *(["$from scripts.own import shift"] if scripts else [])],
        "bundle_root": ".",
        "output_dir": "$@bundle_root + '/eval'",
        "network_def": {"_target_": "UNet", **settings},
        "weights": "$@network_def.load_state_dict(torch.load(@bundle_root + '/models/model.pt', weights_only=True))",
        "dataset": {
            "_target_": "Dataset",
            "data": [],
            "transform": {
                "_target_": "Compose",
                "transforms": [
                    {"_target_": "LoadImaged", "keys": "image", "reader": "PILReader", "ensure_channel_first": True},
                    {"_target_": "ScaleIntensityd", "keys": "image"},
                    {"_target_": "CenterSpatialCropd", "keys": "image", "roi_size": [16, 16]},
                    {"_target_": "SaveImaged", "keys": "image", "output_dir": "@output_dir", "output_ext": ".nii.gz"},
                ],
            },
        },
        "run": ["$@weights", *(["$shift + 1"] if scripts else []), "$list(map(len, @dataset))"],
    }
    CONFIG.write_text(json.dumps(content if change is None else change(content)))
    CONFIG.with_name("metadata.json").write_text('{"version": "1.0.0"}')
    if scripts:
        (BUNDLE / "scripts").mkdir()
        (BUNDLE / "scripts" / "__init__.py").touch()
        (BUNDLE / "scripts" / "own.py").write_text("shift = 1\nopen('ran', 'w').close()\n")


@pytest.fixture
def safe(run: Run, folder: Path) -> Path:
    write_images("plain", 1)
    assert run("encrypt", "plain", *KEYED, "-o", "safe")[0] == 0
    return Path("safe")


def test_a_bundle_of_someone_else_runs_as_it_is(run: Run, safe: Path) -> None:
    bundle()
    code, _, err = run("predict", safe, *KEYED, "--bundle", BUNDLE, "-o", "out")
    assert (code, err) == (0, "")
    [path] = Path("out").rglob("*.nii.gz")
    [image] = [np.asarray(nibabel.load(path).dataobj).squeeze()]
    whole = smooth(0).astype(float)
    scaled = (whole - whole.min()) / (whole.max() - whole.min())
    rows, columns = SIZE[0] // 2 - 8, SIZE[1] // 2 - 8
    assert np.allclose(image.T, scaled[rows : rows + 16, columns : columns + 16], atol=1e-5)
    assert not (BUNDLE / "eval").exists()


def test_scripts_of_a_bundle_run_only_if_allowed(run: Run, safe: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    bundle(scripts=True)
    words = ("predict", safe, *KEYED, "--bundle", BUNDLE, "-o", "out")
    failed(run(*words), "module scripts lies in the folder of the bundle", "--local-classes")
    assert not Path("ran").exists()
    import sys

    monkeypatch.setattr(sys, "path", [*sys.path])
    assert run(*words, "--local-classes", "--force")[0] == 0
    assert Path("ran").exists()


def without(name: str, content: dict[str, Any]) -> dict[str, Any]:
    return {key: value for key, value in content.items() if key != name}


def wider(content: dict[str, Any]) -> dict[str, Any]:
    content["network_def"]["channels"] = [8, 16]
    return content


def importing(content: dict[str, Any]) -> dict[str, Any]:
    return {**content, "run": ["$__import__('no_such_package')"]}


@pytest.mark.parametrize(
    ("change", "remove", "words"),
    [
        (None, BUNDLE, "r.bundle: no such folder"),
        (None, CONFIG, "no MONAI bundle with an inference workflow"),
        (None, CONFIG.with_name("metadata.json"), "no configs/metadata.json"),
        (wider, None, "the weights do not fit the network"),
        (partial(without, "dataset"), None, "no `dataset` with `data`"),
        (partial(without, "run"), None, "its workflow failed"),
        (importing, None, "needs no_such_package, which is not installed"),
    ],
)
def test_mistakes_are_told_in_a_line(run: Run, safe: Path, change: Any, remove: Path | None, words: str) -> None:
    bundle(change)
    if remove is not None:
        shutil.rmtree(remove) if remove.is_dir() else remove.unlink()
    failed(run("predict", safe, *KEYED, "--bundle", BUNDLE, "-o", "out"), words)


def test_a_wrong_key_and_options_of_readers_are_told(run: Run, safe: Path) -> None:
    bundle()
    failed(run("predict", safe, "--key", "other.key", "--bundle", BUNDLE, "-o", "out"), "key")
    failed(run("predict", safe, *KEYED, "--bundle", BUNDLE, "-o", "out", "--masks", "png"), "--masks is for readers")
    failed(run("predict", safe, *KEYED, "--bundle", BUNDLE), "--output")


def zoo(workers: int) -> Any:
    """A bundle as MONAI's model zoo lays them out: an evaluator of ignite with handlers, on a loader with workers."""
    from monai.networks.nets import UNet

    (BUNDLE / "models").mkdir(parents=True)
    CONFIG.parent.mkdir()
    torch.manual_seed(0)
    settings = {"spatial_dims": 3, "in_channels": 1, "out_channels": 2, "channels": [4, 8], "strides": [2]}
    network = UNet(**settings)
    torch.save({"model": network.state_dict()}, BUNDLE / "models" / "model.pt")
    keys = {"keys": "image"}
    content: dict[str, Any] = {
        "imports": ["$import glob", "$import torch", "$import monai"],
        "bundle_root": ".",
        "dataset_dir": "/workspace/data/Task09_Spleen",
        "output_dir": "$@bundle_root + '/eval'",
        "datalist": "$list(sorted(glob.glob(@dataset_dir + '/imagesTs/*.nii.gz')))",
        "device": "$torch.device('cuda:0' if torch.cuda.is_available() else 'cpu')",
        "network_def": {"_target_": "UNet", **settings},
        "network": "$@network_def.to(@device)",
        "preprocessing": {
            "_target_": "Compose",
            "transforms": [
                {"_target_": "LoadImaged", **keys},
                {"_target_": "EnsureChannelFirstd", **keys},
                {"_target_": "Orientationd", **keys, "axcodes": "RAS", "labels": None},
                {"_target_": "ScaleIntensityRanged", **keys, "a_min": -57, "a_max": 164, "b_min": 0, "b_max": 1},
                {"_target_": "EnsureTyped", **keys},
            ],
        },
        "dataset": {"_target_": "Dataset", "data": "$[{'image': i} for i in @datalist]", "transform": "@preprocessing"},
        "dataloader": {"_target_": "DataLoader", "dataset": "@dataset", "batch_size": 1, "num_workers": workers},
        "inferer": {"_target_": "SlidingWindowInferer", "roi_size": [16, 16, 16], "overlap": 0.5},
        "postprocessing": {
            "_target_": "Compose",
            "transforms": [
                {"_target_": "Activationsd", "keys": "pred", "softmax": True},
                {
                    "_target_": "Invertd",
                    "keys": "pred",
                    "transform": "@preprocessing",
                    "orig_keys": "image",
                    "nearest_interp": False,
                    "to_tensor": True,
                },
                {"_target_": "AsDiscreted", "keys": "pred", "argmax": True},
                {"_target_": "SaveImaged", "keys": "pred", "output_dir": "@output_dir", "output_postfix": "trans"},
            ],
        },
        "handlers": [
            {
                "_target_": "CheckpointLoader",
                "load_path": "$@bundle_root + '/models/model.pt'",
                "load_dict": {"model": "@network"},
            },
            {"_target_": "StatsHandler", "iteration_log": False},
        ],
        "evaluator": {
            "_target_": "SupervisedEvaluator",
            "device": "@device",
            "val_data_loader": "@dataloader",
            "network": "@network",
            "inferer": "@inferer",
            "postprocessing": "@postprocessing",
            "val_handlers": "@handlers",
        },
        "initialize": ["$monai.utils.set_determinism(seed=123)"],
        "run": ["$@evaluator.run()"],
    }
    CONFIG.write_text(json.dumps(content))
    CONFIG.with_name("metadata.json").write_text('{"version": "1.0.0"}')
    return network.eval()


@pytest.mark.parametrize("workers", [0, 1])
def test_a_bundle_with_an_evaluator_runs_as_it_is(run: Run, folder: Path, workers: int) -> None:
    network = zoo(workers)
    Path("plain").mkdir()
    voxels = np.random.default_rng(0).integers(-200, 300, (2, 20, 18, 12), dtype=np.int16)
    affine = np.diag([-1.0, -1.0, 2.0, 1.0])
    for name, each in zip("ab", voxels, strict=True):
        nibabel.save(nibabel.Nifti1Image(each, affine), f"plain/{name}.nii.gz")
    assert run("encrypt", "plain", *KEYED, "-o", "safe")[0] == 0
    code, _, err = run("predict", "safe", *KEYED, "--bundle", BUNDLE, "-o", "out")
    assert code == 0, err
    from monai.inferers import sliding_window_inference

    for name, each in zip("ab", voxels, strict=True):
        levels = torch.from_numpy(((each[::-1, ::-1] + 57.0) / 221).astype(np.float32))[None, None]
        with torch.no_grad():
            expected = sliding_window_inference(levels, 16, 1, network, overlap=0.5)[0].argmax(0).numpy()[::-1, ::-1]
        [path] = Path("out").rglob(f"{name}*_trans.nii.gz")
        image: Any = nibabel.load(path)
        assert 0 < expected.mean() < 1
        assert (np.asarray(image.dataobj) == expected).mean() > 0.999
        np.testing.assert_allclose(image.affine, affine)
    assert not (BUNDLE / "eval").exists()
    [damaged] = Path("safe").glob("a*")
    content = damaged.read_bytes()
    damaged.write_bytes(content[:-50] + b"\0\0" + content[-48:])
    failed(run("predict", "safe", *KEYED, "--bundle", BUNDLE, "-o", "again"), f"{damaged}: ", "changed after")
