"""The losses of all task heads.

A class label of -100 does not count, nor does a label of another kind that is NaN. A mean over no label at all is 0,
not NaN. Half-precision logits are taken to float32 first, since sums over a vocabulary lose too much in less.
"""

from __future__ import annotations

from typing import Any

import keras
from keras import ops

from ..core.config import IGNORED_LABEL, PretrainedConfig
from .inputs import check_class_labels, check_shape, input_error, is_floating_point


def cross_entropy(logits: Any, labels: Any, name: str = "labels") -> Any:
    """Return the mean of `-log softmax(logits)[label]` over the labels that are not -100.

    Args:
        logits: `[..., classes]`.
        labels: integers `[...]`, each -100 or from 0 up to `classes`, exclusive.
        name: what an error calls the labels.

    Raises:
        InputError: the labels' shape, dtype or range does not suit.

    Example:
        >>> from keras import ops
        >>> round(float(cross_entropy(ops.zeros((3, 4)), ops.array([0, 3, -100]))), 4)
        1.3863
        >>> float(cross_entropy(ops.zeros((1, 4)), ops.array([-100])))
        0.0
    """
    check_shape(name, labels, logits.shape[:-1])
    check_class_labels(name, labels, logits.shape[-1])
    logits = _at_least_single(logits)
    counted = ops.not_equal(labels, IGNORED_LABEL)
    each = ops.sparse_categorical_crossentropy(ops.where(counted, labels, 0), logits, from_logits=True)
    return _mean(each, counted)


def mean_squared_error(logits: Any, labels: Any) -> Any:
    """Return the mean of `(logits - labels)^2` over all labels but NaN; `logits` and `labels` have one shape."""
    logits = _at_least_single(logits)
    labels, counted = _without_nan(ops.cast(labels, logits.dtype))
    return _mean(ops.square(logits - labels), counted)


def binary_cross_entropy(logits: Any, labels: Any) -> Any:
    """Return the mean over all labels, but NaN, of a yes-or-no loss; `logits` and `labels` (0 to 1) have one shape."""
    logits = _at_least_single(logits)
    labels, counted = _without_nan(ops.cast(labels, logits.dtype))
    # -label * log(sigmoid(logit)) - (1 - label) * log(1 - sigmoid(logit))
    return _mean(ops.softplus(logits) - logits * labels, counted)


def sequence_classification_loss(logits: Any, labels: Any, config: PretrainedConfig) -> Any:
    """Return the loss of `config.problem_type` for `logits` `[batch, num_labels]`.

    - "regression": mean squared error; labels `[batch, num_labels]`, or `[batch]` where there is one.
    - "single_label_classification": cross entropy; integer labels `[batch]`.
    - "multi_label_classification": binary cross entropy; labels `[batch, num_labels]`.

    None means regression where `num_labels` is 1, else single-label for integer labels and multi-label for others.

    Raises:
        InputError: the labels' shape or dtype does not suit.
    """
    problem_type = config.problem_type_for(is_floating_point(labels))
    if problem_type == "single_label_classification":
        return cross_entropy(logits, labels)
    if problem_type == "regression" and config.num_labels == 1 and len(labels.shape) == 1:
        labels = labels[:, None]
    check_shape("labels", labels, logits.shape, f" for problem_type {problem_type!r}")
    return mean_squared_error(logits, labels) if problem_type == "regression" else binary_cross_entropy(logits, labels)


def question_answering_loss(start_logits: Any, end_logits: Any, start_positions: Any, end_positions: Any) -> Any:
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


def _position_loss(logits: Any, positions: Any, name: str) -> Any:
    positions = ops.squeeze(positions, axis=-1) if len(positions.shape) == 2 else positions
    check_shape(name, positions, logits.shape[:-1])
    if is_floating_point(positions):
        raise input_error(f"{name} has dtype {keras.backend.standardize_dtype(positions.dtype)}; give integers.")
    length = ops.cast(ops.shape(logits)[-1], positions.dtype)
    inside = ops.logical_and(positions >= 0, positions < length)
    return cross_entropy(logits, ops.where(inside, positions, IGNORED_LABEL))


def _without_nan(labels: Any) -> tuple[Any, Any]:
    """Return labels with 0 in the place of NaN, and which were none: through a NaN no gradient would come back."""
    counted = ops.logical_not(ops.isnan(labels))
    return ops.where(counted, labels, 0.0), counted


def _mean(each: Any, counted: Any) -> Any:
    """Return the mean of what counts, 0 if nothing does."""
    total = ops.sum(ops.where(counted, each, 0.0))
    return total / ops.cast(ops.maximum(ops.sum(ops.cast(counted, "int32")), 1), each.dtype)


def _at_least_single(logits: Any) -> Any:
    return ops.cast(logits, keras.backend.result_type(logits.dtype, "float32"))
