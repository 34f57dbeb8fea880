"""Repair by a cipher's network beside classical repair: one row of the results, over the training seeds of a cipher."""

from __future__ import annotations

import hashlib
from collections.abc import Callable, Iterator, Sequence
from dataclasses import dataclass, field
from statistics import fmean
from typing import Any, TypeAlias

import numpy as np

from encdl.audit.evaluation.damaged import Outcome, Storage, kind_of
from encdl.ciphers.base import Cipher
from encdl.ciphers.damage import DAMAGES, Damage
from encdl.data.registry import Images
from encdl.metrics.bootstrap import interval
from encdl.metrics.classical_repair import available, defaults
from encdl.metrics.classical_repair.tuning import Case, psnr_db, score, tune

NONE, RESTORED = "none", "restored"
"""Columns that are no classical repair: no repair, and the cipher's own."""

UNHIT = "salt_pepper_1pct"
"""The damage at which pixels that were not hit are counted."""

VALIDATION_SEED = -1
"""Of damage on validation images, so that it is not that of the test images."""

AT_ONCE = 64
"""Images that are held in memory with their repairs."""

Run: TypeAlias = Callable[..., Iterator[Any]]
"""Maps a function over lists: `map`, or `encdl.metrics.classical_repair.tuning.pool`'s."""

Scores: TypeAlias = dict[str, dict[str, list[list[float]]]]
"""PSNR in dB by damage, repair, training seed and image."""


@dataclass
class Row:
    """The measurements of one cipher.

    Attributes:
        scores: PSNR of each image.
        choices: By damage and classical repair: its parameters and, where they were tuned, its PSNR on the validation
            images.
        unhit: By training seed: of the pixels that were not hit, the share that repair left as it was.
        exact_of_rest: By training seed and damage that announces losses: of the pixels that were not lost, the share
            that comes out exactly.
    """

    scores: Scores = field(default_factory=dict)
    choices: dict[str, dict[str, dict[str, Any]]] = field(default_factory=dict)
    unhit: list[float] = field(default_factory=list)
    exact_of_rest: dict[str, list[float]] = field(default_factory=dict)

    def metrics(self, groups: Sequence[str]) -> dict[str, Any]:
        """Means over images with their intervals, by damage and repair, and paired differences."""
        found: dict[str, Any] = {}
        paired: dict[str, Any] = {}
        for damage, repairs in self.scores.items():
            found[damage] = {
                name: interval(_by_image(scores), groups).to_dict() | {"values": [fmean(one) for one in scores]}
                for name, scores in repairs.items()
            }
            paired[damage] = self._paired(damage, groups)
        found["paired"] = paired
        if self.unhit:
            found["unhit_unchanged_fraction"] = fmean(self.unhit)
        return found | {f"{name}_exact_of_rest": fmean(values) for name, values in self.exact_of_rest.items()}

    def _paired(self, damage: str, groups: Sequence[str]) -> dict[str, Any]:
        """Restored minus every other repair, image by image; in front that minus the best classical one."""
        means = {name: _by_image(scores) for name, scores in self.scores[damage].items()}
        restored = means.pop(RESTORED)
        each = {name: interval(restored - other, groups).to_dict() for name, other in means.items()}
        classical = [name for name in means if name != NONE]
        if not classical:
            return {"each": each}
        best = max(classical, key=lambda name: float(means[name].mean()))
        return {"best_classical": best, **each[best], "each": each}

    def per_image(self) -> dict[str, dict[str, list[float]]]:
        """PSNR of each image, the mean over training seeds, to a hundredth of a decibel."""
        return {
            damage: {name: [round(float(v), 2) for v in _by_image(scores)] for name, scores in repairs.items()}
            for damage, repairs in self.scores.items()
        }


