"""An audit's figures as a result record, and as text."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import asdict
from pathlib import Path
from typing import Any

from encdl.audit.security.image_sets import Cuts
from encdl.audit.security.request import Order
from encdl.audit.security.settings import Settings
from encdl.audit.security.verdict import Check
from encdl.utils import records

RECORD = "audit.json"


def metrics(found: Mapping[str, Mapping[str, Any]]) -> dict[str, Any]:
    """The measured parts, as a record has them.

    Args:
        found: By `KIND/NAME`, as `encdl.audit.security.run.run` gives them.

    Returns:
        `attacks` (a list of findings), `rows`, and, where measured, `keystream` and `cycles` (by map), `keys`,
        `robustness` and `timing`.
    """
    result: dict[str, Any] = {"rows": {}, "attacks": []}
    for name, figures in found.items():
        kind, _, inner = name.partition("/")
        if kind == "attack":
            result["attacks"].append(figures)
        elif kind == "row":
            result["rows"][inner] = figures
        elif kind == inner:
            result[kind] = figures
        else:
            result.setdefault(kind, {})[inner] = figures
    return result


def record(
    order: Order,
    settings: Settings,
    config: Path | None,
    figures: Mapping[str, Any],
    checks: Sequence[Check],
    cuts: Cuts,
    wall_s: float,
) -> dict[str, Any]:
    """The record.

    Args:
        order: What was audited.
        settings: What asked for it.
        config: Their file, if they came from one.
        figures: What `metrics` gave.
        checks: The verdict.
        cuts: What was attacked.
        wall_s: Seconds that this call took; parts that were there already cost none.
    """
    subject, scene = order.subject(), cuts.scene
    size = f"-{settings.budget}" if settings.budget not in {"", "cpu"} else ""
    measured = [*figures["attacks"], *figures["rows"].values()]
    content = records.record(
        f"audit-{subject.name}{size}",
        "audit",
        config=str(config) if config else None,
        dataset=order.data,
        seeds=[order.seed + turn for turn in range(order.budget.attacker_seeds)],
        metrics=figures,
        wall_s=wall_s,
        device=order.device,
        settings=settings.to_dict(),
        cipher=subject.name,
        weights=subject.weights,
        sequence=order.sequence,
        budget=asdict(order.budget),
        data={
            "dataset": order.data,
            "train_images": len(scene.train),
            "test_images": len(scene.test),
            "labels": cuts.labels,
            "digest": cuts.digest,
        },
        passed=all(check.met for check in checks),
        checks=[asdict(check) for check in checks],
    )
    return content | {"device": "; ".join(sorted({each["device"] for each in measured}))}


def write(folder: Path, content: Mapping[str, Any]) -> Path:
    """Write `audit.json` into a folder, in place of an older one; gives its path."""
    path = folder / RECORD
    records.write(path, content, force=True)
    return path


def table(figures: Mapping[str, Any], checks: Sequence[Check]) -> str:
    """The findings and what is not met, as aligned text; says of what is broken if that is as it must be."""
    lines = []
    for finding in figures["attacks"]:
        what = f"{finding['name']}: {finding['target']}, {finding['mode']}"
        score = f"{finding['score']:.4g} {finding['unit']}, baseline {finding['baseline']:.4g}"
        lines.append((what, score, _outcome(finding)))
    widths = [max((len(line[column]) for line in lines), default=0) for column in (0, 1)]
    told = [f"  {what:<{widths[0]}}  {score:<{widths[1]}}  {outcome}" for what, score, outcome in lines]
    unmet = [f"not met: {check.what}: {check.figure}" for check in checks if not check.met]
    met = sum(check.met for check in checks)
    return "\n".join(["attacks", *told, *unmet, f"{met} of {len(checks)} checks are met"])


def _outcome(finding: Mapping[str, Any]) -> str:
    leaks = finding["more"].get("leaks")
    outcome = "broken" if finding["broken"] else "leaks" if leaks else "not broken"
    if finding["reference"]:
        return f"{outcome} (reference)"
    return f"{outcome} (reported only)" if finding["advisory"] else outcome
