"""Rows that earlier records of the same evaluation have: they are taken over instead of being measured again."""

from __future__ import annotations

import json
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any

from encdl.audit.evaluation.rows import Row
from encdl.audit.evaluation.settings import Settings
from encdl.utils import records
from encdl.utils.errors import UsageError

MAY_DIFFER = ("weights", "data_dir", "device", "jobs")
"""Settings that a row does not depend on; its own weights are compared apart."""
ORIGIN = ("commit", "date", "device")
"""What a record says of where a row was measured."""


class Earlier:
    """The rows of a record.

    Args:
        content: The record, as `encdl.audit.evaluation.record` makes it.
        source: Its file, for messages.
    """

    def __init__(self, content: Mapping[str, Any], source: Path) -> None:
        self.content, self.source = content, source

    def check(self, settings: Settings, images: Mapping[str, Any]) -> None:
        """Refuse the record of another evaluation.

        Args:
            settings: Of the present one.
            images: What its record says of its images.

        Raises:
            UsageError: Settings that rows depend on, or the images, are others.
        """
        now, then = settings.to_dict(), self.content["settings"]
        other = sorted(name for name in now.keys() - {*MAY_DIFFER} if now[name] != then.get(name))
        if images["digest"] != self.content["data"]["digest"]:
            other.append("images")
        if other:
            raise UsageError(f"{self.source}: was measured with other {', '.join(other)}: leave out --earlier")

    def has(self, row: str, weights: Sequence[Mapping[str, Any]]) -> bool:
        """Whether the row was measured with weights of this cipher, size and training, whatever their names."""
        then = self.content["weights"].get(row, [])
        return [_unnamed(one) for one in then] == [_unnamed(one) for one in weights]

    @property
    def rows(self) -> list[str]:
        """Names of the rows."""
        return list(self.content["weights"])

    def row(self, name: str) -> Row:
        """A row's choices of parameters; what was measured of each image is in `part`."""
        return Row(choices=self.content["repairs"][name])

    def part(self, name: str, row: str) -> Any:
        """What a field of the record says of a row."""
        return self.content[name][row]

    def origin(self, row: str) -> dict[str, Any]:
        """Where the row was measured."""
        here = {name: self.content[name] for name in ORIGIN}
        found: dict[str, Any] = self.content.get("earlier", {}).get(row, here)
        return found


def read(path: Path) -> Earlier:
    """Read a record.

    Raises:
        UsageError: There is none in the file.
    """
    try:
        content = json.loads(path.read_text(encoding="utf-8"))
        known = content["task"] == "evaluate" and {"settings", "data", "weights", "per_image"} <= content.keys()
    except (OSError, ValueError, TypeError, KeyError) as error:
        raise UsageError(f"{path}: is no record of an evaluation ({type(error).__name__})") from None
    if not known:
        raise UsageError(f"{path}: is no record of an evaluation: give what --output wrote")
    return Earlier(content, path)


def _unnamed(weights: Mapping[str, Any]) -> dict[str, Any]:
    """As plain JSON, without the name that they were given by, nor where their data lay."""
    plain: dict[str, Any] = json.loads(json.dumps(records.without_places({**weights, "name": ""})))
    return plain
