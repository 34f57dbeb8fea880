"""A reader as a MONAI bundle, which `python -m monai.bundle run` runs on decrypted images without EncDL.

Its network is the plaintext twin of the reader, in TorchScript; its transforms give that the levels of the image, as
`encdl predict` forms them.
"""

from __future__ import annotations

import io
import warnings
from typing import Any

import monai
import numpy as np
import torch

from encdl.files.levels import ANY, DEEP, Levels, Stored
from encdl.readers.reader import LoadedReader, Reader
from encdl.readers.stems import KeyedStem, PlainStem
from encdl.utils import records
from encdl.utils.errors import UsageError, WeightsError

README = """# {title}

Written by EncDL from a reader of ciphertext (view {view}). For research: no medical device.

    python -m monai.bundle run --config_file configs/inference.json --bundle_root . --dataset_dir DIR --output_dir OUT
    encdl predict FILES.encdl --key KEY --bundle . -o OUT
"""


def plain_twin(loaded: LoadedReader) -> Reader:
    """The reader of plaintext with the very weights of a reader of ciphertext.

    Raises:
        UsageError: It reads in another way than through a plain or keyed stem.
    """
    stem = loaded.reader.stem
    if not isinstance(stem, PlainStem | KeyedStem):
        raise UsageError(f"a bundle reads images: a reader with a {type(stem).__name__} reads none")
    twin = PlainStem(stem.channels, stem.width, stem.dimensions)
    twin.convolution, twin.norm = stem.convolution, stem.norm
    return Reader(twin, loaded.reader.backbone).eval()


def torchscript(loaded: LoadedReader) -> bytes:
    """The plaintext twin, traced: levels float32 (B, C, H, W) or (B, C, D, H, W), 0 to 255, to logits.

    Raises:
        UsageError: See `plain_twin`.
        WeightsError: It cannot be traced, or gives other logits on another number of images.
    """
    twin = plain_twin(loaded)
    generator = torch.Generator().manual_seed(0)
    shape = (3, twin.stem.channels, *loaded.size)
    levels = torch.randint(0, 256, shape, generator=generator).float()
    with torch.no_grad(), warnings.catch_warnings():
        warnings.simplefilter("ignore")  # PyTorch's advice to use torch.export, and tracing's on sizes
        try:
            traced = torch.jit.trace(twin, levels[:1], check_trace=False)  # type: ignore[no-untyped-call]
        except Exception as error:  # whatever tracing says of a network
            reason = " ".join(f"{type(error).__name__}: {error}".split())[:200]
            raise WeightsError(f"{loaded.reader.backbone.title} cannot be traced: {reason}") from None
        expected, found = twin(levels), traced(levels)
        stream = io.BytesIO()
        torch.jit.save(traced, stream)
    if found.shape != expected.shape or not torch.allclose(found, expected, rtol=1e-3, atol=1e-3):
        raise WeightsError(f"{loaded.reader.backbone.title} as TorchScript gives other logits than the reader")
    return stream.getvalue()


def metadata(loaded: LoadedReader) -> dict[str, Any]:
    """`configs/metadata.json`."""
    per_pixel, classes = loaded.reader.backbone.per_pixel, dict(enumerate(loaded.classes))
    size = list(loaded.size)
    shared = {"format": "magnitude", "spatial_shape": size, "dtype": "float32", "is_patch_data": per_pixel}
    image = {"type": "image", "num_channels": loaded.reader.stem.channels, "value_range": [0, 255], **shared}
    named = {str(index): name for index, name in classes.items()}
    pred = {**shared, "type": "image" if per_pixel else "probabilities", "num_channels": len(classes)}
    return {
        "schema": "https://github.com/Project-MONAI/MONAI-extra-test-data/releases/download/0.8.1/meta_schema_20240725.json",
        "version": "1.0.0",
        "changelog": {"1.0.0": "exported by EncDL"},
        "monai_version": monai.__version__,
        "pytorch_version": torch.__version__.split("+")[0],
        "numpy_version": np.__version__,
        "name": f"EncDL reader {loaded.reader.backbone.title}",
        "task": "segmentation" if per_pixel else "classification",
        "description": f"{loaded.reader.backbone.title}, trained by EncDL on view {loaded.view}",
        "authors": "EncDL",
        "intended_use": "research; no medical device",
        "encdl": {"weights": loaded.weights_id, "versions": records.versions()},
        "network_data_format": {
            "inputs": {"image": {**image, "channel_def": {"0": "image"}}},
            "outputs": {"pred": {**pred, "channel_def": named}},
        },
    }


