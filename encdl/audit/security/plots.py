"""The images of a report, drawn without a display: PNG files as bytes."""

from __future__ import annotations

import io
from collections.abc import Mapping, Sequence
from typing import Any

import numpy as np
from matplotlib.figure import Figure
from numpy.typing import NDArray
from torch import Tensor

from encdl.audit.html_page import COLOURS
from encdl.metrics.statistics import DIRECTIONS

POINTS = 3000
"""Of a scatter plot."""


def ciphertexts(plain: Tensor, by_row: Mapping[str, Tensor]) -> bytes:
    """An image and its ciphertexts, and below each its histogram and its pixels against three neighbours.

    Args:
        plain: uint8 (C, H, W); the first channel is drawn.
        by_row: The same of each row.
    """
    columns = {"plain": plain, **by_row}
    size = (1.9 * len(columns), 1.8 * (2 + len(DIRECTIONS)))
    figure = Figure(figsize=size, dpi=110, layout="constrained")
    axes = figure.subplots(2 + len(DIRECTIONS), len(columns), squeeze=False)
    for column, (name, image) in enumerate(columns.items()):
        pixels = image[0].cpu().numpy()
        top, middle, *scatters = axes[:, column]
        top.imshow(pixels, cmap="gray", vmin=0, vmax=255, interpolation="nearest")
        top.set_title(name.replace("_", " "), fontsize=9)
        top.set_axis_off()
        middle.hist(pixels.ravel(), bins=64, range=(0, 256), color=COLOURS[0])
        middle.set_yticks([])
        _bounded(middle)
        for scatter, (rows, columns_apart) in zip(scatters, DIRECTIONS.values(), strict=True):
            _scatter(scatter, pixels, rows, columns_apart)
        if column == 0:
            for place, direction in zip(scatters, DIRECTIONS, strict=True):
                place.set_ylabel(f"{direction} neighbour", fontsize=8)
            middle.set_ylabel("histogram", fontsize=8)
    return _png(figure)


def _scatter(axes: Any, pixels: NDArray[np.uint8], rows: int, columns: int) -> None:
    """Pixels against those so many rows and columns on, at most `POINTS` of them."""
    height, width = pixels.shape
    here, there = pixels[: height - rows, : width - columns].ravel(), pixels[rows:, columns:].ravel()
    step = max(1, len(here) // POINTS)
    axes.scatter(here[::step], there[::step], s=1, color=COLOURS[0], alpha=0.4)
    axes.set_aspect("equal")
    _bounded(axes)
    axes.set_ylim(0, 256)


def _bounded(axes: Any) -> None:
    axes.set_xlim(0, 256)
    axes.tick_params(labelsize=7)


def attacks(findings: Sequence[Mapping[str, Any]], unit: str) -> bytes:
    """Scores with their intervals, and the baselines beside them, of all findings of one unit, one line each."""
    shown = [finding for finding in findings if finding["unit"] == unit]
    figure = Figure(figsize=(9, 0.8 + 0.24 * len(shown)), dpi=110, layout="constrained")
    axes = figure.subplots()
    for place, finding in enumerate(shown):
        colour = COLOURS[1] if finding["broken"] else COLOURS[2]
        low, high = finding["interval"] or (finding["score"], finding["score"])
        if low is not None and high is not None:
            axes.plot([low, high], [place, place], color=colour, linewidth=3, alpha=0.5)
        axes.plot(finding["score"], place, "o", color=colour, markersize=5)
        axes.plot(finding["baseline"], place, "|", color="black", markersize=11)
    labels = [f"{each['name']}: {each['target']}, {each['mode']}".replace("_", " ") for each in shown]
    axes.set_yticks(range(len(shown)), labels, fontsize=7)
    axes.set_ylim(len(shown) - 0.5, -0.5)
    axes.grid(axis="x", alpha=0.3)
    axes.set_xlabel(f"{unit}   ● score (orange: broken, green: not)   | without ciphertext", fontsize=8)
    return _png(figure)


def robustness(by_mode: Mapping[str, Mapping[str, Mapping[str, Sequence[float]]]]) -> bytes:
    """PSNR after damage by its strength, a plot for each damage, restored and merely decrypted."""
    damages = list(next(iter(by_mode.values())))
    figure = Figure(figsize=(3.4 * len(damages), 3.2), dpi=110, layout="constrained")
    axes = figure.subplots(1, len(damages), squeeze=False)[0]
    labels = {
        "salt_pepper": "share of pixels salted or peppered",
        "gaussian": "noise: deviation in levels",
        "lost_run": "share of the file lost in one run",
    }
    for place, damage in zip(axes, damages, strict=True):
        for colour, (mode, curves) in zip(COLOURS, by_mode.items(), strict=False):
            curve = curves[damage]
            place.plot(curve["strength"], curve["restored"], "o-", color=colour, markersize=3, label=mode)
            place.plot(curve["strength"], curve["decrypted"], "--", color=colour, linewidth=1)
        if damage != "lost_run":
            place.set_xscale("log")
        place.set_xlabel(labels.get(damage, damage), fontsize=8)
        place.grid(alpha=0.3)
        place.tick_params(labelsize=7)
    axes[0].set_ylabel("PSNR in dB", fontsize=8)
    axes[0].legend(fontsize=7, title="restored; dashed: decrypted", title_fontsize=7)
    return _png(figure)


def _png(figure: Any) -> bytes:
    file = io.BytesIO()
    figure.savefig(file, format="png", metadata={"Software": None})
    return file.getvalue()
