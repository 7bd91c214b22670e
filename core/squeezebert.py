"""SqueezeBERT's config and its named sizes.

Iandola et al. 2020, "SqueezeBERT: What can computer vision teach NLP about efficient neural networks?",
https://arxiv.org/abs/2006.11316.
"""

from __future__ import annotations

from dataclasses import dataclass
from typing import Any, ClassVar

from ..errors import ConfigError
from .config import PretrainedConfig
from .fields import integer, setting

# Section 4: the widths of BERT-base, and four groups in all but one of a layer's convolutions. The Hub's defaults.
SIZES: dict[str, dict[str, Any]] = {"squeezebert-uncased": {}}

# Which widths each number of groups must divide: those that its convolution maps between.
GROUPS: dict[str, tuple[str, ...]] = {
    "q_groups": ("hidden_size",),
    "k_groups": ("hidden_size",),
    "v_groups": ("hidden_size",),
    "post_attention_groups": ("hidden_size",),
    "intermediate_groups": ("hidden_size", "intermediate_size"),
    "output_groups": ("hidden_size", "intermediate_size"),
}


@dataclass(kw_only=True)
class SqueezeBertConfig(PretrainedConfig):
    """The shape of a SqueezeBERT; the defaults are the Hub's.

    `PretrainedConfig` tells the fields that all families have. `layer_norm_eps` is the epsilon of the embeddings' and
    of the language-model head's layer norm; those of the layers have 1e-12, as in the authors' code.

    Attributes:
        embedding_size: width of the embeddings; it must be `hidden_size`.
        q_groups, k_groups, v_groups: groups of the convolutions that make queries, keys and values (section 3).
        post_attention_groups: groups of the convolution after the attention.
        intermediate_groups, output_groups: groups of the two convolutions of the feed-forward network.

    Example:
        >>> SqueezeBertConfig(q_groups=5)
        Traceback (most recent call last):
        ...
        isobert.errors.ConfigError: SqueezeBertConfig.q_groups is 5; it must divide hidden_size, 768.
    """

    model_type: ClassVar[str] = "squeezebert"
    base_model_prefix: ClassVar[str] = "transformer"
    sizes: ClassVar[dict[str, dict[str, Any]]] = SIZES

    embedding_size: int = setting(768, integer(1))
    q_groups: int = setting(4, integer(1))
    k_groups: int = setting(4, integer(1))
    v_groups: int = setting(4, integer(1))
    post_attention_groups: int = setting(1, integer(1))
    intermediate_groups: int = setting(4, integer(1))
    output_groups: int = setting(4, integer(1))

    def validate(self) -> None:
        """Check every field, and fields against each other; see `PretrainedConfig.validate`."""
        super().validate()
        name = type(self).__name__
        if self.embedding_size != self.hidden_size:
            raise ConfigError(
                f"{name}.embedding_size is {self.embedding_size}; it must be hidden_size, {self.hidden_size}."
            )
        for divisor, widths in {"num_attention_heads": ("hidden_size",), **GROUPS}.items():
            for width in widths:
                if getattr(self, width) % getattr(self, divisor):
                    raise ConfigError(
                        f"{name}.{divisor} is {getattr(self, divisor)}; it must divide {width}, {getattr(self, width)}."
                    )