def inference(loaded: LoadedReader) -> dict[str, Any]:
    """`configs/inference.json`: a data set whose last transforms are network and answer.

    Raises:
        UsageError: The reader wants slices of scans resampled, or its levels are by standard deviations.
    """
    per_pixel, flat = loaded.reader.backbone.per_pixel, len(loaded.size) == 2
    orientation, spacing = loaded.geometry.orientation, loaded.geometry.spacing or ()
    if (per_pixel and loaded.geometry.fit) or loaded.geometry.beside or (flat and any(spacing)):
        raise UsageError(
            "a segmenter of slices that are resampled (geometry: fit or spacing), or a classifier of slices with those "
            "beside them, is not written as a bundle: .onnx, .pt2 and .ts have its network"
        )
    turn: dict[str, Any] = {"_target_": "Transposed", "keys": "image", "indices": [0, 2, 1] if flat else [0, 3, 2, 1]}
    if not flat and orientation:
        turn = {"_target_": "Orientationd", "keys": "image", "axcodes": orientation}
    rounded = {"_target_": "Lambdad", "keys": "image", "func": "$torch.round"}
    spaced: list[dict[str, Any]] = []
    back: list[dict[str, Any]] = [] if turn["_target_"] == "Orientationd" else [{**turn, "keys": "pred"}]
    if any(spacing):  # in the order of the axes that there are: those of the file have slices last
        wanted = {"pixdim": list(spacing if orientation else spacing[::-1]), "mode": "bilinear"}
        spaced = [{"_target_": "Spacingd", "keys": "image", **wanted, "padding_mode": "border"}, rounded]
        back = [_INVERTED]
    preprocessing = [
        {"_target_": "LoadImaged", "keys": "image", "ensure_channel_first": True},
        *([turn] if orientation and not flat else []),
        *_levels(loaded),
        rounded,
        *spaced,
        *([] if orientation and not flat else [turn]),
        *([*_fitted(loaded.geometry.fit), rounded] if loaded.geometry.fit else []),
        {"_target_": "EnsureTyped", "keys": "image", "device": "@device", "dtype": "$torch.float32"},
    ]
    applied: list[dict[str, Any]] = [
        {"_target_": "CopyItemsd", "keys": "image", "names": "pred"},
        {"_target_": "Lambdad", "keys": "pred", "func": "$operator.itemgetter(None)"},
        {"_target_": "Lambdad", "keys": "pred", "func": "$functools.partial(@inferer, network=@network)"},
        {"_target_": "Lambdad", "keys": "pred", "func": "$operator.itemgetter(0)"},
    ]
    return {
        "imports": ["$import functools", "$import glob", "$import operator", "$import monai", "$import torch"],
        "bundle_root": ".",
        "dataset_dir": "$@bundle_root + '/images'",
        "output_dir": "$@bundle_root + '/eval'",
        "device": "$torch.device('cuda' if torch.cuda.is_available() else 'cpu')",
        "network_def": "$torch.jit.load(@bundle_root + '/models/model.ts', map_location=@device).eval()",
        "network": "$@network_def",
        "inferer": _inferer(loaded) if per_pixel else {"_target_": "SimpleInferer"},
        "preprocessing": {"_target_": "Compose", "transforms": preprocessing},
        "postprocessing": {"_target_": "Compose", "transforms": [*back, *_answer(flat)] if per_pixel else _ROW},
        "predict": {"_target_": "Compose", "transforms": ["@preprocessing", *applied, "@postprocessing"]},
        "dataset": {
            "_target_": "Dataset",
            "data": "$[{'image': name} for name in sorted(glob.glob(@dataset_dir + '/*'))]",
            "transform": "@predict",
        },
        "run": ["$torch.set_grad_enabled(False)", "$list(map(len, @dataset))"],
    }


