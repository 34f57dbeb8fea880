"""Work beside two programs that never sleep, on two processors: what a round takes by one thread and by two.

`python -m tests.busy_trial`, in the environment to be tried: it waits as EncDL's commands do, unless that says how.
"""

from __future__ import annotations

import json
import os
import subprocess
import sys
import time
from collections.abc import Callable
from dataclasses import dataclass

from encdl.utils.thread_waiting import wait_briefly

NEIGHBOURS = 2
TURNS = 4
SECONDS = 1.0


def main() -> None:
    wait_briefly()
    os.sched_setaffinity(0, sorted(os.sched_getaffinity(0))[:2])  # neighbours inherit it
    import torch

    convolution, image = torch.nn.Conv2d(8, 16, 3, padding=1), torch.rand(1, 8, 128, 128)

    def work() -> None:
        """Some 0.2 ms between one waiting and the next, as in a network's steps."""
        with torch.no_grad():
            for _ in range(10):
                convolution(image).relu_()

    spin = [sys.executable, "-c", "while True: pass"]
    neighbours = [subprocess.Popen(spin) for _ in range(NEIGHBOURS)]
    try:
        time.sleep(0.3)
        spent = {1: Spent(), 2: Spent()}
        for _ in range(TURNS):  # in turns, so that whatever else the machine does falls on both
            for threads, so_far in spent.items():
                torch.set_num_threads(threads)
                so_far.add(work)
    finally:
        for neighbour in neighbours:
            neighbour.kill()
            neighbour.wait()
    one, two = ((so_far.wall / so_far.rounds, so_far.own / so_far.rounds) for so_far in spent.values())
    print(json.dumps({"wall": two[0] / one[0], "own": two[1] / one[1]}))


@dataclass
class Spent:
    """Seconds in which rounds of work were done: of the wall, and of the processors."""

    wall: float = 0.0
    own: float = 0.0
    rounds: int = 0

    def add(self, work: Callable[[], None]) -> None:
        work()
        wall, own = time.perf_counter(), time.process_time()
        while time.perf_counter() < wall + SECONDS:
            work()
            self.rounds += 1
        self.wall += time.perf_counter() - wall
        self.own += time.process_time() - own


if __name__ == "__main__":
    main()