def measure(
    ciphers: Sequence[Cipher],
    storage: Storage,
    images: Images,
    validation: Images | None,
    repairs: Sequence[str] | None,
    seed: int,
    run: Run,
    progress: Callable[[str], None],
) -> Row:
    """Measure one cipher.

    Args:
        ciphers: The same cipher from several training seeds.
        storage: How images are encrypted and stored.
        images: To judge by.
        validation: To choose the parameters of classical repairs by; None leaves them at their defaults.
        repairs: Names of classical repairs; all that can run if None.
        seed: Of the damage.
        run: What runs the classical repairs.
        progress: Told in a few words what comes next.
    """
    row = Row()
    for name, damage in DAMAGES.items():
        kind = kind_of(damage)[0]
        row.choices[name] = {
            repair: {"parameters": defaults(kind, repair)}
            for repair in available(kind)
            if repairs is None or repair in repairs
        }
        row.scores[name] = {column: [] for column in (NONE, RESTORED, *row.choices[name])}
        if validation is not None:
            progress(f"{name}: classical repair is tuned on {len(validation.images)} validation images")
            outcomes = storage.outcomes(ciphers[0], validation.images, damage, VALIDATION_SEED, restore=False)
            cases = [outcome.case(damage) for outcome in outcomes]
            for repair, entry in row.choices[name].items():
                choice = tune(cases, repair, run)
                entry |= {"parameters": choice.parameters, "validation_psnr_db": choice.psnr_db}
    done: dict[bytes, dict[str, list[float]]] = {}
    for number, cipher in enumerate(ciphers, 1):
        for name, damage in DAMAGES.items():
            progress(f"{name}: {len(images.images)} images, weights {number} of {len(ciphers)}")
            _one(row, cipher, storage, images, name, damage, seed, run, done)
    return row


def _one(
    row: Row,
    cipher: Cipher,
    storage: Storage,
    images: Images,
    name: str,
    damage: Damage,
    seed: int,
    run: Run,
    done: dict[bytes, dict[str, list[float]]],
) -> None:
    """One damage under one training seed; classical repairs of images that were repaired before are not run again."""
    columns: dict[str, list[float]] = {column: [] for column in row.scores[name]}
    unhit: list[float] = []
    rest: list[float] = []
    for outcomes in _chunks(storage.outcomes(cipher, images.images, damage, seed)):
        cases = [outcome.case(damage) for outcome in outcomes]
        known = _name(cases, name)
        if known not in done:
            done[known] = {
                repair: list(run(score, *zip(*[(case, repair, entry["parameters"]) for case in cases], strict=True)))
                for repair, entry in row.choices[name].items()
            }
        for repair, scores in done[known].items():
            columns[repair] += scores
        for outcome in outcomes:
            assert outcome.restored is not None
            columns[NONE].append(psnr_db(outcome.plain, outcome.decrypted))
            columns[RESTORED].append(psnr_db(outcome.plain, outcome.restored))
            if outcome.lost.any() and not outcome.lost.all():
                rest.append(float((outcome.restored == outcome.plain)[~outcome.lost].mean()))
            if not outcome.hit.all():
                unhit.append(float((outcome.restored == outcome.decrypted)[~outcome.hit].mean()))
    for column, values in columns.items():
        row.scores[name][column].append(values)
    if name == UNHIT and cipher.exact and unhit:
        row.unhit.append(fmean(unhit))
    if rest:
        row.exact_of_rest.setdefault(name, []).append(fmean(rest))


def _chunks(outcomes: Iterator[Outcome]) -> Iterator[list[Outcome]]:
    chunk: list[Outcome] = []
    for outcome in outcomes:
        chunk.append(outcome)
        if len(chunk) == AT_ONCE:
            yield chunk
            chunk = []
    if chunk:
        yield chunk


def _name(cases: Sequence[Case], damage: str) -> bytes:
    """All settings that the figures of classical repair depend on."""
    content = hashlib.sha256(damage.encode())
    for case in cases:
        content.update(repr(case.damaged.shape).encode())
        for part in (case.plain, case.damaged, case.lost):
            content.update(part.tobytes())
    return content.digest()


def _by_image(scores: Sequence[Sequence[float]]) -> Any:
    """The mean over training seeds of each image's PSNR: float64 (images,)."""
    return np.asarray(scores, dtype=np.float64).mean(0)
