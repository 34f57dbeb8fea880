"""Lines for whoever sits at the terminal, on stderr."""

from __future__ import annotations

import sys


def progress(step: str) -> None:
    """Tell, in one line, what comes next or has been done."""
    print(step, file=sys.stderr, flush=True)


def warn(message: str) -> None:
    """Print one line of warning."""
    print(f"encdl: warning: {' '.join(message.split())}", file=sys.stderr)
