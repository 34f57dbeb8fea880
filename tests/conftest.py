"""Settings of the whole suite."""

import os

os.environ.setdefault("NO_ALBUMENTATIONS_UPDATE", "1")
os.environ.setdefault("MLFLOW_DISABLE_TELEMETRY", "true")
os.environ.setdefault("MPLBACKEND", "Agg")

import torch

# Two pytest workers on two cores: more threads would only wait for one another.
torch.set_num_threads(1)
