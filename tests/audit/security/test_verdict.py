"""One failed check fails an audit."""

from __future__ import annotations

from typing import Any

import pytest

from encdl.audit.security.record import table
from encdl.audit.security.verdict import Check, checks, passed


def finding(**changed: Any) -> dict[str, Any]:
    return {
        "name": "tile", "target": "agile", "mode": "default", "score": 6.0, "baseline": 11.0, "unit": "dB",
        "broken": False, "role": "audited", "reference": False, "advisory": False, "more": {"leaks": False},
    } | changed  # fmt: skip


def reference(**changed: Any) -> dict[str, Any]:
    return finding(target="fixed_xor", role="reference", reference=True, broken=True) | changed


def row(**changed: float) -> dict[str, Any]:
    names = (
        "entropy_pass_pct", "local_entropy_pass_pct", "chi2_pass_pct", "correlation_pass_pct", "npcr_pass_pct",
        "uaci_pass_pct",
    )  # fmt: skip
    figures: dict[str, Any] = dict.fromkeys((*names, "npcr_images_pass_pct", "uaci_images_pass_pct"), 96.0)
    figures |= {"npcr_pct": 99.61, "uaci_pct": 33.46} | changed
    return figures | {"intervals": {name: [figures[name] - 5, figures[name] + 3] for name in names}}


ROWS = ("network", "confusion", "diffusion", "synthetic_nonce", "fresh_nonce")


def metrics(attacks: list[dict[str, Any]] | None = None, **changed: Any) -> dict[str, Any]:
    return {
        "attacks": attacks or [finding(), reference()],
        "rows": dict.fromkeys(ROWS, row()) | changed.pop("rows", {}),
        "keystream": {"logistic": {"runs": {"passed": True}}},
    } | changed


def unmet(content: dict[str, Any]) -> list[str]:
    found = checks(content)
    failed = [check.what for check in found if not check.met]
    assert passed(found) is (not failed)
    return failed


def test_all_is_well() -> None:
    assert unmet(metrics()) == []


def test_a_broken_default_mode() -> None:
    assert unmet(metrics([finding(broken=True), reference()])) == ["attack tile learns nothing in the default mode"]


def test_a_leak_is_as_bad() -> None:
    assert len(unmet(metrics([finding(more={"leaks": True}), reference()]))) == 1


@pytest.mark.parametrize("changed", [{"mode": "periodic"}, {"advisory": True}, {"role": "beside"}])
def test_what_the_verdict_does_not_hang_on(changed: dict[str, Any]) -> None:
    assert unmet(metrics([finding(), finding(broken=True, **changed), reference()])) == []


def test_an_attack_that_breaks_nothing_proves_nothing() -> None:
    for attacks in ([finding()], [finding(), reference(broken=False)]):
        assert unmet(metrics(attacks)) == ["attack tile breaks a reference"]


def test_an_audited_scheme_may_be_the_reference() -> None:
    """It falls, so the attack works, and the scheme fails."""
    weak = finding(target="fixed_xor", broken=True, reference=True)
    assert unmet(metrics([weak])) == ["attack tile learns nothing in the default mode"]


@pytest.mark.parametrize("name", ["entropy", "local_entropy", "chi2", "correlation"])
@pytest.mark.parametrize("where", ROWS)
def test_statistics_unlike_noise(where: str, name: str) -> None:
    """Fewer passes than noise has, beyond chance: the interval of the share stays below 95 %."""
    assert unmet(metrics(rows={where: row(**{f"{name}_pass_pct": 92.5})})) == []
    failed = unmet(metrics(rows={where: row(**{f"{name}_pass_pct": 91.5})}))
    assert len(failed) == 1
    assert failed[0].startswith(f"{where}: ")


@pytest.mark.parametrize("figure", ["npcr", "uaci"])
@pytest.mark.parametrize("where", ["diffusion", "synthetic_nonce", "fresh_nonce"])
def test_a_changed_pixel_has_to_change_all(where: str, figure: str) -> None:
    assert len(unmet(metrics(rows={where: row(**{f"{figure}_images_pass_pct": 94.9})}))) == 1
    assert len(unmet(metrics(rows={where: row(**{f"{figure}_pass_pct": 80.0})}))) == 1


@pytest.mark.parametrize("where", ["network", "confusion"])
def test_under_a_forced_nonce_the_network_alone_need_not(where: str) -> None:
    assert unmet(metrics(rows={where: row(npcr_images_pass_pct=0.0, npcr_pass_pct=0.0)})) == []


def test_a_sequence_that_fails_a_test() -> None:
    tests = {"runs": {"passed": True}, "spectral": {"passed": False}}
    found = checks(metrics(keystream={"tent": tests}))
    failed = [check for check in found if not check.met]
    assert failed == [Check("sequence tent passes NIST's tests", "1 of 2 pass; not spectral", False)]


def test_of_a_reference_fewer_rows_are_judged() -> None:
    content = metrics() | {"rows": {"network": row()}, "keystream": {}}
    assert unmet(content) == []
    assert len(checks(content)) == 2 + 4


def test_the_table_says_what_is_broken_as_it_must_be() -> None:
    found = [
        finding(),
        finding(more={"leaks": True}),
        finding(broken=True),
        finding(broken=True, advisory=True),
        reference(),
        reference(advisory=True, broken=False),
    ]
    lines = table({"attacks": found}, [Check("tile", "6 dB", False)]).splitlines()
    assert [line.rpartition("  ")[2] for line in lines[1:7]] == [
        "not broken",
        "leaks",
        "broken",
        "broken (reported only)",
        "broken (reference)",
        "not broken (reference)",
    ]
    assert lines[7:] == ["not met: tile: 6 dB", "0 of 1 checks are met"]
