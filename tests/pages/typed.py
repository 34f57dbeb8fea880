"""What pages tell people to type: the commands and the Python of their code blocks."""

from __future__ import annotations

import re
import shlex
from collections.abc import Iterator
from dataclasses import dataclass

TRAINING = [
    "--trainer.max_steps", "1", "--trainer.limit_val_batches", "1", "--trainer.num_sanity_val_steps", "0",
    "--trainer.val_check_interval", "1", "--trainer.accelerator", "cpu", "--trainer.logger", "false",
    "--trainer.enable_progress_bar", "false", "--data.batch_size", "2", "--data.eval_batch_size", "1",
    "--data.crop", "32", "--data.num_workers", "0",
]  # fmt: skip
"""What turns a training command into one step."""


@dataclass(frozen=True)
class Command:
    """One line of a code block.

    Attributes:
        section: The heading above it.
        text: The line, without its comment.
    """

    section: str
    text: str

    @property
    def words(self) -> list[str]:
        return shlex.split(self.text, comments=True)


def commands(text: str) -> Iterator[Command]:
    """The lines of all blocks marked sh, bash, shell or console; continued lines are joined."""
    section, inside, held = "", False, ""
    for line in text.splitlines():
        fence = re.match(r"\s*(?:```|~~~)\s*(\w*)", line)
        if fence:
            inside = not inside and fence.group(1) in {"sh", "bash", "shell", "console"}
        elif inside:
            held += line.strip().removeprefix("$ ")
            if held.endswith("\\"):
                held = held[:-1]
                continue
            words = shlex.split(held, comments=True)
            if words:
                yield Command(section, shlex.join(words))
            held = ""
        elif line.startswith("#"):
            section = line.strip("# ")


def is_template(word: str) -> bool:
    """Whether a word stands for something that a user puts in, such as RUN or scan-NUMBER.png."""
    return re.search(r"(?<![A-Za-z0-9_])[A-Z]{2,}(?![A-Za-z0-9_=])|<\w+>|…|\.\.\.", word) is not None


def python_blocks(text: str, language: str = "python") -> Iterator[tuple[str, str]]:
    """Title (the name of a file, or nothing) and code of all blocks marked python, or as another language."""
    for found in re.finditer(rf"^```{language}(?: title=\"(.*?)\")?\n(.*?)^```$", text, re.DOTALL | re.MULTILINE):
        yield found[1] or "", found[2]
