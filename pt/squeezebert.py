"""SqueezeBERT in PyTorch, in the order of its paper.

Iandola et al. 2020, "SqueezeBERT: What can computer vision teach NLP about efficient neural networks?",
https://arxiv.org/abs/2006.11316. It is BERT in which every dense map of a layer is a convolution of size 1 (section 3),
most of them in groups: each group of output channels sees one group of input channels alone, so four groups take a
quarter of the weights and of the work. Section numbers below are the paper's. Its activations are laid out
`[batch, channels, length]`; here they are `[batch, length, channels]` as everywhere else, and nothing is transposed.
"""

from __future__ import annotations

from torch import Tensor, nn

from ..core.outputs import BaseModelOutputWithPooling
from ..core.squeezebert import SqueezeBertConfig
from .attention import AttentionMask, SelfAttention
from .dropout import Dropout
from .heads import (
    ForMaskedLM,
    ForMultipleChoice,
    ForQuestionAnswering,
    ForSequenceClassification,
    ForTokenClassification,
)
from .inputs import check_inputs
from .layers import Embeddings, Encoder, GroupedConvolution, LayerNorm, LMPredictionHead, Pooler, activation
from .modeling import PreTrainedModel

# Of the layers' norms; the authors' code does not take it from the config.
EPSILON = 1e-12


class ConvolutionActivation(nn.Module):
    """The first half of a feed-forward network: `activation(convolution(x))`."""

    def __init__(self, convolution: GroupedConvolution, activation_name: str) -> None:
        super().__init__()
        self.conv1d = convolution
        self.activation = activation(activation_name)

    def forward(self, hidden: Tensor) -> Tensor:
        """`[batch, length, width]` -> `[batch, length, inner width]`."""
        return self.activation(self.conv1d(hidden))


class ConvolutionNorm(nn.Module):
    """What closes each half of a layer: `layer_norm(dropout(convolution(x)) + residual)`."""

    def __init__(self, convolution: GroupedConvolution, width: int, *, dropout: float) -> None:
        super().__init__()
        self.conv1d = convolution
        self.dropout = Dropout(dropout)
        self.layernorm = LayerNorm(width, EPSILON)

    def forward(self, values: Tensor, residual: Tensor) -> Tensor:
        """`[batch, length, inner width]` and a residual `[batch, length, width]` -> `[batch, length, width]`."""
        return self.layernorm(self.dropout(self.conv1d(values)) + residual)


class SqueezeBertLayer(nn.Module):
    """One layer: self-attention and a feed-forward network, of grouped convolutions (section 3)."""

    def __init__(self, config: SqueezeBertConfig) -> None:
        super().__init__()
        width, inner, std = config.hidden_size, config.intermediate_size, config.initializer_range
        self.attention = SelfAttention(
            query=GroupedConvolution(width, width, config.q_groups, std),
            key=GroupedConvolution(width, width, config.k_groups, std),
            value=GroupedConvolution(width, width, config.v_groups, std),
            num_heads=config.num_attention_heads,
            dropout=config.attention_probs_dropout_prob,
        )
        self.post_attention = ConvolutionNorm(
            GroupedConvolution(width, width, config.post_attention_groups, std),
            width,
            dropout=config.hidden_dropout_prob,
        )
        self.intermediate = ConvolutionActivation(
            GroupedConvolution(width, inner, config.intermediate_groups, std), config.hidden_act
        )
        self.output = ConvolutionNorm(
            GroupedConvolution(inner, width, config.output_groups, std), width, dropout=config.hidden_dropout_prob
        )

    def forward(
        self, hidden: Tensor, attention_mask: AttentionMask | None = None, output_attentions: bool = False
    ) -> tuple[Tensor, Tensor | None]:
        """Map `[batch, length, width]` to the same shape; also return the attention's probabilities or None."""
        context, probabilities = self.attention(hidden, hidden, hidden, attention_mask, output_attentions)
        attended = self.post_attention(context, hidden)
        return self.output(self.intermediate(attended), attended), probabilities


class SqueezeBertEncoder(Encoder):
    """The stack of layers, which a checkpoint calls `layers`."""

    stack_name = "layers"

    def __init__(self, config: SqueezeBertConfig) -> None:
        super().__init__(SqueezeBertLayer(config) for _ in range(config.num_hidden_layers))


class SqueezeBertPreTrainedModel(PreTrainedModel):
    """What all SqueezeBERT models have in common."""

    config: SqueezeBertConfig
    config_class = SqueezeBertConfig
    base_model_prefix = "transformer"

    def make_base_model(self, add_pooling_layer: bool) -> SqueezeBertModel:
        """Return a new encoder for a model with a head."""
        return SqueezeBertModel(self.config, add_pooling_layer)

    def make_lm_head(self) -> LMPredictionHead:
        """Return a new head that scores words."""
        return LMPredictionHead(self.config, self.config.embedding_size)


