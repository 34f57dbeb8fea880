"""The environment of SPU: it needs an older numpy than EncDL has, and so is kept apart, for its own processes alone."""

from __future__ import annotations

import os
import subprocess
import sys
from pathlib import Path
from typing import Final

from encdl.utils.errors import UsageError

VARIABLE: Final = "ENCDL_SPU"
"""Of the environment: the folder, if it is another one."""
PACKAGES: Final = ("spu==0.9.5", "jax==0.4.34", "jaxlib==0.4.34", "numpy==1.26.4")


def folder() -> Path:
    """Where the environment is, or would be."""
    return Path(os.environ.get(VARIABLE) or Path.home() / ".cache" / "encdl" / "spu")


def interpreter() -> Path:
    """Its Python.

    Raises:
        UsageError: There is none.
    """
    found = folder() / "bin" / "python"
    if not found.is_file():
        raise UsageError(f"{folder()}: holds no environment of SPU: make it with `encdl two-party setup`")
    return found


def make(python: str = sys.executable) -> Path:
    """Make the environment, about 1 GB, from the package index that pip is set up for; its folder.

    Args:
        python: 3.10 or 3.11, for which SPU 0.9.5 has wheels.

    Raises:
        UsageError: It cannot be made; pip has told why.
    """
    target = folder()
    steps = (
        [python, "-m", "venv", str(target)],
        [str(target / "bin" / "python"), "-m", "pip", "install", "--quiet", *PACKAGES],
        [str(target / "bin" / "python"), "-I", "-c", "import spu"],
    )
    for step in steps:
        try:
            done = subprocess.run(step, check=False).returncode
        except OSError as error:
            raise UsageError(f"{python}: cannot be run ({error.strerror}): give --python 3.11's") from None
        if done:
            raise UsageError(f"{target}: no environment of SPU could be made: see what pip or Python said above")
    return target
