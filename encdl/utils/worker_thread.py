"""Calls in a thread of their own, in order: hashing and writing, which let go of Python's lock, beside the cipher."""

from __future__ import annotations

import contextlib
from collections import deque
from collections.abc import Callable, Iterator
from concurrent.futures import Future, ThreadPoolExecutor
from typing import Any, ParamSpec, Protocol, TypeVar

Given = ParamSpec("Given")
Result = TypeVar("Result")
Item = TypeVar("Item")

BACKLOG = 4
"""Calls that may wait: what they hold stays in memory so long."""


class Call(Protocol):
    """Has a function called with what follows it."""

    def __call__(self, function: Callable[Given, Result], *args: Given.args, **more: Given.kwargs) -> Future[Result]:
        """What it gives, once it has."""
        ...


@contextlib.contextmanager
def background(threaded: bool = True) -> Iterator[Call]:
    """A thread that does calls one after the other, all of them before the block ends; a call waits while `BACKLOG` do.

    An error of a call comes out of a later call, of its own result, or of the end of the block. What the block itself
    raises goes first; calls that have not begun are then left out.

    Args:
        threaded: Whether there is a thread; without one each call is done at once.
    """
    if not threaded:
        yield _at_once
        return
    pool, waiting = ThreadPoolExecutor(1, "encdl"), deque[Future[Any]]()

    def call(function: Callable[Given, Result], *args: Given.args, **more: Given.kwargs) -> Future[Result]:
        while len(waiting) >= BACKLOG:
            waiting.popleft().result()
        future = pool.submit(function, *args, **more)
        waiting.append(future)
        return future

    try:
        yield call
        while waiting:
            waiting.popleft().result()
    finally:
        pool.shutdown(cancel_futures=True)


def ahead(call: Call, items: Iterator[Item]) -> Iterator[Item]:
    """The items, each made by a thread while the one before it is in use."""
    upcoming = call(next, items, None)
    while (item := upcoming.result()) is not None:
        upcoming = call(next, items, None)
        yield item


def _at_once(function: Callable[Given, Result], *args: Given.args, **more: Given.kwargs) -> Future[Result]:
    done: Future[Result] = Future()
    done.set_result(function(*args, **more))
    return done
