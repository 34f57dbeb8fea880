"""The maps of the unit interval against their textbook formulas in floating point."""

from __future__ import annotations

import numpy as np
import pytest

from encdl.keys.chaotic_maps import Chebyshev, Logistic, PiecewiseLinear, SkewTent, UnitMap
from tests.keys.reference import REFERENCE, WORD

MAPS = [Logistic(), Chebyshev(), PiecewiseLinear(), SkewTent()]
EDGES = [0, 1, 2**62, 2**63 - 1, 2**63, 2**63 + 1, 2**64 - 2, 2**64 - 1]
PARAMETERS = [0, 2**33, 2**63, 2**64 - 1]


def run(unit_map: UnitMap, u: np.ndarray, parameter: int) -> np.ndarray:
    parameters = np.full((unit_map.parameters, 1, u.size), parameter, dtype=np.uint64)
    values, out = u[None].copy(), np.empty((1, u.size), dtype=np.uint64)
    unit_map.prepare(parameters, np.empty_like(values), np.empty_like(values))(values, out)
    assert (values[0] == u).all(), "the argument must be left as it is"
    return out[0]


def points() -> np.ndarray:
    random = np.random.default_rng(5).integers(0, WORD, 4000, dtype=np.uint64)
    return np.concatenate([np.array(EDGES, dtype=np.uint64), random])


@pytest.mark.parametrize("parameter", PARAMETERS)
@pytest.mark.parametrize("unit_map", MAPS, ids=lambda m: m.name)
def test_integers_match_the_reference(unit_map: UnitMap, parameter: int) -> None:
    u = points()
    n = 2**29 + parameter // 2**34
    u = np.concatenate([u, np.array([n << 33, (n << 33) - 1, n << 32, (n << 32) - 1], dtype=np.uint64)])
    expected = [REFERENCE[unit_map.name](value, parameter) for value in u.tolist()]
    assert run(unit_map, u, parameter).tolist() == expected


def test_logistic_formula() -> None:
    u = points()[len(EDGES) :]
    x = (u + np.uint64(2**63)) / 2.0**64
    np.testing.assert_allclose(run(Logistic(), u, 0) / 2.0**64, 4 * x * (1 - x), atol=1e-9)


def test_chebyshev_formula() -> None:
    u = points()[len(EDGES) :]
    x = u.view(np.int64) / 2.0**63
    y = run(Chebyshev(), u, 0).view(np.int64) / 2.0**63
    np.testing.assert_allclose(y, np.cos(4 * np.arccos(x)), atol=1e-9)


@pytest.mark.parametrize("parameter", PARAMETERS)
def test_piecewise_formulas(parameter: int) -> None:
    u = points()[len(EDGES) :]
    x, q = u / 2.0**64, 0.25 + parameter / 2.0**65
    tent = np.where(x < q, x / q, (1 - x) / (1 - q))
    np.testing.assert_allclose(run(SkewTent(), u, parameter) / 2.0**64, tent, atol=2e-8)
    p, folded = q / 2, np.minimum(x, 1 - x)
    pwlcm = np.where(folded < p, folded / p, (folded - p) / (0.5 - p))
    np.testing.assert_allclose(run(PiecewiseLinear(), u, parameter) / 2.0**64, pwlcm, atol=2e-8)
