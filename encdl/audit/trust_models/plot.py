"""The plot of models of trust."""

from __future__ import annotations

import io
from collections.abc import Mapping, Sequence
from typing import Any

from matplotlib.figure import Figure

from encdl.utils.palette import OKABE_ITO

SHORT = {
    "decrypt_then_infer": "AES, decrypted",
    "full_grant": "full grant",
    "functional_key": "functional key",
    "two_party": "two parties",
    "homomorphic": "homomorphic",
}


def drawn(rows: Sequence[Mapping[str, Any]], metric: str) -> bytes:
    """Each model's figure by the milliseconds of an image, a PNG file; the area grows with the bytes moved."""
    figure = Figure(figsize=(6.4, 3.6), dpi=110, layout="constrained")
    axes = figure.subplots()
    colours = dict(zip(SHORT, OKABE_ITO.values(), strict=False))
    span = max(row["figure"] for row in rows) - min(row["figure"] for row in rows)
    for number, row in enumerate(rows):
        size = 20.0 + 30.0 * len(str(row["moved"]))
        axes.scatter(row["milliseconds"], row["figure"], s=size, color=colours[row["model"]], alpha=0.8)
        name = SHORT[row["model"]] + (f", k {row['numbers']}" if row["numbers"] else "")
        # Names of points side by side stand one below the other.
        near = sum(
            abs(row["figure"] - other["figure"]) <= 0.05 * span
            and 0.1 < row["milliseconds"] / other["milliseconds"] < 10
            for other in rows[:number]
        )
        place = row["milliseconds"], row["figure"]
        axes.annotate(name, place, (6, 6 - 11 * near), textcoords="offset points", fontsize=8)
    axes.set_xscale("log")
    axes.margins(0.25)
    axes.set_xlabel("ms an image, CPU")
    axes.set_ylabel(metric)
    axes.grid(alpha=0.3)
    stream = io.BytesIO()
    figure.savefig(stream, format="png")
    return stream.getvalue()
