"""Which rows go together, in which order, padded to which length: the same for both frameworks.

Rows of like length go into one batch, so that little is computed for padding: an epoch's rows are shuffled, sorted by
length within stretches of many batches, cut into batches, and the batches are shuffled. An epoch's order hangs on the
seed and the epoch alone, so a run can go on at any batch, and every one of several processes knows its part.
"""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from dataclasses import dataclass

import numpy as np

from ..errors import InputError

_STRETCH = 64  # batches whose rows are sorted together; more save padding, and shuffle less


@dataclass(frozen=True)
class Batch:
    """One process's part of a batch.

    Attributes:
        epoch, index: the epoch, and the batch's number in it, from 0.
        rows: the indices of the rows, int64.
        counted: bool, one a row; false for a row that only fills up the last batch, and was counted before.
        length: what rows are padded to, the same in every process.
        tokens: how many tokens the rows that count have, without padding.
        seed: the order's seed.
    """

    epoch: int
    index: int
    rows: np.ndarray
    counted: np.ndarray
    length: int
    tokens: int
    seed: int

    @property
    def padded_tokens(self) -> int:
        """How many positions a model computes."""
        return len(self.rows) * self.length

    def random(self) -> list[np.random.Generator]:
        """Return what each row's own draws (the words to mask) come from: it hangs on seed, epoch and row alone."""
        return [np.random.default_rng([self.seed, self.epoch, int(row)]) for row in self.rows]


class Batches:
    """The batches of every epoch.

    Args:
        lengths: each row's length without padding.
        batch_size: rows of a batch, over all processes.
        seed: of the order.
        shuffle: whether there is chance in the order; without, rows come by length, the longest first, in every epoch.
        multiple_of: what padded lengths are a multiple of.
        most: the longest padded length; it need not be a multiple.
        buckets: the only lengths to pad to, in the place of multiples: few shapes, as an accelerator wants that
            compiles for each.
        fill: whether to fill up the last batch with its own rows again, so that all batches are of one size.
        process, processes: which of how many processes this is.

    Raises:
        InputError: there are no rows, a number is not legal, or a row is longer than `most` or the last bucket.

    Example:
        >>> batches = Batches([3, 9, 4, 8], batch_size=2, shuffle=False)
        >>> [(batch.rows.tolist(), batch.length) for batch in batches.epoch(0)]
        [([1, 3], 16), ([2, 0], 8)]
    """

    def __init__(
        self,
        lengths: Sequence[int] | np.ndarray,
        batch_size: int,
        *,
        seed: int = 0,
        shuffle: bool = True,
        multiple_of: int = 8,
        most: int | None = None,
        buckets: Sequence[int] = (),
        fill: bool = False,
        process: int = 0,
        processes: int = 1,
    ) -> None:
        self.lengths = np.asarray(lengths, np.int64)
        self.batch_size, self.seed, self.shuffle, self.fill = batch_size, seed, shuffle, fill
        self.multiple_of, self.most, self.buckets = multiple_of, most, sorted(buckets)
        self.process, self.processes = process, processes
        self._check()

    def _check(self) -> None:
        if not len(self.lengths):
            raise InputError("There are no rows to make batches of.")
        if min(self.batch_size, self.multiple_of, self.processes) < 1 or not 0 <= self.process < self.processes:
            raise InputError(
                f"batch_size={self.batch_size}, multiple_of={self.multiple_of} and processes={self.processes} must be "
                f"at least 1, and process={self.process} below processes."
            )
        if self.batch_size % self.processes:
            raise InputError(
                f"A batch of {self.batch_size} rows cannot be shared evenly by {self.processes} processes: make "
                "batch_size a multiple of their number."
            )
        if self.processes > 1 and not self.fill:
            raise InputError("Several processes need batches of one size: pass fill=True.")
        limit = self.buckets[-1] if self.buckets else self.most
        longest = int(self.lengths.max())
        if limit is not None and longest > limit:
            raise InputError(f"A row has {longest} tokens, and the longest batch {limit}: cut the rows to that.")

    def __len__(self) -> int:
        """How many batches an epoch has."""
        return -(-len(self.lengths) // self.batch_size)

    def epoch(self, epoch: int, start: int = 0) -> Iterator[Batch]:
        """Yield an epoch's batches, from the one with the number `start` on."""
        share = self.batch_size // self.processes
        part = slice(self.process * share, (self.process + 1) * share)
        for index, (rows, real) in enumerate(self._order(epoch)):
            if index >= start:
                counted = np.arange(len(rows)) < real
                length = self.padded(int(self.lengths[rows].max()))
                tokens = int(self.lengths[rows[part][counted[part]]].sum())
                yield Batch(epoch, index, rows[part], counted[part], length, tokens, self.seed)

    def padded(self, length: int) -> int:
        """Return the length that rows of a length are padded to."""
        if self.buckets:
            return next(bucket for bucket in self.buckets if bucket >= length)
        rounded = -(-length // self.multiple_of) * self.multiple_of
        return rounded if self.most is None else min(rounded, self.most)

    def _order(self, epoch: int) -> list[tuple[np.ndarray, int]]:
        """Return the rows of each batch over all processes, and how many of them count."""
        count = len(self.lengths)
        if self.shuffle:
            random = np.random.default_rng([self.seed, epoch])
            order = random.permutation(count)
            # Stretches of one size, or the last would be too short to sort much.
            stretches = max(1, round(len(self) / _STRETCH))
            stretch = -(-len(self) // stretches) * self.batch_size
        else:
            order, stretch = np.arange(count), count
        batches: list[tuple[np.ndarray, int]] = []
        for start in range(0, count, stretch):
            together = order[start : start + stretch]
            together = together[np.argsort(-self.lengths[together], kind="stable")]
            batches += [(rows, len(rows)) for rows in _cut(together, self.batch_size)]
        rows, real = batches[-1]
        if self.fill and real < self.batch_size:
            # Rows of its own make it no longer, so what counts is computed as if there were no others.
            batches[-1] = np.resize(rows, self.batch_size), real
        if self.shuffle:
            # The last one stays where it is: it may be smaller, or hold rows that do not count.
            batches = [batches[index] for index in (*random.permutation(len(batches) - 1), -1)]
        return batches


def _cut(rows: np.ndarray, size: int) -> list[np.ndarray]:
    return [rows[start : start + size] for start in range(0, len(rows), size)]
