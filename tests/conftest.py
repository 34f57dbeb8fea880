"""Settings of the whole suite."""

import os
from collections.abc import Iterator

import pytest

os.environ.setdefault("NO_ALBUMENTATIONS_UPDATE", "1")
os.environ.setdefault("MLFLOW_DISABLE_TELEMETRY", "true")
os.environ.setdefault("MPLBACKEND", "Agg")

import torch

# Two pytest workers on two cores: more threads would only wait for one another.
torch.set_num_threads(1)


@pytest.fixture(autouse=True)
def as_it_was() -> Iterator[None]:
    """No test leaves gradients off to the next one of its worker, whichever that is."""
    yield
    left_on = torch.is_grad_enabled()
    torch.set_grad_enabled(True)
    assert left_on, "this test, or what it called, switched gradients off for the whole process"
