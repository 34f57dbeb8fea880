"""Which code a recipe may name: to read a class path is to import its module, and so to run it."""

from __future__ import annotations

import contextlib
import os
import sys
from collections.abc import Iterator, Sequence
from importlib.abc import MetaPathFinder
from importlib.machinery import ModuleSpec, PathFinder
from pathlib import Path
from types import ModuleType

from encdl.utils.errors import UsageError
from encdl.utils.registry import PLUGINS, plugins

OPTION = "--local-classes"
"""Lets a recipe name classes of modules in the working directory. A word of the command line; no recipe can say it."""


class LocalCodeError(UsageError, ImportError):
    """A recipe names a module that lies in the working directory, beside the recipe perhaps."""


class _InstalledOnly(MetaPathFinder):
    """Finds nothing; refuses what others would find in the working directory, or in that of a bundle."""

    def __init__(self, bundle: Path | None = None) -> None:
        self.bundle = bundle
        self.refused: list[LocalCodeError] = []

    def find_spec(
        self, name: str, path: Sequence[str] | None = None, target: ModuleType | None = None
    ) -> ModuleSpec | None:
        if path is None and self.bundle is not None and PathFinder.find_spec(name, [str(self.bundle)]) is not None:
            self.refused.append(
                LocalCodeError(
                    f"module {name} lies in the folder of the bundle and is of no installed package: its configs would "
                    f"run it; if you trust it as you trust a program, give {OPTION}"
                )
            )
            raise self.refused[-1]
        if path is None and _lies_here(name):
            raise LocalCodeError(
                f"module {name} lies in the working directory and is of no installed package: a recipe is code, and "
                f"this would run it; if it is yours, give {OPTION}, or {PLUGINS}={name}"
            )
        return None


@contextlib.contextmanager
def installed_only(allowed: bool = False, bundle: Path | None = None) -> Iterator[list[LocalCodeError]]:
    """Refuse to import modules from the working directory, where `python -m` looks first, or from a bundle's folder.

    What is on PYTHONPATH by its full path counts as installed: somebody put it there.

    Yields:
        What was refused of a bundle: MONAI goes on without what it cannot import, and fails where that is used.
    """
    refusal = _InstalledOnly(None if bundle is None else bundle.resolve())
    if not allowed:
        sys.meta_path.insert(0, refusal)
    try:
        yield refusal.refused
    finally:
        if not allowed:
            sys.meta_path.remove(refusal)


def _lies_here(name: str) -> bool:
    if name == __name__.partition(".")[0] or name in {module.partition(".")[0] for module in plugins()}:
        return False
    here = Path.cwd().resolve()
    if str(here) in os.environ.get("PYTHONPATH", "").split(os.pathsep):
        return False
    spec = PathFinder.find_spec(name)
    if spec is None:
        return False
    places = spec.submodule_search_locations or [spec.origin or "built-in"]
    return any(Path(place).resolve().parent == here for place in places)
