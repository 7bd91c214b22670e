"""RemBERT's config and its named sizes.

Chung et al. 2020, "Rethinking embedding coupling in pre-trained language models", https://arxiv.org/abs/2010.12821.
"""

from __future__ import annotations

from dataclasses import dataclass
from typing import Any, ClassVar

from ..errors import ConfigError
from .config import PretrainedConfig
from .fields import flag, integer, optional, probability, setting

# The model that the authors published; the Hub's defaults.
SIZES: dict[str, dict[str, Any]] = {"rembert": {}}


@dataclass(kw_only=True)
class RemBertConfig(PretrainedConfig):
    """The shape of a RemBERT; the defaults are the Hub's.

    `PretrainedConfig` tells the fields that all families have. `tie_word_embeddings` is false unless given: decoupled
    embeddings are what the paper is about. Tied ones must be as wide at both ends.

    Attributes:
        input_embedding_size: width of the words', positions' and segments' embeddings, kept in fine-tuning.
        output_embedding_size: width of the table that scores words, of use in pretraining alone.
        classifier_dropout_prob: dropout before the classifiers.
        is_decoder: whether a position sees only itself and those before it.
        add_cross_attention: whether each layer also attends to an encoder's output; only a decoder does.
        use_cache: whether a decoder that scores words returns its keys and values, unless a call says otherwise.
        bos_token_id, eos_token_id: the ids that begin and end a text.

    Example:
        >>> config = RemBertConfig.from_size("rembert", num_hidden_layers=2)
        >>> config.input_embedding_size, config.hidden_size, config.output_embedding_size
        (256, 1152, 1664)
        >>> RemBertConfig(add_cross_attention=True)
        Traceback (most recent call last):
        ...
        isobert.errors.ConfigError: RemBertConfig.add_cross_attention is set; it needs is_decoder=True.
    """

    model_type: ClassVar[str] = "rembert"
    base_model_prefix: ClassVar[str] = "rembert"
    sizes: ClassVar[dict[str, dict[str, Any]]] = SIZES
    quiet_fields: ClassVar[tuple[str, ...]] = (*PretrainedConfig.quiet_fields, "is_decoder", "add_cross_attention")

    vocab_size: int = setting(250300, integer(1))
    hidden_size: int = setting(1152, integer(1))
    num_hidden_layers: int = setting(32, integer(1))
    num_attention_heads: int = setting(18, integer(1))
    intermediate_size: int = setting(4608, integer(1))
    hidden_dropout_prob: float = setting(0.0, probability())
    attention_probs_dropout_prob: float = setting(0.0, probability())
    tie_word_embeddings: bool = setting(False, flag())
    input_embedding_size: int = setting(256, integer(1))
    output_embedding_size: int = setting(1664, integer(1))
    classifier_dropout_prob: float = setting(0.1, probability())
    is_decoder: bool = setting(False, flag())
    add_cross_attention: bool = setting(False, flag())
    use_cache: bool = setting(True, flag())
    bos_token_id: int | None = setting(312, optional(integer(0)))
    eos_token_id: int | None = setting(313, optional(integer(0)))

    @property
    def head_dropout_prob(self) -> float:
        """Dropout before a classifier."""
        return self.classifier_dropout_prob

    def validate(self) -> None:
        """Check every field, and fields against each other; see `PretrainedConfig.validate`."""
        super().validate()
        name = type(self).__name__
        if self.hidden_size % self.num_attention_heads:
            raise ConfigError(
                f"{name}.num_attention_heads is {self.num_attention_heads}; it must divide hidden_size, "
                f"{self.hidden_size}."
            )
        if self.tie_word_embeddings and self.input_embedding_size != self.output_embedding_size:
            raise ConfigError(
                f"{name}.tie_word_embeddings is set, but input_embedding_size is {self.input_embedding_size} and "
                f"output_embedding_size {self.output_embedding_size}; make them equal, or do not tie them."
            )
        if self.add_cross_attention and not self.is_decoder:
            raise ConfigError(f"{name}.add_cross_attention is set; it needs is_decoder=True.")
