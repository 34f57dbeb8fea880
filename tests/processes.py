"""`encdl` in processes of its own that start at once: they are forked from one that has the libraries loaded."""

from __future__ import annotations

import multiprocessing
import os
import signal
import socket
import sys
import threading
import time
from collections.abc import Mapping, Sequence
from multiprocessing.process import BaseProcess
from pathlib import Path

CONTEXT = multiprocessing.get_context("forkserver")
PRELOADED = [
    "albumentations",
    "encdl.training.cli",
    "mlflow.store.tracking.sqlalchemy_store",
    "mlflow.system_metrics.system_metrics_monitor",
    "monai.data",
    "monai.transforms",
    "tests.tiny_task",
]
POLLING = threading.Lock()
"""A start polls all processes, and of two threads that poll one of a fork server's, one is told exit code 255."""


def start(
    words: Sequence[str], folder: Path, log: str = "log", environment: Mapping[str, str] | None = None
) -> BaseProcess:
    """Start `encdl WORDS` in a folder; what it prints goes to the file `log` there."""
    root = str(Path(__file__).parents[1])
    if root not in os.environ.get("PYTHONPATH", "").split(os.pathsep):  # the server is a Python of its own
        os.environ["PYTHONPATH"] = os.pathsep.join([root, *filter(None, [os.environ.get("PYTHONPATH")])])
    CONTEXT.set_forkserver_preload(PRELOADED)
    process = CONTEXT.Process(target=_run, args=(list(words), str(folder), log, dict(environment or {})))
    with POLLING:
        process.start()
    return process


def ended(process: BaseProcess, seconds: float = 0) -> bool:
    """Wait for it up to so many seconds, where several threads have processes; whether it has ended."""
    until = time.monotonic() + seconds
    while True:
        with POLLING:
            if process.exitcode is not None:
                return True
        if time.monotonic() >= until:
            return False
        time.sleep(0.01)


def run(words: Sequence[str], folder: Path, seconds: float = 290) -> int | None:
    """Run it to its end; the exit code, None if it takes too long."""
    process = start(words, folder)
    process.join(seconds)
    if process.is_alive():
        process.kill()
        return None
    return process.exitcode


def run_ranks(words: Sequence[str], folder: Path, ranks: int = 2, seconds: float = 290) -> list[int | None]:
    """Run it as the ranks of one machine, as torchrun would; their exit codes."""
    processes = start_ranks(words, folder, ranks)
    for process in processes:
        process.join(seconds)
        process.kill()
    return [process.exitcode for process in processes]


def start_ranks(words: Sequence[str], folder: Path, ranks: int = 2) -> list[BaseProcess]:
    """Start the ranks; see `run_ranks`."""
    with socket.socket() as free:
        free.bind(("127.0.0.1", 0))
        port = free.getsockname()[1]
    return [
        start(
            words,
            folder,
            f"log-{rank}",
            {"LOCAL_RANK": str(rank), "MASTER_ADDR": "127.0.0.1", "MASTER_PORT": str(port)},
        )
        for rank in range(ranks)
    ]


def log(folder: Path) -> str:
    """The ends of what the processes in a folder printed."""
    return "\n".join(file.read_text()[-3000:] for file in folder.glob("log*"))


def _run(words: list[str], folder: str, log: str, environment: dict[str, str]) -> None:
    os.chdir(folder)
    os.environ.pop("MLFLOW_TRACKING_URI", None)
    os.environ.update({"OMP_NUM_THREADS": "1", **environment})
    stream = os.open(log, os.O_WRONLY | os.O_CREAT | os.O_APPEND, 0o644)
    os.dup2(stream, 1)
    os.dup2(stream, 2)
    # Whoever runs the tests behind a shell's `&` ignores Ctrl-C, and so would this process.
    signal.signal(signal.SIGINT, signal.default_int_handler)
    from encdl.cli import main

    sys.exit(main(words))
