"""Scores of words, and their cross entropy without ever holding them all.

A vocabulary is wide: the scores `[batch, length, vocab]` of RemBERT's 250,300 words at 8 x 128 positions take 1 GB, and
a plain backward pass holds them several times. Yet in masked language modelling 15% of the positions count (Devlin et
al. 2018, section 3.1), and a loss needs no more than a few positions' scores at a time.
"""

from __future__ import annotations

from collections.abc import Callable
from typing import Any, NamedTuple

import keras
from keras import ops

from ..core.config import IGNORED_LABEL
from .inputs import check_class_labels, check_shape

# How many scores are there at once: 256 MB in float32.
MOST_SCORES = 2**26


class Projection(NamedTuple):
    """From vectors `[..., in]` to scores of words: `x @ table^T + bias`, or with a rest `x @ [table^T ; rest] + bias`.

    Attributes:
        table: `[vocab, width]`, as word embeddings lie.
        bias: `[vocab]`.
        rest: `[in - width, vocab]`, or None where the table is as wide as the vectors.
    """

    table: Any
    bias: Any
    rest: Any = None


def projected_cross_entropy(
    hidden: Any,
    projection: Projection,
    labels: Any,
    transform: Callable[[Any], Any] | None = None,
    name: str = "labels",
    most_scores: int = MOST_SCORES,
) -> Any:
    """Return the `cross_entropy` of the scores that a projection gives, without holding them all.

    Positions whose label is -100 are left out of the projection. The others are scored some at a time, and once more in
    the backward pass, which keeps no scores. The loss has no second derivative.

    Args:
        hidden: `[..., in]`.
        projection: from these vectors to scores.
        labels: integers `[...]`, each -100 or from 0 up to the number of words, exclusive.
        transform: what vectors `[n, in]` go through before the projection.
        name: what an error calls the labels.
        most_scores: how many scores may be there at once; those of one position are in any case.

    Raises:
        InputError: the labels' shape, dtype or range does not suit.
        NotImplementedError: a second derivative is asked for.

    Example:
        >>> from keras import ops
        >>> words = Projection(table=ops.zeros((4, 2)), bias=ops.zeros(4))
        >>> round(float(projected_cross_entropy(ops.ones((3, 2)), words, ops.array([0, 3, -100]))), 4)
        1.3863
    """
    check_shape(name, labels, hidden.shape[:-1])
    check_class_labels(name, labels, projection.table.shape[0])
    hidden = ops.reshape(hidden, (-1, hidden.shape[-1]))
    labels = ops.cast(ops.reshape(labels, (-1,)), "int32")
    if transform is not None:
        hidden = transform(hidden)
    counted = ops.not_equal(labels, IGNORED_LABEL)
    count = ops.sum(ops.cast(counted, "int32"))
    sizes = _Sizes.of(hidden.shape[0], projection.table.shape, hidden.shape[1], most_scores)
    # Shapes do not depend on values, as XLA needs it: those that count are moved to the front, and loops end with them.
    # A chunk more than is needed, so that the last one has no end to run over.
    order = ops.argsort(ops.cast(ops.logical_not(counted), "int32"))
    labels = ops.concatenate([ops.take(labels, order), ops.full((sizes.rows,), IGNORED_LABEL, "int32")])
    padding = ops.zeros((sizes.rows, hidden.shape[1]), hidden.dtype)
    hidden = ops.concatenate([ops.take(hidden, order, axis=0), padding])

    @ops.custom_gradient
    def loss(*parts: Any) -> tuple[Any, Callable[[Any], Any]]:
        # What is computed here is not to be differentiated, so that nothing of it is kept.
        vectors, *words = [ops.stop_gradient(part) for part in parts]
        task = _Task(vectors, Projection(*words), labels, count)
        total, whole = _total(task, sizes.rows)
        divisor = ops.cast(ops.maximum(count, 1), total.dtype)
        return total / divisor, lambda upstream: _final(*_slopes(task, whole, upstream / divisor, sizes), *parts)

    # `custom_gradient` takes no variables; a reshaped one is a tensor, and no copy.
    return loss(hidden, *(ops.reshape(part, part.shape) for part in projection if part is not None))


