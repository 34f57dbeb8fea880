"""The plot of the study of functional keys: what readers reach against what the best decoder rebuilds."""

from __future__ import annotations

import io
from collections.abc import Mapping, Sequence
from typing import Any

from matplotlib.figure import Figure

from encdl.utils.palette import OKABE_ITO


def drawn(studies: Mapping[str, Mapping[str, Any]]) -> bytes:
    """A panel a data set, a PNG file.

    Args:
        studies: By name of the set, `metric` and `settings`: `numbers`, `noise`, `figure` and `plaintext` (each mean,
            low, high), `decoder_psnr_db` and `mean_image_psnr_db`.
    """
    figure = Figure(figsize=(3.6 * len(studies), 3.3), dpi=100, layout="constrained")
    ours, theirs, none = list(OKABE_ITO.values())[:3]
    for panel, (name, study) in zip(figure.subplots(1, len(studies), squeeze=False)[0], studies.items(), strict=True):
        settings: Sequence[Mapping[str, Any]] = study["settings"]
        plain, mean_image = settings[0]["plaintext"], settings[0]["mean_image_psnr_db"]
        panel.axhspan(plain["low"], plain["high"], color=theirs, alpha=0.25)
        panel.axhline(plain["mean"], color=theirs, label="plaintext")
        panel.axvline(mean_image, color=none, linestyle=":", label="mean image: nothing seen")
        for place, row in enumerate(sorted(settings, key=lambda row: row["decoder_psnr_db"])):
            found, psnr = row["figure"], row["decoder_psnr_db"]
            ends = [[found["mean"] - found["low"]], [found["high"] - found["mean"]]]
            panel.errorbar(psnr, found["mean"], ends, color=ours, marker="o", capsize=3)
            told = f"{row['numbers']:,}" + (f", noise {row['noise']:g}" if row["noise"] else "")
            sides = ("right", "bottom") if place % 2 else ("left", "top")  # neighbours' labels lie apart
            at = -4 if place % 2 else 4, 0
            panel.annotate(
                told, (psnr, found["mean"]), at, textcoords="offset points", fontsize=8, ha=sides[0], va=sides[1]
            )
        panel.set(title=name, xlabel="PSNR of the best decoder, dB", ylabel=study["metric"])
        panel.margins(0.25)
        panel.grid(alpha=0.3)
    figure.legend(*panel.get_legend_handles_labels(), loc="outside lower center", ncols=2, fontsize=8)
    stream = io.BytesIO()
    figure.savefig(stream, format="png")
    return stream.getvalue()
