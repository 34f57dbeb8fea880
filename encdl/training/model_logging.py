"""`LogReaderModel`: logs a trained reader to its run as an MLflow model, and registers it where that is asked for."""

from __future__ import annotations

import base64
import logging
from pathlib import Path
from tempfile import TemporaryDirectory
from typing import Any

import numpy as np
from lightning.pytorch import Callback, LightningModule, Trainer
from lightning.pytorch.utilities import rank_zero_info, rank_zero_warn

import encdl
from encdl import readers
from encdl.files import container
from encdl.files.settings import Settings
from encdl.keys.key import Key
from encdl.keys.planes import PlaneSpec
from encdl.readers.predictor import Predictor
from encdl.training.tasks.read import ReadTask
from encdl.training.tracking import RunLogger, run_logger
from encdl.utils.errors import EncdlError
from encdl.utils.interrupts import held

NAME = "reader"
"""What the model is called within its run: `runs:/RUN/reader`."""
MODEL_CODE = Path(encdl.__file__).parent / "serving" / "pyfunc.py"
"""What MLflow runs to make the model; it copies the file into each."""


class LogReaderModel(Callback):
    """Logs the best checkpoint of a finished training, without its optimiser, with signature and input example.

    Readers that were trained to be compared with (`Keyless`, `FixedKey`) cannot read files, and are left out.
    """

    def on_fit_end(self, trainer: Trainer, pl_module: LightningModule) -> None:
        """Log it; what goes wrong is a warning, for the training is done."""
        logger = run_logger(trainer)
        best = getattr(trainer.checkpoint_callback, "best_model_path", "")
        if logger is None or not trainer.is_global_zero or not isinstance(pl_module, ReadTask):
            return
        from mlflow.exceptions import MlflowException  # noqa: PLC0415

        if not logger.keep_reader or not best or not Path(best).is_file():
            if logger.register:
                rank_zero_warn(f"Nothing is registered as {logger.register}: the run keeps no model")
            return
        try:
            uri = log_reader_model(logger, Path(best), pl_module.planes)
        except EncdlError as error:
            why = str(error).rpartition(".ckpt: ")[2].partition(": give")[0]  # the checkpoint was a temporary one
            rank_zero_info(f"No model is logged with the run: the reader {why}")
        except MlflowException as error:
            rank_zero_warn(f"The model could not be logged: {' '.join(str(error).split())}")
        else:
            rank_zero_info(f"model: {uri}; `encdl serve --reader {uri}` answers requests with it")


def log_reader_model(logger: RunLogger, checkpoint: Path, planes: PlaneSpec = PlaneSpec()) -> str:  # noqa: B008
    """Log the reader of a checkpoint as a model of the logger's run.

    Args:
        logger: Whose run.
        checkpoint: Of a reader.
        planes: How the example's key planes are made.

    Returns:
        The model's address, `models:/...`: by name and version if it was registered.

    Raises:
        WeightsError: The reader cannot read encrypted files.
    """
    import mlflow  # noqa: PLC0415

    run_id = logger.run_id  # also points MLflow at the logger's store
    logging.getLogger("mlflow").setLevel(logging.ERROR)
    with TemporaryDirectory() as folder:
        slim = Path(folder, "reader.ckpt")
        slim.write_bytes(readers.slim(checkpoint))
        predictor = Predictor.load(slim)
        with held(), mlflow.start_run(run_id=run_id, nested=True):
            logged = mlflow.pyfunc.log_model(
                name=NAME,
                python_model=str(MODEL_CODE),
                artifacts={"reader": str(slim)},
                signature=signature(predictor),
                input_example=example(predictor, planes),
                registered_model_name=logger.register,
                # Named here: MLflow would otherwise load the model in another process to find them.
                pip_requirements=[f"encdl=={encdl.__version__}"],
            )
    if logger.register:
        return f"models:/{logger.register}/{logged.registered_model_version}"
    return str(logged.model_uri)


def signature(predictor: Predictor) -> Any:
    """The columns that the model takes and gives, as MLflow's `ModelSignature`."""
    from mlflow.models import ModelSignature  # noqa: PLC0415
    from mlflow.types import ColSpec, Schema  # noqa: PLC0415

    taken = Schema([ColSpec("string", name) for name in ("container", "grant")])
    if predictor.per_pixel:
        given = [ColSpec("string", "mask")]
    else:
        numbers = [ColSpec("double", f"probability of {name}") for name in predictor.classes]
        given = [ColSpec("string", "predicted"), *numbers]
    return ModelSignature(taken, Schema(given))


def example(predictor: Predictor, planes: PlaneSpec) -> Any:
    """A record that the model can read: encrypted noise, and a grant for it alone.

    The key is drawn for it and forgotten, so the grant that lies in the model opens nothing but this noise.

    Returns:
        A data frame of one row.
    """
    import pandas  # noqa: PLC0415

    key = Key.generate()
    channels = predictor.reader.stem.channels
    shape = predictor.size if channels == 1 else (*predictor.size, channels)
    noise = np.random.default_rng().integers(0, 256, shape, dtype=np.uint8)
    with TemporaryDirectory() as folder:
        file, grant = Path(folder, "example.encdl"), Path(folder, "example.grant")
        file.write_bytes(predictor.codec.encrypt_array(noise, key, Settings(planes)))
        key.grant_file(container.read_header(file).nonce_bytes).save(grant)
        record = {"container": base64.b64encode(file.read_bytes()).decode(), "grant": grant.read_text().strip()}
    return pandas.DataFrame([record])
