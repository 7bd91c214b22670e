"""Scores of words, and their cross entropy without ever holding them all.

A vocabulary is wide: the scores `[batch, length, vocab]` of RemBERT's 250,300 words at 8 x 128 positions take 1 GB, and
a plain backward pass holds them several times. Yet in masked language modelling 15% of the positions count (Devlin et
al. 2018, section 3.1), and a loss needs no more than a few positions' scores at a time.
"""

from __future__ import annotations

from collections.abc import Callable, Sequence
from typing import Any, NamedTuple

import torch
from torch import Tensor

from ..core.config import IGNORED_LABEL
from ..errors import InputError
from .inputs import check_class_labels, check_shape, check_tensors

# How many scores are there at once: 256 MB in float32.
MOST_SCORES = 2**26

# Slopes are made before the loss's own slope is known. In float16, which has no room below 6e-8 and none above 65504,
# they are made larger by this and smaller again at the end, as a loss is scaled for its gradients not to vanish.
FLOAT16_SCALE = 1024.0


class Projection(NamedTuple):
    """From vectors `[..., in]` to scores of words: `x @ table^T + bias`, or with a rest `x @ [table^T ; rest] + bias`.

    Attributes:
        table: `[vocab, width]`, as word embeddings lie.
        bias: `[vocab]`.
        rest: `[in - width, vocab]`, or None where the table is as wide as the vectors.
    """

    table: Tensor
    bias: Tensor
    rest: Tensor | None = None


def projected_cross_entropy(
    hidden: Tensor,
    projection: Projection,
    labels: Tensor,
    transform: Callable[[Tensor], Tensor] | None = None,
    name: str = "labels",
    most_scores: int = MOST_SCORES,
) -> Tensor:
    """Return the `cross_entropy` of the scores that a projection gives, without holding them all.

    Positions whose label is -100 are left out before the projection, and the others are scored some at a time; what is
    scored becomes gradients at once, so that the backward pass needs neither scores nor a copy. It hands them out, so
    it can be run through once, and the loss has no second derivative.

    Args:
        hidden: `[..., in]`.
        projection: from these vectors to scores.
        labels: integers `[...]`, each -100 or from 0 up to the number of words, exclusive.
        transform: what vectors `[n, in]` go through before the projection.
        name: what an error calls the labels.
        most_scores: how many scores may be there at once; those of one position are in any case.

    Raises:
        InputError: the labels' shape, dtype or range does not suit; or the backward pass is run through once more.
        NotImplementedError: a second derivative is asked for.

    Example:
        >>> import torch
        >>> words = Projection(table=torch.zeros(4, 2), bias=torch.zeros(4))
        >>> round(projected_cross_entropy(torch.ones(3, 2), words, torch.tensor([0, 3, -100])).item(), 4)
        1.3863
    """
    check_tensors(**{name: labels})
    check_shape(name, labels, hidden.shape[:-1])
    check_class_labels(name, labels, projection.table.shape[0])
    hidden, labels = hidden.flatten(0, -2), labels.flatten().long()
    if not torch.compiler.is_compiling():  # in a graph, no shape depends on values
        counted = labels != IGNORED_LABEL
        hidden, labels = hidden[counted], labels[counted]
    if transform is not None:
        hidden = transform(hidden)
    parts: list[Tensor | None] = [hidden, *projection]
    device = hidden.device.type
    if torch.is_autocast_enabled(device):
        dtype = torch.get_autocast_dtype(device)
        parts = [x if x is None or x.dtype == torch.float64 else x.to(dtype) for x in parts]
    wanted = [torch.is_grad_enabled() and x is not None and x.requires_grad for x in parts]
    loss: Tensor = _loss_and_slopes(*parts, labels, wanted, most_scores)[0]
    return loss


