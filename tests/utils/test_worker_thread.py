"""Calls in a thread of their own: in order, and no error is lost."""

from __future__ import annotations

import itertools
import threading
from collections.abc import Iterator

import pytest

from encdl.utils.worker_thread import BACKLOG, ahead, background, beside, each


def fail(words: str) -> None:
    raise OSError(words)


@pytest.mark.parametrize("threaded", [True, False])
def test_calls_are_done_in_order_and_all_of_them(threaded: bool) -> None:
    done: list[int] = []
    with background(threaded) as call:
        for number in range(5 * BACKLOG):
            call(done.append, number)
        total = call(sum, done)
    assert done == list(range(5 * BACKLOG))
    assert total.result() == sum(done)


def test_there_is_one_thread_which_ends_with_the_block() -> None:
    with background() as call:
        threads = [call(threading.current_thread) for _ in range(3)]
    assert len({future.result() for future in threads}) == 1
    assert threads[0].result() is not threading.current_thread()
    assert not threads[0].result().is_alive()
    with background(threaded=False) as call:
        assert call(threading.current_thread).result() is threading.current_thread()


@pytest.mark.parametrize("threaded", [True, False])
@pytest.mark.parametrize("after", [0, 2 * BACKLOG])
def test_an_error_of_a_call_ends_the_block(threaded: bool, after: int) -> None:
    """At the block's end, or with a later call; what comes behind it in the meantime is at most the backlog."""
    begun = 0
    with pytest.raises(OSError, match="disk full"), background(threaded) as call:  # noqa: PT012
        call(fail, "disk full")
        for _ in range(after):
            begun += 1
            call(int)
    assert begun <= BACKLOG


def test_the_error_of_the_block_goes_first() -> None:
    wait, done = threading.Event(), []
    with pytest.raises(KeyboardInterrupt), background() as call:  # noqa: PT012
        call(wait.wait)
        call(fail, "disk full")
        call(done.append, 1)
        threading.Timer(0.05, wait.set).start()
        raise KeyboardInterrupt
    assert done == []


def test_items_are_made_ahead() -> None:
    made: list[int] = []

    def items() -> Iterator[int]:
        for number in range(1, 4):
            made.append(number)
            yield number
        fail("file cut")

    seen = []
    with pytest.raises(OSError, match="file cut"), background() as call:  # noqa: PT012
        for item in ahead(call, items()):
            seen.append(item)
            call(int).result()  # what was asked for before is done by now
            assert made == list(range(1, min(item + 1, 3) + 1))
    assert seen == [1, 2, 3]


@pytest.mark.parametrize("started", [True, False])
def test_a_call_beside_is_done_once_and_its_error_comes_out(started: bool, monkeypatch: pytest.MonkeyPatch) -> None:
    if not started:  # no core was free, or no thread
        monkeypatch.setattr("_thread.start_new_thread", lambda *_: fail_to_start())
    times = itertools.count(1)
    assert beside(lambda: next(times))() == 1
    assert next(times) == 2
    wrong = beside(lambda: fail("disk full"))
    with pytest.raises(OSError, match="disk full"):
        wrong()


def fail_to_start() -> None:
    raise RuntimeError("can't start new thread")


@pytest.mark.parametrize("threads", [1, 2, 3, 9])
def test_each_gives_results_in_order_and_takes_no_more_items_than_threads(threads: int) -> None:
    items = itertools.count()
    squares = list(each(lambda item: item * item, iter(range(7)), threads))
    assert squares == [number * number for number in range(7)]
    assert next(each(abs, items, threads)) == 0
    assert next(items) == threads
