"""Codecs for the tests: a stub whose ciphertexts show its key planes, and a small network."""

from __future__ import annotations

import pytest
import torch

from encdl import ciphers
from encdl.files.codec import Codec
from tests.files.codec.support import WEIGHTS
from tests.stub_cipher import StubCipher


@pytest.fixture(autouse=True, scope="module")
def one_thread() -> None:
    """Threads that wait for each other on a busy machine make tiny images forty times slower."""
    torch.set_num_threads(1)


@pytest.fixture(scope="module")
def codec() -> Codec:
    return Codec(StubCipher(), WEIGHTS)


@pytest.fixture(scope="module")
def agile() -> Codec:
    torch.manual_seed(0)
    return Codec(ciphers.create("agile", {}).eval(), WEIGHTS)
