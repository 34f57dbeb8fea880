"""Programs that answer as Slurm's would and keep what they were called with."""

from __future__ import annotations

from pathlib import Path


class StandIns:
    """A folder of programs.

    Args:
        folder: Where they go; it must be on PATH.
    """

    def __init__(self, folder: Path) -> None:
        self.folder = folder
        folder.mkdir()

    def add(self, name: str, answer: str = "", code: int = 0) -> None:
        """A program that says `answer`."""
        file = self.folder / name
        calls = self.folder / f"{name}.calls"
        file.write_text(
            f"#!/bin/sh\nprintf '%s ' \"$@\" >> {calls}\necho >> {calls}\nprintf '%s\\n' '{answer}'\nexit {code}\n"
        )
        file.chmod(0o755)

    def calls(self, name: str) -> list[list[str]]:
        """The words of each call."""
        file = self.folder / f"{name}.calls"
        return [line.split() for line in file.read_text().splitlines()] if file.is_file() else []
