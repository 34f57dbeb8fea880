"""Who sees what when: nothing twice, nothing left out, and the same after a stop."""

from __future__ import annotations

from itertools import chain
from typing import Any

import pytest
from hypothesis import given
from hypothesis import strategies as st
from torch.utils.data import Dataset

from encdl.data.samplers import DrawLoader, DrawSampler, EvalSampler
from encdl.utils.errors import DataError


class Echo(Dataset[Any]):
    """Gives back what it is asked for."""

    def __getitem__(self, draw: Any) -> Any:
        return draw

    def __len__(self) -> int:
        return 100


def loader(images: int = 7, repeats: int = 3, batch: int = 4, rank: int = 0, world: int = 1, **more: Any) -> DrawLoader:
    sampler = DrawSampler(images, repeats, 5, rank, world)
    return DrawLoader(Echo(), batch_size=batch, sampler=sampler, collate_fn=list, **more)


def epoch(one: DrawLoader, number: int) -> list[Any]:
    one.sampler.set_epoch(number)
    return list(one)


@given(st.integers(1, 20), st.integers(1, 3), st.integers(1, 4), st.integers(0, 3))
def test_no_two_ranks_share_a_draw(images: int, repeats: int, world: int, number: int) -> None:
    draws: list[Any] = []
    for rank in range(world):
        sampler = DrawSampler(images, repeats, 1, rank, world)
        sampler.set_epoch(number)
        draws += list(sampler)
    seeds = [seed for _, seed in draws]
    assert len(set(seeds)) == len(seeds)


@pytest.mark.parametrize("world", [1, 2])
@pytest.mark.parametrize("stopped", [0, 1, 2, 3])
def test_an_epoch_goes_on_where_it_stopped(world: int, stopped: int) -> None:
    whole = epoch(loader(world=world), 2)
    first = loader(world=world)
    first.sampler.set_epoch(2)
    begun = iter(first)
    for _ in range(min(stopped, len(whole))):
        next(begun)
    second = loader(world=world)
    second.load_state_dict(first.state_dict())
    assert epoch(second, 2) == whole[min(stopped, len(whole)) :]
    assert epoch(second, 3) == epoch(loader(world=world), 3)


def test_a_place_in_another_epoch_is_none() -> None:
    one = loader()
    one.load_state_dict({"epoch": 1, "batches": 2})
    assert epoch(one, 2) == epoch(loader(), 2)


def test_workers_change_nothing() -> None:
    one = loader(num_workers=2)
    one.load_state_dict({"epoch": 4, "batches": 1})
    assert epoch(one, 4) == epoch(loader(), 4)[1:]


@given(st.integers(1, 40), st.integers(1, 9), st.integers(1, 5))
def test_every_image_is_judged_once(images: int, batch: int, world: int) -> None:
    if images < world:
        with pytest.raises(DataError, match=f"{images} images cannot be judged by {world} processes"):
            EvalSampler(images, batch, 0, world)
        return
    alone = EvalSampler(images, min(batch, images // world))
    size, order = alone.batch_size, list(alone)
    batches = {number: order[number * size : (number + 1) * size] for number in range(alone.batches)}
    seen: dict[int, list[int]] = {}
    turns = set()
    for rank in range(world):
        sampler = EvalSampler(images, batch, rank, world)
        mine = list(sampler)
        assert len(sampler) == len(mine)
        cut = [mine[start : start + sampler.batch_size] for start in range(0, len(mine), sampler.batch_size)]
        turns.add(len(cut))
        counted = {sampler.number(turn): part for turn, part in enumerate(cut) if sampler.number(turn) is not None}
        assert counted
        seen |= counted  # type: ignore[arg-type]
    assert len(turns) == 1  # no rank waits for another
    assert seen == batches
    assert sorted(chain.from_iterable(seen.values())) == [*range(images)]