def rule_of(loaded: LoadedReader) -> tuple[Levels, str]:
    """The one rule of a bundle, which knows no modality; and where `encdl predict` has others, in words, or nothing."""
    table, flat = dict(loaded.levels.of), len(loaded.size) == 2
    if len(table) == 1:
        return next(iter(table.values())), ""
    others = ", ".join(name for name in table or DEEP if name)
    return loaded.levels.choose(Stored.of("uint8" if flat else "int16")), others if table or not flat else ""


def _levels(loaded: LoadedReader) -> list[dict[str, Any]]:
    """Levels 0 to 255."""
    rule, _ = rule_of(loaded)
    if rule.zscore is not None:
        raise UsageError("a reader whose levels are standard deviations (zscore) is not written as a bundle")
    bytes_ = {"keys": "image", "b_min": 0, "b_max": 255, "clip": True}
    if rule.window is not None:
        low, high = rule.bounds(None, Stored.of("int16"))
        return [{"_target_": "ScaleIntensityRanged", "a_min": low, "a_max": high, **bytes_}]
    if rule.percentiles is not None:
        low, high = rule.percentiles
        return [{"_target_": "ScaleIntensityRangePercentilesd", "lower": low, "upper": high, **bytes_}]
    low, high = DEEP[ANY].percentiles or (0, 100)
    deep = f"monai.transforms.ScaleIntensityRangePercentiles({low}, {high}, 0, 255, clip=True)(image)"
    return [{"_target_": "Lambdad", "keys": "image", "func": f"$lambda image: {deep} if image.max() > 255 else image"}]


def _fitted(side: int) -> list[dict[str, Any]]:
    """As `FitImage`, of square pixels."""
    mode = f"'area' if max(image.shape[1:]) > {side} else 'bilinear'"
    resize = f"$lambda image: monai.transforms.Resize({side}, size_mode='longest', mode={mode})(image)"
    return [
        {"_target_": "Lambdad", "keys": "image", "func": resize},
        {"_target_": "ResizeWithPadOrCropd", "keys": "image", "spatial_size": [side, side]},
    ]


def _inferer(loaded: LoadedReader) -> dict[str, Any]:
    """As `read_windows`."""
    size = list(loaded.size)
    return {"_target_": "SlidingWindowInferer", "roi_size": size, "overlap": 0.25, "mode": "gaussian"}


def _answer(flat: bool) -> list[dict[str, Any]]:
    """The likeliest class of each voxel, as a file on the grid of the image."""
    saved = {
        "keys": "pred",
        "output_dir": "@output_dir",
        "output_postfix": "mask",
        "output_ext": ".png" if flat else ".nii.gz",
        "output_dtype": "$torch.uint8",
        "separate_folder": False,
        "resample": not flat,
        "mode": "nearest",
        "print_log": False,
    }
    return [{"_target_": "AsDiscreted", "keys": "pred", "argmax": True}, {"_target_": "SaveImaged", **saved}]


_INVERTED: dict[str, Any] = {
    "_target_": "Invertd",
    "keys": "pred",
    "transform": "@preprocessing",
    "orig_keys": "image",
    "nearest_interp": False,
}
"""Logits on the grid of the file again."""

_ROW: list[dict[str, Any]] = [
    {"_target_": "Activationsd", "keys": "pred", "softmax": True},
    {"_target_": "FromMetaTensord", "keys": "image"},
    {
        "_target_": "SaveClassificationd",
        "keys": "pred",
        "meta_keys": "image_meta_dict",
        "output_dir": "@output_dir",
        "filename": "predictions.csv",
        "overwrite": False,
    },
]
"""The probability of each class, as a row a file."""
