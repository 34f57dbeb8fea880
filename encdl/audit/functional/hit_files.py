"""What readers without a key make of files that were hit: every byte of each, its header and all else, at one rate."""

from __future__ import annotations

import warnings
from collections.abc import Callable, Sequence
from pathlib import Path
from tempfile import TemporaryDirectory
from typing import Any

import numpy as np
import torch
from torch import Tensor

from encdl.audit.functional.device_dataset import Resident, resident
from encdl.audit.functional.plan import Plan
from encdl.audit.functional.training import Budget, figure, train_reader
from encdl.ciphers.weights import load
from encdl.files.codec import Codec
from encdl.files.reading import Readable, RepairedWarning
from encdl.files.settings import Settings
from encdl.keys.key import Key
from encdl.keys.planes import PlaneSpec
from encdl.metrics.bootstrap import interval
from encdl.readers.functional_files import FunctionalPredictor, grant_functional
from encdl.readers.reader import LoadedReader
from encdl.utils.errors import ContainerError, UsageError, WrongKeyError

RATE = 0.01
"""Of the bytes that are replaced by random ones."""


def measure(plan: Plan, data_dir: str, numbers: Sequence[int], progress: Callable[[str], object]) -> dict[str, Any]:
    """Train readers of a plan, without its teacher, on the CPU, and read the test images' files, intact and hit.

    Args:
        plan: As of `encdl experiment functional-keys`.
        data_dir: The data set's folder.
        numbers: Of the plan's settings; all by none.
        progress: Is told what has been done.

    Returns:
        The metrics of a record. For each setting: figures of intact and of hit files, their difference over the seeds,
        the share of hit files with the very logits of the intact ones, and of those that were refused; a refused file
        counts as one of which all classes are equally likely.

    Raises:
        UsageError: There is no such setting.
    """
    if wrong := [number for number in numbers if not 0 <= number < len(plan.settings)]:
        raise UsageError(f"--settings: the study has 0 to {len(plan.settings) - 1}, not {wrong[0]}")
    source = plan.data(data_dir)
    data, rows = resident(source, "cpu"), []
    with TemporaryDirectory(prefix="encdl-hit-") as folder:
        files = _Files(Path(folder), data["test"])
        for number in numbers or range(len(plan.settings)):
            parts = []
            for seed in range(plan.seeds):
                reader = plan.functional(source, number, seed)
                train_reader(reader, data, plan.metric, Budget(**plan.budget), seed)
                size = (source.spec.height, source.spec.width)
                loaded = LoadedReader(reader.eval(), source.spec.classes, size, "", PlaneSpec(), "Functional")
                parts.append(files.figures(loaded, plan.metric, float(plan.settings[number].get("noise", 0))))
                progress(f"setting {number}, seed {seed}: " + ", ".join(f"{k} {v:.4f}" for k, v in parts[-1].items()))
            rows.append({"setting": plan.settings[number], **_joined(parts)})
    return {"metric": plan.metric, "rate": RATE, "images": len(data["test"].images), "settings": rows}


def _joined(parts: Sequence[dict[str, float]]) -> dict[str, Any]:
    found = {name: [part[name] for part in parts] for name in parts[0]}
    found["difference"] = [hit - intact for hit, intact in zip(found["hit"], found["intact"], strict=True)]
    return {name: interval(values).to_dict() | {"values": values} for name, values in found.items()}


class _Files:
    """The test images as encrypted files with a reading layer of their size, and as many that were hit."""

    def __init__(self, folder: Path, test: Resident) -> None:
        self._test, self._key, self._paths = test, Key.generate(), []
        cipher, rng = load("default"), np.random.default_rng(0)
        codec = Codec(cipher.cipher, cipher.id)
        how = Settings(PlaneSpec(), readable=Readable(max(test.images.shape[2:])))
        for number, image in enumerate(test.images.cpu().numpy()):
            intact, hit = (folder / f"{number}-{kind}.encdl" for kind in ("intact", "hit"))
            levels = image[0] if len(image) == 1 else np.moveaxis(image, 0, -1)
            content = np.frombuffer(codec.encrypt_array(np.ascontiguousarray(levels), self._key, how), np.uint8)
            intact.write_bytes(content.tobytes())
            places = rng.random(len(content)) < RATE
            hit.write_bytes(np.where(places, rng.integers(0, 256, len(content), dtype=np.uint8), content).tobytes())
            self._paths.append((intact, hit))

    def figures(self, loaded: LoadedReader, metric: str, noise: float) -> dict[str, float]:
        """`intact` and `hit`, the reader's figure on either; shares of hit files that read the `same`, or `refused`."""
        host, same, refused = FunctionalPredictor(loaded), 0, 0
        answers: tuple[list[Tensor], list[Tensor]] = ([], [])
        with warnings.catch_warnings():
            warnings.simplefilter("ignore", RepairedWarning)
            for intact, hit in self._paths:
                key = grant_functional(intact, self._key, loaded, noise=noise)
                answers[0].append(host.logits(intact, key))
                try:
                    answers[1].append(host.logits(hit, key))
                except (ContainerError, WrongKeyError):
                    refused += 1
                    answers[1].append(torch.zeros_like(answers[0][-1]))
                same += torch.equal(*(each[-1] for each in answers))
        one, other = (figure([torch.stack(each)], self._test, metric) for each in answers)
        return {"intact": one, "hit": other, "same": same / len(self._paths), "refused": refused / len(self._paths)}
