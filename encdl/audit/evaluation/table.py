"""An evaluation as aligned text: for each damage every repair, and by how much the network wins or loses."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any

from encdl.audit.evaluation.rows import NONE, RESTORED
from encdl.ciphers.damage import DAMAGES

DAMAGE_WORDS = {
    "salt_pepper_1pct": "1 % hit",
    "salt_pepper_5pct": "5 % hit",
    "gaussian_2": "noise, 2 levels",
    "gaussian_8": "noise, 8 levels",
    "quarter_lost": "a quarter lost",
}
REPAIR_WORDS = {
    NONE: "no repair",
    "median": "median",
    "decision_median": "decision median",
    "bm3d": "BM3D",
    "telea": "Telea",
    "biharmonic": "biharmonic",
    RESTORED: "restored",
}
"""Columns in their order."""


def tables(metrics: Mapping[str, Any]) -> str:
    """All rows, one below the other."""
    rows = [name for name in metrics if name != "references"]
    return "\n\n".join(_table(name, metrics[name]) for name in rows)


def _table(name: str, row: Mapping[str, Any]) -> str:
    damages = [damage for damage in DAMAGES if damage in row]
    columns = [column for column in REPAIR_WORDS if any(column in row[damage] for damage in damages)]
    head = [name, *(REPAIR_WORDS[column] for column in columns), "restored - best classical"]
    lines = [head]
    for damage in damages:
        cells = [_cell(row[damage].get(column), column == RESTORED) for column in columns]
        lines.append([DAMAGE_WORDS.get(damage, damage), *cells, _verdict(row["paired"][damage])])
    widths = [max(len(line[place]) for line in lines) for place in range(len(head))]
    text = [
        "  ".join(
            cell.ljust(width) if place in (0, len(head) - 1) else cell.rjust(width)
            for place, (cell, width) in enumerate(zip(line, widths, strict=True))
        ).rstrip()
        for line in lines
    ]
    return "\n".join([*text, *(f"  {label}: {value}" for label, value in _further(row))])


def _cell(entry: Mapping[str, Any] | None, with_interval: bool) -> str:
    if entry is None:
        return "-"
    return f"{entry['mean']:.1f}" + (_interval(entry) if with_interval else "")


def _interval(entry: Mapping[str, Any], sign: str = "") -> str:
    if entry["low"] is None:
        return " (no interval from one)"
    return f" [{entry['low']:{sign}.1f}, {entry['high']:{sign}.1f}]"


def _verdict(paired: Mapping[str, Any]) -> str:
    """The difference to the best classical repair, and whether the network loses."""
    if "best_classical" not in paired:
        return ""
    difference = f"{paired['mean']:+.1f}{_interval(paired, '+')} over {REPAIR_WORDS[paired['best_classical']]}"
    if paired["low"] is None or paired["low"] > 0:
        return difference + ("  <- LOSES" if paired["mean"] < 0 else "")
    return difference + ("  <- LOSES" if paired["high"] < 0 else "  <- level")


def _further(row: Mapping[str, Any]) -> list[tuple[str, str]]:
    """The notes below a table."""
    wrong, mean = row["wrong_key_psnr_db"], row["mean_image_psnr_db"]
    found = [("decrypted exactly", f"{row['exact_fraction']:.1%} of images")]
    if "unhit_unchanged_fraction" in row:
        found.append(("not hit and left as it was, 1 % hit", f"{row['unhit_unchanged_fraction']:.3%} of pixels"))
    found.append(("wrong key", f"{wrong:.1f} dB (the mean image: {mean:.1f} dB)"))
    if "content_activity" in row:
        found.append(
            (
                "content activity",
                f"{row['content_activity']:.3f} (neighbouring images {row['content_activity_neighbour']:.3f}, "
                f"unrelated ones {row['content_activity_unrelated']:.3f}; 0: a pure keystream)",
            )
        )
    for name, value in row["entropy_bits"].items():
        found.append(
            (
                name.replace("_", " "),
                f"entropy {value:.4f} bits, correlation {row['adjacent_correlation'][name]:.4f}, "
                f"NPCR {row['npcr_pct'][name]:.2f} %, UACI {row['uaci_pct'][name]:.2f} %",
            )
        )
    return found