class _Sizes(NamedTuple):
    """How much is computed at a time.

    Attributes:
        rows: positions of a chunk; the last chunk is filled up with positions that do not count.
        words: words whose slopes are summed up over the chunks, where one chunk is not enough.
    """

    rows: int
    words: int

    @classmethod
    def of(cls, positions: int | None, table: tuple[int, int], inner: int, most_scores: int) -> _Sizes:
        # One chunk for 15% of the positions, and some more: as many as masked language modelling scores.
        rows = 64 if positions is None else min(positions, max(64, positions * 3 // 16))
        rows = max(1, min(rows, most_scores // table[0]))
        return cls(rows, min(table[0], max(1, most_scores // 16 // max(inner, rows))))


class _Task(NamedTuple):
    """What is to be scored.

    Attributes:
        vectors: `[positions, in]`; those that count come first.
        projection: to the scores.
        labels: integers `[positions]`, -100 from `count` on.
        count: how many count.
    """

    vectors: Any
    projection: Projection
    labels: Any
    count: Any


def _total(task: _Task, rows: int) -> tuple[Any, Any]:
    """Return the sum of the losses, and each position's log of its sum of `exp(score)`, or inf if it does not count."""
    single = keras.backend.result_type(task.vectors.dtype, "float32")

    def add(start: Any, total: Any, whole: Any) -> tuple[Any, Any, Any]:
        scores, labels = _scores(_part(task.vectors, start, rows), task.projection), _part(task.labels, start, rows)
        counted = ops.not_equal(labels, IGNORED_LABEL)
        right = ops.take_along_axis(scores, ops.where(counted, labels, 0)[:, None], axis=1)[:, 0]
        found = ops.logsumexp(scores, axis=1)
        total = total + ops.sum(ops.where(counted, found - right, 0.0))
        return start + rows, total, ops.slice_update(whole, (start,), ops.where(counted, found, float("inf")))

    start = ops.zeros((), "int32")
    whole = ops.full_like(task.labels, float("inf"), dtype=single)
    _, total, whole = ops.while_loop(
        lambda start, *_: ops.less(start, task.count), add, (start, ops.zeros((), single), whole)
    )
    return total, whole


def _slopes(task: _Task, whole: Any, share: Any, sizes: _Sizes) -> tuple[Any, ...]:
    """Return the slopes by the vectors and by each part of the projection; `share` is how much each loss counts."""
    vectors, projection, labels, count = task

    def in_one_go() -> tuple[Any, ...]:
        some, right, log_sums = (values[: sizes.rows] for values in (vectors, labels, whole))
        ids = ops.arange(projection.table.shape[0], dtype="int32")
        of_vectors, *of_words = _chunk_slopes(some, right, log_sums, projection, ids, share)
        return ops.slice_update(ops.zeros_like(vectors), (0, 0), of_vectors), *of_words

    if vectors.shape[0] == 2 * sizes.rows:  # a chunk is all positions, and there is one to spare
        return in_one_go()
    return ops.cond(ops.less_equal(count, sizes.rows), in_one_go, lambda: _summed_slopes(task, whole, share, sizes))


def _summed_slopes(task: _Task, whole: Any, share: Any, sizes: _Sizes) -> tuple[Any, ...]:
    """Return what `_slopes` does, chunk by chunk.

    Words are taken some at a time, and for these all chunks: so the slopes of a table are summed up in a small place,
    in float32, and written once.
    """
    vectors, projection, labels, count = task
    single = whole.dtype
    vocab = projection.table.shape[0]
    axes = [axis for part, axis in zip(projection, (0, 0, 1), strict=True) if part is not None]

    def some_words(first: Any, of_vectors: Any, *of_words: Any) -> tuple[Any, ...]:
        # The last ones begin earlier, so that they are as many; those that were had before do not count again.
        begin = ops.minimum(first, vocab - sizes.words)
        ids = begin + ops.arange(sizes.words, dtype="int32")
        is_new = ops.cast(ops.greater_equal(ids, first), vectors.dtype)
        given = [part for part in projection if part is not None]
        words = Projection(*(_part(part, begin, sizes.words, axis) for part, axis in zip(given, axes, strict=True)))

        def some_positions(start: Any, of_vectors: Any, *sums: Any) -> tuple[Any, ...]:
            some, right, log_sums = (_part(values, start, sizes.rows) for values in (vectors, labels, whole))
            by_vectors, *by_words = _chunk_slopes(some, right, log_sums, words, ids, share, is_new)
            by_vectors = _part(of_vectors, start, sizes.rows) + ops.cast(by_vectors, single)
            sums = tuple(held + ops.cast(more, single) for held, more in zip(sums, by_words, strict=True))
            return start + sizes.rows, ops.slice_update(of_vectors, (start, 0), by_vectors), *sums

        sums = [ops.zeros_like(part, dtype=single) for part in words if part is not None]
        _, of_vectors, *sums = ops.while_loop(
            lambda start, *_: ops.less(start, count), some_positions, (ops.zeros((), "int32"), of_vectors, *sums)
        )
        of_words = tuple(
            ops.slice_update(held, _place(held, begin, axis), ops.cast(some, held.dtype))
            for held, some, axis in zip(of_words, sums, axes, strict=True)
        )
        return first + sizes.words, of_vectors, *of_words

    start = (ops.zeros((), "int32"), ops.zeros_like(vectors, dtype=single))
    of_words = [ops.zeros_like(part) for part in projection if part is not None]
    _, of_vectors, *of_words = ops.while_loop(lambda first, *_: ops.less(first, vocab), some_words, (*start, *of_words))
    return ops.cast(of_vectors, vectors.dtype), *of_words


def _chunk_slopes(
    vectors: Any, labels: Any, whole: Any, words: Projection, ids: Any, share: Any, is_new: Any = None
) -> tuple[Any, ...]:
    """Return the slopes of some positions' losses by their vectors and by the parts of the projection to some words.

    Args:
        vectors: `[n, in]`.
        labels: integers `[n]`.
        whole: `[n]`, of `_total`.
        words: to the scores of these words.
        ids: integers `[words]`, which they are.
        share: how much each loss counts.
        is_new: `[words]`, 1 where they count for the slopes by the vectors and 0 where not; None is all 1.
    """
    # The slope of -log softmax(scores)[right] is softmax(scores), less 1 at the right word.
    odds = ops.exp(_scores(vectors, words) - whole[:, None])
    exact = (odds - ops.cast(ops.equal(ids[None], labels[:, None]), odds.dtype)) * share
    slope = ops.cast(exact, vectors.dtype)
    factor, others = _parted(vectors, words)
    by_words = [ops.einsum("nv,nw->vw", slope, factor), ops.cast(ops.sum(exact, axis=0), vectors.dtype)]
    if words.rest is not None:
        by_words.append(ops.einsum("nw,nv->wv", others, slope))
    if is_new is not None:
        slope = slope * is_new
    by_vectors = ops.matmul(slope, words.table)
    if words.rest is not None:
        by_vectors = ops.concatenate([by_vectors, ops.einsum("nv,wv->nw", slope, words.rest)], axis=1)
    return by_vectors, *by_words


def _scores(vectors: Any, words: Projection) -> Any:
    """Score vectors `[n, in]` by words, `[n, words]`, in float32 at least."""
    factor, others = _parted(vectors, words)
    scores = ops.einsum("nw,vw->nv", factor, words.table)
    if words.rest is not None:
        scores = scores + ops.matmul(others, words.rest)
    return ops.cast(scores + words.bias, keras.backend.result_type(vectors.dtype, "float32"))


def _parted(vectors: Any, words: Projection) -> tuple[Any, Any]:
    """Return vectors as wide as the table, and what is left of them for the rest."""
    width = words.table.shape[1]
    return vectors[:, :width], vectors[:, width:]


def _part(values: Any, begin: Any, size: int, axis: int = 0) -> Any:
    """Return `size` of the values along an axis."""
    return ops.slice(
        values, _place(values, begin, axis), [size if i == axis else n for i, n in enumerate(values.shape)]
    )


def _place(values: Any, begin: Any, axis: int) -> tuple[Any, ...]:
    return tuple(begin if i == axis else 0 for i in range(len(values.shape)))


@ops.custom_gradient
def _final(*slopes_and_parts: Any) -> tuple[Any, Callable[..., Any]]:
    """Return the first half: slopes, which are not to be differentiated by the other half, as it would give zeros."""

    def refuse(*upstream: Any) -> Any:
        raise NotImplementedError(
            "The loss of words has no second derivative; ask for the logits (output_logits=True) and take theirs."
        )

    return slopes_and_parts[: len(slopes_and_parts) // 2], refuse
