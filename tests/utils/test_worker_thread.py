"""Calls in a thread of their own: in order, and no error is lost."""

from __future__ import annotations

import threading
from collections.abc import Iterator

import pytest

from encdl.utils.worker_thread import BACKLOG, Background


def fail(words: str) -> None:
    raise OSError(words)


@pytest.mark.parametrize("threaded", [True, False])
def test_calls_are_done_in_order_and_all_of_them(threaded: bool) -> None:
    done: list[int] = []
    with Background(threaded) as background:
        for number in range(5 * BACKLOG):
            background.call(done.append, number)
        total = background.call(sum, done)
    assert done == list(range(5 * BACKLOG))
    assert total.result() == sum(done)


def test_there_is_one_thread_which_ends_with_the_block() -> None:
    with Background() as background:
        threads = [background.call(threading.current_thread) for _ in range(3)]
    assert len({future.result() for future in threads}) == 1
    assert threads[0].result() is not threading.current_thread()
    assert not threads[0].result().is_alive()
    with Background(threaded=False) as background:
        assert background.call(threading.current_thread).result() is threading.current_thread()


@pytest.mark.parametrize("threaded", [True, False])
@pytest.mark.parametrize("after", [0, 2 * BACKLOG])
def test_an_error_of_a_call_ends_the_block(threaded: bool, after: int) -> None:
    """At the block's end, or with a later call; what comes behind it in the meantime is at most the backlog."""
    begun = 0
    with pytest.raises(OSError, match="disk full"), Background(threaded) as background:  # noqa: PT012
        background.call(fail, "disk full")
        for _ in range(after):
            begun += 1
            background.call(int)
    assert begun <= BACKLOG


def test_the_error_of_the_block_goes_first() -> None:
    wait, done = threading.Event(), []
    with pytest.raises(KeyboardInterrupt), Background() as background:  # noqa: PT012
        background.call(wait.wait)
        background.call(fail, "disk full")
        background.call(done.append, 1)
        threading.Timer(0.05, wait.set).start()
        raise KeyboardInterrupt
    assert done == []


@pytest.mark.parametrize("threaded", [True, False])
def test_items_are_made_ahead(threaded: bool) -> None:
    made: list[int] = []

    def items() -> Iterator[int]:
        for number in range(1, 4):
            made.append(number)
            yield number
        fail("file cut")

    seen = []
    with pytest.raises(OSError, match="file cut"), Background(threaded) as background:  # noqa: PT012
        for item in background.ahead(items()):
            seen.append(item)
            background.call(int).result()  # what was asked for before is done by now
            assert made == list(range(1, min(item + threaded, 3) + 1))
    assert seen == [1, 2, 3]
