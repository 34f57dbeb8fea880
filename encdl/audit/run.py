"""An audit from beginning to end: its parts, each kept as soon as it is known, and its verdict."""

from __future__ import annotations

import hashlib
import json
import os
import time
from collections.abc import Callable, Iterator
from concurrent.futures import Future, ProcessPoolExecutor, as_completed
from dataclasses import asdict, dataclass, replace
from functools import lru_cache
from multiprocessing import get_context
from pathlib import Path
from typing import Any, Final

from torch import Tensor

from encdl import records, weights
from encdl.atomic import write_bytes
from encdl.attacks.base import Scene
from encdl.attacks.targets import CipherTarget, Target, cipher_target
from encdl.audit import keys, keystream, pictures, plan, robustness, statistics, timing
from encdl.audit.subject import Subject, of_reference, of_weights
from encdl.keys.maps import DEFAULT_MAP, MAPS, ChaoticSequence
from encdl.records import device_name

Progress = Callable[[str], None]


@dataclass(frozen=True)
class Size:
    """How much is measured.

    Attributes:
        side: Height and width in pixels of attacked pictures.
        train: Training pictures of the attackers.
        test: Pictures under attack.
        statistic_side: Height and width of the statistics' pictures.
        statistic_images: How many of them.
        sequences: How many sequences NIST's tests take.
        sequence_bits: Length of each.
        small: Attackers' networks are small.
        patience: See `encdl.attacks.base.Scene`.
    """

    side: int
    train: int
    test: int
    statistic_side: int
    statistic_images: int
    sequences: int
    sequence_bits: int
    small: bool
    patience: int


QUICK: Final = Size(32, 512, 128, 64, 100, 100, 2**14, True, 1)
PATIENT: Final = Size(32, 2048, 256, 128, 100, 200, 2**17, True, 4)
FULL: Final = Size(64, 8192, 256, 128, 200, 1000, 2**17, False, 1)


@dataclass(frozen=True)
class Order:
    """What is audited, and how.

    Attributes:
        weights: Name or file of a cipher's weights; or, with `reference`, a name of `encdl.audit.subject.REFERENCES`.
        reference: Whether a known scheme is audited instead.
        data: As for `encdl.data.named.open_data`.
        device: "cpu" or "cuda".
        seed: Of all draws.
        quick: Small budgets: minutes on two CPU cores.
        sequence: The map behind the key planes.
    """

    weights: str = "default"
    reference: bool = False
    data: str = "embedded"
    device: str = "cpu"
    seed: int = 0
    quick: bool = False
    sequence: str = DEFAULT_MAP

    @property
    def size(self) -> Size:
        """How much is measured: whole audits have larger attackers on a GPU."""
        if self.quick:
            return QUICK
        return FULL if self.device.startswith("cuda") else PATIENT

    def subject(self) -> Subject:
        """What is audited."""
        if self.reference:
            return of_reference(self.weights)
        return of_weights(self.weights, self.device, self.sequence)

    def thesis(self) -> Target | None:
        """The baseline of the thesis, with the shipped weights; None where it is audited itself."""
        if self.weights == "thesis":
            return None
        return cipher_target(weights.load("thesis", device=self.device).cipher, "default", self.sequence)

    def statistic_pictures(self) -> Tensor:
        """The statistics' pictures, uint8 (N, C, S, S)."""
        size = self.size
        return pictures.statistic_pictures(
            self.data, size.statistic_side, size.statistic_images, self.device, self.seed
        )

    def scene(self) -> tuple[Scene, str]:
        """The attacks' pictures, and where their labels come from."""
        size = self.size
        found, labels = pictures.scene(
            self.data, size.side, size.train, size.test, self.device, self.seed, size.small
        )
        return replace(found, patience=size.patience), labels


@dataclass(frozen=True)
class Part:
    """A share of an audit that is measured and kept by itself.

    Attributes:
        kind: "attack", "row", or the name of one of the other measurements.
        name: What it is called among those of its kind.
    """

    kind: str
    name: str

    @property
    def file(self) -> str:
        """Where its figures are kept, below the audit's folder."""
        return f"{self.kind}-{self.name}".replace("/", "-") + ".json"


