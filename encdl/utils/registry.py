"""Classes by the names that settings and files use: EncDL's own, and those that other packages bring.

A package brings one by an entry point of the registry's group. For a module that is in no package, the environment
variable `ENCDL_PLUGINS` names it, several with commas between. Only these are ever imported, and not before a name is
asked for that EncDL does not have itself: what stands in a file is looked up here, and cannot name code.
"""

from __future__ import annotations

import importlib
import os
import re
import sys
from collections.abc import Callable, Iterator, Mapping
from dataclasses import dataclass, field
from functools import lru_cache, partial
from importlib.metadata import EntryPoint, entry_points
from typing import Any, Generic, TypeVar

from encdl.utils.errors import UsageError

PLUGINS = "ENCDL_PLUGINS"
"""The environment variable that names modules which register something."""

_NAME = re.compile(r"[a-z0-9][a-z0-9_.-]{0,63}")
"""As containers take it."""

T = TypeVar("T")
K = TypeVar("K")


@dataclass(eq=False, repr=False)
class Registry(Mapping[str, T], Generic[T]):
    """A mapping from names to what is registered, own names first.

    Attributes:
        kind: What is registered, for messages.
        group: Of the entry points by which packages add to it.
        base: What is registered is a subclass or an instance of it.
        registered: What is there already.
        named: Registering a class sets its `name`, which is one that containers take.
    """

    kind: str
    group: str
    base: type
    registered: dict[str, T] = field(default_factory=dict)
    named: bool = False

    def register(self, name: str) -> Callable[[K], K]:
        """Add a class, as a decorator of it, or an object.

        Raises:
            UsageError: The name is taken, or it is of another kind.
        """
        return partial(self._add, name)

    def __getitem__(self, name: str) -> T:
        """Find a name.

        Raises:
            KeyError: Nothing has it.
            UsageError: What should have it cannot be loaded.
        """
        if name not in self.registered:
            _import_plugins()
        if name not in self.registered:
            self._add(name, self._load(name))
        return self.registered[name]

    def __iter__(self) -> Iterator[str]:
        """All names; nothing of other packages is loaded."""
        _import_plugins()
        yield from dict.fromkeys((*self.registered, *(point.name for point in self._points())))

    def __len__(self) -> int:
        return sum(1 for _ in self)

    def unknown(self, name: object) -> str:
        """The message about an unknown name."""
        return (
            f"unknown {self.kind} {name!r}: this version knows {', '.join(self.registered)}; no installed package has "
            f"the entry point {name!r} of {self.group}, and no module in {PLUGINS} registers it"
        )

    def check(self, entry: Any) -> str:
        """The name by which another process will find a class.

        Raises:
            UsageError: None would: files that name it could not be opened again.
        """
        module = entry.__module__
        names = [name for name, known in self.registered.items() if known is entry]
        if names and (module.startswith("encdl.") or module in ("__main__", *plugins())):
            return names[0]
        for point in self._points():
            if point.module.partition(".")[0] == module.partition(".")[0] and self[point.name] is entry:
                return point.name
        raise UsageError(
            f"{self.kind} {module}.{entry.__qualname__} is not registered, and its checkpoints could not be opened "
            f"again: give its package an entry point of {self.group}, or register it in its module and set "
            f"{PLUGINS}={module}"
        )

    def _add(self, name: str, entry: Any) -> Any:
        of_kind = isinstance(entry, self.base) or (isinstance(entry, type) and issubclass(entry, self.base))
        if not of_kind:
            raise UsageError(f"{self.kind} {name!r}: {entry!r} is no {self.base.__name__}")
        known = self.registered.get(name, entry)
        if known is not entry and _place(known) != _place(entry):  # the same place: its module was loaded again
            raise UsageError(f"{self.kind} {name!r}: {_place(entry)} takes the name of {_place(known)}")
        if self.named:
            if not _NAME.fullmatch(name):
                raise UsageError(f"{self.kind} {name!r}: give a name of small letters, digits, _, . and -")
            if vars(entry).get("name", name) != name:
                raise UsageError(f"{self.kind} {name!r}: {_place(entry)} has the name {entry.name!r} already")
            entry.name = name
        self.registered[name] = entry
        return entry

    def _points(self) -> tuple[EntryPoint, ...]:
        return _entry_points(self.group, tuple(sys.path))

    def _load(self, name: str) -> Any:
        found = {point.value: point for point in self._points() if point.name == name}
        if not found:
            raise KeyError(name)
        packages = [point.dist.name if point.dist else value for value, point in found.items()]
        if len(found) > 1:
            raise UsageError(f"{self.kind} {name!r}: {' and '.join(packages)} both bring it: uninstall one")
        [(value, point)] = found.items()
        try:
            return point.load()
        except (Exception, SystemExit) as error:  # whatever a package does when it is imported
            raise UsageError(
                f"package {packages[0]}: its {self.kind} {name!r} ({value}) cannot be loaded "
                f"({_reason(error)}): mend or uninstall it"
            ) from error


@lru_cache(maxsize=16)
def _entry_points(group: str, path: tuple[str, ...]) -> tuple[EntryPoint, ...]:
    """Those of a group; `path` is where they are looked for, so that a changed one is looked through anew."""
    return tuple(entry_points(group=group))


def plugins() -> list[str]:
    """Modules that the user has named as those of extensions."""
    return [name.strip() for name in os.environ.get(PLUGINS, "").split(",") if name.strip()]


def _import_plugins() -> None:
    for module in plugins():
        try:
            importlib.import_module(module)
        except (Exception, SystemExit) as error:
            raise UsageError(
                f"{PLUGINS}: {module} cannot be imported ({_reason(error)}): mend it, or take it out of {PLUGINS}"
            ) from error


def _reason(error: BaseException) -> str:
    return " ".join(f"{type(error).__name__}: {error}".split())[:300]


def _place(entry: Any) -> str:
    return f"{entry.__module__}.{getattr(entry, '__qualname__', repr(entry))}"
