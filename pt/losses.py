"""The losses of all task heads.

A class label of -100 does not count, nor does a label of another kind that is NaN. A mean over no label at all is 0,
not NaN. Half-precision logits are taken to float32 first, since sums over a vocabulary lose too much in less.
"""

from __future__ import annotations

import torch
from torch import Tensor
from torch.nn import functional as F

from ..core.config import IGNORED_LABEL, PretrainedConfig
from ..errors import InputError
from .inputs import check_class_labels, check_shape, check_tensors


def cross_entropy(logits: Tensor, labels: Tensor, name: str = "labels") -> Tensor:
    """Return the mean of `-log softmax(logits)[label]` over the labels that are not -100.

    Args:
        logits: `[..., classes]`.
        labels: integers `[...]`, each -100 or from 0 up to `classes`, exclusive.
        name: what an error calls the labels.

    Raises:
        InputError: the labels' shape, dtype or range does not suit.

    Example:
        >>> import torch
        >>> round(cross_entropy(torch.zeros(3, 4), torch.tensor([0, 3, -100])).item(), 4)
        1.3863
        >>> cross_entropy(torch.zeros(1, 4), torch.tensor([-100])).item()
        0.0
    """
    check_tensors(**{name: labels})
    check_shape(name, labels, logits.shape[:-1])
    check_class_labels(name, labels, logits.shape[-1])
    flat = labels.flatten().long()
    total = F.cross_entropy(_at_least_single(logits).flatten(0, -2), flat, ignore_index=IGNORED_LABEL, reduction="sum")
    return total / (flat != IGNORED_LABEL).sum().clamp(min=1)


def mean_squared_error(logits: Tensor, labels: Tensor) -> Tensor:
    """Return the mean of `(logits - labels)^2` over all labels but NaN; `logits` and `labels` have one shape."""
    logits = _at_least_single(logits)
    labels, counted = _without_nan(labels.to(logits.dtype))
    return _mean(F.mse_loss(logits, labels, reduction="none"), counted)


def binary_cross_entropy(logits: Tensor, labels: Tensor) -> Tensor:
    """Return the mean over all labels, but NaN, of a yes-or-no loss; `logits` and `labels` (0 to 1) have one shape."""
    logits = _at_least_single(logits)
    labels, counted = _without_nan(labels.to(logits.dtype))
    return _mean(F.binary_cross_entropy_with_logits(logits, labels, reduction="none"), counted)


def sequence_classification_loss(logits: Tensor, labels: Tensor, config: PretrainedConfig) -> Tensor:
    """Return the loss of `config.problem_type` for `logits` `[batch, num_labels]`.

    - "regression": mean squared error; labels `[batch, num_labels]`, or `[batch]` where there is one.
    - "single_label_classification": cross entropy; integer labels `[batch]`.
    - "multi_label_classification": binary cross entropy; labels `[batch, num_labels]`.

    None means regression where `num_labels` is 1, else single-label for integer labels and multi-label for others.

    Raises:
        InputError: the labels' shape or dtype does not suit.
    """
    check_tensors(labels=labels)
    problem_type = config.problem_type_for(labels.is_floating_point())
    if problem_type == "single_label_classification":
        return cross_entropy(logits, labels)
    if problem_type == "regression" and config.num_labels == 1 and labels.dim() == 1:
        labels = labels[:, None]
    check_shape("labels", labels, logits.shape, f" for problem_type {problem_type!r}")
    return mean_squared_error(logits, labels) if problem_type == "regression" else binary_cross_entropy(logits, labels)


def question_answering_loss(
    start_logits: Tensor, end_logits: Tensor, start_positions: Tensor, end_positions: Tensor
) -> Tensor:
    """Return the mean of the cross entropies of an answer's start and of its end.

    A position outside the sequence (an answer that was cut off) does not count.

    Args:
        start_logits: `[batch, length]`.
        end_logits: `[batch, length]`.
        start_positions: integers `[batch]` or `[batch, 1]`.
        end_positions: integers `[batch]` or `[batch, 1]`.
    """
    start_loss = _position_loss(start_logits, start_positions, "start_positions")
    end_loss = _position_loss(end_logits, end_positions, "end_positions")
    return (start_loss + end_loss) / 2


def _position_loss(logits: Tensor, positions: Tensor, name: str) -> Tensor:
    check_tensors(**{name: positions})
    positions = positions.squeeze(-1) if positions.dim() == 2 else positions
    check_shape(name, positions, logits.shape[:-1])
    if positions.is_floating_point():
        raise InputError(f"{name} has dtype {positions.dtype}; give integers.")
    inside = (positions >= 0) & (positions < logits.shape[-1])
    return cross_entropy(logits, positions.masked_fill(~inside, IGNORED_LABEL))


def _without_nan(labels: Tensor) -> tuple[Tensor, Tensor]:
    """Return labels with 0 in the place of NaN, and which were none: through a NaN no gradient would come back."""
    counted = ~labels.isnan()
    return labels.masked_fill(~counted, 0), counted


def _mean(each: Tensor, counted: Tensor) -> Tensor:
    """Return the mean of what counts, 0 if nothing does."""
    return each.masked_fill(~counted, 0).sum() / counted.sum().clamp(min=1)


def _at_least_single(logits: Tensor) -> Tensor:
    return logits.to(torch.promote_types(logits.dtype, torch.float32))
