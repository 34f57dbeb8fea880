"""An evaluation in images: the means with their intervals, and one image after every damage and repair."""

from __future__ import annotations

import io
from collections.abc import Mapping
from typing import Any

import numpy as np
import torch
from matplotlib.figure import Figure

from encdl.audit.evaluation.damaged import kind_of
from encdl.audit.evaluation.rows import NONE, RESTORED
from encdl.audit.evaluation.run import Result
from encdl.audit.evaluation.table import DAMAGE_WORDS, REPAIR_WORDS
from encdl.ciphers.damage import DAMAGES
from encdl.metrics.classical_repair import repaired
from encdl.training.panels import PLAIN, panel_png

MARKS = {
    NONE: ("x", "0.6"),
    "median": ("v", "C1"),
    "decision_median": ("^", "C8"),
    "bm3d": ("s", "C4"),
    "telea": ("<", "C2"),
    "biharmonic": ("D", "C9"),
    RESTORED: ("o", "C3"),
}
"""Marker and colour of each repair."""


def figure_png(metrics: Mapping[str, Any], title: str) -> bytes:
    """Draw the means of each row with their intervals, as a PNG file."""
    rows = [name for name in metrics if name != "references"]
    drawing = Figure(figsize=(9, 0.6 + 2.6 * len(rows)), dpi=100, layout="constrained")
    axes = drawing.subplots(len(rows), 1, squeeze=False, sharex=True)[:, 0]
    drawing.suptitle(title, fontsize=10)
    damages = [damage for damage in DAMAGES if damage in metrics[rows[0]]]
    for place, name in zip(axes, rows, strict=True):
        for number, (repair, (marker, colour)) in enumerate(MARKS.items()):
            at = [at for at, damage in enumerate(damages) if repair in metrics[name][damage]]
            entries = [metrics[name][damages[index]][repair] for index in at]
            if not entries:
                continue
            means = np.array([entry["mean"] for entry in entries])
            ends = np.array([[entry[end] or entry["mean"] for entry in entries] for end in ("low", "high")])
            place.errorbar(
                np.array(at) + (number - 3) * 0.11,
                means,
                np.abs(ends - means),
                fmt=marker,
                color=colour,
                markersize=5,
                capsize=2,
                linewidth=1,
                label=REPAIR_WORDS[repair],
            )
        place.set_ylabel(f"{name}\nPSNR in dB", fontsize=9)
        place.grid(axis="y", color="0.9")
        place.set_axisbelow(True)
        for edge in range(1, len(damages)):
            place.axvline(edge - 0.5, color="0.85", linewidth=0.8)
    axes[-1].set_xticks(range(len(damages)), [DAMAGE_WORDS.get(damage, damage) for damage in damages], fontsize=9)
    drawing.legend(*axes[0].get_legend_handles_labels(), loc="outside lower center", ncols=len(MARKS), fontsize=8)
    file = io.BytesIO()
    drawing.savefig(file, format="png", metadata={"Software": None})
    return file.getvalue()


def panel(result: Result, seed: int) -> bytes:
    """One image of the first row: plain, damaged, after the best classical repair and after the network's."""
    name, row = next(iter(result.rows.items()))
    image = result.images.images[len(result.images.images) // 2]
    columns: dict[str, list[np.ndarray]] = {}
    captions = []
    for damage_name, damage in DAMAGES.items():
        [outcome] = result.storage.outcomes(result.ciphers[name][0].cipher, [image], damage, seed)
        best = result.metrics[name]["paired"][damage_name].get("best_classical")
        kind, noise = kind_of(damage)
        classical = outcome.decrypted
        if best:
            parameters = row.choices[damage_name][best]["parameters"]
            classical = repaired(kind, best, outcome.decrypted, outcome.lost, noise, parameters)
        shown = {
            PLAIN: outcome.plain,
            "damaged": outcome.decrypted,
            "best classical repair": classical,
            RESTORED: outcome.restored,
        }
        for column, part in shown.items():
            columns.setdefault(column, []).append(np.asarray(part))
        words = REPAIR_WORDS[best] if best else "no classical repair"
        captions.append(f"{DAMAGE_WORDS.get(damage_name, damage_name)}\n({words})")
    stacked = {column: torch.from_numpy(np.stack(parts)) for column, parts in columns.items()}
    return panel_png(stacked, f"the {name} cipher, {result.images.dataset}", len(captions), captions)
