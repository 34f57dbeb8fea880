from __future__ import annotations

import json

import numpy as np
import pytest

from encdl.files.levels import DEEP, DEFAULT, Levels, ModalityLevels, Stored
from encdl.utils.errors import UsageError

CT = Stored.of("uint16", slope=2.0, intercept=-1024.0, modality="CT")


def test_bytes_of_full_range_stay_as_they_are() -> None:
    image = np.arange(256, dtype=np.uint8)
    assert DEFAULT.choose(Stored.of(np.uint8)) == Levels()
    np.testing.assert_array_equal(Levels().to_bytes(image), image, strict=True)
    np.testing.assert_array_equal(Levels().to_bytes(image, Stored.of(np.uint8, inverted=True)), 255 - image)


@pytest.mark.parametrize(
    ("levels", "low", "high"),
    [
        (Levels(window=(40, 80)), 0, 80),
        (Levels(window="brain"), 0, 80),
        (Levels(), -1024, 2 * 65535 - 1024),
        (Levels(rescale=False), 0, 65535),
        (Levels(percentiles=(0, 100)), -1000, 1000),
        (Levels(zscore=2), -2000, 2000),
    ],
)
def test_bounds_are_of_real_values(levels: Levels, low: float, high: float) -> None:
    stored = np.array([12, 1012], np.uint16)  # -1000 and 1000
    assert levels.bounds(CT.real(stored), CT) == pytest.approx((low, high))
    kept = json.loads(json.dumps(levels.to_dict()))
    assert Levels(**kept) == levels
    expected = np.clip(((CT.real(stored) if levels.rescale else stored) - low) / (high - low), 0, 1)
    np.testing.assert_allclose(levels.unit(stored, CT), expected, atol=1e-6)


def test_levels_hang_on_the_modality() -> None:
    own = ModalityLevels.from_dict({"CT": {"window": "bone"}, "": Levels(zscore=3)})
    assert own.choose(CT) == Levels(window=(400, 1800))
    assert own.choose(Stored.of(np.int16, modality="MR")) == Levels(zscore=3)
    assert DEFAULT.choose(CT) == DEEP["CT"]
    assert ModalityLevels.from_dict(json.loads(json.dumps(own.to_dict()))) == own
    flat = np.full((2, 2), 7, np.int16)
    assert not Levels(percentiles=(0, 100)).unit(flat).any()


@pytest.mark.parametrize(
    "wrong",
    [{"window": "knee"}, {"window": (40, 0)}, {"percentiles": (9, 1)}, {"zscore": -1}, {"window": (1, 2), "zscore": 1}],
)
def test_rules_out_of_range_are_refused(wrong: dict[str, object]) -> None:
    with pytest.raises(UsageError):
        ModalityLevels.from_dict({"CT": wrong})
