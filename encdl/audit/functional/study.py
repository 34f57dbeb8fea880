"""The study of functional keys: what a host without a key reads at each number of numbers, and what it can rebuild.

Every setting and seed is trained beside a reader of plaintext with the same budget; then the map is frozen, and each
decoder learns on the training images to rebuild the test images.
"""

from __future__ import annotations

import json
import time
from collections.abc import Callable, Iterator, Mapping, Sequence
from concurrent.futures import Future, ProcessPoolExecutor
from dataclasses import asdict, dataclass, replace
from functools import partial
from multiprocessing import get_context
from pathlib import Path
from statistics import fmean
from typing import Any

import torch

from encdl.audit.cached_jobs import as_they_end, run_missing, share_cores
from encdl.audit.functional import decoders
from encdl.audit.functional.attack_suite import AttackSuite, distance
from encdl.audit.functional.device_dataset import SPLITS, resident
from encdl.audit.functional.plan import Plan
from encdl.audit.functional.reconstruction import guesses
from encdl.audit.functional.training import Budget, judge, train_reader
from encdl.keys.functional_map import within
from encdl.metrics.bootstrap import interval
from encdl.readers import FunctionalStem, Reader
from encdl.utils import records
from encdl.utils.atomic import write_bytes
from encdl.utils.devices import usable_device

PLAINTEXT = -1
"""Number of the setting that is no functional key: the reader of plaintext."""

Tell = Callable[[str], object]


@dataclass(frozen=True)
class Job:
    """One training, and what decoders make of its map.

    Attributes:
        plan: What the study is.
        data_dir: The folder of its data set.
        folder: Keeps what was found.
        number: Of the setting, or `PLAINTEXT`.
        seed: Of weights, order and augmentation.
        device: Where to compute.
    """

    plan: str
    data_dir: str
    folder: str
    number: int
    seed: int
    device: str

    @property
    def name(self) -> str:
        """Of its files."""
        return f"{'plaintext' if self.number == PLAINTEXT else self.number}-{self.seed}"

    @property
    def result(self) -> Path:
        """Where its figures are kept."""
        return Path(self.folder, f"{self.name}.json")

    def origin(self) -> dict[str, Any]:
        """Changes with whatever its figures come from."""
        plan = json.loads(self.plan)
        own = {} if self.number == PLAINTEXT else plan["settings"][self.number]
        return {**plan, "settings": own, "seeds": 0, "seed": self.seed, "commit": records.commit()}

    def known(self) -> dict[str, Any] | None:
        """Its figures, if they are kept from an earlier run of the same."""
        try:
            content: dict[str, Any] = json.loads(self.result.read_text())
        except (OSError, ValueError):
            return None
        return content if content.get("origin") == self.origin() else None

    def run(self) -> dict[str, Any]:
        """Train, judge, attack and keep."""
        started, plan = time.monotonic(), Plan(**json.loads(self.plan))
        if self.device.startswith("cuda"):
            torch.cuda.set_device(self.device)
            torch.backends.cudnn.benchmark = True
        found = _plaintext(self, plan) if self.number == PLAINTEXT else _functional(self, plan)
        content = {
            "origin": self.origin(),
            "number": self.number,
            "seed": self.seed,
            **found,
            "wall_s": round(time.monotonic() - started, 1),
        }
        write_bytes(self.result, json.dumps(content, indent=1).encode(), force=True)
        return content


def _plaintext(job: Job, plan: Plan) -> dict[str, Any]:
    source = plan.data(job.data_dir)
    data = resident(source, job.device)
    reader = plan.plaintext(source, job.seed).to(job.device)
    val = train_reader(reader, data, plan.metric, plan.budget_of_plaintext(), job.seed)
    torch.save(reader.state_dict(), _kept(job))
    return {"val": val, "test": judge(reader, data["test"], plan.metric)}


