"""A trained reader as an MLflow model: what `mlflow models serve` and `mlflow.pyfunc.load_model` run."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import mlflow
import pandas
import torch
from mlflow.pyfunc import PythonModel

from encdl.readers.predictor import Predictor
from encdl.serving.service import Service
from encdl.utils.errors import WeightsError

ARTIFACT = "reader"
FILE = "reader.ckpt"
"""Name of the checkpoint within a logged model."""


class ReaderModel(PythonModel):  # type: ignore[misc]  # MLflow has no types here
    """Reads records of a container and a grant each; see `encdl.serving.service`."""

    def load_context(self, context: Any) -> None:
        """Load the checkpoint that was logged with the model."""
        device = "cuda" if torch.cuda.is_available() else "cpu"
        self.service = Service(Predictor.load(context.artifacts[ARTIFACT], device=device))

    def predict(self, context: Any, model_input: pandas.DataFrame, params: Any = None) -> pandas.DataFrame:
        """Answer each row.

        Args:
            context: MLflow's.
            model_input: The columns `container` and `grant`.
            params: None are known.

        Raises:
            RefusedError: A row cannot be read; the error says why in one line.
        """
        return pandas.DataFrame(self.service.answer(model_input.to_dict("records")))


def checkpoint_of(model_uri: str) -> Path:
    """The checkpoint within a logged model, fetched if it is elsewhere.

    Args:
        model_uri: As MLflow writes it: `models:/NAME/VERSION`, `models:/MODEL_ID` or `runs:/RUN/reader`.

    Raises:
        WeightsError: There is no such model, or it is not a reader of this package.
    """
    try:
        folder = Path(mlflow.artifacts.download_artifacts(model_uri))
    except (mlflow.exceptions.MlflowException, OSError) as error:
        said = " ".join(str(error).split())
        raise WeightsError(f"{model_uri}: cannot be fetched from {mlflow.get_tracking_uri()}: {said}") from None
    found = sorted(folder.rglob(FILE))
    if not found:
        raise WeightsError(f"{model_uri}: is no reader that EncDL logged: it holds no {FILE}")
    return found[0]
