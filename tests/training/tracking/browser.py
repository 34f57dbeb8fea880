"""A real browser without a display, and MLflow's server as `make mlflow-ui` starts it."""

from __future__ import annotations

import os
import shutil
import socket
import subprocess
import sys
import time
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import Any

import pytest
import requests

ROOT = Path(__file__).parents[3]
CHROMIUM, DRIVER = "/usr/bin/chromium", "/usr/bin/chromedriver"
SIZE = (1440, 1000)
PATIENCE_S = 180

needs_browser = pytest.mark.skipif(
    not (Path(CHROMIUM).exists() and Path(DRIVER).exists() and shutil.which("make")),
    reason="chromium, its driver or make is not installed here: apt install chromium chromium-driver make",
)


@contextmanager
def chromium(profile: Path) -> Iterator[Any]:
    """A browser that can reach this machine alone."""
    from selenium import webdriver
    from selenium.webdriver.chrome.service import Service

    options = webdriver.ChromeOptions()
    options.binary_location = CHROMIUM
    for word in (
        "headless", "no-sandbox", "disable-gpu", "disable-quic", "no-first-run", "disable-background-networking",
        "disable-component-update", "disable-sync", "disable-dev-shm-usage", "hide-scrollbars",
        f"user-data-dir={profile}", f"window-size={SIZE[0]},{SIZE[1]}",
        "host-resolver-rules=MAP * ~NOTFOUND, EXCLUDE 127.0.0.1",
    ):  # fmt: skip
        options.add_argument(f"--{word}")
    driver = webdriver.Chrome(options=options, service=Service(DRIVER))
    driver.set_script_timeout(PATIENCE_S)
    try:
        yield driver
    finally:
        driver.quit()


@contextmanager
def mlflow_ui(runs: Path) -> Iterator[str]:
    """`make mlflow-ui` over a folder of runs; gives its address."""
    with socket.create_server(("127.0.0.1", 0)) as free:
        port = free.getsockname()[1]
    command = ["make", "--no-print-directory", "mlflow-ui", f"RUNS={runs}", f"PORT={port}"]
    command += [f"VENV={sys.prefix}", "-o", f"{sys.prefix}/.installed"]
    dropped = ("MAKE", "MFLAGS", "MLFLOW_TRACKING_URI")
    environment = {name: value for name, value in os.environ.items() if not name.startswith(dropped)}
    log = runs.parent / "server.log"
    with (
        log.open("w") as stream,
        subprocess.Popen(
            command, cwd=ROOT, env=environment, stdout=stream, stderr=subprocess.STDOUT, start_new_session=True
        ) as process,
    ):
        try:
            address = f"http://127.0.0.1:{port}"
            _wait_for(address, process, log)
            yield address
        finally:
            os.killpg(process.pid, 15)


def _wait_for(address: str, process: subprocess.Popen[bytes], log: Path) -> None:
    end = time.monotonic() + PATIENCE_S
    while time.monotonic() < end and process.poll() is None:
        try:
            if requests.get(f"{address}/health", timeout=5).ok:
                return
        except requests.RequestException:
            time.sleep(0.3)
    pytest.fail(f"the server did not start: {log.read_text()[-1000:]}")


def until(driver: Any, script: str, what: str) -> Any:
    """What a script gives as soon as it gives something."""
    end = time.monotonic() + PATIENCE_S
    while time.monotonic() < end:
        found = driver.execute_script(script)
        if found:
            return found
        time.sleep(0.3)
    text = driver.execute_script("return document.body.innerText")
    pytest.fail(f"the page never showed {what}; it says: {text[:2000]}")


def until_text(driver: Any, *texts: str) -> str:
    """The page's text once all these are in it."""
    wanted = "[" + ",".join(f"{text!r}" for text in texts) + "]"
    script = f"const t = document.body.innerText; return {wanted}.every(each => t.includes(each)) ? t : ''"
    return str(until(driver, script, ", ".join(texts)))