def _functional(job: Job, plan: Plan) -> dict[str, Any]:
    started = time.monotonic()
    source = plan.data(job.data_dir)
    data = resident(source, job.device)
    reader = plan.functional(source, job.number, job.seed).to(job.device)
    teacher: Reader | None = None
    if plan.distil:
        teacher = _loaded(plan.plaintext(source, job.seed), replace(job, number=PLAINTEXT))
    budget = Budget(**plan.budget)
    val = train_reader(reader, data, plan.metric, budget, job.seed, teacher, plan.distil)
    test = judge(reader, data["test"], plan.metric)
    assert isinstance(reader.stem, FunctionalStem)
    function = reader.stem.map.frozen()
    torch.save(reader.state_dict(), _kept(job))
    trained_s = round(time.monotonic() - started, 1)
    attacked: dict[str, Any] = {}
    if job.seed < plan.attacked:
        plain = _loaded(plan.plaintext(source, job.seed), replace(job, number=PLAINTEXT))
        attacked = _attacked(reader.stem, plan, [data[split].images for split in SPLITS], job.seed, plain)
    return {
        "val": val,
        "test": test,
        "map": function.id,
        "numbers": function.numbers,
        "bits": function.given_bits,
        "zero_weights": float((function.weights == 0).mean()),
        "algebra": decoders.algebra(function, job.device),
        "trained_s": trained_s,
        **attacked,
    }


def _attacked(
    stem: FunctionalStem, plan: Plan, parts: Sequence[torch.Tensor], seed: int, plain: Reader
) -> dict[str, Any]:
    """`{"rebuilt": {NAME: [PSNR in dB, SSIM]}, "perceptual": {NAME: distance}}`, in the features of `plain`.

    Of a map that sees a region also `"region"`, which is `"rebuilt"` within it.
    """
    test = parts[2][: plan.judged_images]
    found = guesses(stem, plan, parts, seed)
    seen = within(stem.region)
    inside = {name: decoders.likeness(guess[seen], test[seen]) for name, guess in found.items() if stem.region}
    return {
        "rebuilt": {name: decoders.likeness(guess, test) for name, guess in found.items()},
        **({"region": inside} if inside else {}),
        "perceptual": {name: distance(plain, guess, test) for name, guess in found.items()},
    }


def run(
    plan: Plan,
    name: str,
    config: Path,
    data_dir: str,
    folder: Path,
    output: Path,
    jobs: int,
    force: bool,
    progress: Tell,
) -> dict[str, Any]:
    """Train and attack whatever is missing, and write the record.

    Args:
        plan: What to train.
        name: Of the record.
        config: The plan's file.
        data_dir: The folder of the data set.
        folder: Keeps finished trainings.
        output: The record.
        jobs: Trainings at a time, spread over the GPUs.
        force: Replace the record.
        progress: Is told what has been done.
    """
    folder.mkdir(parents=True, exist_ok=True)
    started, device = time.monotonic(), usable_device("auto")
    all_jobs = jobs_of(plan, data_dir, folder)
    found: list[dict[str, Any]] = []
    # Teachers first.
    for part in ([job for job in all_jobs if job.number == PLAINTEXT], [job for job in all_jobs if job.number >= 0]):
        found += run_missing(
            part, Job.known, lambda missing: _compute(missing, jobs), "trainings", _told, progress
        ).values()
    metrics = assemble(plan, found, _pixels(plan, data_dir), joined_readers(all_jobs[plan.seeds :], plan))
    progress("further attacks, on the first reader of each setting")
    add_further(metrics, all_jobs, plan)
    record = records.record(
        name,
        "functional-keys",
        config=str(config),
        dataset=plan.file,
        seeds=list(range(plan.seeds)),
        metrics=metrics,
        wall_s=time.monotonic() - started,
        device=device,
        settings=asdict(plan),
    )
    output.parent.mkdir(parents=True, exist_ok=True)
    records.write(output, record, force)
    return record


def jobs_of(plan: Plan, data_dir: str, folder: Path) -> list[Job]:
    """All trainings of a study, those of plaintext first, then those of each setting, seed by seed, over the GPUs."""
    devices = [f"cuda:{each}" for each in range(torch.cuda.device_count())] or ["cpu"]
    text = json.dumps(asdict(plan))
    numbered = [(number, seed) for number in (PLAINTEXT, *range(len(plan.settings))) for seed in range(plan.seeds)]
    return [
        Job(text, data_dir, str(folder), number, seed, devices[place % len(devices)])
        for place, (number, seed) in enumerate(numbered)
    ]


