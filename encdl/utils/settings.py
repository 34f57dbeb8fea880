"""Settings of a command: dataclasses that a YAML file, the command line or both may fill."""

from __future__ import annotations

from collections.abc import Collection, Mapping
from dataclasses import fields
from pathlib import Path
from typing import Any, TypeVar

from encdl.utils import recipes
from encdl.utils.errors import UsageError

Settings = TypeVar("Settings")


def option(name: str) -> str:
    """The option behind a setting."""
    return f"--{name.replace('_', '-')}"


def check_numbers(settings: object, least: Mapping[str, int], optional: Collection[str] = ()) -> None:
    """Refuse settings that are no whole numbers, or too small.

    Args:
        settings: A dataclass.
        least: The smallest value of each number.
        optional: Those that may be None.

    Raises:
        UsageError: Names the first.
    """
    for name, smallest in least.items():
        value = getattr(settings, name)
        if value is None and name in optional:
            continue
        if type(value) is not int:
            raise UsageError(f"{option(name)} must be a whole number, got {value!r}")
        if value < smallest:
            raise UsageError(f"{option(name)} must be at least {smallest}, got {value}")


def check_choice(settings: object, name: str, allowed: Collection[str]) -> None:
    """Refuse a setting that is none of `allowed`, of which "" is not named; raise `UsageError`."""
    value = getattr(settings, name)
    if value not in allowed:
        raise UsageError(f"{option(name)} is {value!r}: give one of {', '.join(filter(None, allowed))}")


def content(kind: type[Any], path: Path | None, what: str) -> dict[str, Any]:
    """The content of a YAML file, by the names of a dataclass's fields; nothing without a file.

    Args:
        kind: The dataclass.
        path: A file of some of the settings.
        what: What they are settings of, with its article.

    Raises:
        UsageError: The file is none, or a setting is unknown.
    """
    if path is None:
        return {}
    found, known = _mapping(path), {each.name for each in fields(kind)}
    if unknown := sorted(set(found) - known):
        raise UsageError(f"{path}: no setting of {what}: {', '.join(unknown)}: there are {', '.join(sorted(known))}")
    return found


def filled(kind: type[Settings], path: Path | None, found: Mapping[str, Any], given: Mapping[str, Any]) -> Settings:
    """Settings from a file's content and from the command line, which goes before.

    Args:
        kind: The dataclass.
        path: Where the content is from; None if there is no file.
        found: The content.
        given: Settings by name; None where the user gave none.

    Raises:
        UsageError: A setting is out of its range.
    """
    chosen = {name: value for name, value in given.items() if value is not None}
    try:
        return kind(**{**found, **chosen})
    except UsageError as error:
        raise (error if path is None else UsageError(f"{path} and the command line: {error}")) from None


def _mapping(path: Path) -> dict[str, Any]:
    import yaml  # noqa: PLC0415

    try:
        found = recipes.read(path)
    except FileNotFoundError:
        raise UsageError(f"{path}: no such file: give a YAML file of settings") from None
    except (OSError, UnicodeDecodeError, yaml.YAMLError) as error:
        raise UsageError(f"{path}: is no readable YAML file ({' '.join(str(error).split())[:80]})") from None
    if not isinstance(found, dict):
        raise UsageError(f"{path}: holds no settings: give lines such as `data: brain_tumor`")
    return {str(name): value for name, value in found.items()}
