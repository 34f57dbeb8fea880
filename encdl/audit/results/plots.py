"""Plots of the documentation: drawn from records, and with a digest of what was drawn inside the file.

By the digest it is told that a plot and a record differ; the pixels themselves depend on the version of matplotlib.
"""

from __future__ import annotations

import hashlib
import io
import json
import os
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any, Self

from encdl.audit.results.illustrations import draw_cipher, draw_path, of_weights
from encdl.audit.results.record_values import Records
from encdl.utils.atomic import write_bytes

FIELD = "encdl-results"
"""Name of the digest within a PNG file."""

REVISION = 2
"""Goes into the digest: raise it when the drawing itself changes."""

Draw = Callable[[Any], bytes]


@dataclass(frozen=True)
class View:
    """One kind of plot.

    Attributes:
        alt: What the image shows, in words.
        data: What is drawn, of the records (or names of weights) and further words of a block.
        draw: Draws that as a PNG file.
        of_weights: Whether the block names shipped weights instead of records.
    """

    alt: str
    data: Callable[[Any, Sequence[str]], Any]
    draw: Draw
    of_weights: bool = False


@dataclass(frozen=True)
class Plot:
    """An image file and what it has to show.

    Attributes:
        path: The file.
        view: How it is drawn.
        data: What is drawn.
    """

    path: Path
    view: View
    data: Any

    @classmethod
    def of(cls, name: str, words: Sequence[str], root: Path, records: Records) -> Self:
        """The plot of a block with these words: records, and what the view takes besides."""
        view = PLOTS[name]
        chosen = words[0].split(",")
        data = view.data(chosen if view.of_weights else [records[each] for each in chosen], words[1:])
        file = "-".join([name, chosen[0] if len(chosen) == 1 else "all", *words[1:]])
        return cls(root / "docs" / "images" / "results" / f"{file}.png", view, data)

    @property
    def digest(self) -> str:
        """Of the view, its revision and what it draws."""
        content = json.dumps([REVISION, self.view.alt, self.data], sort_keys=True)
        return hashlib.sha256(content.encode()).hexdigest()[:32]

    def markdown(self, page: Path) -> str:
        """The image within a page."""
        return f"![{self.view.alt}]({Path(os.path.relpath(self.path, page.parent)).as_posix()})"

    def is_drawn(self) -> bool:
        """Whether the file shows these data."""
        from PIL import Image  # noqa: PLC0415

        if not self.path.is_file():
            return False
        with Image.open(self.path) as image:
            return image.info.get(FIELD) == self.digest

    def draw(self) -> None:
        """Draw the file anew."""
        from PIL import Image, PngImagePlugin  # noqa: PLC0415

        field = PngImagePlugin.PngInfo()
        field.add_text(FIELD, self.digest)
        file = io.BytesIO()
        with Image.open(io.BytesIO(self.view.draw(self.data))) as image:
            reduced = image.convert("RGB").quantize(256, dither=Image.Dither.NONE)
        palette = reduced.getpalette() or []
        reduced.putpalette([255 if level > 250 else level for level in palette])  # so that white stays white
        reduced.save(file, format="png", pnginfo=field, optimize=True)
        self.path.parent.mkdir(parents=True, exist_ok=True)
        write_bytes(self.path, file.getvalue(), force=True)


def _repair_data(records: Sequence[Mapping[str, Any]], words: Sequence[str]) -> Any:
    from encdl.ciphers.damage import DAMAGES  # noqa: PLC0415

    [record], [row] = records, words
    found = record["metrics"][row]
    keep = ("mean", "low", "high")
    return {
        "title": f"{record['dataset']}, {len(record['seeds'])} training seeds",
        "metrics": {
            row: {
                damage: {repair: {end: entry[end] for end in keep} for repair, entry in found[damage].items()}
                for damage in DAMAGES
            }
        },
    }


def _draw_repair(data: Any) -> bytes:
    from encdl.audit.evaluation.figures import figure_png  # noqa: PLC0415

    return figure_png(data["metrics"], data["title"])


def _draw_attacks(data: Any) -> bytes:
    from encdl.audit.security.plots import attacks  # noqa: PLC0415

    return attacks(data["findings"], data["unit"])


def _draw_robustness(data: Any) -> bytes:
    from encdl.audit.security.plots import robustness  # noqa: PLC0415

    return robustness(data)


