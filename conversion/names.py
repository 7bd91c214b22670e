"""How tensors are called: the tables from which every checkpoint is matched with a model.

A checkpoint of the Hub and a PyTorch model of this library use the same names, so what is written here is only where
they part: a family's prefix, names that older checkpoints used, tensors that are stored twice or need not be stored,
and the last part of a Keras variable's name, whose arrays are laid out otherwise.
"""

from __future__ import annotations

import re
from dataclasses import dataclass

from ..errors import UnknownNameError
from .layouts import Layout
from .rules import ForeignNames, Rule


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


# The `tf_model.h5` of transformers 4. A tensor's name there is the path of the layers that hold it; what stands before
# the first of them, the name of the model itself, says nothing and is not in the tables.
_H5_LEAVES: dict[str, tuple[tuple[str, str, Layout], ...]] = {
    # By kind of module: (last part on the Hub, last part there, layout).
    "dense": (("weight", "kernel:0", "reversed"), ("bias", "bias:0", "same")),
    "norm": (("weight", "gamma:0", "same"), ("bias", "beta:0", "same")),
    "plain norm": (("weight", "weight:0", "same"), ("bias", "bias:0", "same")),
    "words": (("weight", "weight:0", "same"),),
    "positions": (("weight", "embeddings:0", "same"),),
    "bias": (("bias", "bias:0", "same"),),
    "convolution": (
        ("depthwise.weight", "depthwise_kernel:0", "depthwise"),
        ("pointwise.weight", "pointwise_kernel:0", "reversed"),
        ("bias", "bias:0", "column"),
    ),
}


def _h5_rules(kind: str, *modules: str, owner: str | None = None) -> tuple[Rule, ...]:
    """Return the rules of modules of one kind. What the Hub calls `cls.a` is `a___cls/a`, or `owner___cls/a`."""

    def path(module: str) -> str:
        first, *rest = module.split(".")
        top = [f"{owner or rest[0]}___cls"] if first == "cls" else [first]
        joined = "/".join([*top, *rest])
        return joined.replace("/layer/{i}", "/layer_._{i}").replace("/ffn/{j}", "/ffn.{j}")

    return tuple(
        Rule(f"{module}.{hub}", f"{path(module)}/{foreign}", layout)
        for module in modules
        for hub, foreign, layout in _H5_LEAVES[kind]
    )


_MOBILEBERT_NORMS = (
    "mobilebert.embeddings.LayerNorm",
    "mobilebert.encoder.layer.{i}.bottleneck.{name}.LayerNorm",
    "mobilebert.encoder.layer.{i}.attention.output.LayerNorm",
    "mobilebert.encoder.layer.{i}.ffn.{j}.output.LayerNorm",
    "mobilebert.encoder.layer.{i}.output.LayerNorm",
    "mobilebert.encoder.layer.{i}.output.bottleneck.LayerNorm",
)

_MOBILEBERT_H5 = (
    *_h5_rules("words", "mobilebert.embeddings.word_embeddings", "cls.predictions.dense", "cls.predictions.decoder"),
    *_h5_rules("positions", "mobilebert.embeddings.position_embeddings", "mobilebert.embeddings.token_type_embeddings"),
    *_h5_rules(
        "dense",
        "mobilebert.embeddings.embedding_transformation",
        "mobilebert.encoder.layer.{i}.bottleneck.{name}.dense",
        "mobilebert.encoder.layer.{i}.attention.self.{name}",
        "mobilebert.encoder.layer.{i}.attention.output.dense",
        "mobilebert.encoder.layer.{i}.ffn.{j}.intermediate.dense",
        "mobilebert.encoder.layer.{i}.ffn.{j}.output.dense",
        "mobilebert.encoder.layer.{i}.intermediate.dense",
        "mobilebert.encoder.layer.{i}.output.dense",
        "mobilebert.encoder.layer.{i}.output.bottleneck.dense",
        "mobilebert.pooler.dense",
        "cls.predictions.transform.dense",
        "cls.seq_relationship",
        "classifier",
        "qa_outputs",
    ),
    *_h5_rules("norm", "cls.predictions.transform.LayerNorm"),
    *_h5_rules("bias", "cls.predictions"),
)

# By family. The table "mobilebert" reads either kind of norm; "mobilebert-no-norm" is for writing the kind that only
# scales and shifts.
TRANSFORMERS_H5: dict[str, ForeignNames] = {
    "mobilebert": ForeignNames(
        (*_h5_rules("norm", *_MOBILEBERT_NORMS), *_h5_rules("plain norm", *_MOBILEBERT_NORMS), *_MOBILEBERT_H5)
    ),
    "mobilebert-no-norm": ForeignNames((*_h5_rules("plain norm", *_MOBILEBERT_NORMS), *_MOBILEBERT_H5)),
    "convbert": ForeignNames(
        (
            *_h5_rules("words", "convbert.embeddings.word_embeddings"),
            *_h5_rules(
                "positions", "convbert.embeddings.position_embeddings", "convbert.embeddings.token_type_embeddings"
            ),
            *_h5_rules("convolution", "convbert.encoder.layer.{i}.attention.self.key_conv_attn_layer"),
            *_h5_rules(
                "dense",
                "convbert.embeddings_project",
                "convbert.encoder.layer.{i}.attention.self.{name}",
                "convbert.encoder.layer.{i}.attention.output.dense",
                "convbert.encoder.layer.{i}.intermediate.dense",
                "convbert.encoder.layer.{i}.output.dense",
                "generator_predictions.dense",
                "sequence_summary.summary",
                "classifier",
                "classifier.dense",
                "classifier.out_proj",
                "qa_outputs",
            ),
            *_h5_rules(
                "norm",
                "convbert.embeddings.LayerNorm",
                "convbert.encoder.layer.{i}.attention.output.LayerNorm",
                "convbert.encoder.layer.{i}.output.LayerNorm",
                "generator_predictions.LayerNorm",
            ),
            *_h5_rules("bias", "generator_lm_head"),
        ),
        left_out=(
            (r"^generator_lm_head/convbert/embeddings/", "the head lists the embeddings, which it uses, a second time"),
        ),
    ),
    "rembert": ForeignNames(
        (
            *_h5_rules("words", "rembert.embeddings.word_embeddings"),
            *_h5_rules("words", "cls.predictions.decoder", owner="mlm"),
            *_h5_rules(
                "positions", "rembert.embeddings.position_embeddings", "rembert.embeddings.token_type_embeddings"
            ),
            *_h5_rules(
                "dense",
                "rembert.encoder.embedding_hidden_mapping_in",
                "rembert.encoder.layer.{i}.{name}.self.{name2}",
                "rembert.encoder.layer.{i}.{name}.output.dense",
                "rembert.encoder.layer.{i}.intermediate.dense",
                "rembert.encoder.layer.{i}.output.dense",
                "rembert.pooler.dense",
                "classifier",
                "qa_outputs",
            ),
            *_h5_rules("dense", "cls.predictions.dense", owner="mlm"),
            *_h5_rules(
                "norm",
                "rembert.embeddings.LayerNorm",
                "rembert.encoder.layer.{i}.{name}.output.LayerNorm",
                "rembert.encoder.layer.{i}.output.LayerNorm",
            ),
            *_h5_rules("norm", "cls.predictions.LayerNorm", owner="mlm"),
            *_h5_rules("bias", "cls.predictions.decoder", owner="mlm"),
        )
    ),
}
