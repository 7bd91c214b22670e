"""SqueezeBERT in Keras, in the order of its paper.

Iandola et al. 2020, "SqueezeBERT: What can computer vision teach NLP about efficient neural networks?",
https://arxiv.org/abs/2006.11316. It is BERT in which every dense map of a layer is a convolution of size 1 (section 3),
most of them in groups: each group of output channels sees one group of input channels alone, so four groups take a
quarter of the weights and of the work. Section numbers below are the paper's. Its activations are laid out
`[batch, channels, length]`; here they are `[batch, length, channels]` as everywhere else, and nothing is transposed.
"""

from __future__ import annotations

from typing import Any

import keras

from ..core.outputs import BaseModelOutputWithPooling
from ..core.squeezebert import SqueezeBertConfig
from .attention import AttentionMask, SelfAttention
from .heads import (
    ForMaskedLM,
    ForMultipleChoice,
    ForQuestionAnswering,
    ForSequenceClassification,
    ForTokenClassification,
)
from .inputs import check_inputs
from .layers import Block, Embeddings, Encoder, GroupedConvolution, LayerNorm, LMPredictionHead, Pooler, activation
from .modeling import TFPreTrainedModel

# Of the layers' norms; the authors' code does not take it from the config.
EPSILON = 1e-12


class ConvolutionActivation(Block):
    """The first half of a feed-forward network: `activation(convolution(x))`."""

    def __init__(self, convolution: GroupedConvolution, activation_name: str, **kwargs: Any) -> None:
        super().__init__(**kwargs)
        self.conv1d = convolution
        self.activation = activation(activation_name)

    def call(self, hidden: Any) -> Any:
        """`[batch, length, width]` -> `[batch, length, inner width]`."""
        return self.activation(self.conv1d(hidden))


class ConvolutionNorm(Block):
    """What closes each half of a layer: `layer_norm(dropout(convolution(x)) + residual)`."""

    def __init__(self, convolution: GroupedConvolution, width: int, *, dropout: float, **kwargs: Any) -> None:
        super().__init__(**kwargs)
        self.conv1d = convolution
        self.dropout = keras.layers.Dropout(dropout, dtype=self.dtype_policy, name="dropout")
        self.layernorm = LayerNorm(width, EPSILON, dtype=self.dtype_policy, name="layernorm")

    def call(self, values: Any, residual: Any) -> Any:
        """`[batch, length, inner width]` and a residual `[batch, length, width]` -> `[batch, length, width]`."""
        return self.layernorm(self.dropout(self.conv1d(values)) + residual)


class SqueezeBertLayer(Block):
    """One layer: self-attention and a feed-forward network, of grouped convolutions (section 3)."""

    def __init__(self, config: SqueezeBertConfig, **kwargs: Any) -> None:
        super().__init__(**kwargs)
        width, inner, std = config.hidden_size, config.intermediate_size, config.initializer_range
        dtype = self.dtype_policy
        self.attention = SelfAttention(
            query=GroupedConvolution(width, width, config.q_groups, std, dtype=dtype, name="query"),
            key=GroupedConvolution(width, width, config.k_groups, std, dtype=dtype, name="key"),
            value=GroupedConvolution(width, width, config.v_groups, std, dtype=dtype, name="value"),
            num_heads=config.num_attention_heads,
            dropout=config.attention_probs_dropout_prob,
            dtype=dtype,
            name="attention",
        )
        self.post_attention = ConvolutionNorm(
            GroupedConvolution(width, width, config.post_attention_groups, std, dtype=dtype, name="conv1d"),
            width,
            dropout=config.hidden_dropout_prob,
            dtype=dtype,
            name="post_attention",
        )
        self.intermediate = ConvolutionActivation(
            GroupedConvolution(width, inner, config.intermediate_groups, std, dtype=dtype, name="conv1d"),
            config.hidden_act,
            dtype=dtype,
            name="intermediate",
        )
        self.output_ = ConvolutionNorm(
            GroupedConvolution(inner, width, config.output_groups, std, dtype=dtype, name="conv1d"),
            width,
            dropout=config.hidden_dropout_prob,
            dtype=dtype,
            name="output",
        )

    def call(
        self, hidden: Any, attention_mask: AttentionMask | None = None, output_attentions: bool = False
    ) -> tuple[Any, Any]:
        """Map `[batch, length, width]` to the same shape; also return the attention's probabilities or None."""
        context, probabilities = self.attention(
            hidden, hidden, hidden, attention_mask, output_attentions=output_attentions
        )
        attended = self.post_attention(context, hidden)
        return self.output_(self.intermediate(attended), attended), probabilities


