"""The trainings of the study of ciphertext readers, and how its figures are put together."""

from __future__ import annotations

import math
from collections.abc import Iterator, Mapping, Sequence
from typing import Any

from encdl.ciphers.damage import DAMAGES
from encdl.metrics.bootstrap import interval
from encdl.training.judged_units import UNITS
from encdl.utils.records import summary

VIEWS = {
    "plaintext": "encdl.training.tasks.views.Plaintext",
    "ciphertext": "encdl.training.tasks.views.Ciphertext",
    "keyless": "encdl.training.tasks.views.Keyless",
    "fixed_key": "encdl.training.tasks.views.FixedKey",
    "hardened": "encdl.training.tasks.views.HardenedCiphertext",
    "hardened_plaintext": "encdl.training.tasks.views.HardenedPlaintext",
}
"""Trainings of each seed. `decrypt_then_infer` and `wrong_key` are further figures of the first two."""
FURTHER_VIEWS = {"functional": "encdl.training.tasks.views.Functional"}
"""Trainings for those who ask for them. The recipe's own `view` says what W is."""

PLAINTEXT = "plaintext"
NO_ROWS = {"robustness", "leakage_psnr_db", "cost", *UNITS}
"""Further metrics of a record."""

Figures = dict[str, dict[str, Any]]


def with_main(row: str, main: str) -> str:
    """`wrong_key`, which several readers have, as `MAIN_wrong_key`; other names of rows as they are."""
    return f"{main}_{row}" if row == "wrong_key" else row


def by_row(logged: Mapping[str, float], main: str) -> tuple[Figures, dict[str, Figures]]:
    """Sort what a test logged under `test/FIGURE/ROW` and `test/FIGURE/ROW/DAMAGE`.

    Args:
        logged: Figures by name.
        main: The row that was trained; see `with_main`. The row `wrong_key` of `ciphertext` keeps its name.

    Returns:
        Figures by row, and by damage and row.
    """
    plain: Figures = {}
    damaged: dict[str, Figures] = {}
    for name, value in logged.items():
        _, figure, *path = name.split("/")
        if not path:
            continue  # the main row's once more, or the loss
        if figure.endswith("_class"):  # named by class, of the main row
            figure, path = f"{figure.removesuffix('_class')}_{path[0]}", [main]
        row = path[0] if main == "ciphertext" else with_main(path[0], main)
        place = damaged.setdefault(path[1], {}) if path[1:] and path[1] in DAMAGES else plain
        place.setdefault(row, {})[figure] = value
    return plain, damaged


def over_seeds(parts: Sequence[Mapping[str, Any]]) -> dict[str, Any]:
    """The leaves of equally nested dictionaries of numbers as `{mean, std, values}`."""
    merged: dict[str, Any] = {}
    for name in parts[0]:
        values = [part[name] for part in parts]
        nested = isinstance(values[0], Mapping)
        merged[name] = over_seeds(values) if nested else summary([float(value) for value in values])
    return merged


def assemble(parts: Sequence[Mapping[str, Any]]) -> dict[str, Any]:
    """The metrics of a record from those of its parts.

    Args:
        parts: What `encdl.audit.studies.parts.Part.run` gave, one for each row and seed.

    Returns:
        `{ROW: {FIGURE: summary}}`, and `robustness` (`{DAMAGE: {ROW: {FIGURE: summary}}}`) and `leakage_psnr_db`
        (`{ROW: {STAGE: summary}}`).
    """
    metrics: dict[str, Any] = {}
    robustness: dict[str, Any] = {}
    leakage: dict[str, Any] = {}
    for row in dict.fromkeys(part["row"] for part in parts):
        of_row = sorted((part for part in parts if part["row"] == row), key=lambda part: int(part["seed"]))
        metrics.update(over_seeds([part["figures"] for part in of_row]))
        for damage, rows in over_seeds([part["damaged"] for part in of_row]).items():
            robustness.setdefault(damage, {}).update(rows)
        leakage.update(over_seeds([part["leakage_psnr_db"] for part in of_row]))
    return {**metrics, "robustness": robustness, "leakage_psnr_db": leakage, **over_units(parts)}


def over_units(parts: Sequence[Mapping[str, Any]]) -> dict[str, Any]:
    """The main figure of each row with its interval over patients, and its difference from plaintext, of the same ones.

    Args:
        parts: As of `assemble`. `patients`, or another of `UNITS` where none are known, has the `figure`, and
            `names` and `values` of each volume or image; those without a value, in any row, are left out.

    Returns:
        `{UNIT: {"figure": name, "count": units, "rows": {ROW: interval}, "less_plaintext": {ROW: interval}}}`, by what
        the intervals are over; {} where that is not known.
    """
    unit = next((unit for unit in UNITS if any(unit in part for part in parts)), "")
    known = sorted((part for part in parts if unit in part), key=lambda part: int(part["seed"]))
    found: dict[str, list[tuple[str, float]]] = {}
    for part in known:
        found.setdefault(part["row"], []).extend(zip(part[unit]["names"], part[unit]["values"], strict=True))
    plain = found.get(PLAINTEXT, [])
    rows = {row: [value for _, value in each] for row, each in found.items() if len(each) == len(plain)}
    kept = [at for at in range(len(plain)) if not any(math.isnan(each[at]) for each in rows.values())]
    if not kept:
        return {}
    names = [plain[at][0] for at in kept]
    values = {row: [each[at] for at in kept] for row, each in rows.items()}
    gaps = {row: [a - b for a, b in zip(each, values[PLAINTEXT], strict=True)] for row, each in values.items()}
    content = {
        "figure": known[0][unit]["figure"],
        "count": len(set(names)),
        "rows": {row: interval(each, names).to_dict() for row, each in values.items()},
        "less_plaintext": {row: interval(gap, names).to_dict() for row, gap in gaps.items() if row != PLAINTEXT},
    }
    return {unit: content}


def gaps_of(metrics: Mapping[str, Any]) -> Iterator[tuple[str, str, Mapping[str, Any]]]:
    """Each row that has a difference from plaintext, what it is over, in words, and the difference with its ends."""
    for unit in UNITS:
        for row, gap in metrics.get(unit, {}).get("less_plaintext", {}).items():
            yield row, f"{metrics[unit]['count']} {unit}", gap


def table(metrics: Mapping[str, Any]) -> str:
    """The rows' figures as aligned text: mean and standard deviation over seeds."""
    rows = {name: row for name, row in metrics.items() if name not in NO_ROWS}
    width = max(len(name) for name in rows)
    lines = []
    for name, figures in rows.items():
        told = [f"{figure} {_told(value)}" for figure, value in figures.items()]
        lines.append(f"  {name:<{width}}  " + "   ".join(told))
    for row, over, gap in gaps_of(metrics):
        ends = "" if gap["low"] is None else f" ({gap['low']:+.4f}, {gap['high']:+.4f})"
        lines.append(f"  {row} less plaintext, over {over}: {gap['mean']:+.4f}{ends}")
    return "\n".join(lines)


def _told(value: Mapping[str, Any]) -> str:
    return "none" if value["mean"] is None else f"{value['mean']:.4f} ± {value['std']:.4f}"
