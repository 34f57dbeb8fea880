"""Late imports of the large libraries, so that a missing one is reported only by the feature that uses it."""

from __future__ import annotations

import importlib
import sys
from collections.abc import Iterator
from contextlib import contextmanager
from typing import Any

from encdl.utils.errors import UsageError


def need(module: str, purpose: str, otherwise: str = "") -> Any:
    """Import and return `module`.

    Args:
        module: Dotted name, for example `monai.transforms`.
        purpose: What it is needed for, the subject of the error's sentence ("reading data sets").
        otherwise: How to do without ("set trainer.logger to false"), if there is a way.

    Raises:
        UsageError: The library (or one that it imports) is not installed.
    """
    try:
        return importlib.import_module(module)
    except ModuleNotFoundError as error:
        package = (error.name or module).partition(".")[0]
        advice = f"pip install {package}" + (f", or {otherwise}" if otherwise else "")
        raise UsageError(f"{purpose} needs {package}, which is not installed here: {advice}") from error


@contextmanager
def without(*modules: str) -> Iterator[None]:
    """Let what is imported in here not find some modules, unless they are imported already.

    Libraries try to import whatever they can make use of, and some of that takes seconds. What was imported in here
    stays without it: for commands, whose process ends with them, and not for code that others import.
    """
    hidden = [module for module in modules if module not in sys.modules]
    for module in hidden:
        sys.modules[module] = None  # type: ignore[assignment]  # the import system's own sign for "not to be had"
    try:
        yield
    finally:
        for module in hidden:
            del sys.modules[module]
