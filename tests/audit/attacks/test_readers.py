"""Attacks on readers where the victim errs: a nonce is used twice, training is overdone."""

from __future__ import annotations

import pytest

from encdl.audit.attacks.known_pair import openers
from encdl.audit.attacks.membership import MembershipInference
from encdl.audit.attacks.readers import ReaderFeatures, ReaderWithoutKey
from encdl.audit.attacks.targets import FixedXor, cipher_target
from tests.audit.attacks.support import agile, cipher, scene


@pytest.mark.parametrize("name", ["agile", "keystream", "coupled"])
def test_one_known_pair_opens_all_images_of_a_reused_nonce(name: str) -> None:
    target, few = cipher_target(cipher(name), "reused_nonce"), scene(16)
    known, ciphertexts = few.train[:1], target.encrypt(few.test, 10**6)
    opened = openers(target, known, target.encrypt(known))[f"key planes of {name}"](ciphertexts)
    assert (opened == few.test).all()


@pytest.mark.parametrize("name", ["agile", "keystream", "coupled"])
def test_one_known_pair_serves_a_reader_under_a_reused_nonce(name: str) -> None:
    finding = ReaderWithoutKey().run(cipher_target(cipher(name), "reused_nonce"), scene(16))
    assert finding.broken
    assert "of a known pair" in finding.budget
    assert finding.score == finding.more["accuracy_with_the_key"]
    low, high = finding.more["accuracy_with_the_key_interval"]
    assert low < finding.score < high or finding.score == high == 1


def test_a_fresh_nonce_serves_nobody() -> None:
    finding = ReaderWithoutKey().run(agile("synthetic_nonce"), scene(16))
    assert not finding.broken
    assert finding.more["accuracy_with_the_key"] > finding.score


def test_membership_has_an_interval_that_is_none_of_zero_width() -> None:
    finding = MembershipInference().run(FixedXor(), scene(16))
    assert finding.interval is not None
    low, high = finding.interval
    assert 0.5 < low < finding.score <= high <= 1
    assert high - low > 0.01
    low, high = finding.more["plaintext_auroc_interval"]
    assert low < finding.more["plaintext_auroc"] <= high


def test_a_probe_of_features_says_how_sure_it_is() -> None:
    finding = ReaderFeatures().run(agile(), scene(16))
    assert finding.interval is not None
    assert finding.interval[0] < finding.score < finding.interval[1] < finding.more["psnr_db_with_the_key"]
    assert finding.more["advantage_interval"][1] < 0
