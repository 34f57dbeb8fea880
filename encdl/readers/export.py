"""Readers for other runtimes: ONNX, and PyTorch's own `torch.export` and TorchScript.

What is exported takes what the reader takes, in batches of any number, of the size that it was trained on:

- with the key: `ciphertext` and `mask`, uint8 (B, C, H, W) each, or (B, C, D, H, W) of volumes;
- of plaintext, or without the key: `image`, of that shape;
- by a functional key: `numbers`, float32 (B, outputs, *grid): W of the image, whole numbers nearest to 0, of levels of
  8 bits. Those of a reading layer of b bits are to be divided by (2^b - 1) / 255.

It gives `logits`, float32 (B, classes), or (B, classes, H, W) and (B, classes, D, H, W).
"""

from __future__ import annotations

import json
import logging
import warnings
from importlib.util import find_spec
from pathlib import Path
from tempfile import TemporaryDirectory

import torch
from torch import Tensor, nn
from torch.nn import functional as F

from encdl.readers.functional import FunctionalStem
from encdl.readers.reader import LoadedReader
from encdl.utils.errors import UsageError, WeightsError
from encdl.utils.silence import silenced

FORMATS = (".onnx", ".pt2", ".ts")
NEEDED = ("onnx", "onnxscript", "onnxruntime")
TOLERANCE = 1e-3
"""Of logits, relative to the largest, between PyTorch and the runtime."""


class _ByNumbers(nn.Module):
    """A reader from the numbers of its map on: what a host computes."""

    def __init__(self, loaded: LoadedReader) -> None:
        super().__init__()
        self.reader = loaded.reader

    def forward(self, numbers: Tensor) -> Tensor:
        """Logits."""
        stem = self.reader.stem
        assert isinstance(stem, FunctionalStem)
        features = F.relu(stem.norm(stem.of_numbers(numbers)))
        logits: Tensor = self.reader.backbone(features)
        return logits


def exported(loaded: LoadedReader, kind: str) -> bytes:
    """A reader as a file of another runtime; see the module's text.

    Args:
        loaded: The reader, on the CPU.
        kind: One of `FORMATS`.

    Raises:
        UsageError: What ONNX needs is not installed.
        WeightsError: The backbone cannot be exported, or the runtime gives other logits than PyTorch.
    """
    if kind == ".onnx" and (missing := [name for name in NEEDED if not find_spec(name)]):
        raise UsageError(f"exporting to ONNX needs {', '.join(missing)}: pip install 'encdl[onnx]', or export to .pt2")
    module, inputs = _module(loaded)
    about = {"classes": loaded.classes, "size": loaded.size, "view": loaded.view, "weights": loaded.weights_id}
    with TemporaryDirectory() as folder, silenced(logging.WARNING), torch.no_grad():
        path = Path(folder, f"reader{kind}")
        try:
            _write(module, inputs, json.dumps(about), path)
        except Exception as error:  # whatever an exporter says of a network
            reason = " ".join(f"{type(error).__name__}: {error}".split())[:200]
            raise WeightsError(f"{loaded.reader.backbone.title} cannot be exported as {kind}: {reason}") from None
        _check(module, inputs, path)
        return path.read_bytes()


def _write(module: nn.Module, inputs: dict[str, Tensor], about: str, path: Path) -> None:
    """The module as a file of the kind that its ending says."""
    given = tuple(inputs.values())
    if path.suffix == ".ts":
        with warnings.catch_warnings():
            warnings.simplefilter("ignore")  # PyTorch's advice to use torch.export, and tracing's on sizes
            traced = torch.jit.trace(module, given, check_trace=False)  # type: ignore[no-untyped-call]
            torch.jit.save(traced, str(path), {"encdl.json": about})
        return
    batch = tuple({0: torch.export.Dim("batch", min=1)} for _ in inputs)
    program = torch.export.export(module, given, dynamic_shapes=batch)
    if path.suffix == ".pt2":
        torch.export.save(program, path, extra_files={"encdl.json": about})
        return
    made = torch.onnx.export(program, input_names=[*inputs], output_names=["logits"], dynamo=True, verbose=False)
    assert made is not None
    made.model.metadata_props["encdl"] = about
    made.save(path, external_data=False)


def _module(loaded: LoadedReader) -> tuple[nn.Module, dict[str, Tensor]]:
    """The module to export, and an example of its inputs: two images, as exporters take one for a constant."""
    reader = loaded.reader.eval()
    stem, generator = reader.stem, torch.Generator().manual_seed(0)
    if isinstance(stem, FunctionalStem):
        shape = (2, len(stem.map.latent), *stem.map.grid)
        return _ByNumbers(loaded).eval(), {"numbers": torch.randint(0, 999, shape, generator=generator).float()}
    shape = (2, stem.channels, *loaded.size)
    images = [torch.randint(0, 256, shape, dtype=torch.uint8, generator=generator) for _ in range(1 + stem.keyed)]
    return reader, dict(zip(("ciphertext", "mask") if stem.keyed else ("image",), images, strict=True))


def _check(module: nn.Module, inputs: dict[str, Tensor], path: Path) -> None:
    """Compare the file's logits with the reader's, on another number of images."""
    given = {name: torch.cat([value, value[:1].flip(-1)]) for name, value in inputs.items()}
    expected = module(*given.values())
    if path.suffix == ".pt2":
        found = torch.export.load(path).module()(*given.values())
    elif path.suffix == ".ts":
        with warnings.catch_warnings():
            warnings.simplefilter("ignore")  # the same advice
            found = torch.jit.load(str(path))(*given.values())  # type: ignore[no-untyped-call]
    else:
        import onnxruntime  # noqa: PLC0415

        session = onnxruntime.InferenceSession(str(path), providers=["CPUExecutionProvider"])
        found = torch.from_numpy(session.run(None, {name: value.numpy() for name, value in given.items()})[0])
    worst = float((found - expected).abs().max() / expected.abs().max().clamp(min=1e-6))
    if not worst <= TOLERANCE:
        raise WeightsError(
            f"the exported {path.suffix} gives other logits than the reader, by {worst:.1e} of the largest"
        )
