"""A study from beginning to end: its trainings, their run in MLflow, its record."""

from __future__ import annotations

import contextlib
import os
import time
from collections.abc import Callable, Iterator, Mapping, Sequence
from concurrent.futures import ProcessPoolExecutor, ThreadPoolExecutor
from dataclasses import dataclass
from importlib.util import find_spec
from multiprocessing import get_context
from pathlib import Path
from typing import Any

from encdl import ciphers, readers
from encdl.audit.cached_jobs import as_they_end, run_missing, share_cores
from encdl.audit.studies import cost, losses, rows
from encdl.audit.studies.parts import Part
from encdl.keys.planes import PlaneSpec
from encdl.training.tracking import RunGroup
from encdl.utils import recipes, records
from encdl.utils.devices import usable_device
from encdl.utils.errors import EncdlError

GROUP_FILE = "mlflow-run"
"""Below a study's folder: the id of its run in MLflow."""

Contents = Sequence[dict[str, Any]]
Tell = Callable[[str], object]
Summary = tuple[dict[str, Any], str, str, dict[str, Any]]
"""Of a study's trainings: metrics, data set, device, and what else the record says."""


@dataclass(frozen=True)
class Study:
    """What is trained, and where it goes.

    Attributes:
        name: of the study, as on the command line.
        config: the recipe.
        data: what its data set is called.
        rows: trained with each seed.
        seeds: how many.
        settings: `KEY=VALUE` for every training.
        words: the command line's further words for `encdl fit`.
        jobs: trainings at a time.
        folder: keeps finished trainings.
        output: the record.
        force: replace it.
    """

    name: str
    config: Path
    data: str
    rows: Sequence[str]
    seeds: int
    settings: Sequence[str]
    words: Sequence[str]
    jobs: int
    folder: Path
    output: Path
    force: bool


def run(
    study: Study,
    kind: type[Part],
    summarise: Callable[[Study, Contents, Tell, Tell], Summary],
    progress: Tell,
    tell: Tell,
) -> None:
    """Train every row with every seed, as far as that is missing, and write the record.

    Args:
        study: what to train.
        kind: of its trainings.
        summarise: `readers_summary` or `losses_summary`.
        progress: is told what has been done.
        tell: is told what was found.

    Raises:
        EncdlError: a training failed.
    """
    study.folder.mkdir(parents=True, exist_ok=True)
    words = [*(f"--{setting}" for setting in study.settings), *study.words]
    if not find_spec("mlflow"):
        words += ["--trainer.logger", "false"]
    parts = [
        kind(str(study.config), row, seed, str(study.folder), tuple(words))
        for seed in range(study.seeds)
        for row in study.rows
    ]
    started = time.monotonic()
    with _group(study) as group:
        contents = _train(parts, study.jobs, progress)
        metrics, dataset, device, more = summarise(study, contents, progress, tell)
        record = records.record(
            study.output.stem,
            study.name,
            config=str(study.config),
            dataset=dataset,
            seeds=list(range(study.seeds)),
            metrics=metrics,
            wall_s=time.monotonic() - started,
            device=device,
            settings=list(study.settings),  # but not where the data lie: that is this machine's alone
            steps=contents[0]["steps"],
            training_device=contents[0]["device"],
            training_s={part.name: content["wall_s"] for part, content in zip(parts, contents, strict=True)},
            **more,
        )
        study.output.parent.mkdir(parents=True, exist_ok=True)
        records.write(study.output, record, study.force)
        tell(f"record: {study.output}")
        if group is not None:
            group.log(dict(means(metrics)), study.output)


def readers_summary(study: Study, contents: Contents, progress: Tell, tell: Tell) -> Summary:
    """Readers of ciphertext beside plaintext, and what reading costs."""
    metrics, first = rows.assemble(contents), contents[0]
    tell(f"{study.data}, {study.seeds} seeds\n{rows.table(metrics)}")
    device = usable_device("auto")
    reader = readers.create(first["reader"], len(first["classes"]))
    spec = PlaneSpec.from_dict(first["planes"])
    if reader.stem.dimensions == 2:
        progress("costs")
        # Random weights cost what trained ones do.
        cipher = ciphers.create(first["cipher"]["name"], first["cipher"]["config"]).to(device).eval()
        metrics["cost"] = cost.cost(reader, cipher, spec, device, cost.SIZES, cost.batches(device))
    more = {"cipher": first["cipher"]["name"], "weights": first["cipher"]["id"], "planes": spec.to_dict()}
    return metrics, f"{study.data} ({first['dataset']})", device, more


