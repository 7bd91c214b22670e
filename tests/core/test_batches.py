"""Batches of like lengths, in an order that hangs on seed and epoch alone."""

from __future__ import annotations

from itertools import chain

import numpy as np
import pytest

from isobert.core.batches import Batches
from isobert.errors import InputError

LENGTHS = np.random.default_rng(0).integers(1, 60, 101)


def rows_of(batches: Batches, epoch: int, start: int = 0) -> list[list[int]]:
    return [batch.rows.tolist() for batch in batches.epoch(epoch, start)]


def test_an_epoch_has_every_row_once() -> None:
    batches = Batches(LENGTHS, 8)
    for epoch in range(3):
        rows = rows_of(batches, epoch)
        assert sorted(chain(*rows)) == list(range(101))
        assert [len(batch) for batch in rows] == [8] * 12 + [5]
        assert len(rows) == len(batches)


def test_the_order_hangs_on_seed_and_epoch_alone() -> None:
    assert rows_of(Batches(LENGTHS, 8, seed=1), 4) == rows_of(Batches(LENGTHS, 8, seed=1), 4)
    assert rows_of(Batches(LENGTHS, 8, seed=1), 4) != rows_of(Batches(LENGTHS, 8, seed=1), 5)
    assert rows_of(Batches(LENGTHS, 8, seed=1), 4) != rows_of(Batches(LENGTHS, 8, seed=2), 4)


def test_an_epoch_goes_on_at_any_batch() -> None:
    batches = Batches(LENGTHS, 8)
    assert rows_of(batches, 2, start=9) == rows_of(batches, 2)[9:]
    assert next(batches.epoch(2, start=9)).index == 9


def test_without_shuffling_every_epoch_goes_from_long_to_short() -> None:
    batches = Batches(LENGTHS, 8, shuffle=False)
    assert rows_of(batches, 0) == rows_of(batches, 1)
    assert np.all(np.diff(LENGTHS[list(chain(*rows_of(batches, 0)))]) <= 0)


def test_batches_come_in_no_order_of_length() -> None:
    lengths = [batch.length for batch in Batches(np.arange(1, 1001), 8).epoch(0)]
    assert abs(np.corrcoef(lengths, np.arange(len(lengths)))[0, 1]) < 0.3


def test_rows_of_like_length_go_together_so_that_little_is_padding() -> None:
    lengths = np.random.default_rng(1).geometric(0.03, 5000)
    found = list(Batches(lengths, 32).epoch(0))
    tokens, padded = sum(batch.tokens for batch in found), sum(batch.padded_tokens for batch in found)
    assert tokens == lengths.sum()
    least = (-(-lengths // 8) * 8).sum()  # a multiple of 8 costs this much in any case
    assert padded < 1.1 * least < 1.3 * tokens
    random = np.random.default_rng(2).permutation(lengths)[:4992].reshape(-1, 32)
    assert (32 * random.max(1)).sum() > 3 * tokens


def test_lengths_are_multiples_up_to_the_most_or_buckets() -> None:
    for batch in Batches(LENGTHS, 8, multiple_of=16, most=60).epoch(0):
        longest = LENGTHS[batch.rows].max()
        assert batch.length == min(-(-longest // 16) * 16, 60)
    for batch in Batches(LENGTHS, 8, buckets=(64, 16, 32)).epoch(0):
        longest = LENGTHS[batch.rows].max()
        assert batch.length == (16 if longest <= 16 else 32 if longest <= 32 else 64)


@pytest.mark.parametrize("count", [101, 96, 3])
def test_a_filled_last_batch_counts_every_row_once(count: int) -> None:
    batches = list(Batches(LENGTHS[:count], 8, fill=True).epoch(0))
    assert all(len(batch.rows) == 8 for batch in batches)
    assert sorted(np.concatenate([batch.rows[batch.counted] for batch in batches])) == list(range(count))
    # What fills it up makes it no longer, and its tokens count once.
    for batch, bare in zip(batches, Batches(LENGTHS[:count], 8).epoch(0), strict=True):
        assert (batch.length, batch.tokens) == (bare.length, bare.tokens)


def test_processes_share_each_batch() -> None:
    whole = list(Batches(LENGTHS, 8, seed=3, fill=True).epoch(1))
    parts = [list(Batches(LENGTHS, 8, seed=3, fill=True, process=i, processes=2).epoch(1)) for i in range(2)]
    for batch, first, second in zip(whole, *parts, strict=True):
        assert batch.length == first.length == second.length
        assert batch.rows.tolist() == [*first.rows, *second.rows]
        assert batch.counted.tolist() == [*first.counted, *second.counted]
        assert batch.tokens == first.tokens + second.tokens


def test_a_rows_draws_are_its_own() -> None:
    def draws(batches: Batches, epoch: int) -> dict[int, float]:
        found = {}
        for batch in batches.epoch(epoch):
            found |= {int(row): draw.random() for row, draw in zip(batch.rows, batch.random(), strict=True)}
        return found

    small, large = Batches(LENGTHS, 4, seed=3), Batches(LENGTHS, 16, seed=3, shuffle=False)
    assert draws(small, 1) == draws(large, 1) != draws(small, 2)
    assert draws(small, 1) != draws(Batches(LENGTHS, 4, seed=4), 1)
    assert len(set(draws(small, 1).values())) == len(LENGTHS)


def test_what_cannot_be_batched_is_refused() -> None:
    with pytest.raises(InputError, match="no rows"):
        Batches([], 8)
    with pytest.raises(InputError, match="batch_size=0"):
        Batches([1], 0)
    with pytest.raises(InputError, match="cannot be shared evenly by 3 processes"):
        Batches([1], 8, processes=3, fill=True)
    with pytest.raises(InputError, match="fill=True"):
        Batches([1], 8, processes=2)
    for limit in ({"most": 59}, {"buckets": (32, 58)}):
        with pytest.raises(InputError, match="A row has 60 tokens"):
            Batches([3, 60], 8, **limit)  # type: ignore[arg-type]
