"""MLflow's pages in a real browser: two finished runs are compared, and what a user looks for is there.

The pages are kept as images where the environment variable ENCDL_SCREENSHOTS names a folder; docs/images has some.
"""

from __future__ import annotations

import io
import json
import os
import subprocess
import sys
import time
from collections.abc import Iterator
from pathlib import Path
from typing import Any
from urllib.parse import quote

import pytest
from mlflow import MlflowClient
from PIL import Image
from selenium.webdriver.common.by import By
from selenium.webdriver.common.keys import Keys
from selenium.webdriver.support import expected_conditions as conditions
from selenium.webdriver.support.ui import WebDriverWait

from tests.training.tracking.browser import PATIENCE_S, ROOT, chromium, mlflow_ui, needs_browser, until, until_text

pytestmark = [pytest.mark.slow, needs_browser, pytest.mark.timeout(1500)]

RATES = ("4.0e-3", "4.0e-4")
QUICK = [
    "--trainer.max_steps", "24", "--trainer.val_check_interval", "8", "--trainer.limit_val_batches", "1",
    "--trainer.accelerator", "cpu", "--trainer.log_every_n_steps", "2", "--trainer.enable_progress_bar", "false",
    "--data.eval_batch_size", "2", "--data.batch_size", "8", "--data.crop", "48",
]  # fmt: skip
CLOSED = {
    "mlflow.workflowType_v1": '"machine_learning"',
    "mlflow.assistant.fab.autoOpenedOnFirstLoad_v1": "true",
    "mlflow.assistant.panelOpen_v1": "false",
}
"""Settings of MLflow's page: the pages for training models, and no chat beside them."""
LARGEST_BYTES = 150_000
"""Images over this are kept with fewer colours."""


