"""MobileBERT's config and its named sizes.

Sun et al. 2020, "MobileBERT: a Compact Task-Agnostic BERT for Resource-Limited Devices", https://arxiv.org/abs/2004.02984.
"""

from __future__ import annotations

from dataclasses import dataclass
from typing import Any, ClassVar

from ..errors import ConfigError
from .config import ACTIVATIONS, PretrainedConfig
from .fields import flag, integer, number, one_of, optional, probability, setting

# "manual_layer_norm" is a layer norm whose epsilon is fixed at 1e-6; the authors' code has it.
NORMALIZATION_TYPES = ("no_norm", "layer_norm", "manual_layer_norm")

# Table 1 of the paper, with the settings of the authors' own configs where the table is silent.
SIZES: dict[str, dict[str, Any]] = {
    "mobilebert-uncased": {"classifier_activation": False},
    # Section 4.1: bottlenecked attention inputs and two feed-forward networks in each layer.
    "mobilebert-tiny": {
        "use_bottleneck_attention": True,
        "key_query_shared_bottleneck": False,
        "num_feedforward_networks": 2,
        "classifier_activation": False,
    },
    # The teacher: an inverted bottleneck, wider than the stream between layers. Its gelu is the tanh form.
    "ib-bert-large": {
        "hidden_act": "gelu_new",
        "hidden_dropout_prob": 0.1,
        "intermediate_size": 4096,
        "intra_bottleneck_size": 1024,
        "key_query_shared_bottleneck": False,
        "num_feedforward_networks": 1,
        "normalization_type": "layer_norm",
    },
}


@dataclass(kw_only=True)
class MobileBertConfig(PretrainedConfig):
    """The shape of a MobileBERT; the defaults are the Hub's.

    `PretrainedConfig` tells the fields that all families have.

    Attributes:
        embedding_size: width of the word embeddings.
        trigram_input: whether each position sees its neighbours' word embeddings too (section 3.4).
        use_bottleneck: whether a layer works at its own width, between two linear maps (section 3.1).
        intra_bottleneck_size: the width inside a layer when it has a bottleneck.
        use_bottleneck_attention: whether queries, keys and values are all computed from the bottlenecked input.
        key_query_shared_bottleneck: whether queries and keys share one bottleneck of their own; without it, and without
            `use_bottleneck_attention`, they are computed from the full stream.
        num_feedforward_networks: feed-forward networks of a layer (section 3.2).
        normalization_type: "no_norm" (section 3.3), "layer_norm", or "manual_layer_norm" (epsilon 1e-6).
        classifier_activation: whether the pooler has a dense layer with tanh, or is the bare first token.
        classifier_dropout: dropout before the classifiers; None takes `hidden_dropout_prob`.
        attention_mask_value: the score given to masked positions before the softmax. None masks them fully, as the
            Hub's models do; -6.0 reproduces the authors' original code, where masking is soft for the sake of
            quantisation.
        mask_padding: zero the word embeddings of masked positions before the trigram, so that an example's output does
            not depend on its padding. Published checkpoints were trained without.

    Example:
        >>> config = MobileBertConfig.from_size("mobilebert-tiny", num_labels=3)
        >>> config.true_hidden_size, config.num_labels
        (128, 3)
        >>> MobileBertConfig(hidden_size=0)
        Traceback (most recent call last):
        ...
        isobert.errors.ConfigError: MobileBertConfig.hidden_size is 0; it must be an integer >= 1.
    """

    model_type: ClassVar[str] = "mobilebert"
    base_model_prefix: ClassVar[str] = "mobilebert"
    sizes: ClassVar[dict[str, dict[str, Any]]] = SIZES
    quiet_fields: ClassVar[tuple[str, ...]] = (
        *PretrainedConfig.quiet_fields,
        "classifier_dropout",
        "attention_mask_value",
        "mask_padding",
    )
    derived_keys: ClassVar[tuple[str, ...]] = ("true_hidden_size",)

    hidden_size: int = setting(512, integer(1))
    num_hidden_layers: int = setting(24, integer(1))
    num_attention_heads: int = setting(4, integer(1))
    intermediate_size: int = setting(512, integer(1))
    hidden_act: str = setting("relu", one_of(*ACTIVATIONS))
    hidden_dropout_prob: float = setting(0.0, probability())
    embedding_size: int = setting(128, integer(1))
    trigram_input: bool = setting(True, flag())
    use_bottleneck: bool = setting(True, flag())
    intra_bottleneck_size: int = setting(128, integer(1))
    use_bottleneck_attention: bool = setting(False, flag())
    key_query_shared_bottleneck: bool = setting(True, flag())
    num_feedforward_networks: int = setting(4, integer(1))
    normalization_type: str = setting("no_norm", one_of(*NORMALIZATION_TYPES))
    classifier_activation: bool = setting(True, flag())
    classifier_dropout: float | None = setting(None, optional(probability()))
    attention_mask_value: float | None = setting(None, optional(number()))
    mask_padding: bool = setting(False, flag())

    @property
    def true_hidden_size(self) -> int:
        """The width inside a layer: of the bottleneck if there is one, else of the stream."""
        return self.intra_bottleneck_size if self.use_bottleneck else self.hidden_size

    @property
    def head_dropout_prob(self) -> float:
        """Dropout before a classifier."""
        return self.hidden_dropout_prob if self.classifier_dropout is None else self.classifier_dropout

    def validate(self) -> None:
        """Check every field, and fields against each other; see `PretrainedConfig.validate`."""
        super().validate()
        name = type(self).__name__
        if self.true_hidden_size % self.num_attention_heads:
            width = "intra_bottleneck_size" if self.use_bottleneck else "hidden_size"
            raise ConfigError(
                f"{name}.num_attention_heads is {self.num_attention_heads}; "
                f"it must divide {width}, {self.true_hidden_size}."
            )

    def extra_output_width(self) -> int:
        """Width of what the language-model head's output table has beyond the word embeddings.

        Raises:
            ConfigError: the word embeddings are wider than the stream, so the head cannot be built on them.
        """
        if self.hidden_size < self.embedding_size:
            raise ConfigError(
                f"{type(self).__name__}.embedding_size is {self.embedding_size}; a language-model head needs at most "
                f"hidden_size, {self.hidden_size}."
            )
        return self.hidden_size - self.embedding_size
