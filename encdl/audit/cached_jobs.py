"""Many measurements or trainings, each kept as soon as it is known, so that a run that ended goes on."""

from __future__ import annotations

import os
from collections.abc import Callable, Iterable, Iterator, Mapping, Sequence
from concurrent.futures import Executor, Future, as_completed
from typing import TypeVar

Job = TypeVar("Job")
Found = TypeVar("Found")


def run_missing(
    jobs: Sequence[Job],
    known: Callable[[Job], Found | None],
    compute: Callable[[list[Job]], Iterable[tuple[Job, Found]]],
    what: str,
    told: Callable[[Job, Found], str],
    progress: Callable[[str], object],
) -> dict[Job, Found]:
    """The results of all jobs, in their order.

    Args:
        jobs: all of them.
        known: what an earlier run found and kept; None if nothing, or of another recipe or code.
        compute: does those that are missing, in any order, and keeps what it finds.
        what: the jobs are called: "parts".
        told: a line about one that has been done.
        progress: takes the lines.
    """
    found = {job: content for job in jobs if (content := known(job)) is not None}
    if found:
        progress(f"{len(found)} of {len(jobs)} {what} are there already")
    for job, content in compute([job for job in jobs if job not in found]):
        found[job] = content
        progress(f"[{len(found)}/{len(jobs)}] {told(job, content)}")
    return {job: found[job] for job in jobs}


def as_they_end(pool: Executor, running: Mapping[Future[Found], Job]) -> Iterator[tuple[Job, Found]]:
    """Each job once it has ended; an error or interruption cancels those that have not begun."""
    try:
        for done in as_completed(running):
            yield running[done], done.result()
    except BaseException:
        pool.shutdown(wait=False, cancel_futures=True)
        raise


def share_cores(jobs: int) -> None:
    """Let processes that are started from here take their share of the cores, unless the user has said how many."""
    os.environ.setdefault("OMP_NUM_THREADS", str(max(1, (os.cpu_count() or 1) // jobs)))
