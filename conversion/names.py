"""How tensors are called: the tables from which every checkpoint is matched with a model.

A checkpoint of the Hub and a PyTorch model of this library use the same names, so what is written here is only where
they part: a family's prefix, names that older checkpoints used, tensors that are stored twice or need not be stored,
and the last part of a Keras variable's name, whose arrays are laid out otherwise.
"""

from __future__ import annotations

import re
from dataclasses import dataclass
from typing import Any, Literal

from ..errors import UnknownNameError

Layout = Literal["same", "reversed", "grouped"]
"""How a Keras array lies relative to the Hub's: alike; with its axes in reverse order; or `[groups, in, out]` of a
group where the Hub has the grouped convolution's `[groups * out, in, 1]`."""


@dataclass(frozen=True)
class FamilyNames:
    """What is particular about the names of one family's tensors.

    Attributes:
        base_prefix: what the encoder's names begin with inside a model with a head ("mobilebert" for
            `mobilebert.embeddings.word_embeddings.weight`); a checkpoint of the bare encoder lacks it.
        tied: pairs (alias, source): the alias is the source's tensor under a second name. A checkpoint may hold either.
        ignored: patterns of names that carry no weights (such as a buffer of positions) and are passed over.
        legacy: pairs (pattern, replacement) that turn an older checkpoint's names into today's, applied in order.
    """

    base_prefix: str
    tied: tuple[tuple[str, str], ...] = ()
    ignored: tuple[str, ...] = ()
    legacy: tuple[tuple[str, str], ...] = ()

    def is_ignored(self, name: str) -> bool:
        """Say whether a tensor of this name carries no weights."""
        return any(re.search(pattern, name) for pattern in self.ignored)

    def modern(self, name: str) -> str:
        """Return today's form of a name from an older checkpoint.

        Example:
            >>> FAMILY_NAMES["mobilebert"].modern("mobilebert.embeddings.LayerNorm.gamma")
            'mobilebert.embeddings.LayerNorm.weight'
        """
        for pattern, replacement in self.legacy:
            name = re.sub(pattern, replacement, name)
        return name


_LAYER_NORM_OF_TF1 = ((r"LayerNorm\.gamma$", "LayerNorm.weight"), (r"LayerNorm\.beta$", "LayerNorm.bias"))

_POSITIONS = (r"(^|\.)embeddings\.position_ids$", r"(^|\.)embeddings\.token_type_ids$")

FAMILY_NAMES: dict[str, FamilyNames] = {
    "mobilebert": FamilyNames(
        base_prefix="mobilebert",
        tied=(
            ("cls.predictions.decoder.weight", "mobilebert.embeddings.word_embeddings.weight"),
            ("cls.predictions.decoder.bias", "cls.predictions.bias"),
        ),
        ignored=_POSITIONS,
        legacy=_LAYER_NORM_OF_TF1,
    ),
    "convbert": FamilyNames(
        base_prefix="convbert",
        tied=(("generator_lm_head.weight", "convbert.embeddings.word_embeddings.weight"),),
        ignored=_POSITIONS,
        legacy=_LAYER_NORM_OF_TF1,
    ),
    "rembert": FamilyNames(
        base_prefix="rembert",
        tied=(("cls.predictions.decoder.weight", "rembert.embeddings.word_embeddings.weight"),),
        ignored=_POSITIONS,
        legacy=_LAYER_NORM_OF_TF1,
    ),
    "squeezebert": FamilyNames(
        base_prefix="transformer",
        tied=(
            ("cls.predictions.decoder.weight", "transformer.embeddings.word_embeddings.weight"),
            ("cls.predictions.decoder.bias", "cls.predictions.bias"),
        ),
        ignored=_POSITIONS,
        legacy=_LAYER_NORM_OF_TF1,
    ),
}


def family_names(model_type: str) -> FamilyNames:
    """Return a family's table.

    Raises:
        UnknownNameError: no table is known for this `model_type`.
    """
    try:
        return FAMILY_NAMES[model_type]
    except KeyError:
        raise UnknownNameError(
            f"no tensor names are known for model_type {model_type!r}; known: {', '.join(map(repr, FAMILY_NAMES))}."
        ) from None


KERAS_LEAVES: tuple[tuple[str, str, Layout], ...] = (
    # (last part in Keras, last part on the Hub, layout). Dense holds `[in, out]` where the Hub's files hold
    # `[out, in]`, and a convolution `[kernel, in, out]` where they hold `[out, in, kernel]`: both are reversals.
    ("kernel", "weight", "reversed"),
    ("grouped_kernel", "weight", "grouped"),
    ("embeddings", "weight", "same"),
    ("gamma", "weight", "same"),
    ("beta", "bias", "same"),
    ("weight", "weight", "same"),
    ("bias", "bias", "same"),
)

_HUB_LEAF = {keras: (hub, layout) for keras, hub, layout in KERAS_LEAVES}


def keras_to_hub(path: str) -> tuple[str, Layout]:
    """Return the Hub's name of a Keras variable, and how its array lies relative to the Hub's.

    Args:
        path: the variable's `path`. Its first part is the model's own name and does not count.

    Raises:
        UnknownNameError: the path has no part after the model's name, or ends in a name that no layer here uses.

    Example:
        >>> keras_to_hub("tf_mobile_bert_model/encoder/layer.0/attention/self/query/kernel")
        ('encoder.layer.0.attention.self.query.weight', 'reversed')
    """
    _, _, inner = path.partition("/")
    *parents, leaf = inner.split("/")
    if leaf not in _HUB_LEAF:
        raise UnknownNameError(
            f"Keras variable {path!r} has no name on the Hub: its last part is {leaf!r}, and known are "
            f"{', '.join(_HUB_LEAF)}, after the model's own name."
        )
    hub_leaf, layout = _HUB_LEAF[leaf]
    return ".".join([*parents, hub_leaf]), layout


def to_hub(array: Any, layout: Layout) -> Any:
    """Turn an array from the Keras layout to the Hub's; a view where that is possible.

    Example:
        >>> import numpy as np
        >>> to_hub(np.zeros((3, 5)), "reversed").shape
        (5, 3)
        >>> to_hub(np.zeros((4, 3, 5)), "grouped").shape
        (20, 3, 1)
    """
    if layout == "grouped":
        return array.transpose(0, 2, 1).reshape(hub_shape(array.shape, layout))
    return array.T if layout == "reversed" else array


def from_hub(array: Any, layout: Layout, shape: tuple[int, ...]) -> Any:
    """Turn an array from the Hub's layout to the Keras one, of this shape; a view.

    Example:
        >>> import numpy as np
        >>> from_hub(np.zeros((20, 3, 1)), "grouped", (4, 3, 5)).shape
        (4, 3, 5)
    """
    if layout == "grouped":
        groups, width_in, width_out = shape
        return array.reshape(groups, width_out, width_in).transpose(0, 2, 1)
    return array.T if layout == "reversed" else array


def hub_shape(shape: tuple[int, ...], layout: Layout) -> tuple[int, ...]:
    """Return the shape that `to_hub` gives an array of this shape."""
    if layout == "grouped":
        groups, width_in, width_out = shape
        return groups * width_out, width_in, 1
    return tuple(reversed(shape)) if layout == "reversed" else tuple(shape)