# One operation to a compiler, so that it may look at values and run over as many chunks as there are.
@torch.library.custom_op(
    "isobert::projected_cross_entropy",
    mutates_args=(),
    schema="(Tensor hidden, Tensor table, Tensor bias, Tensor? rest, Tensor labels, bool[] wanted, int most_scores)"
    " -> (Tensor, Tensor, Tensor, Tensor, Tensor)",
)
def _loss_and_slopes(
    hidden: Tensor,
    table: Tensor,
    bias: Tensor,
    rest: Tensor | None,
    labels: Tensor,
    wanted: Sequence[bool],
    most_scores: int,
) -> tuple[Tensor, ...]:
    """Return the mean loss and its slopes by `hidden`, `table`, `bias` and `rest`, empty ones where none are wanted."""
    counted = (labels != IGNORED_LABEL).nonzero().squeeze(-1)
    count, (vocab, width) = len(counted), table.shape
    chunks = -(-count // max(1, most_scores // vocab))
    step = -(-count // max(1, chunks))
    single = torch.promote_types(hidden.dtype, torch.float32)
    # A half-precision sum would be rounded with every chunk that is added; a single chunk's is not.
    summed = hidden.dtype if chunks <= 1 else single
    # The first chunk overwrites a table's slopes; the others are added to zeros.
    blank = torch.empty_like if count else torch.zeros_like
    loss = hidden.new_zeros((), dtype=single)
    unwanted = hidden.new_empty(0)
    of_hidden = torch.zeros_like(hidden) if wanted[0] else unwanted.clone()
    of_table = blank(table, dtype=summed) if wanted[1] else unwanted.clone()
    of_bias = torch.zeros_like(bias, dtype=single) if wanted[2] else unwanted.clone()
    of_rest = blank(rest, dtype=summed) if rest is not None and wanted[3] else unwanted.clone()
    buffer = hidden.new_empty(step, vocab)
    with torch.autocast(hidden.device.type, enabled=False):
        for start in range(0, count, max(1, step)):
            chosen = counted[start : start + step]
            vectors, right = hidden[chosen], labels[chosen, None]
            factor, others = vectors[:, :width], vectors[:, width:]
            scores = torch.addmm(bias, factor, table.T, out=buffer[: len(chosen)])
            if rest is not None:
                scores.addmm_(others, rest)
            scores = scores.to(single)
            largest = scores.amax(dim=1, keepdim=True)
            likely = scores.gather(1, right) - largest
            odds = scores.sub_(largest).exp_()
            total = odds.sum(dim=1, keepdim=True)
            loss += (total.log() - likely).sum()
            if not any(wanted):
                continue
            # The slope of -log softmax(scores)[right] is softmax(scores), less 1 at the right word.
            share = _scale(hidden) / count
            slopes = odds.mul_(share / total).scatter_add_(1, right, torch.full_like(likely, -share))
            if wanted[2]:
                of_bias += slopes.sum(dim=0)
            slopes = slopes.to(hidden.dtype)
            if wanted[0]:
                parted = [slopes @ table] if rest is None else [slopes @ table, slopes @ rest.T]
                of_hidden[chosen] = torch.cat(parted, dim=1)
            if wanted[1]:
                _add_product(of_table, slopes.T, factor, most_scores, is_first=start == 0)
            if rest is not None and wanted[3]:
                _add_product(of_rest, others.T, slopes, most_scores, is_first=start == 0)
    return (loss / max(count, 1), *(slope.to(hidden.dtype) for slope in (of_hidden, of_table, of_bias, of_rest)))


def _scale(hidden: Tensor) -> float:
    return FLOAT16_SCALE if hidden.dtype == torch.float16 else 1.0


def _add_product(total: Tensor, left: Tensor, right: Tensor, most: int, *, is_first: bool) -> None:
    """Add `left @ right` to `total` in place, or the first time put it there, in blocks where the dtypes differ."""
    if total.dtype == left.dtype:
        torch.addmm(total, left, right, beta=0 if is_first else 1, out=total)
        return
    rows = max(1, most // right.shape[1])
    for block, factor in zip(total.split(rows), left.split(rows), strict=True):
        if is_first:
            block.copy_(factor @ right)
        else:
            block.add_(factor @ right)


@_loss_and_slopes.register_fake
def _(
    hidden: Tensor,
    table: Tensor,
    bias: Tensor,
    rest: Tensor | None,
    labels: Tensor,
    wanted: Sequence[bool],
    most_scores: int,
) -> tuple[Tensor, ...]:
    loss = hidden.new_empty((), dtype=torch.promote_types(hidden.dtype, torch.float32))
    slopes = [
        torch.empty_like(x, dtype=hidden.dtype) if kept and x is not None else hidden.new_empty(0)
        for x, kept in zip((hidden, table, bias, rest), wanted, strict=True)
    ]
    return (loss, *slopes)


def _keep(ctx: Any, inputs: tuple[Any, ...], output: tuple[Tensor, ...]) -> None:
    ctx.set_materialize_grads(False)
    ctx.wanted = inputs[5]
    ctx.is_spent = False
    ctx.save_for_backward(*output[1:])


def _hand_out(ctx: Any, upstream: Tensor | None, *others: Tensor | None) -> tuple[Tensor | None, ...]:
    """Return the slopes, scaled by that of the loss."""
    if any(slope is not None for slope in others):
        raise NotImplementedError(
            "The loss of words has no second derivative; ask for the logits (output_logits=True) and take theirs."
        )
    if ctx.is_spent:  # what was handed out may have become a parameter's gradient, and other numbers
        raise InputError(
            "The loss of words can be differentiated once; for more, call the model again, or take the cross entropy "
            "of its logits (output_logits=True)."
        )
    ctx.is_spent = True
    # They are outputs, with a history of their own, which is of use for refusing a second derivative alone.
    slopes = [slope if torch.is_grad_enabled() else slope.detach() for slope in ctx.saved_tensors]
    found: list[Tensor | None] = [None] * len(slopes)
    if upstream is not None:
        scale = upstream / _scale(slopes[0])
        # A slope of 1, the usual one, spares a pass over each table. On an accelerator the host would wait to know it.
        is_one = not torch.compiler.is_compiling() and scale.device.type == "cpu" and scale.item() == 1
        found = [
            None if not kept else slope if is_one else slope.mul_(scale)
            for slope, kept in zip(slopes, ctx.wanted, strict=True)
        ]
    return (*found, None, None, None)


_loss_and_slopes.register_autograd(_hand_out, setup_context=_keep)
