"""An audit's record as one HTML page that needs nothing beside it."""

from __future__ import annotations

import base64
from collections.abc import Mapping
from pathlib import Path
from typing import Any, Final

from encdl.audit.attacks.base import ATTACKS
from encdl.audit.html_page import render
from encdl.audit.security import plots
from encdl.audit.security.request import Order
from encdl.audit.security.statistics import rows as statistic_rows

ROW_FIGURES: Final = (
    "entropy_bits",
    "entropy_pass_pct",
    "local_entropy_bits",
    "local_entropy_pass_pct",
    "chi2",
    "chi2_pass_pct",
    "adjacent_correlation",
    "correlation_pass_pct",
    "npcr_pct",
    "npcr_pass_pct",
    "npcr_images_pass_pct",
    "uaci_pct",
    "uaci_pass_pct",
    "uaci_images_pass_pct",
    "psnr_db",
    "ssim",
)
"""Lines of the table of statistics."""


def draw(order: Order, metrics: Mapping[str, Any]) -> dict[str, bytes]:
    """The plots of an audit: PNG files by name.

    Args:
        order: What was audited.
        metrics: The record's.
    """
    image = order.statistic_images()[0]
    targets = statistic_rows(order.subject().targets, order.thesis())
    drawn = {name: target.encrypt(image[None])[0] for name, target in targets.items() if name != "fresh_nonce"}
    found = {"ciphertexts": plots.ciphertexts(image, drawn)}
    for unit in dict.fromkeys(finding["unit"] for finding in metrics["attacks"]):
        found[f"attacks-{unit.replace(' ', '-')}"] = plots.attacks(metrics["attacks"], unit)
    if "robustness" in metrics:
        found["robustness"] = plots.robustness(metrics["robustness"])
    return found


def html(record: Mapping[str, Any], drawn: Mapping[str, bytes]) -> str:
    """The page.

    Args:
        record: The audit's.
        drawn: What `draw` gave.
    """
    metrics = record["metrics"]
    encoded = {name: base64.b64encode(png).decode() for name, png in drawn.items()}
    findings = metrics["attacks"]
    first = next(iter(metrics["rows"].values()))
    return render(
        Path(__file__).with_name("page.html.jinja"),
        record=record,
        checks=record["checks"],
        attacks=[
            (name, [each for each in findings if each["name"] == name])
            for name in dict.fromkeys(each["name"] for each in findings)
        ],
        about={kind.name: kind.about for kind in ATTACKS.values()},
        advisory=[kind.name for kind in ATTACKS.values() if kind.advisory],
        rows=metrics["rows"],
        row_figures=ROW_FIGURES,
        glcm_figures=list(first["glcm"]),
        others={name: metrics.get(name) for name in ("keys", "keystream", "cycles", "timing")},
        size=record["budget"],
        plots={
            "ciphertexts": encoded["ciphertexts"],
            "robustness": encoded.get("robustness"),
            "attacks": [png for name, png in encoded.items() if name.startswith("attacks-")],
        },
    )