def add_further(metrics: dict[str, Any], all_jobs: Sequence[Job], plan: Plan) -> None:
    """Add to each setting of a record's metrics what `AttackSuite` finds of its first reader, and the references.

    Args:
        metrics: As `assemble` gave them, or of a record.
        all_jobs: Those of plaintext, then those of functional readers, seed by seed; their files are kept.
        plan: The study.
    """
    first = all_jobs[0]
    source = plan.data(first.data_dir)
    suite = AttackSuite(
        plan, source, resident(source, first.device), _loaded(plan.plaintext(source, first.seed), first)
    )
    for number, row in enumerate(metrics["settings"]):
        jobs = all_jobs[(number + 1) * plan.seeds :][: min(2, plan.seeds)]
        there = [replace(job, device=first.device) for job in jobs]
        readers = [_loaded(plan.functional(source, number, job.seed), job) for job in there]
        other = readers[1].stem if len(readers) > 1 else None
        assert other is None or isinstance(other, FunctionalStem)
        row["further"] = suite.of(readers[0], other, _is_whole(jobs[0]))
        row["decoder_psnr_db"] = max(row["decoder_psnr_db"], row["further"].get("rebuilt", {}).get("prior", (0,))[0])
    metrics["references"] = suite.references()


def joined_readers(trained: Sequence[Job], plan: Plan) -> list[float | None]:
    """PSNR in dB of what ridge regression makes of two readers' numbers together, for each setting; None of one seed.

    Args:
        trained: All jobs of functional readers, in order, seed by seed.
        plan: The study.
    """
    found: list[float | None] = []
    if plan.seeds < 2:
        return [None] * len(plan.settings)
    source = plan.data(trained[0].data_dir)
    data = resident(source, trained[0].device)
    train, val, test = (data[split].images for split in SPLITS)
    for number in range(len(plan.settings)):
        stems = []
        for job in trained[number * plan.seeds :][:2]:
            there = replace(job, device=trained[0].device)
            stem = _loaded(plan.functional(source, number, job.seed), there).stem
            assert isinstance(stem, FunctionalStem)
            stems.append(stem)
        rebuilt = decoders.ridge(partial(_seen_by, stems), train, val, test[: plan.judged_images])
        found.append(decoders.likeness(rebuilt, test[: plan.judged_images])[0])
    return found


def assemble(
    plan: Plan, found: Sequence[Mapping[str, Any]], pixels: int, joined: Sequence[float | None]
) -> dict[str, Any]:
    """The metrics of a record: a list of settings, each with the plaintext reader beside it.

    Args:
        plan: The study.
        found: What its jobs gave.
        pixels: Of an image.
        joined: What `joined_readers` gave.
    """
    plain = _by_seed(found, PLAINTEXT)
    listed = []
    for number, chosen in enumerate(plan.settings):
        own = _by_seed(found, number)
        attacked = own[: plan.attacked]
        rebuilt = {
            name: [fmean(part["rebuilt"][name][index] for part in attacked) for index in (0, 1)]
            for name in own[0]["rebuilt"]
        }
        mean, thumbnail = rebuilt.pop("mean_image"), rebuilt.pop("thumbnail")
        values, beside = ([part["test"] for part in parts] for parts in (own, plain))
        listed.append(
            {
                "numbers": own[0]["numbers"],
                "bits": own[0]["bits"],
                "pixels": pixels,
                "metric": plan.metric,
                "functional": _interval(values),
                "plaintext": _interval(beside),
                "difference": _interval([one - other for one, other in zip(values, beside, strict=True)]),
                "decoder_psnr_db": max(psnr for psnr, _ in rebuilt.values()),
                "decoder_ssim": max(ssim for _, ssim in rebuilt.values()),
                "mean_image_psnr_db": mean[0],
                "mean_image_ssim": mean[1],
                "thumbnail_psnr_db": thumbnail[0],
                "thumbnail_ssim": thumbnail[1],
                "decoders": {name: psnr for name, (psnr, _) in rebuilt.items()},
                **_within(attacked),
                **own[0]["algebra"],
                "two_readers_psnr_db": joined[number],
                "perceptual": {
                    name: fmean(part["perceptual"][name] for part in attacked) for name in own[0]["perceptual"]
                },
                "zero_weights": fmean(part["zero_weights"] for part in own),
                "attacked_seeds": len(attacked),
                "setting": chosen,
            }
        )
    return {"settings": listed}


