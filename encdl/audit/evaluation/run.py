"""An evaluation from its settings to its result record."""

from __future__ import annotations

import os
import time
from collections.abc import Callable, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from encdl.audit.evaluation.cipher import Evaluation, per_seed
from encdl.audit.evaluation.damaged import Storage, kind_of
from encdl.audit.evaluation.earlier import Earlier
from encdl.audit.evaluation.rows import Row, measure
from encdl.audit.evaluation.settings import Settings
from encdl.ciphers import KeystreamCipher, postprocess
from encdl.ciphers.damage import DAMAGES
from encdl.ciphers.weights import LoadedCipher, as_keystream
from encdl.data.registry import Images, images_to_judge, is_one_file
from encdl.files.settings import Settings as CodecSettings
from encdl.keys.planes import PlaneSpec
from encdl.metrics.classical_repair import REPAIRS, available
from encdl.metrics.classical_repair.tuning import pool
from encdl.utils import records
from encdl.utils.errors import UsageError

Progress = Callable[[str], None]
Load = Callable[[str], LoadedCipher]


@dataclass(frozen=True)
class Result:
    """The results of an evaluation.

    Attributes:
        images: What it was measured on.
        validation: What classical repairs were tuned on, if anything.
        ciphers: The weights of each row.
        rows: What repair does.
        metrics: All figures, as in the record.
        storage: How images were encrypted and stored.
        earlier: Rows that were taken over, and where from.
    """

    images: Images
    validation: Images | None
    ciphers: dict[str, list[LoadedCipher]]
    rows: dict[str, Row]
    metrics: dict[str, Any]
    storage: Storage
    earlier: dict[str, Earlier]


def load_rows(names: Sequence[str], load: Load) -> dict[str, list[LoadedCipher]]:
    """Weights by row: `ROW=FILE`, or a file or name whose cipher names the row.

    Raises:
        UsageError: One row holds two ciphers.
        WeightsError: Unknown names, or unreadable files.
    """
    rows: dict[str, list[LoadedCipher]] = {}
    for name in names:
        label, _, file = name.rpartition("=") if not Path(name).is_file() else ("", "", name)
        loaded = load(file)
        if label == KeystreamCipher.name:  # agile's weights in a row without its network
            loaded = as_keystream(loaded)
        row = rows.setdefault(label or loaded.cipher.name, [])
        row.append(loaded)
        if loaded.cipher.name != row[0].cipher.name:
            raise UsageError(
                f"{name}: is a {loaded.cipher.name} cipher in a row of {row[0].cipher.name}: give it another row"
            )
    return rows


def evaluate(
    settings: Settings, load: Load, device: str, progress: Progress, earlier: Sequence[Earlier] = ()
) -> Result:
    """Measure every row.

    Args:
        settings: What to measure, on what, and how.
        load: Loads weights onto `device`.
        device: "cpu" or "cuda".
        progress: Told in a few words what comes next.
        earlier: Records whose rows are taken over, unless the settings name other weights for them; the first that has
            a row gives it.

    Raises:
        DataError: The images are missing, or there are none.
        UsageError: A setting is out of its range.
        WeightsError: Unknown names, or unreadable files.
    """
    images = images_to_judge(settings.data, settings.data_dir, settings.images, "test", settings.group)
    validation = _validation(settings)
    ciphers = load_rows(settings.weights, load)
    specs = {one.cipher.planes for row in ciphers.values() for one in row}
    if len(specs) > 1:
        raise UsageError(f"the weights take {sorted(specs)} key planes: evaluate those of one number at a time")
    spec = PlaneSpec(map=settings.map or PlaneSpec().map, count=specs.pop())
    process = settings.postprocess or CodecSettings().postprocess
    postprocess.create(process)  # an unknown name is told before any work
    progress(images.describe())
    for one in earlier:
        one.check(settings, _data(images))
    metrics: dict[str, Any] = {}
    rows: dict[str, Row] = {}
    kept: dict[str, Earlier] = {}
    with pool(settings.jobs or len(os.sched_getaffinity(0))) as run:
        for name, loaded in ciphers.items():

            def tell(step: str, name: str = name) -> None:
                progress(f"{name}: {step}")

            first = Evaluation(loaded[0].cipher, spec, device, settings.seed)
            storage = Storage(spec, process, first.key, device)
            weights = [_weights(one) for one in loaded]
            found = next((one for one in earlier if one.has(name, weights)), None)
            if found is not None:
                tell(f"taken over from {found.source}")
                kept[name] = found
                continue
            figures = {
                one.id: Evaluation(one.cipher, spec, device, settings.seed).figures(
                    images.images, settings.exact_images, settings.statistics_images, tell
                )
                for one in {one.id: one for one in loaded}.values()
            }
            rows[name] = measure(
                [one.cipher for one in loaded], storage, images, validation, settings.repairs, settings.seed, run, tell
            )
            metrics[name] = rows[name].metrics(images.groups) | per_seed(list(figures.values()))
    for each in earlier:
        kept |= {name: each for name in each.rows if name not in kept | rows}
    for name, each in kept.items():
        rows[name], metrics[name] = each.row(name), each.part("metrics", name)
    in_order = sorted(rows, key=[*ciphers, *kept].index)
    rows, metrics = ({name: each[name] for name in in_order} for each in (rows, metrics))
    metrics["references"] = first.references(images.images, settings.statistics_images)
    return Result(images, validation, ciphers, rows, metrics, storage, kept)


