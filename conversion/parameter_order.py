"""In which order a model's parameters come: an optimizer's file numbers them and names none.

The PyTorch models' own order is that of `expected_tensors`. Where another one parts from it, its tables stand here;
tests hold them to the models.
"""

from __future__ import annotations

from collections.abc import Iterable, Mapping
from typing import Any

from .expected import expected_tensors

# By the end of a module's name, numbers as {i}: the order of what lies directly in it. The first that fits counts.
PartOrder = Mapping[str, tuple[str, ...]]

KERAS_ORDER: dict[str, PartOrder] = {
    "mobilebert": {"cls.predictions": ("bias", "transform", "dense", "decoder")},
    "convbert": {},
    "rembert": {},
    "squeezebert": {},
}

TRANSFORMERS_ORDER: dict[str, PartOrder] = {
    "mobilebert": {
        "embeddings": (
            "word_embeddings",
            "position_embeddings",
            "token_type_embeddings",
            "embedding_transformation",
            "LayerNorm",
        ),
        "layer.{i}": ("attention", "intermediate", "output", "bottleneck", "ffn"),
        "cls.predictions": ("bias", "transform", "dense", "decoder"),
    },
    "convbert": {"generator_predictions": ("LayerNorm", "dense")},
    "rembert": {
        "encoder": ("embedding_hidden_mapping_in", "layer"),
        "cls.predictions": ("dense", "decoder", "LayerNorm"),
    },
    "squeezebert": {},
}

# MobileBERT's NoNorm there has its bias first. The norm of the head that scores words is always a layer norm.
_TRANSFORMERS_NO_NORM: PartOrder = {"transform.LayerNorm": ("weight", "bias"), "LayerNorm": ("bias", "weight")}


def is_trained(name: str, config: Any, head: str) -> bool:
    """Say whether a new model trains a parameter, in either framework; what has nothing to do is not trained."""
    if config.model_type == "mobilebert":
        if ".bottleneck.attention." in name:
            return not config.use_bottleneck_attention
        if "embeddings.embedding_transformation." in name:
            return bool(config.trigram_input or config.embedding_size != config.hidden_size)
    if config.model_type == "squeezebert" and name.startswith("transformer.pooler."):
        return head in ("ForSequenceClassification", "ForMultipleChoice")
    if config.model_type == "rembert" and ".crossattention." in name:
        return head in ("Model", "ForCausalLM")
    return True


def keras_order(config: Any, head: str) -> tuple[str, ...]:
    """Return the Hub's names of the parameters that a new Keras model trains, in its order.

    Example:
        >>> from isobert.core.squeezebert import SqueezeBertConfig
        >>> keras_order(SqueezeBertConfig(), "ForQuestionAnswering")[-2:]
        ('qa_outputs.weight', 'qa_outputs.bias')
    """
    names = [name for name in expected_tensors(config, head) if is_trained(name, config, head)]
    return _reordered(names, KERAS_ORDER[config.model_type])


def torch_orders(config: Any, head: str) -> dict[str, tuple[str, ...]]:
    """Return the orders in which PyTorch optimizers number a model's parameters, by whose model it is."""
    names = expected_tensors(config, head)
    theirs = TRANSFORMERS_ORDER[config.model_type]
    if getattr(config, "normalization_type", None) == "no_norm":
        theirs = {**_TRANSFORMERS_NO_NORM, **theirs}
    return {"isobert": tuple(names), "transformers": _reordered(names, theirs)}


# Parts of the names of what is usually left out of weight decay: biases and norms; and by a list that is often copied,
# which one family's norms escape.
UNDECAYED_PARTS = (("bias", "LayerNorm", "layernorm"), ("bias", "LayerNorm.weight"))


def undecayed_sets(shapes: Mapping[str, tuple[int, ...]]) -> tuple[frozenset[str], ...]:
    """Return what is usually left out of weight decay, by name: by `UNDECAYED_PARTS`, or all that has one axis."""
    return (
        *(frozenset(name for name in shapes if any(part in name for part in parts)) for parts in UNDECAYED_PARTS),
        frozenset(name for name, shape in shapes.items() if len(shape) < 2),
    )


def _reordered(names: Iterable[str], order: PartOrder) -> tuple[str, ...]:
    """Sort names so that the parts of each module come in its table's order, or as they came."""
    seen: dict[str, int] = {}

    def place(name: str) -> list[int]:
        parts = name.split(".")
        found = []
        for depth, part in enumerate(parts):
            owner = ".".join("{i}" if above.isdigit() else above for above in parts[:depth])
            known = next((children for end, children in order.items() if owner.endswith(end)), ())
            own = ".".join(parts[: depth + 1])
            found.append(known.index(part) if part in known else seen.setdefault(own, len(seen)))
        return found

    return tuple(sorted(names, key=place))
