"""A trained reader as an MLflow model: what is logged, and what `mlflow models serve` makes of it."""

from __future__ import annotations

import base64
import json
import os
import re
import socket
import subprocess
import sys
import time
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import Any

import mlflow
import pytest
import requests
import torch
from mlflow import MlflowClient

from encdl.keys.key import Grant, Key
from encdl.readers import KeylessStem
from encdl.readers.predictor import Predictor
from encdl.serving.model import checkpoint_of
from encdl.serving.service import Service
from encdl.training.model_logging import NAME, LogReaderModel, log_reader_model
from encdl.training.tasks.views import Ciphertext
from encdl.training.tracking import RunLogger
from encdl.utils.errors import WeightsError
from tests.leaks.search import contents, leaks
from tests.reader_checkpoint import CLASSES, resnet, save_reader, tiny_reader, unet
from tests.serving.support import Record, noise
from tests.serving.support import record as encrypted
from tests.stores import make_store
from tests.training.tasks.support import trainer
from tests.training.tasks.test_classify import Bars, stem, task

ROOT = Path(__file__).parents[2]


@pytest.fixture(scope="module")
def root(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A folder with a store, a classifier registered as `lesions`, and its checkpoint `classifier.ckpt`."""
    root = tmp_path_factory.mktemp("logged")
    make_store(root)
    with pytest.MonkeyPatch.context() as patch:
        patch.delenv("MLFLOW_TRACKING_URI", raising=False)
        logger = RunLogger(root=str(root), register="lesions")
        checkpoint = save_reader(root / "classifier.ckpt", tiny_reader(resnet))
        content = torch.load(checkpoint, weights_only=True)
        torch.save(content | {"optimizer_states": [torch.zeros(100_000)]}, checkpoint)
        assert log_reader_model(logger, checkpoint) == "models:/lesions/1"
        logger.finalize()
    return root


def opened(root: Path) -> MlflowClient:
    uri = f"sqlite:///{root / 'mlflow.db'}"
    mlflow.set_tracking_uri(uri)
    return MlflowClient(uri)


def test_the_model_has_a_signature_and_an_example_that_works(root: Path, tmp_path: Path) -> None:
    opened(root)
    model = mlflow.pyfunc.load_model("models:/lesions/1")
    assert model.metadata.signature.inputs.input_names() == ["container", "grant"]
    names = ["predicted", *(f"probability of {name}" for name in CLASSES[resnet])]
    assert model.metadata.signature.outputs.input_names() == names
    example = model.metadata.load_input_example()
    [answer] = model.predict(example).to_dict("records")
    service = Service(Predictor.load(root / "classifier.ckpt"))
    assert [answer] == service.answer(example.to_dict("records"))
    mine = encrypted(tmp_path, Key.generate(), noise())
    assert model.predict([mine, mine]).to_dict("records") == service.answer([mine, mine])


def test_the_examples_grant_opens_the_example_alone(root: Path) -> None:
    opened(root)
    example = mlflow.pyfunc.load_model("models:/lesions/1").metadata.load_input_example()
    grant = Grant.parse(example["grant"][0].encode())
    assert (grant.scope, grant.study) == ("file", "")
    assert grant.nonce is not None
    assert grant.nonce.hex().encode() in base64.b64decode(example["container"][0])


def test_the_run_knows_its_model_and_only_the_reader_is_kept(root: Path) -> None:
    client = opened(root)
    version = client.get_model_version("lesions", "1")
    run = client.get_run(version.run_id)
    assert run.info.status == "FINISHED"
    [output] = run.outputs.model_outputs
    assert client.get_logged_model(output.model_id).name == NAME
    kept = checkpoint_of("models:/lesions/1")
    assert "optimizer_states" not in torch.load(kept, weights_only=True)
    assert Predictor.load(checkpoint_of(f"models:/{output.model_id}")).classes == CLASSES[resnet]
    pickles = [file.name for file in kept.parents[1].rglob("*.pkl")]
    assert pickles == []  # nothing that could run code


def test_models_that_are_not_there_or_not_ours(root: Path) -> None:
    opened(root)
    with pytest.raises(WeightsError, match=r"models:/gone/1: cannot be fetched from sqlite:"):
        checkpoint_of("models:/gone/1")


def test_a_reader_without_the_key_is_no_model(root: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.delenv("MLFLOW_TRACKING_URI", raising=False)
    path = save_reader(root / "keyless.ckpt", tiny_reader(resnet, KeylessStem), view="Keyless")
    logger = RunLogger(root=str(root))
    with pytest.raises(WeightsError, match="was trained without the key"):
        log_reader_model(logger, path)
    assert not logger.experiment.get_run(logger.run_id).outputs.model_outputs
    logger.finalize()


def test_a_segmenter_is_a_model_too(root: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.delenv("MLFLOW_TRACKING_URI", raising=False)
    path = save_reader(root / "segmenter.ckpt", tiny_reader(unet))
    logger = RunLogger(root=str(root))
    model = mlflow.pyfunc.load_model(log_reader_model(logger, path))
    assert model.metadata.signature.outputs.input_names() == ["mask"]
    [mask] = model.predict(model.metadata.load_input_example())["mask"]
    assert base64.b64decode(mask).startswith(b"\x89PNG")
    logger.finalize()


def test_training_logs_the_reader(root: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.delenv("MLFLOW_TRACKING_URI", raising=False)
    logger = RunLogger(root=str(root))
    fitting = trainer(tmp_path, 2, logger=logger, callbacks=[LogReaderModel()], enable_checkpointing=True)
    fitting.fit(task(Ciphertext(stem)), Bars())  # type: ignore[call-arg]
    run = MlflowClient(logger.tracking_uri).get_run(logger.run_id)
    assert run.info.status == "FINISHED"
    [output] = run.outputs.model_outputs
    assert Predictor.load(checkpoint_of(f"models:/{output.model_id}")).classes == ("level", "upright")


@contextmanager
def started(command: list[str], environment: dict[str, str], log: Path, path: str) -> Iterator[str]:
    """A server in a process of its own, once it answers; gives the address for requests."""
    with (
        log.open("w") as stream,
        subprocess.Popen(
            command, env=environment, stdout=stream, stderr=subprocess.STDOUT, start_new_session=True
        ) as process,
    ):
        try:
            end = time.monotonic() + 300
            while time.monotonic() < end and process.poll() is None:
                shown = re.search(r"http://127\.0\.0\.1:\d+", log.read_text())
                try:
                    if shown and requests.get(shown.group() + path, timeout=5).ok:
                        break
                except requests.RequestException:
                    pass
                time.sleep(0.3)
            else:
                pytest.fail(log.read_text()[-2000:])
            yield f"{shown.group()}/invocations"
        finally:
            os.killpg(process.pid, 15)


def commands(root: Path) -> dict[str, list[str]]:
    with socket.create_server(("127.0.0.1", 0)) as free:
        port = str(free.getsockname()[1])
    theirs = ["models", "serve", "--model-uri", "models:/lesions/1", "--env-manager", "local", "--port", port]
    return {
        "encdl": [sys.executable, "-m", "encdl", "serve", "--reader", "models:/lesions/1", "--port", "0"],
        "mlflow": [str(Path(sys.executable).with_name("mlflow")), *theirs],
    }


def refused(record: Record, folder: Path) -> dict[str, tuple[Any, int]]:
    """Requests that both servers refuse; and the status that `encdl serve` gives."""
    other = encrypted(folder, Key.generate(), noise(1))
    small = encrypted(folder, Key.generate(), noise(1, (9, 9)))
    return {
        "wrong grant": (record | {"grant": other["grant"]}, 403),
        "cut grant": (record | {"grant": record["grant"][:-2]}, 400),
        "wrong shape": (small, 422),
        "damaged": (record | {"container": record["container"][:-8]}, 422),
    }


@pytest.mark.slow
@pytest.mark.parametrize("name", ["encdl", "mlflow"])
def test_servers_answer_refuse_and_keep_the_key_out_of_everything(root: Path, tmp_path: Path, name: str) -> None:
    """With the grant of a study, whose secret opens more than one file: it must show nowhere."""
    key = Key.generate()
    mine = encrypted(tmp_path, key, noise(), study="S")
    grant = key.grant_study("S")
    grant.save(tmp_path / "s.grant")
    mine["grant"] = (tmp_path / "s.grant").read_text().strip()
    environment = {
        **os.environ,
        "MLFLOW_TRACKING_URI": f"sqlite:///{root / 'mlflow.db'}",
        "PYTHONPATH": str(ROOT),
        "PYTHONUNBUFFERED": "1",
        "TMPDIR": str(tmp_path),
    }
    log = root / f"{name}.log"
    expected = Service(Predictor.load(root / "classifier.ckpt")).answer([mine])
    with started(commands(root)[name], environment, log, "/ping") as address:
        response = requests.post(address, json={"dataframe_records": [mine]}, timeout=60)
        assert response.status_code == 200, response.text
        assert response.json() == {"predictions": expected}
        for what, (bad, status) in refused(mine, tmp_path).items():
            response = requests.post(address, json={"dataframe_records": [bad]}, timeout=60)
            assert response.status_code == (status if name == "encdl" else 400), (what, response.text)
            if name == "encdl":
                assert "\n" not in response.json()["error"]
        response = requests.post(address, b"{no", headers={"Content-Type": "application/json"}, timeout=60)
        assert response.status_code == 400
        if name == "encdl":
            big = requests.post(address, b" " * 17_000_000, headers={"Content-Type": "application/json"}, timeout=60)
            assert big.status_code == 413
    secrets = {"key": key._secret, "grant": grant._secret}
    written = [log.read_bytes(), *(part for file in root.rglob("*") if file.is_file() for part in contents(file))]
    written += [file.read_bytes() for file in tmp_path.rglob("*") if file.is_file() and file.suffix != ".grant"]
    assert log.stat().st_size > 0
    for part in written:
        assert leaks(part, secrets) == []
        assert mine["grant"].rpartition(":")[2].encode() not in part


@pytest.mark.slow
def test_the_load_test_writes_a_record_of_four_clients(root: Path, tmp_path: Path) -> None:
    output = tmp_path / "serve-cpu.json"
    command = [sys.executable, str(ROOT / "experiments/bench_serve.py"), "--reader", str(root / "classifier.ckpt")]
    command += ["--requests", "200", "--seconds", "30", "--output", str(output)]
    environment = {**os.environ, "PYTHONPATH": str(ROOT)}
    result = subprocess.run(command, env=environment, capture_output=True, text=True, timeout=600, check=False)
    assert result.returncode == 0, result.stderr
    metrics = json.loads(output.read_text())["metrics"]
    assert metrics["clients"] == 4
    assert metrics["errors"] == 0
    assert metrics["requests"] >= 4
    assert sum(metrics["histogram_ms"].values()) == metrics["requests"]
    assert metrics["latency_ms"]["median"] <= metrics["latency_ms"]["p99"] <= metrics["latency_ms"]["max"]