def _validation(settings: Settings) -> Images | None:
    """Images to tune by; None for a folder or file, which has no splits, and where none are asked for."""
    if settings.tune_images == 0 or Path(settings.data).is_dir() or is_one_file(settings.data):
        return None
    return images_to_judge(settings.data, settings.data_dir, settings.tune_images, "val")


def record(
    result: Result, settings: Settings, config: Path | None, name: str, device: str, started: float
) -> dict[str, Any]:
    """The result record.

    Args:
        result: What was found.
        settings: Of the evaluation.
        config: The file that they came from, if any.
        name: Of the record.
        device: Where it was computed.
        started: `time.monotonic()` as it began.
    """
    images, validation = result.images, result.validation
    return records.record(
        name,
        "evaluate",
        config=str(config) if config else settings.to_dict(),
        dataset=images.describe(),
        seeds=_seeds(result.ciphers),
        metrics=result.metrics,
        wall_s=time.monotonic() - started,
        device=device,
        settings=settings.to_dict(),
        cipher=next(iter(result.ciphers)),
        planes=result.storage.spec.to_dict(),
        postprocess=result.storage.process,
        data=_data(images) | {"validation": None if validation is None else _data(validation)},
        weights={row: [_weights(one) for one in of] for row, of in result.ciphers.items()}
        | {row: of.part("weights", row) for row, of in result.earlier.items()},
        damages={damage: repr(what) for damage, what in DAMAGES.items()},
        repairs={name: row.choices for name, row in result.rows.items()},
        groups=list(images.groups),
        per_image={
            name: result.earlier[name].part("per_image", name) if name in result.earlier else row.per_image()
            for name, row in result.rows.items()
        },
        **({"earlier": {row: of.origin(row) for row, of in result.earlier.items()}} if result.earlier else {}),
    )


def _data(images: Images) -> dict[str, Any]:
    return {
        "dataset": images.dataset,
        "images": len(images.images),
        "of": images.of,
        "groups": len(set(images.groups)),
        "digest": images.digest,
    }


def _weights(loaded: LoadedCipher) -> dict[str, Any]:
    """What a record says of weights; `training.files` names the recipe."""
    return {
        "name": loaded.name,
        "id": loaded.id,
        "cipher": loaded.cipher.name,
        "config": loaded.cipher.config(),
        "training": loaded.training,
    }


def _seeds(ciphers: dict[str, list[LoadedCipher]]) -> list[int]:
    """The training seeds, as far as the weights know them; otherwise their numbers."""
    longest = max(ciphers.values(), key=len)
    known = [one.training.get("settings", {}).get("seed_everything") for one in longest]
    return known if all(type(seed) is int for seed in known) else list(range(len(longest)))


def missing_repairs() -> list[str]:
    """Classical repairs that cannot run here."""
    kinds = {kind_of(damage)[0] for damage in DAMAGES.values()}
    return sorted({name for kind in kinds for name in set(REPAIRS[kind]) - set(available(kind))})