class SqueezeBertModel(SqueezeBertPreTrainedModel):
    """The encoder without a head.

    Args:
        config: its shape.
        add_pooling_layer: whether the output has `pooler_output`. Checkpoints hold the pooler even where it has nothing
            to do; it is then neither computed nor trained.

    Example:
        >>> import torch
        >>> from isobert import SqueezeBertConfig
        >>> config = SqueezeBertConfig(
        ...     vocab_size=50, hidden_size=48, embedding_size=48, intermediate_size=96, num_hidden_layers=2
        ... )
        >>> model = SqueezeBertModel(config).eval()
        >>> out = model(torch.tensor([[2, 7, 9, 3]]), output_attentions=True)
        >>> out.last_hidden_state.shape, out.pooler_output.shape, len(out.attentions)
        (torch.Size([1, 4, 48]), torch.Size([1, 48]), 2)
    """

    def __init__(self, config: SqueezeBertConfig, add_pooling_layer: bool = True) -> None:
        super().__init__(config)
        self.add_pooling_layer = add_pooling_layer
        width = config.hidden_size
        self.embeddings = Embeddings(config, config.embedding_size, width, LayerNorm(width, config.layer_norm_eps))
        self.encoder = SqueezeBertEncoder(config)
        self.pooler = Pooler(width, config.initializer_range)
        self.pooler.requires_grad_(add_pooling_layer)

    def forward(
        self,
        input_ids: Tensor | None = None,
        attention_mask: Tensor | None = None,
        token_type_ids: Tensor | None = None,
        position_ids: Tensor | None = None,
        inputs_embeds: Tensor | None = None,
        output_attentions: bool | None = None,
        output_hidden_states: bool | None = None,
    ) -> BaseModelOutputWithPooling:
        """Encode a batch.

        Args:
            input_ids: integers `[batch, length]`; or else `inputs_embeds`.
            attention_mask: `[batch, length]` or `[batch, length, length]`; 1 keeps, 0 masks. None keeps all.
            token_type_ids: integers `[batch, length]`: 0 in the first segment, 1 in the second. None is all 0.
            position_ids: integers `[batch, length]` or `[1, length]`; None counts from 0.
            inputs_embeds: word vectors `[batch, length, embedding_size]` in place of ids.
            output_attentions: whether to return the probabilities; None takes the config's.
            output_hidden_states: whether to return every layer's output; None takes the config's.

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
        embedded = self.embeddings(input_ids, token_type_ids, position_ids, inputs_embeds, attention_mask)
        encoded = self.encoder(
            embedded,
            AttentionMask.of(attention_mask, embedded.dtype),
            config.output_attentions if output_attentions is None else output_attentions,
            config.output_hidden_states if output_hidden_states is None else output_hidden_states,
        )
        return BaseModelOutputWithPooling(
            last_hidden_state=encoded.last_hidden_state,
            pooler_output=self.pooler(encoded.last_hidden_state) if self.add_pooling_layer else None,
            hidden_states=encoded.hidden_states,
            attentions=encoded.attentions,
        )


class SqueezeBertForMaskedLM(ForMaskedLM, SqueezeBertPreTrainedModel):
    """SqueezeBERT that scores the word at each position.

    Example:
        >>> import torch
        >>> from isobert import SqueezeBertConfig, SqueezeBertForMaskedLM
        >>> config = SqueezeBertConfig(num_hidden_layers=1)
        >>> model = SqueezeBertForMaskedLM(config).eval()
        >>> labels = torch.tensor([[-100, -100, 2088, -100]])
        >>> out = model(torch.tensor([[101, 7592, 103, 102]]), labels=labels, output_logits=True)
        >>> out.logits.shape, out.loss.shape
        (torch.Size([1, 4, 30522]), torch.Size([]))
    """


class SqueezeBertForSequenceClassification(ForSequenceClassification, SqueezeBertPreTrainedModel):
    """SqueezeBERT that classifies a sequence, or scores it (regression).

    Example:
        >>> import torch
        >>> from isobert import SqueezeBertConfig, SqueezeBertForSequenceClassification
        >>> config = SqueezeBertConfig(num_hidden_layers=1, num_labels=3)
        >>> model = SqueezeBertForSequenceClassification(config).eval()
        >>> out = model(torch.tensor([[101, 7592, 102]]), labels=torch.tensor([2]))
        >>> out.logits.shape, out.loss.shape
        (torch.Size([1, 3]), torch.Size([]))
    """


class SqueezeBertForMultipleChoice(ForMultipleChoice, SqueezeBertPreTrainedModel):
    """SqueezeBERT that chooses among several continuations of a text.

    Example:
        >>> import torch
        >>> from isobert import SqueezeBertConfig, SqueezeBertForMultipleChoice
        >>> config = SqueezeBertConfig(num_hidden_layers=1)
        >>> model = SqueezeBertForMultipleChoice(config).eval()
        >>> two_choices = torch.tensor([[[101, 7592, 102], [101, 2088, 102]]])
        >>> model(two_choices, labels=torch.tensor([1])).logits.shape
        torch.Size([1, 2])
    """


class SqueezeBertForTokenClassification(ForTokenClassification, SqueezeBertPreTrainedModel):
    """SqueezeBERT that classifies each token.

    Example:
        >>> import torch
        >>> from isobert import SqueezeBertConfig, SqueezeBertForTokenClassification
        >>> config = SqueezeBertConfig(num_hidden_layers=1, num_labels=5)
        >>> model = SqueezeBertForTokenClassification(config).eval()
        >>> model(torch.tensor([[101, 7592, 2088, 102]])).logits.shape
        torch.Size([1, 4, 5])
    """


class SqueezeBertForQuestionAnswering(ForQuestionAnswering, SqueezeBertPreTrainedModel):
    """SqueezeBERT that finds an answer's start and end in a text.

    Example:
        >>> import torch
        >>> from isobert import SqueezeBertConfig, SqueezeBertForQuestionAnswering
        >>> config = SqueezeBertConfig(num_hidden_layers=1)
        >>> model = SqueezeBertForQuestionAnswering(config).eval()
        >>> out = model(torch.tensor([[101, 7592, 102, 2088, 102]]))
        >>> out.start_logits.shape, out.end_logits.shape
        (torch.Size([1, 5]), torch.Size([1, 5]))
    """
