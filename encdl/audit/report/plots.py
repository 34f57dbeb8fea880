"""Curves of several runs in one image, drawn without a display."""

from __future__ import annotations

import io
from collections.abc import Mapping

from matplotlib.figure import Figure

from encdl.audit.html_page import COLOURS
from encdl.audit.report.gather import Curve


def curves(name: str, by_run: Mapping[int, Curve]) -> bytes:
    """One metric of several runs, as a PNG file.

    Args:
        name: Of the metric.
        by_run: Number of the run, which gives the colour, to its curve.
    """
    figure = Figure(figsize=(4.2, 2.5), dpi=100, layout="constrained")
    place = figure.subplots()
    for number, curve in by_run.items():
        steps, values = zip(*curve, strict=True)
        style = "-" if number < len(COLOURS) else "--"  # the colours come round again
        marker = "o" if len(curve) < 20 else ""
        colour = COLOURS[number % len(COLOURS)]
        place.plot(steps, values, style, marker=marker, markersize=3, linewidth=1.2, color=colour)
    place.set_title(name, fontsize=9)
    place.set_xlabel("step", fontsize=8)
    place.tick_params(labelsize=7)
    place.grid(color="0.92")
    file = io.BytesIO()
    figure.savefig(file, format="png", metadata={"Software": None})
    return file.getvalue()