class SqueezeBertEncoder(Encoder):
    """The stack of layers, which a checkpoint calls `layers`."""

    def __init__(self, config: SqueezeBertConfig, **kwargs: Any) -> None:
        dtype = kwargs.get("dtype")
        layers = [SqueezeBertLayer(config, dtype=dtype, name=f"layers.{i}") for i in range(config.num_hidden_layers)]
        super().__init__(layers, **kwargs)


class SqueezeBertPreTrainedModel(TFPreTrainedModel):
    """What all SqueezeBERT models have in common."""

    config: SqueezeBertConfig
    config_class = SqueezeBertConfig
    base_model_prefix = "transformer"

    def make_base_model(self, add_pooling_layer: bool) -> TFSqueezeBertModel:
        """Return a new encoder for a model with a head."""
        return TFSqueezeBertModel(self.config, add_pooling_layer, dtype=self.dtype_policy, name=self.base_model_prefix)

    def make_lm_head(self) -> LMPredictionHead:
        """Return a new head that scores words."""
        return LMPredictionHead(self.config, self.config.embedding_size, dtype=self.dtype_policy, name="predictions")


class TFSqueezeBertModel(SqueezeBertPreTrainedModel):
    """The encoder without a head.

    Args:
        config: its shape.
        add_pooling_layer: whether the output has `pooler_output`. Checkpoints hold the pooler even where it has nothing
            to do; it is then neither computed nor trained.
        dtype: a dtype or policy, such as "float64" or "mixed_bfloat16"; None is Keras's global policy.
        name: the model's name.

    Example:
        >>> import numpy as np
        >>> from isobert import SqueezeBertConfig
        >>> config = SqueezeBertConfig(
        ...     vocab_size=50, hidden_size=48, embedding_size=48, intermediate_size=96, num_hidden_layers=2
        ... )
        >>> model = TFSqueezeBertModel(config)
        >>> out = model(np.array([[2, 7, 9, 3]]), output_attentions=True)
        >>> out.last_hidden_state.shape, out.pooler_output.shape, len(out.attentions)
        (TensorShape([1, 4, 48]), TensorShape([1, 48]), 2)
    """

    def __init__(
        self,
        config: SqueezeBertConfig,
        add_pooling_layer: bool = True,
        *,
        dtype: Any = None,
        name: str | None = None,
        **kwargs: Any,
    ) -> None:
        super().__init__(config, dtype=dtype, name=name, **kwargs)
        dtype, width = self.dtype_policy, config.hidden_size
        self.add_pooling_layer = add_pooling_layer
        norm = LayerNorm(width, config.layer_norm_eps, dtype=dtype, name="LayerNorm")
        self.embeddings = Embeddings(config, config.embedding_size, width, norm, dtype=dtype, name="embeddings")
        self.encoder = SqueezeBertEncoder(config, dtype=dtype, name="encoder")
        self.pooler = Pooler(width, config.initializer_range, dtype=dtype, name="pooler")
        self.pooler.trainable = add_pooling_layer
        self.build()

    def get_config(self) -> dict[str, Any]:
        """Return the constructor's arguments, ready for JSON."""
        return {**super().get_config(), "add_pooling_layer": self.add_pooling_layer}

    def call(
        self,
        input_ids: Any = None,
        attention_mask: Any = None,
        token_type_ids: Any = None,
        position_ids: Any = None,
        inputs_embeds: Any = None,
        output_attentions: bool | None = None,
        output_hidden_states: bool | None = None,
        training: bool | None = None,
    ) -> BaseModelOutputWithPooling:
        """Encode a batch.

        Args:
            input_ids: integers `[batch, length]`, or else `inputs_embeds`; or a dict of all the arguments.
            attention_mask: `[batch, length]` or, by query and key, `[batch, length, length]`; 1 keeps, 0 masks. None
                is all 1.
            token_type_ids: integers `[batch, length]`: 0 in the first segment, 1 in the second. None is all 0.
            position_ids: integers `[batch, length]` or `[1, length]`; None counts from 0.
            inputs_embeds: word vectors `[batch, length, embedding_size]` in place of ids.
            output_attentions: whether to return the probabilities; None takes the config's.
            output_hidden_states: whether to return every layer's output; None takes the config's.
            training: whether dropout is on.

        Raises:
            InputError: an argument has a wrong shape, dtype or range.
        """
        config = self.config
        check_inputs(
            input_ids,
            attention_mask,
            token_type_ids,
            position_ids,
            inputs_embeds,
            vocab_size=config.vocab_size,
            embedding_size=config.embedding_size,
            type_vocab_size=config.type_vocab_size,
            max_position_embeddings=config.max_position_embeddings,
        )
        embedded = self.embeddings(
            input_ids, token_type_ids, position_ids, inputs_embeds, attention_mask, training=training
        )
        encoded = self.encoder(
            embedded,
            AttentionMask.of(attention_mask),
            output_attentions=config.output_attentions if output_attentions is None else output_attentions,
            output_hidden_states=config.output_hidden_states if output_hidden_states is None else output_hidden_states,
            training=training,
        )
        return BaseModelOutputWithPooling(
            last_hidden_state=encoded.last_hidden_state,
            pooler_output=self.pooler(encoded.last_hidden_state) if self.add_pooling_layer else None,
            hidden_states=encoded.hidden_states,
            attentions=encoded.attentions,
        )


