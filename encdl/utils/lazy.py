"""Imports of large libraries without what they would import besides."""

from __future__ import annotations

import sys
from collections.abc import Iterator
from contextlib import contextmanager


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