def _within(attacked: Sequence[Mapping[str, Any]]) -> dict[str, Any]:
    """Of a map that sees a region, what the best decoder and the mean image reach within it."""
    if "region" not in attacked[0]:
        return {}
    rebuilt = {name: fmean(part["region"][name][0] for part in attacked) for name in attacked[0]["region"]}
    mean, _ = rebuilt.pop("mean_image"), rebuilt.pop("thumbnail")
    return {"region_decoder_psnr_db": max(rebuilt.values()), "region_mean_image_psnr_db": mean}


def table(record: Mapping[str, Any]) -> str:
    """The figures as aligned text."""
    lines = ["numbers  functional  plaintext  difference            decoder dB / SSIM  mean image  thumbnail"]
    for row in record["metrics"]["settings"]:
        gap = row["difference"]
        span = "" if gap["low"] is None else f" ({gap['low']:+.3f}, {gap['high']:+.3f})"
        lines.append(
            f"{row['numbers']:>7}  {row['functional']['mean']:>10.4f}  {row['plaintext']['mean']:>9.4f}  "
            f"{gap['mean']:+.4f}{span:<18}  {row['decoder_psnr_db']:>9.2f} / {row['decoder_ssim']:.2f}  "
            f"{row['mean_image_psnr_db']:>10.2f}  {row['thumbnail_psnr_db']:>9.2f}"
        )
    return "\n".join(lines)


def _seen_by(stems: Sequence[FunctionalStem], images: torch.Tensor) -> torch.Tensor:
    given = stems[0].noisy(images)  # one draw for all readers
    return torch.cat([stem.of_levels(given).flatten(1) for stem in stems], dim=1)


def _by_seed(found: Sequence[Mapping[str, Any]], number: int) -> list[Mapping[str, Any]]:
    return sorted((part for part in found if part["number"] == number), key=lambda part: int(part["seed"]))


def _interval(values: list[float]) -> dict[str, Any]:
    return {**interval(values).to_dict(), "values": values}


def _pixels(plan: Plan, data_dir: str) -> int:
    spec = plan.data(data_dir).spec
    return spec.channels * spec.height * spec.width


def _kept(job: Job) -> Path:
    """The file of a trained network's weights."""
    return Path(job.folder, f"{job.name}.pt")


def _loaded(reader: Reader, job: Job) -> Reader:
    """With the weights that a job kept, on its device and in evaluation mode; older studies kept the stem alone."""
    state = torch.load(_kept(job), map_location="cpu", weights_only=True)
    (reader if _is_whole(job) else reader.stem).load_state_dict(state)
    return reader.to(job.device).eval().requires_grad_(False)


def _is_whole(job: Job) -> bool:
    """Whether a job kept all of its reader."""
    return any(name.startswith("backbone.") for name in torch.load(_kept(job), map_location="cpu", weights_only=True))


def _compute(missing: list[Job], jobs: int) -> Iterator[tuple[Job, dict[str, Any]]]:
    if jobs == 1:
        for job in missing:
            yield job, job.run()
        return
    share_cores(jobs)
    with ProcessPoolExecutor(min(jobs, max(1, len(missing))), get_context("spawn")) as pool:
        running: dict[Future[dict[str, Any]], Job] = {pool.submit(job.run): job for job in missing}
        yield from as_they_end(pool, running)


def _told(job: Job, content: Mapping[str, Any]) -> str:
    rebuilt = ", ".join(f"{name} {psnr:.1f}" for name, (psnr, _) in content.get("rebuilt", {}).items())
    numbers = f"{content['numbers']} numbers, " if "numbers" in content else ""
    return f"{job.name}: {numbers}{content['test']:.4f}{'; dB: ' * bool(rebuilt)}{rebuilt} ({content['wall_s']:.0f} s)"
