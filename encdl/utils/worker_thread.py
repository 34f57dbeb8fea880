"""Calls in a thread of their own, in order: hashing and writing, which let go of Python's lock, beside the cipher."""

from __future__ import annotations

from collections import deque
from collections.abc import Callable, Iterator
from concurrent.futures import Future, ThreadPoolExecutor
from typing import Any, ParamSpec, TypeVar

Given = ParamSpec("Given")
Result = TypeVar("Result")
Item = TypeVar("Item")

BACKLOG = 4
"""Calls that may wait: what they hold stays in memory so long."""


class Background:
    """A thread that does calls one after the other, to be used in a `with` block, at whose end all of them are done.

    An error of a call comes out of a later call, of its own result, or of the end of the block. What the block itself
    raises goes first; calls that have not begun are then left out.

    Args:
        threaded: Whether there is a thread; without one each call is done at once.
    """

    def __init__(self, threaded: bool = True) -> None:
        self._pool = ThreadPoolExecutor(1, "encdl") if threaded else None
        self._waiting: deque[Future[Any]] = deque()

    def __enter__(self) -> Background:
        return self

    def __exit__(self, kind: type[BaseException] | None, *_: object) -> None:
        try:
            while self._waiting and kind is None:
                self._waiting.popleft().result()
        finally:
            if self._pool is not None:
                self._pool.shutdown(cancel_futures=True)

    def call(self, function: Callable[Given, Result], *args: Given.args, **settings: Given.kwargs) -> Future[Result]:
        """Have `function` called; waits while `BACKLOG` calls do."""
        if self._pool is None:
            done: Future[Result] = Future()
            done.set_result(function(*args, **settings))
            return done
        while len(self._waiting) >= BACKLOG:
            self._waiting.popleft().result()
        future = self._pool.submit(function, *args, **settings)
        self._waiting.append(future)
        return future

    def ahead(self, items: Iterator[Item]) -> Iterator[Item]:
        """The items; where there is a thread, each is made while the one before it is in use."""
        if self._pool is None:
            yield from items
            return
        upcoming = self.call(next, items, None)
        while (item := upcoming.result()) is not None:
            upcoming = self.call(next, items, None)
            yield item
