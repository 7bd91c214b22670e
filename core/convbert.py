"""ConvBERT's config and its named sizes.

Jiang et al. 2020, "ConvBERT: Improving BERT with Span-based Dynamic Convolution", https://arxiv.org/abs/2008.02496.
"""

from __future__ import annotations

from dataclasses import dataclass
from typing import Any, ClassVar

from ..errors import ConfigError
from .config import ACTIVATIONS, PretrainedConfig
from .fields import flag, integer, odd, one_of, optional, probability, setting

# Where the vector of a whole text is taken from, for multiple choice: the last or first position, or the mean of all.
# "cls_index" is a position that a caller gives; since none can be given here, it is the last.
SUMMARY_TYPES = ("last", "first", "mean", "cls_index")

# Section 4.1 and the authors' configs. The padding id is that of the authors' vocabulary, in which [PAD] comes first.
SIZES: dict[str, dict[str, Any]] = {
    "convbert-base": {"pad_token_id": 0},
    "convbert-medium-small": {
        "embedding_size": 128,
        "hidden_size": 384,
        "intermediate_size": 1536,
        "num_attention_heads": 8,
        "num_groups": 2,
        "pad_token_id": 0,
    },
    "convbert-small": {
        "embedding_size": 128,
        "hidden_size": 256,
        "intermediate_size": 1024,
        "num_attention_heads": 4,
        "pad_token_id": 0,
    },
}


@dataclass(kw_only=True)
class ConvBertConfig(PretrainedConfig):
    """The shape of a ConvBERT; the defaults are the Hub's.

    `PretrainedConfig` tells the fields that all families have. Half of the stream's width is made by attention and half
    by convolution, whatever `head_ratio` is: it says how many heads share that half.

    Attributes:
        pad_token_id: 1 unless given, as on the Hub; the authors' vocabulary has [PAD] at 0.
        embedding_size: width of the embeddings; where it is not `hidden_size`, a dense map follows them.
        head_ratio: by how much the number of attention heads is reduced (section 3.3): `num_attention_heads` is divided
            by it and rounded down, and at least 1 is left.
        conv_kernel_size: how many positions the convolutions see; odd.
        num_groups: groups of the feed-forward network's two dense maps (section 3.3).
        classifier_dropout: dropout before the classifiers; None takes `hidden_dropout_prob`.
        summary_type, summary_use_proj, summary_activation, summary_first_dropout, summary_last_dropout: how multiple
            choice summarises a text: from where (`SUMMARY_TYPES`), whether through a dense map, then which activation
            (None is none), and the dropout before and after these.
        mask_padding: keep masked positions out of the convolutions, so that an example's output does not depend on its
            padding. Published checkpoints were trained without.

    Example:
        >>> config = ConvBertConfig.from_size("convbert-small", head_ratio=4)
        >>> config.attention_heads, config.attention_width
        (1, 128)
        >>> ConvBertConfig(conv_kernel_size=4)
        Traceback (most recent call last):
        ...
        isobert.errors.ConfigError: ConvBertConfig.conv_kernel_size is 4; it must be an odd integer >= 1.
    """

    model_type: ClassVar[str] = "convbert"
    base_model_prefix: ClassVar[str] = "convbert"
    sizes: ClassVar[dict[str, dict[str, Any]]] = SIZES
    quiet_fields: ClassVar[tuple[str, ...]] = (
        *PretrainedConfig.quiet_fields,
        "classifier_dropout",
        "summary_type",
        "summary_use_proj",
        "summary_activation",
        "summary_first_dropout",
        "summary_last_dropout",
        "mask_padding",
    )

    pad_token_id: int | None = setting(1, optional(integer(0)))
    embedding_size: int = setting(768, integer(1))
    head_ratio: int = setting(2, integer(1))
    conv_kernel_size: int = setting(9, odd())
    num_groups: int = setting(1, integer(1))
    classifier_dropout: float | None = setting(None, optional(probability()))
    summary_type: str = setting("last", one_of(*SUMMARY_TYPES))
    summary_use_proj: bool = setting(False, flag())
    summary_activation: str | None = setting(None, optional(one_of(*ACTIVATIONS)))
    summary_first_dropout: float = setting(0.0, probability())
    summary_last_dropout: float = setting(0.0, probability())
    mask_padding: bool = setting(False, flag())

    @property
    def attention_heads(self) -> int:
        """Heads that are left to the attention, and as many to the convolution."""
        return max(self.num_attention_heads // self.head_ratio, 1)

    @property
    def attention_width(self) -> int:
        """Width of the attention's heads together, and of the convolution's: half of `hidden_size`."""
        return self.hidden_size // 2

    @property
    def head_dropout_prob(self) -> float:
        """Dropout before a classifier."""
        return self.hidden_dropout_prob if self.classifier_dropout is None else self.classifier_dropout

    def validate(self) -> None:
        """Check every field, and fields against each other; see `PretrainedConfig.validate`."""
        super().validate()
        name = type(self).__name__
        if self.hidden_size % (2 * self.attention_heads):
            raise ConfigError(
                f"{name}.hidden_size is {self.hidden_size}; it must be a multiple of {2 * self.attention_heads}: half "
                f"of it is shared by {self.attention_heads} attention heads."
            )
        for width in ("hidden_size", "intermediate_size"):
            if getattr(self, width) % self.num_groups:
                raise ConfigError(
                    f"{name}.num_groups is {self.num_groups}; it must divide {width}, {getattr(self, width)}."
                )
        for switch in ("is_decoder", "add_cross_attention"):
            if self.extra.get(switch):
                raise ConfigError(f"{name}.{switch} is set; ConvBERT is an encoder alone here. Remove it.")
