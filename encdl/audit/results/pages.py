"""Marked places of Markdown pages, and what the records say at each.

A block is what stands between two comments, and is rendered as a whole by a view of `encdl.audit.results.tables` or
`encdl.audit.results.plots`; a value stands within a sentence:

    <!-- results: VIEW RECORD[,RECORD] [WORD] -->      <!--= RECORD PATH [mean|span|…] [FORMAT] -->1.04<!--/-->
    …
    <!-- /results -->

Within code blocks both are left alone. A record that does not exist is told as such at its place.
"""

from __future__ import annotations

import re
from collections.abc import Callable, Iterator
from dataclasses import dataclass
from pathlib import Path

from encdl.audit.results.plots import PLOTS, Plot
from encdl.audit.results.record_values import MissingRecordError, RecordError, Records, told
from encdl.audit.results.tables import TABLES
from encdl.utils.atomic import write_bytes

PLACES = re.compile(
    r"^(?P<fence>```+|~~~+).*?^(?P=fence)[ \t]*$"
    r"|^[ \t]*<!-- results: (?P<block>[^\n]*?) -->\n(?P<body>.*?)^[ \t]*<!-- /results -->[ \t]*$"
    r"|<!--= (?P<value>[^>]*?) -->(?P<text>[^<]*)<!--/-->"
    r"|(?P<open><!-- ?/?results\b[^\n]*|<!--=[^\n]*|<!--/-->)",
    re.DOTALL | re.MULTILINE,
)


@dataclass(frozen=True)
class Change:
    """A place that differs from what the records say, or that cannot be rendered.

    Attributes:
        page: The page, from the root of the repository.
        line: Of the place, from 1.
        what: What stands in the place's marker.
        fault: Why it cannot be rendered; empty if rendering mends it.
    """

    page: Path
    line: int
    what: str
    fault: str = ""

    def __str__(self) -> str:
        mended = self.fault or "differs from the record: `encdl results` renders it"
        return f"{self.page}:{self.line}: {self.what}: {mended}"


def find_pages(root: Path) -> list[Path]:
    """README.md and all pages below docs, sorted."""
    return [root / "README.md", *sorted((root / "docs").rglob("*.md"))]


def rendered(text: str, page: Path, root: Path, records: Records) -> tuple[str, list[Change], list[Plot]]:
    """A page as the records have it.

    Args:
        text: The page's.
        page: Its path.
        root: The root of the repository.
        records: Those of the repository.

    Returns:
        The text, what changed or is at fault, and the plots that the page shows.
    """
    changes: list[Change] = []
    plots: list[Plot] = []

    def place(found: re.Match[str]) -> str:
        if found["fence"]:
            return found[0]
        what = found["block"] or found["value"] or found["open"]
        at = (page.relative_to(root), text.count("\n", 0, found.start()) + 1, what)
        try:
            new = _place(found, page, root, records, plots.append)
        except RecordError as error:
            changes.append(Change(*at, str(error)))
            return found[0]
        if new != found[0]:
            changes.append(Change(*at))
        return new

    return PLACES.sub(place, text), changes, plots


def _place(found: re.Match[str], page: Path, root: Path, records: Records, shows: Callable[[Plot], None]) -> str:
    if found["open"]:
        raise RecordError("is not opened, or not closed: a block ends with <!-- /results -->, a value with <!--/-->")
    if found["value"]:
        if not found.string[: found.start()].rpartition("\n")[2].strip():
            raise RecordError("a value begins its line, where Markdown takes it for a block: put a word before it")
        try:
            text = told(records, found["value"])
        except MissingRecordError:
            text = "not measured"
        return f"<!--= {found['value']} -->{text}<!--/-->"
    view, *words = found["block"].split()
    if not words or view not in {*TABLES, *PLOTS} or "<!-- results:" in found["body"]:
        raise RecordError(f"give one of {', '.join([*TABLES, *PLOTS])}, and records; blocks do not nest")
    try:
        if view in PLOTS:
            plot = Plot.of(view, words, root, records)
            shows(plot)
            text = plot.markdown(page)
        else:
            text = TABLES[view](records, words[0].split(","), *words[1:])
    except MissingRecordError as error:
        text = f"*{str(error)[0].upper()}{str(error)[1:]}.*"
    except (KeyError, TypeError, ValueError) as error:
        raise RecordError(f"the record is of another layout ({type(error).__name__}: {error})") from error
    start, end = found[0].split("\n", 1)[0], found[0].rsplit("\n", 1)[-1]
    return f"{start}\n\n{text}\n\n{end}"


def update(root: Path, check: bool) -> Iterator[Change]:
    """Render all pages and their plots.

    Args:
        root: The root of the repository.
        check: Only tell what differs, and write nothing.

    Yields:
        What changed, or would, or cannot be rendered.
    """
    records = Records(root)
    for page in find_pages(root):
        text = page.read_text()
        new, changes, plots = rendered(text, page, root, records)
        yield from changes
        if new != text and not check:
            write_bytes(page, new.encode(), force=True)
        for plot in plots:
            if not plot.is_drawn():
                yield Change(page.relative_to(root), 1, f"{plot.path.relative_to(root)}")
                if not check:
                    plot.draw()