def parts(order: Order) -> list[Part]:
    """All parts of an audit, in the order of the report."""
    subject, thesis = order.subject(), order.thesis()
    found = [Part("attack", bout.name) for bout, _, _ in plan.bouts(subject, thesis, order.quick)]
    found += [Part("row", row) for row in statistics.rows(subject.targets, thesis)]
    sequences = [order.sequence] if order.quick else list(MAPS)
    found += [Part("keystream", name) for name in sequences if not order.reference]
    chaotic = dict.fromkeys(name.partition("+")[0] for name in sequences)
    found += [
        Part("cycles", name)
        for name in chaotic
        if not order.reference and isinstance(MAPS[name], ChaoticSequence)
    ]
    if subject.cipher is not None:
        found += [Part("keys", "keys"), Part("robustness", "robustness"), Part("timing", "timing")]
    return found


def measure(order: Order, part: Part) -> dict[str, Any]:
    """The figures of one part."""
    return _MEASURES[part.kind](order, part.name)


def run(order: Order, folder: Path, jobs: int, progress: Progress) -> dict[str, dict[str, Any]]:
    """Measure all parts that the folder does not have.

    Args:
        order: What is audited, and how.
        folder: Keeps each part's figures as soon as they are known.
        jobs: Processes that measure at a time; 1 measures here.
        progress: Told what has been done.

    Returns:
        The figures, by `KIND/NAME` of the part.
    """
    folder.mkdir(parents=True, exist_ok=True)
    digest = _digest(order)
    wanted = parts(order)
    found = {part: known for part in wanted if (known := _known(folder / part.file, digest)) is not None}
    if found:
        progress(f"{len(found)} of {len(wanted)} parts are there already")
    missing = [part for part in wanted if part not in found]
    for part, figures, took_s in _measured(order, missing, jobs):
        found[part] = figures
        kept = json.dumps({"digest": digest, "took_s": round(took_s, 2), "figures": figures})
        write_bytes(folder / part.file, kept.encode(), force=True)
        progress(f"[{len(found)}/{len(wanted)}] {part.kind} {part.name} ({took_s:.1f} s)")
    return {f"{part.kind}/{part.name}": found[part] for part in wanted}