def losses_summary(study: Study, contents: Contents, progress: Tell, tell: Tell) -> Summary:
    """The values of each loss."""
    metrics, first = losses.assemble(contents), contents[0]
    tell(f"{first['dataset']}, {study.seeds} seeds\n{losses.table(metrics)}")
    cipher = first["cipher"]
    more = {"best": losses.best(metrics), "cipher": cipher["name"], "config_of_cipher": cipher["config"]}
    return metrics, first["dataset"], usable_device("auto"), more


@contextlib.contextmanager
def _group(study: Study) -> Iterator[RunGroup | None]:
    """The MLflow run that the trainings belong to; that of an earlier call, if the study goes on."""
    if not is_tracked(study.config, study.settings):
        yield None
        return
    known = study.folder / GROUP_FILE
    run_id = known.read_text().strip() if known.is_file() else None
    told = {"config": study.config, "seeds": study.seeds, "settings": " ".join(study.settings)}
    tags = {"data": study.data}
    with RunGroup(study.name, study.config.stem, parameters=told, tags=tags, run_id=run_id) as group:
        known.write_text(group.run_id)
        yield group


def is_tracked(config: Path, settings: Sequence[str]) -> bool:
    """Whether the trainings are recorded in MLflow."""
    content = recipes.read(config)
    trainer = content.get("trainer") if isinstance(content, dict) else None
    off = isinstance(trainer, dict) and trainer.get("logger") is False
    given = dict(setting.partition("=")[::2] for setting in settings).get("trainer.logger", "").lower()
    return find_spec("mlflow") is not None and given != "false" and (not off or bool(given))


def means(metrics: Mapping[str, Any]) -> Iterator[tuple[str, float]]:
    """The results of a study, under the names that its trainings log: means, and their deviation as `NAME/std`."""
    for row, figures in metrics.items():
        for figure, found in figures.items() if isinstance(figures, dict) else ():
            if isinstance(found, dict) and found.get("mean") is not None and "std" in found:
                yield f"test/{figure}/{row}", found["mean"]
                yield f"test/{figure}/{row}/std", found["std"]


def _train(parts: Sequence[Part], jobs: int, progress: Tell) -> list[dict[str, Any]]:
    """The figures of all parts; those of earlier calls are taken as they are."""
    if jobs > 1:
        share_cores(jobs)

    def compute(missing: list[Part]) -> Iterator[tuple[Part, dict[str, Any]]]:
        with ThreadPoolExecutor(jobs) as pool:
            running = {pool.submit(_apart, part): part for part in missing}
            try:
                yield from as_they_end(pool, running)
            except BaseException:
                under_way = sum(one.running() for one in running)
                if under_way:
                    progress(f"stopping; {under_way} trainings under way end first, and are kept")
                raise

    found = run_missing(parts, lambda part: part.known(), compute, "trainings", _told, progress)
    return list(found.values())


def _apart(part: Part) -> dict[str, Any]:
    """Train in a process of its own: nothing that one training leaves behind meets another."""
    with ProcessPoolExecutor(1, get_context("spawn")) as pool:
        return pool.submit(train_part, part).result()


def train_part(part: Part) -> dict[str, Any]:
    """Run one part; what it prints goes to a file beside its figures.

    Raises:
        EncdlError: It failed; the file has the rest.
    """
    from encdl.training import cli  # noqa: PLC0415

    log = Path(part.folder, f"{part.name}.log")
    stream = os.open(log, os.O_WRONLY | os.O_CREAT | os.O_TRUNC, 0o644)
    os.dup2(stream, 1)
    os.dup2(stream, 2)
    try:
        return part.run(cli.run)
    except EncdlError as error:
        raise type(error)(f"{error} (training {part.name})") from None
    except Exception as error:
        import traceback  # noqa: PLC0415

        traceback.print_exc()
        raise EncdlError(f"training {part.name} failed: {error}: see {log}") from None


def _told(part: Part, content: dict[str, Any]) -> str:
    figures = content["figures"].get(content["row"]) or next(iter(content["figures"].values()))
    plain = {name: value for name, value in figures.items() if isinstance(value, float)}
    nested = next((value for value in figures.values() if isinstance(value, dict)), {})
    told = ", ".join(f"{name} {value:.3f}" for name, value in {**plain, **nested}.items())
    return f"{part.name}: {told} ({content['wall_s']:.0f} s)"
