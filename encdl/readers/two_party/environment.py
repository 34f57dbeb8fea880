"""Environments of libraries that need other versions than EncDL, for processes of their own: SPU, TenSEAL."""

from __future__ import annotations

import os
import subprocess
import sys
from pathlib import Path
from typing import Final

from encdl.utils.errors import UsageError

PACKAGES: Final = {
    "spu": ("spu==0.9.5", "jax==0.4.34", "jaxlib==0.4.34", "numpy==1.26.4"),
    "tenseal": ("tenseal==0.3.18", "numpy"),
}
"""Of each environment, by the module that it is for."""


def folder(name: str = "spu") -> Path:
    """Where an environment is, or would be: the variable ENCDL_SPU or ENCDL_TENSEAL names another folder."""
    return Path(os.environ.get(f"ENCDL_{name.upper()}") or Path.home() / ".cache" / "encdl" / name)


def interpreter(name: str = "spu") -> Path:
    """Its Python.

    Raises:
        UsageError: There is none.
    """
    found = folder(name) / "bin" / "python"
    if not found.is_file():
        command = "encdl two-party setup" + ("" if name == "spu" else f" --engine {name}")
        raise UsageError(f"{folder(name)}: holds no environment of {name}: make it with `{command}`")
    return found


def make(name: str = "spu", python: str = sys.executable) -> Path:
    """Make an environment, of 1 GB for SPU, from the package index that pip is set up for; its folder.

    Args:
        name: A key of `PACKAGES`.
        python: 3.10 or 3.11, for which there are wheels.

    Raises:
        UsageError: It cannot be made; pip has told why.
    """
    target = folder(name)
    steps = (
        [python, "-m", "venv", str(target)],
        [str(target / "bin" / "python"), "-m", "pip", "install", "--quiet", *PACKAGES[name]],
        [str(target / "bin" / "python"), "-I", "-c", f"import {name}"],
    )
    for step in steps:
        try:
            done = subprocess.run(step, check=False).returncode
        except OSError as error:
            raise UsageError(f"{python}: cannot be run ({error.strerror}): give --python 3.11's") from None
        if done:
            raise UsageError(f"{target}: no environment of {name} could be made: see what pip or Python said above")
    return target