def _findings(records: Sequence[Mapping[str, Any]], words: Sequence[str]) -> Any:
    [record], [unit] = records, words
    keep = ("name", "target", "mode", "score", "baseline", "unit", "broken", "interval")
    found = record["metrics"]["attacks"]
    return {"unit": unit, "findings": [{name: each[name] for name in keep} for each in found if each["unit"] == unit]}


def _trust_data(records: Sequence[Mapping[str, Any]], words: Sequence[str]) -> Any:
    [record] = records
    keep = ("model", "numbers", "figure", "milliseconds", "moved")
    rows = [{name: row[name] for name in keep} for row in record["metrics"]["rows"]]
    return {"metric": record["metrics"]["metric"], "rows": rows}


def _draw_trust(data: Any) -> bytes:
    from encdl.audit.trust.plot import drawn  # noqa: PLC0415

    return drawn(data["rows"], data["metric"])


def _functional_data(records: Sequence[Mapping[str, Any]], words: Sequence[str]) -> Any:
    kept = ("numbers", "plaintext", "decoder_psnr_db", "mean_image_psnr_db")
    return {
        record["dataset"].removesuffix(".npz"): {
            "metric": record["metrics"]["settings"][0]["metric"],
            "settings": [
                {name: row[name] for name in kept}
                | {"figure": row["functional"], "noise": row["setting"].get("noise", 0)}
                for row in record["metrics"]["settings"]
            ],
        }
        for record in records
    }


def _draw_functional(data: Any) -> bytes:
    from encdl.audit.functional.plot import drawn  # noqa: PLC0415

    return drawn(data)


def _growth(records: Sequence[Mapping[str, Any]], words: Sequence[str]) -> Any:
    kept = {
        "images of 256x256 in a batch": "bytes_per_s_by_images_of_256px",
        "side in pixels of a batch's images": "bytes_per_s_by_side",
        "key planes": "bytes_per_s_by_planes",
    }
    return {
        axis: {each["device"]: {at: _encrypted(rate) for at, rate in each["metrics"][name].items()} for each in records}
        for axis, name in kept.items()
    }


def _encrypted(rate: float | Mapping[str, float]) -> float:
    return rate if isinstance(rate, float) else rate["encrypt"]


def _draw_growth(data: Mapping[str, Mapping[str, Mapping[str, float]]]) -> bytes:
    from matplotlib.figure import Figure  # noqa: PLC0415

    figure = Figure(figsize=(9, 2.8), layout="constrained")
    panels = figure.subplots(1, len(data), sharey=True)
    for panel, (axis, lines) in zip(panels, data.items(), strict=True):
        for device, rates in lines.items():
            panel.plot([int(at) for at in rates], [rate / 1e9 for rate in rates.values()], "o-", label=device)
        panel.set(xscale="log", yscale="log", xlabel=axis)
        places = sorted({int(at) for rates in lines.values() for at in rates})
        panel.set_xticks(places, [str(at) for at in places], fontsize=7)
        panel.minorticks_off()
        panel.grid(alpha=0.3)
    panels[0].set_ylabel("encrypted, GB/s")
    panels[0].legend(fontsize=7)
    file = io.BytesIO()
    figure.savefig(file, format="png", dpi=100)
    return file.getvalue()


PLOTS = {
    "growth-plot": View("bytes encrypted a second by batch, size and key planes", _growth, _draw_growth),
    "repair-plot": View("PSNR after each damage and repair, with 95 % intervals", _repair_data, _draw_repair),
    "attacks-plot": View("score and baseline of each attack", _findings, _draw_attacks),
    "robustness-plot": View(
        "PSNR after damage by its strength, in each mode",
        lambda records, _: records[0]["metrics"]["robustness"],
        _draw_robustness,
    ),
    "functional-plot": View(
        "what readers by functional keys reach, by the PSNR of the best decoder", _functional_data, _draw_functional
    ),
    "trust-models-plot": View(
        "accuracy of each model of trust by the time of an image; the area is the bytes moved", _trust_data, _draw_trust
    ),
    "cipher-panel": View(
        "slices of a brain: plain, encrypted, under a wrong key, damaged and repaired",
        lambda names, _: of_weights(names[0]),
        draw_cipher,
        of_weights=True,
    ),
    "path-panel": View(
        "slices of a brain, their key planes, mask, ciphertext, the damaged file, and what comes back",
        lambda names, _: of_weights(names[0]),
        draw_path,
        of_weights=True,
    ),
}
"""By the name that blocks give."""
