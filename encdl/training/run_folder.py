"""The folder that holds what a run needs to go on after it was stopped.

`last.ckpt` is its last checkpoint. `run-key` is a word that its MLflow run carries as a tag, by which the run is found
again even if it was stopped before the first checkpoint.
"""

from __future__ import annotations

import contextlib
import os
import secrets
from pathlib import Path

from encdl.utils.atomic import write_bytes
from encdl.utils.errors import OutputExistsError, UsageError
from encdl.utils.file_lock import Lock, try_lock

CHECKPOINT, KEY, LOCK = "last.ckpt", "run-key", ".lock"
RESUME_TAG = "resume_key"
"""The tag that holds the key."""
EXIT_PREEMPTED = 75
"""Exit code of a run that was asked to make room and has saved its place: EX_TEMPFAIL of sysexits.h."""


def hold(folder: str | os.PathLike[str]) -> Lock:
    """Make the folder, and keep other trainings out of it until what this gives is closed.

    Raises:
        UsageError: The folder cannot be made, or another training goes on from there.
    """
    try:
        Path(folder).mkdir(parents=True, exist_ok=True)
        lock = try_lock(Path(folder, LOCK))
    except OSError as error:
        raise UsageError(f"{folder}: cannot keep a run's place there: {error.strerror} (--resume)") from error
    if lock is None:
        raise UsageError(f"{folder}: another training keeps its place there: give another folder (--resume)")
    return lock


def run_key(folder: str | os.PathLike[str]) -> str:
    """The key by which the MLflow run of a folder is found again; drawn if there is none yet.

    Raises:
        UsageError: The folder cannot be made.
    """
    file = Path(folder, KEY)
    try:
        file.parent.mkdir(parents=True, exist_ok=True)
        if not file.exists():
            with contextlib.suppress(OutputExistsError):  # another process was faster
                write_bytes(file, f"{secrets.token_hex(16)}\n".encode())
        key = file.read_text().strip()
    except OSError as error:
        raise UsageError(f"{folder}: cannot keep a run's place there: {error.strerror} (--resume)") from error
    if not (key.isalnum() and key.isascii()):
        raise UsageError(f"{file}: holds no key of a run: remove it, or give another folder (--resume)")
    return key
