"""The code that MLflow makes the model by (its "models from code"): no pickle, so its files run no code of theirs.

A copy of this file lies in every logged model.
"""

from mlflow.models import set_model

from encdl.serving.model import ReaderModel

set_model(ReaderModel())
