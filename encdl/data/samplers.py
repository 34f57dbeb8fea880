"""Which image comes when, on which process: functions of seed, epoch, position and rank, and of nothing else.

Randomness belongs to the *draw*, not to a worker or a process: the sampler gives every draw its own seed, a function of
(seed, epoch, position in the epoch) only. So the same setting gives the same images with 0 or 8 workers, the ranks of
a distributed run share one epoch's draws without repeating one another, and a run that was stopped in the middle of an
epoch goes on with the next draw.
"""

from __future__ import annotations

from collections.abc import Iterator
from typing import Any, TypeAlias

import numpy as np
from torch.utils.data import DataLoader, DistributedSampler

from encdl.utils.errors import DataError

Draw: TypeAlias = tuple[int, int]
"""(index of the image, seed of what happens to it)."""


class DrawSampler(DistributedSampler[Any]):
    """An epoch's draws in random order, each with its own seed, dealt out over the ranks.

    It is a `DistributedSampler` so that Lightning takes it as it is, and tells it the epoch.

    Args:
        images: How many images there are.
        repeats: How often each image is drawn in an epoch.
        seed: Any non-negative integer.
        rank: This process.
        world_size: How many processes share the epoch; each gets equally many draws.
    """

    def __init__(self, images: int, repeats: int, seed: int, rank: int = 0, world_size: int = 1) -> None:
        super().__init__(
            range(images),  # type: ignore[arg-type]
            num_replicas=world_size,
            rank=rank,
            seed=seed,
        )
        self.images, self.repeats, self.world_size = images, repeats, world_size
        self.skip = 0
        """Draws of this rank at the beginning of the next epoch that have been used before."""

    def __len__(self) -> int:
        return max(1, self.images * self.repeats // self.world_size)

    def __iter__(self) -> Iterator[Draw]:
        order = np.random.default_rng([self.seed, self.epoch])
        pictures = np.concatenate([order.permutation(self.images) for _ in range(self.repeats)])
        pictures = np.resize(pictures, len(self) * self.world_size)
        first, self.skip = self.rank + self.skip * self.world_size, 0
        for position in range(first, len(pictures), self.world_size):
            seeds = np.random.SeedSequence([self.seed, self.epoch, position])
            yield int(pictures[position]), int(seeds.generate_state(1)[0])


class DrawLoader(DataLoader[Any]):
    """Batches of a `DrawSampler`'s draws; Lightning keeps its place in checkpoints.

    The place is (epoch, batches handed out in it). If the next epoch that is asked for is that one, its first batches
    are left out; the rest are what they would have been.
    """

    sampler: DrawSampler

    def __init__(self, *args: Any, **settings: Any) -> None:
        super().__init__(*args, **settings)
        self._given = 0
        self._resume: dict[str, int] = {}

    def __iter__(self) -> Iterator[Any]:  # type: ignore[override]  # lazy: only then is the epoch known
        resume, self._resume = self._resume, {}
        skipped = resume["batches"] if resume.get("epoch") == self.sampler.epoch else 0
        self.sampler.skip = skipped * int(self.batch_size or 1)
        self._given = skipped
        for batch in super().__iter__():
            self._given += 1
            yield batch

    def state_dict(self) -> dict[str, int]:
        """The place."""
        return {"epoch": self.sampler.epoch, "batches": self._given}

    def load_state_dict(self, state: dict[str, int]) -> None:
        """Go on from a place."""
        self._resume = dict(state)


class EvalSampler(DistributedSampler[int]):
    """Whole batches in a fixed order, dealt out over the ranks, so that all ranks together see what one alone would.

    Every rank is asked for equally many batches, because layers may wait for one another. Where they do not come out
    even, some ranks see a batch again; `number` tells those, which must not count.

    Args:
        images: How many images there are.
        batch_size: Images a batch; made smaller if there were fewer batches than ranks.
        rank: This process.
        world_size: How many processes there are.

    Raises:
        DataError: There are fewer images than processes.
    """

    def __init__(self, images: int, batch_size: int, rank: int = 0, world_size: int = 1) -> None:
        super().__init__(range(images), num_replicas=world_size, rank=rank, shuffle=False)  # type: ignore[arg-type]
        if images < world_size:
            raise DataError(
                f"{images} images cannot be judged by {world_size} processes: set trainer.devices to {images} or less"
            )
        self.images, self.world_size = images, world_size
        self.batch_size = max(1, min(batch_size, images // world_size))
        self.batches = -(-images // self.batch_size)

    def __len__(self) -> int:
        return len(list(iter(self)))

    def __iter__(self) -> Iterator[int]:
        for turn in range(-(-self.batches // self.world_size)):
            first = (self.number(turn) or 0) * self.batch_size
            yield from range(first, min(first + self.batch_size, self.images))

    def number(self, turn: int) -> int | None:
        """Which of all batches this rank's batch number `turn` is; None if it is there only to keep step."""
        number = turn * self.world_size + self.rank
        return number if number < self.batches else None
