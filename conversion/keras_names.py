"""Where Keras 3 puts a model's variables in its own files: the tables by which such a file is read and written.

A file of weights is a tree of groups. A layer's group is called after the attribute of its owner that holds it, or,
inside a list, after the layer's class; the layer's own name, which is the Hub's, is noted beside its variables. These
have numbers alone. So a file tells the layers' names by itself, and `KERAS_VARIABLES` tells the variables'; where a
layer's group has to be for Keras to find it follows from its name by `KERAS_PLACES`.
"""

from __future__ import annotations

import re
from collections.abc import Sequence
from typing import Any

from ..core.registry import Family
from .names import KERAS_LEAVES, family_names
from .rules import ForeignNames, Rule

KERAS_VARIABLES: tuple[tuple[str, tuple[int, ...], tuple[str, ...]], ...] = (
    # (last part of the layer's name, or "" for any; number of axes of each of its variables; their names in Keras).
    # The first line that fits counts. Every layout has as many axes on the Hub as in Keras.
    ("decoder", (2, 1), ("weight", "bias")),
    ("generator_lm_head", (2, 1), ("weight", "bias")),
    ("", (2, 1), ("kernel", "bias")),
    ("key_conv_attn_layer", (2,), ("bias",)),
    ("", (2,), ("weight",)),
    ("", (1, 1), ("weight", "bias")),
    ("", (1,), ("bias",)),
    ("depthwise", (3,), ("kernel",)),
    ("pointwise", (3,), ("grouped_kernel",)),
    # ConvBERT's groups of a feed-forward network; all other maps with groups are convolutions.
    ("dense", (3, 1), ("weight", "bias")),
    ("", (3, 1), ("grouped_kernel", "bias")),
)

KERAS_SHARED: dict[str, str] = {
    # By family: what the shared table of words is called where it is first met, which is in the head. ConvBERT's
    # encoder comes before its head, so there it is among the embeddings.
    "mobilebert": "cls.predictions.word_embeddings",
    "rembert": "cls.predictions.decoder.word_embeddings",
    "squeezebert": "cls.predictions.word_embeddings",
}

KERAS_GROUPS: tuple[tuple[str, str], ...] = (
    # (end of a layer's name, the field of the config with the number of its groups); one group in all others.
    ("attention.query", "q_groups"),
    ("attention.key", "k_groups"),
    ("attention.value", "v_groups"),
    ("post_attention.conv1d", "post_attention_groups"),
    ("intermediate.conv1d", "intermediate_groups"),
    ("output.conv1d", "output_groups"),
)

KERAS_PLACES: tuple[tuple[str, str], ...] = (
    # (pattern, replacement) that turn a layer's name, its parts separated by "/", into its group, applied in order.
    # The family's own class names stand in braces.
    (r"^cls/predictions/decoder/word_embeddings$", "cls/predictions/decoder/tied"),
    (r"^cls/predictions/word_embeddings$", "cls/predictions/decoder"),
    # The layers of an encoder are in a list `layer`, the smaller networks of one in a list `ffn`; Keras numbers the
    # members of a list from the second on.
    (r"(?<![^/])layers?\.(\d+)(?![^/])", r"layer/{layer}_\1"),
    (r"(?<![^/])ffn\.(\d+)(?![^/])", r"ffn/ffn_layer_\1"),
    (r"_0(?![^/])", ""),
    # Every Keras layer has an `input` and an `output`, so an attribute cannot be called so.
    (r"(?<![^/])(input|output)(?![^/])", r"\1_"),
    # Keras goes through a model's attributes in the order of the alphabet. Its `layers`, a list of all its parts, is
    # one of them: parts that would come later are found there.
    (r"^(mobilebert|rembert|transformer)(?![^/])", "layers/{model}"),
    (r"^(layers/\{model\}/)?pooler(?![^/])", r"\1layers/pooler"),
    (r"^sequence_summary(?![^/])", "layers/sequence_summary"),
    (r"^qa_outputs$", "layers/dense"),
)

# Families whose bare encoder is told whether to have a pooler; ConvBERT never has one.
KERAS_POOLED = ("mobilebert", "rembert", "squeezebert")

KERAS_OPTIMIZER = "tf_adam_w"
"""What Keras calls the optimizer of a model that goes on training."""

KERAS_LEFT_OUT: tuple[tuple[str, str], ...] = (
    # (pattern of a place, why what is there has none on the Hub).
    (r"^optimizer/", "since it is the state of an optimizer"),
)


def variable_names(layer: str, axes: Sequence[int]) -> tuple[str, ...] | None:
    """Return the names of a layer's variables in Keras, in order; None if no layer here has such variables.

    Args:
        layer: the layer's name, parts separated by dots.
        axes: how many axes each variable has.

    Example:
        >>> variable_names("encoder.layer.0.attention.self.query", (2, 1))
        ('kernel', 'bias')
    """
    last = layer.rpartition(".")[2]
    found = (names for part, count, names in KERAS_VARIABLES if part in ("", last) and count == tuple(axes))
    return next(found, None)


def parts_of(layer: str) -> list[str]:
    """Return the parts of a layer's name; a number belongs to the part before it.

    Example:
        >>> parts_of("encoder.layer.1.output")
        ['encoder', 'layer.1', 'output']
    """
    return re.split(r"\.(?!\d)", layer)


def place_of(parts: Sequence[str], family: Family) -> str:
    """Return the group in which Keras looks for a layer, from the parts of its name: the Hub's, or in `KERAS_SHARED`.

    Example:
        >>> from isobert.core.registry import FAMILIES
        >>> place_of(parts_of("mobilebert.encoder.layer.1.output.dense"), FAMILIES["mobilebert"])
        'layers/tf_mobile_bert_model/encoder/layer/mobile_bert_layer_1/output_/dense'
    """
    place = "/".join(parts)
    for pattern, replacement in KERAS_PLACES:
        place = re.sub(pattern, replacement, place)
    return place.format(layer=snake_case(f"{family.prefix}Layer"), model=snake_case(family.model_name("Model", "tf")))


def snake_case(class_name: str) -> str:
    """Return a class's name as Keras writes it in names of layers.

    Example:
        >>> snake_case("TFMobileBertForMaskedLM")
        'tf_mobile_bert_for_masked_lm'
    """
    return re.sub(r"(?<=[a-z])(?=[A-Z])|(?<=[A-Z])(?=[A-Z][a-z])", "_", class_name).lower()


def groups_of(layer: str, config: Any) -> int:
    """Return the number of groups of a layer that holds a `grouped_kernel`."""
    return next((getattr(config, field) for end, field in KERAS_GROUPS if layer.endswith(end)), 1)


def keras_table(family: Family) -> ForeignNames:
    """Return the table of a family's variables, called by their layer and their own name ("pooler.dense/kernel")."""
    shared = KERAS_SHARED.get(family.model_type)
    source = family_names(family.model_type).tied[0][1]
    return ForeignNames(
        rules=(
            *([Rule(source, f"{shared}/weight")] if shared else []),
            *(Rule(f"{{path}}.{hub}", f"{{path}}/{keras}", layout) for keras, hub, layout in KERAS_LEAVES),
        ),
        left_out=KERAS_LEFT_OUT,
    )
