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
    for row in rows:
        size = 20.0 + 30.0 * len(str(row["moved"]))
        axes.scatter(row["milliseconds"], row["figure"], s=size, color=colours[row["model"]], alpha=0.8)
        name = SHORT[row["model"]] + (f", k {row['numbers']}" if row["numbers"] else "")
        axes.annotate(name, (row["milliseconds"], row["figure"]), (6, 6), textcoords="offset points", fontsize=8)
    axes.set_xscale("log")
    axes.margins(0.2)
    axes.set_xlabel("ms an image, CPU")
    axes.set_ylabel(metric)
    axes.grid(alpha=0.3)
    stream = io.BytesIO()
    figure.savefig(stream, format="png")
    return stream.getvalue()
