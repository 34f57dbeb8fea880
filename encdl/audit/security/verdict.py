"""What an audit's figures amount to: checks that are met or not, one line each."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import Any, Final

from encdl.audit.security.statistics import NOISE_PASSES

DIFFERENTIAL_ROWS: Final = ("diffusion", "synthetic_nonce", "fresh_nonce")
"""Rows in which one changed pixel has to change everything."""

NOISE_LIKE_ROWS: Final = ("network", "confusion", "diffusion", "synthetic_nonce", "fresh_nonce")
NOISE_LIKE: Final = {
    "entropy_pass_pct": "entropy",
    "local_entropy_pass_pct": "local entropy",
    "chi2_pass_pct": "χ²",
    "correlation_pass_pct": "correlation of neighbours",
}
SINGLE_CHANGES: Final = {"npcr_pass_pct": "NPCR of single changes", "uaci_pass_pct": "UACI of single changes"}


@dataclass(frozen=True)
class Check:
    """One requirement.

    Attributes:
        what: The requirement, in words.
        figure: What was measured, in words.
        met: Whether it is met.
    """

    what: str
    figure: str
    met: bool


def checks(metrics: Mapping[str, Any]) -> list[Check]:
    """Judge an audit.

    Args:
        metrics: `attacks` (findings, each with `role`, `reference` and `advisory`), `rows` and `keystream`, as the
            record has them.
    """
    return [
        *_attacks(metrics["attacks"]),
        *_differential(metrics["rows"]),
        *_noise_like(metrics["rows"], NOISE_LIKE_ROWS, NOISE_LIKE),
        *_noise_like(metrics["rows"], DIFFERENTIAL_ROWS, SINGLE_CHANGES),
        *_keystream(metrics.get("keystream", {})),
    ]


def passed(found: Sequence[Check]) -> bool:
    """Whether all checks are met."""
    return all(check.met for check in found)


def _attacks(findings: Sequence[Mapping[str, Any]]) -> list[Check]:
    found = []
    for name in dict.fromkeys(finding["name"] for finding in findings):
        own = [finding for finding in findings if finding["name"] == name]
        fallen = [each for each in own if each["reference"] and each.get("always_broken", each["broken"])]
        told = ", ".join(f"{each['target']} {each['mode']}" for each in fallen)
        found.append(Check(f"attack {name} breaks a reference", told or "none", bool(fallen)))
        for finding in own:
            if finding["role"] == "audited" and finding["mode"] == "default" and not finding["advisory"]:
                figure = f"{finding['score']:.3g} {finding['unit']}, without ciphertext {finding['baseline']:.3g}"
                leaks = finding["broken"] or finding["more"].get("leaks", False)
                found.append(Check(f"attack {name} learns nothing in the default mode", figure, not leaks))
    return found


def _differential(rows: Mapping[str, Mapping[str, Any]]) -> list[Check]:
    return [
        Check(
            f"{row}: one changed pixel changes all ({name.partition('_')[0].upper()})",
            f"{rows[row][name]:.1f} % of images pass, mean {rows[row][name.partition('_')[0] + '_pct']:.3f} %",
            rows[row][name] >= 100 * NOISE_PASSES,
        )
        for row in DIFFERENTIAL_ROWS
        if row in rows
        for name in ("npcr_images_pass_pct", "uaci_images_pass_pct")
    ]


def _noise_like(rows: Mapping[str, Mapping[str, Any]], names: Sequence[str], figures: Mapping[str, str]) -> list[Check]:
    """Uniform noise passes 95 %: fewer is noise, as long as the interval of the share reaches that."""
    return [
        Check(
            f"{row}: {words} like that of noise",
            f"{rows[row][name]:.1f} % pass, 99.9 % interval "
            f"{rows[row]['intervals'][name][0]:.1f} to {rows[row]['intervals'][name][1]:.1f}",
            rows[row]["intervals"][name][1] >= 100 * NOISE_PASSES,
        )
        for row in names
        if row in rows
        for name, words in figures.items()
    ]


def _keystream(maps: Mapping[str, Mapping[str, Mapping[str, Any]]]) -> list[Check]:
    found = []
    for name, tests in maps.items():
        failed = [test for test, figures in tests.items() if not figures["passed"]]
        told = f"{len(tests) - len(failed)} of {len(tests)} pass" + (f"; not {', '.join(failed)}" if failed else "")
        again = [test for test, figures in tests.items() if figures["passed"] and "first" in figures]
        told += f"; {', '.join(again)} on other sequences, after failing once" if again else ""
        found.append(Check(f"sequence {name} passes NIST's tests", told, not failed))
    return found
