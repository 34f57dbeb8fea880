"""What MLflow runs to make the model (its "models from code"): no pickle, so a model's files cannot run code of theirs.

A copy of this file lies in every logged model.
"""

from mlflow.models import set_model

from encdl.serving.model import ReaderModel

set_model(ReaderModel())