@pytest.fixture(scope="module")
def runs(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A folder with two finished runs, of two learning rates."""
    folder = tmp_path_factory.mktemp("browser")
    environment = {name: value for name, value in os.environ.items() if name != "MLFLOW_TRACKING_URI"}
    environment["PYTHONPATH"] = str(ROOT)
    for rate in RATES:
        command = [sys.executable, "-m", "encdl", "fit", "--config", str(ROOT / "experiments/encryptor.yaml"), *QUICK]
        command += ["--model.init_args.learning_rate", rate]
        subprocess.run(command, cwd=folder, env=environment, check=True, capture_output=True, timeout=900)
    return folder / "runs"


@pytest.fixture(scope="module")
def found(runs: Path) -> list[Any]:
    """The two runs, the newest first."""
    client = MlflowClient(f"sqlite:///{runs / 'mlflow.db'}")
    experiment = client.get_experiment_by_name("encdl")
    assert experiment is not None
    return list(client.search_runs([experiment.experiment_id], "attributes.status = 'FINISHED'"))


@pytest.fixture(scope="module")
def browser(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Any]:
    with chromium(tmp_path_factory.mktemp("profile")) as driver:
        yield driver


@pytest.fixture(scope="module")
def address(runs: Path, browser: Any) -> Iterator[str]:
    with mlflow_ui(runs) as address:
        browser.get(address)
        for name, value in CLOSED.items():
            browser.execute_script("localStorage.setItem(arguments[0], arguments[1])", name, value)
        yield f"{address}/#"


def shot(browser: Any, name: str) -> None:
    """Keep the page as a small image, where that is asked for."""
    folder = os.environ.get("ENCDL_SCREENSHOTS")
    if folder:
        image = Image.open(io.BytesIO(browser.get_screenshot_as_png())).convert("RGB")
        image = image.resize((1080, round(image.height * 1080 / image.width)), Image.Resampling.LANCZOS)
        file = Path(folder, f"{name}.png")
        image.save(file, optimize=True)
        if file.stat().st_size > LARGEST_BYTES:
            image.quantize(255).save(file, optimize=True)


def element(browser: Any, path: str) -> Any:
    """What an XPath names, once it can be clicked."""
    return WebDriverWait(browser, PATIENCE_S).until(conditions.element_to_be_clickable((By.XPATH, path)))


def test_the_list_shows_both_runs(browser: Any, address: str, found: list[Any]) -> None:
    assert len(found) == 2
    browser.get(f"{address}/experiments/{found[0].info.experiment_id}/runs")
    browser.refresh()
    text = until_text(browser, "Encrypt EmbeddedMRI", "2 matching runs")
    assert text.count("Encrypt EmbeddedMRI") >= 2


def test_two_runs_are_compared(browser: Any, address: str, found: list[Any]) -> None:
    ids = [run.info.run_id for run in found]
    query = f"runs={quote(json.dumps(ids))}&experiments={quote(json.dumps([found[0].info.experiment_id]))}"
    browser.get(f"{address}/compare-runs?{query}")
    text = until_text(browser, "Comparing 2 Runs", "Parallel Coordinates Plot", "train/loss", "val/entropy_bits", *ids)
    axes = "return document.querySelectorAll('.parcoords .axis, .parcoords .y-axis').length"
    assert until(browser, axes, "the axes of the parallel coordinates") >= 2
    assert "model.init_args.learning_rate" in text
    shot(browser, "mlflow-compare")
    # The table makes its lines as they come into view.
    for name in ("val/exact_fraction", "val/restored_psnr_db/salt_pepper_1pct"):
        until(
            browser,
            f"const e = [...document.querySelectorAll('*')].filter(e => e.innerText == '{name}').at(-1);"
            "if (e) e.scrollIntoView({block: 'center'}); return Boolean(e)",
            name,
        )
    element(browser, "//*[@role='tab'][text()='Scatter Plot']").click()
    points = "const p = document.querySelector('.js-plotly-plot'); return p && p.data ? p.data[0].x.length : 0"
    assert until(browser, points, "the scatter plot") == 2


def test_curves_and_panels_side_by_side(browser: Any, address: str, found: list[Any]) -> None:
    browser.get(f"{address}/experiments/{found[0].info.experiment_id}/runs?compareRunsMode=CHART")
    until_text(browser, "train/loss")
    curves = "return document.querySelectorAll('.scatterlayer .trace').length"
    assert until(browser, curves, "the curves of train/loss") >= 2
    shot(browser, "mlflow-curves")
    element(browser, "//button[normalize-space()='Add chart']").click()
    element(browser, "//*[@role='menuitem'][normalize-space()='Image grid']").click()
    element(browser, "//*[@role='dialog']//button[@role='combobox'][contains(., 'Images')]").click()
    element(browser, "//*[@role='option'][normalize-space()='panel']").click()
    element(browser, "//*[@role='dialog']//*[@role='switch']").click()  # without the parameters of each run
    step = element(browser, "(//*[@role='dialog']//input[not(@type='checkbox')])[last()]")
    step.send_keys(Keys.CONTROL, "a")
    step.send_keys("24", Keys.ENTER)
    element(browser, "//*[@role='dialog']//button[normalize-space()='Add chart']").click()
    images = (
        "const found = [...document.querySelectorAll('img')].filter(e => e.naturalWidth > 200);"
        "if (found.length) found[0].scrollIntoView({block: 'center'}); return found.length > 1"
    )
    assert until(browser, images, "the panels of both runs")
    element(browser, "(//*[text()='panel']/ancestor::*[.//button][1]//button)[1]").click()  # as large as the window
    time.sleep(5)
    shot(browser, "mlflow-panels")


def test_artifacts_of_a_run(browser: Any, address: str, found: list[Any]) -> None:
    info = found[0].info
    browser.get(f"{address}/experiments/{info.experiment_id}/runs/{info.run_id}/artifacts/panels/step-00000024.png")
    until_text(browser, "config.yaml", "step-00000024.png")
    drawn = "return [...document.querySelectorAll('img')].some(e => e.naturalWidth > 600) "
    drawn += "|| document.querySelectorAll('.image-outer-container, .js-plotly-plot image').length > 0"
    assert until(browser, drawn, "the panel")
    shot(browser, "mlflow-artifacts")


def test_tags_and_data_sets_of_a_run(browser: Any, address: str, found: list[Any]) -> None:
    info = found[0].info
    browser.get(f"{address}/experiments/{info.experiment_id}/runs/{info.run_id}")
    text = until_text(browser, info.run_id, "EmbeddedMRI train", "Finished")
    assert "config_hash" in text


def test_the_report_shows_the_same(browser: Any, runs: Path, found: list[Any], tmp_path: Path) -> None:
    output = tmp_path / "report.html"
    command = [sys.executable, "-m", "encdl", "report", *(run.info.run_id for run in reversed(found))]
    command += ["--root", str(runs), "--output", str(output)]
    environment = {name: value for name, value in os.environ.items() if name != "MLFLOW_TRACKING_URI"}
    subprocess.run(command, env=environment | {"PYTHONPATH": str(ROOT)}, check=True, capture_output=True, timeout=600)
    browser.get(output.as_uri())
    text = until_text(browser, "Report of 2 runs", "val/exact_fraction", "model.init_args.learning_rate")
    assert "EmbeddedMRI train" in text
    broken = "return [...document.querySelectorAll('img')].filter(e => !e.complete || e.naturalWidth < 200).length"
    assert browser.execute_script(broken) == 0
    assert browser.execute_script("return document.querySelectorAll('img.panel').length") == 2
    wide = "return document.documentElement.scrollWidth <= document.documentElement.clientWidth"
    assert browser.execute_script(wide)
    shot(browser, "report")
    browser.execute_script("document.querySelector('.grid').scrollIntoView()")
    shot(browser, "report-curves")
    browser.execute_script("document.querySelector('img.panel').scrollIntoView()")
    shot(browser, "report-panels")
