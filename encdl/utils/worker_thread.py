"""Calls in a thread of their own, in order: hashing and writing, which let go of Python's lock, beside the cipher."""

from __future__ import annotations

import _thread
import contextlib
import functools
import itertools
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


def beside(function: Callable[[], Result], threaded: bool = True) -> Callable[[], Result]:
    """Begin a call in a thread of its own; what is given ends it, and gives its result or raises its error.

    If the thread has not begun by then, as on a machine that has no core left for it, the call is done at once.

    Args:
        function: What to call, once; only worth a thread if it lets go of Python's lock.
        threaded: Whether there is a thread.
    """
    if not threaded:
        return function
    future: Future[Result] = Future()

    def work() -> None:
        if future.set_running_or_notify_cancel():
            try:
                future.set_result(function())
            except BaseException as error:
                future.set_exception(error)

    with contextlib.suppress(RuntimeError):  # there are as many threads as may be
        _thread.start_new_thread(work, ())  # a `Thread` lets its starter wait until it runs
    return lambda: function() if future.cancel() else future.result()


def each(function: Callable[[Item], Result], items: Iterator[Item], threads: int) -> Iterator[Result]:
    """`map` by so many threads, the caller's among them, in order: as many items are in memory."""
    while some := list(itertools.islice(items, threads)):
        others = [beside(functools.partial(function, item)) for item in some[1:]]
        yield function(some[0])
        for other in others:
            yield other()


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