def _measured(order: Order, missing: list[Part], jobs: int) -> Iterator[tuple[Part, dict[str, Any], float]]:
    if jobs == 1 or len(missing) < 2:
        for part in missing:
            yield part, *_timed(order, part)
        return
    os.environ.setdefault("OMP_NUM_THREADS", str(max(1, (os.cpu_count() or 1) // jobs)))
    with ProcessPoolExecutor(min(jobs, len(missing)), get_context("spawn")) as pool:
        # What time is measured of goes last and alone.
        for timed in (False, True):
            running: dict[Future[tuple[dict[str, Any], float]], Part] = {
                pool.submit(_timed, order, part): part
                for part in sorted(missing, key=_rank)
                if (part.kind == "timing") is timed
            }
            try:
                for done in as_completed(running):
                    yield running[done], *done.result()
            except BaseException:
                pool.shutdown(wait=False, cancel_futures=True)
                raise


def _rank(part: Part) -> int:
    """Long parts start first, so that none is left over in the end."""
    attack = part.name.partition("/")[0]
    return LONGEST.index(attack) if attack in LONGEST else len(LONGEST)


def _timed(order: Order, part: Part) -> tuple[dict[str, Any], float]:
    started = time.monotonic()
    figures = measure(order, part)
    return figures, time.monotonic() - started


def labels(order: Order) -> str:
    """Where the labels of the attacked pictures come from; to call first, as it reads them all.

    Raises:
        DataError: The data set is missing, empty or malformed.
        ImageFileError: A picture cannot be read.
    """
    return _scene(order)[1]


@lru_cache(maxsize=1)
def _scene(order: Order) -> tuple[Scene, str]:
    return order.scene()


@lru_cache(maxsize=1)
def _prepared(order: Order) -> tuple[Subject, Target | None, Scene]:
    """What all parts of one process share."""
    return order.subject(), order.thesis(), _scene(order)[0]


def _attack(order: Order, name: str) -> dict[str, Any]:
    subject, thesis, scene = _prepared(order)
    for bout, attack, target in plan.bouts(subject, thesis, order.quick):
        if bout.name == name:
            finding = attack.run(target, scene).to_dict()
            return finding | {
                "role": bout.role,
                "reference": bout.reference,
                "advisory": attack.advisory,
                "device": device_name(order.device),
            }
    raise KeyError(name)


def _row(order: Order, name: str) -> dict[str, Any]:
    subject, thesis, _ = _prepared(order)
    target = statistics.rows(subject.targets, thesis)[name]
    figures = statistics.statistics(name, target, _statistic_pictures(order), order.seed)
    return figures | {"device": device_name(order.device)}


def _keystream(order: Order, name: str) -> dict[str, Any]:
    return keystream.randomness_of(name, order.size.sequences, order.size.sequence_bits, order.seed)


def _cycles(order: Order, name: str) -> dict[str, Any]:
    return keystream.cycles_of(name)


def _keys(order: Order, name: str) -> dict[str, Any]:
    subject = order.subject()
    few = _statistic_pictures(order)[:16]
    sides = order.size.statistic_side
    return {
        "sensitivity": keys.sensitivity(_own(subject, "default"), few, order.seed),
        "space": {mode: keys.space(_own(subject, mode), sides, few.shape[1]) for mode in subject.targets},
    }


def _robustness(order: Order, name: str) -> dict[str, Any]:
    subject, few = order.subject(), _statistic_pictures(order)[:16]
    modes = ("default", "confusion", "diffusion")
    return {mode: robustness.curves(_own(subject, mode), few, order.seed) for mode in modes}


def _timing(order: Order, name: str) -> dict[str, Any]:
    subject, thesis, _ = _prepared(order)
    measured = {
        row: target for row, target in statistics.rows(subject.targets, thesis).items() if row in TIMED
    }
    return timing.timing(measured, _statistic_pictures(order)[:16])


LONGEST: Final = ("reader_gradients", "gan_inversion", "known_plaintext_decoder", "ciphertext_only_decoder")
"""Attacks whose parts take longest, in this order."""

TIMED: Final = ("network", "confusion", "diffusion", "synthetic_nonce", "thesis")
_MEASURES: Final[dict[str, Callable[[Order, str], dict[str, Any]]]] = {
    "attack": _attack,
    "row": _row,
    "keystream": _keystream,
    "cycles": _cycles,
    "keys": _keys,
    "robustness": _robustness,
    "timing": _timing,
}


def _own(subject: Subject, mode: str) -> CipherTarget:
    target = subject.targets[mode]
    assert isinstance(target, CipherTarget)
    return target


@lru_cache(maxsize=1)
def _statistic_pictures(order: Order) -> Tensor:
    return order.statistic_pictures()


def _digest(order: Order) -> str:
    """Changes with what is audited, how, on which files, and the code.

    Of uncommitted code nothing is known, so it changes always. Not with the device, but for the sizes that go with it:
    an audit may go on elsewhere, and each part's figures say where they were measured.
    """
    subject, commit = order.subject(), records.commit()
    uncommitted = time.time_ns() if commit.endswith("+changes") else 0
    settings = {name: value for name, value in asdict(order).items() if name != "device"}
    files = pictures.files_of(order.data)
    origin = [settings, asdict(order.size), subject.name, subject.weights, files, commit, uncommitted]
    return hashlib.sha256(json.dumps(origin).encode()).hexdigest()[:16]


def _known(file: Path, digest: str) -> dict[str, Any] | None:
    try:
        content = json.loads(file.read_text())
    except (OSError, ValueError):
        return None
    if not isinstance(content, dict) or content.get("digest") != digest:
        return None
    known: dict[str, Any] | None = content.get("figures")
    return known
