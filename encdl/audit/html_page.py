"""Pages that need nothing beside them: one HTML file with its style and its images inside, and no script."""

from __future__ import annotations

import base64
from collections.abc import Mapping
from pathlib import Path
from typing import Any, Final

from jinja2 import Environment, StrictUndefined
from markupsafe import Markup

from encdl.utils.palette import OKABE_ITO

COLOURS: Final = tuple(OKABE_ITO[name] for name in ("blue", "vermillion", "green", "purple", "sky", "orange"))
"""Of the lines of a plot, in this order."""


def render(template: Path, **values: Any) -> str:
    """Fill a template; `style` and the filter `figure` are there besides.

    Args:
        template: A file of Jinja2.
        values: What it names; a name that is missing is an error.
    """
    environment = Environment(autoescape=True, undefined=StrictUndefined, trim_blocks=True, lstrip_blocks=True)
    environment.filters["figure"] = figure
    style = Path(__file__).with_suffix(".css").read_text()
    return environment.from_string(template.read_text()).render(style=Markup(style), **values)  # noqa: S704


def inline(png: bytes) -> str:
    """A PNG file as the address of an image."""
    return f"data:image/png;base64,{base64.b64encode(png).decode()}"


def figure(value: Any) -> str:
    """A number, or numbers within lists and mappings, in a few digits."""
    if value is None or isinstance(value, str):
        return value or ""
    if isinstance(value, bool):
        return "yes" if value else "no"
    if isinstance(value, Mapping):
        return ", ".join(f"{name} {figure(each)}" for name, each in value.items())
    if isinstance(value, list | tuple):
        return " … ".join(figure(each) for each in value)
    if isinstance(value, int):
        return str(value)
    return f"{value:.4g}" if abs(value) < 1000 else f"{value:,.0f}"