class TFSqueezeBertForMaskedLM(ForMaskedLM, SqueezeBertPreTrainedModel):
    """SqueezeBERT that scores the word at each position.

    Example:
        >>> import numpy as np
        >>> from isobert import SqueezeBertConfig, TFSqueezeBertForMaskedLM
        >>> config = SqueezeBertConfig(num_hidden_layers=1)
        >>> model = TFSqueezeBertForMaskedLM(config)
        >>> labels = np.array([[-100, -100, 2088, -100]])
        >>> out = model(np.array([[101, 7592, 103, 102]]), labels=labels, output_logits=True)
        >>> out.logits.shape, out.loss.shape
        (TensorShape([1, 4, 30522]), TensorShape([]))
    """


class TFSqueezeBertForSequenceClassification(ForSequenceClassification, SqueezeBertPreTrainedModel):
    """SqueezeBERT that classifies a sequence, or scores it (regression).

    Example:
        >>> import numpy as np
        >>> from isobert import SqueezeBertConfig, TFSqueezeBertForSequenceClassification
        >>> config = SqueezeBertConfig(num_hidden_layers=1, num_labels=3)
        >>> model = TFSqueezeBertForSequenceClassification(config)
        >>> out = model(np.array([[101, 7592, 102]]), labels=np.array([2]))
        >>> out.logits.shape, out.loss.shape
        (TensorShape([1, 3]), TensorShape([]))
    """


class TFSqueezeBertForMultipleChoice(ForMultipleChoice, SqueezeBertPreTrainedModel):
    """SqueezeBERT that chooses among several continuations of a text.

    Example:
        >>> import numpy as np
        >>> from isobert import SqueezeBertConfig, TFSqueezeBertForMultipleChoice
        >>> config = SqueezeBertConfig(num_hidden_layers=1)
        >>> model = TFSqueezeBertForMultipleChoice(config)
        >>> two_choices = np.array([[[101, 7592, 102], [101, 2088, 102]]])
        >>> model(two_choices, labels=np.array([1])).logits.shape
        TensorShape([1, 2])
    """


class TFSqueezeBertForTokenClassification(ForTokenClassification, SqueezeBertPreTrainedModel):
    """SqueezeBERT that classifies each token.

    Example:
        >>> import numpy as np
        >>> from isobert import SqueezeBertConfig, TFSqueezeBertForTokenClassification
        >>> config = SqueezeBertConfig(num_hidden_layers=1, num_labels=5)
        >>> model = TFSqueezeBertForTokenClassification(config)
        >>> model(np.array([[101, 7592, 2088, 102]])).logits.shape
        TensorShape([1, 4, 5])
    """


class TFSqueezeBertForQuestionAnswering(ForQuestionAnswering, SqueezeBertPreTrainedModel):
    """SqueezeBERT that finds an answer's start and end in a text.

    Example:
        >>> import numpy as np
        >>> from isobert import SqueezeBertConfig, TFSqueezeBertForQuestionAnswering
        >>> config = SqueezeBertConfig(num_hidden_layers=1)
        >>> model = TFSqueezeBertForQuestionAnswering(config)
        >>> out = model(np.array([[101, 7592, 102, 2088, 102]]))
        >>> out.start_logits.shape, out.end_logits.shape
        (TensorShape([1, 5]), TensorShape([1, 5]))
    """
