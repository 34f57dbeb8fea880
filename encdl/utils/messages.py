"""Lines for whoever sits at the terminal."""

from __future__ import annotations

import re
import sys

_CONTROL = re.compile(r"[\x00-\x08\x0b-\x1f\x7f-\x9f\u061c\u200e\u200f\u2028-\u202e\u2066-\u2069]")
"""Characters that move a cursor, ring, colour, or turn the order of letters round; all but tab and line feed."""


def plain(text: str) -> str:
    """The text with control characters spelt out: file names hold any, and a terminal obeys them."""
    return _CONTROL.sub(lambda found: found[0].encode("unicode_escape").decode(), text)


def say(text: str = "") -> None:
    """Print a result to standard output."""
    print(plain(text))


def progress(step: str) -> None:
    """Tell, in one line, what comes next or has been done."""
    print(plain(step), file=sys.stderr, flush=True)


def warn(message: str) -> None:
    """Print one line of warning."""
    progress(f"encdl: warning: {' '.join(message.split())}")


def complain(message: str) -> None:
    """Print one line about an error."""
    progress(f"encdl: error: {' '.join(message.split())}")
