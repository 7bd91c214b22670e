"""ConvBERT in PyTorch, in the order of its paper.

Jiang et al. 2020, "ConvBERT: Improving BERT with Span-based Dynamic Convolution", https://arxiv.org/abs/2008.02496.
BERT's layers with one part exchanged: half of what a layer's attention makes comes from attention heads, which look at
the whole text, and half from convolution heads, which look at a short span around each position. `H`, `E` and `K` stand
for `hidden_size`, `embedding_size` and `conv_kernel_size`.
"""

from __future__ import annotations

import torch
from torch import Tensor, nn
from torch.nn import functional as F

from ..core.convbert import ConvBertConfig
from ..core.outputs import BaseModelOutput, ModelOutput
from .attention import AttentionMask, SelfAttention, attend, padded_positions
from .dropout import Dropout
from .heads import (
    ForMaskedLM,
    ForMultipleChoice,
    ForQuestionAnswering,
    ForSequenceClassification,
    ForTokenClassification,
)
from .inputs import check_inputs
from .layers import (
    AddNorm,
    Dense,
    Embeddings,
    Encoder,
    GroupedConvolution,
    GroupedDense,
    Intermediate,
    LayerNorm,
    PredictionHeadTransform,
    activation,
    resized,
)
from .losses import cross_entropy
from .modeling import PreTrainedModel
from .products import PLAIN_TENSORS
from .projection import Projection, projected_cross_entropy


class DepthwiseConvolution(nn.Module):
    """A convolution of each channel apart, `[batch, length, width]` -> the same; zeros stand beyond both ends.

    Args:
        width: number of channels.
        kernel_size: positions that the kernel sees; odd.
    """

    def __init__(self, width: int, kernel_size: int) -> None:
        super().__init__()
        self.weight = nn.Parameter(torch.empty(width, 1, kernel_size))
        self.reset_parameters()

    def reset_parameters(self) -> None:
        """Draw new weights as the authors do: a kernel of K numbers with the standard deviation 1 / K."""
        std = 1 / self.weight.shape[-1]
        nn.init.trunc_normal_(self.weight, std=std, a=-2 * std, b=2 * std)

    def forward(self, values: Tensor) -> Tensor:
        """Convolve `[batch, length, width]` along its positions."""
        width, _, kernel_size = self.weight.shape
        # An image of one row whose channels lie last, as they already do: so no value is moved.
        image = values.transpose(1, 2)[:, :, None]
        padding = (0, kernel_size // 2)
        convolved = F.conv2d(image, self.weight[:, :, None], padding=padding, groups=width)
        return convolved[:, :, 0].transpose(1, 2)


class SeparableConvolution(nn.Module):
    """A convolution of each channel apart, and a dense map of the channels: what makes a key see its span."""

    def __init__(self, in_width: int, out_width: int, kernel_size: int, std: float) -> None:
        super().__init__()
        self.depthwise = DepthwiseConvolution(in_width, kernel_size)
        self.pointwise = GroupedConvolution(in_width, out_width, 1, std, bias=False)
        self.bias = nn.Parameter(torch.empty(out_width, 1))
        self.reset_parameters()

    def reset_parameters(self) -> None:
        """Start without a bias."""
        nn.init.zeros_(self.bias)

    def forward(self, values: Tensor) -> Tensor:
        """Map `[batch, length, in_width]` to `[batch, length, out_width]`."""
        return self.pointwise(self.depthwise(values)) + self.bias[:, 0]


def dynamic_convolution(values: Tensor, kernels: Tensor) -> Tensor:
    """Convolve with another kernel at each position: the sum over k of `kernels[i, k] * values[i + k - K // 2]`.

    The lightweight convolution of Wu et al. 2019 (https://arxiv.org/abs/1901.10430); zeros stand beyond both ends.

    Args:
        values: `[batch, length, heads, width of a head]`.
        kernels: `[batch, length, heads, K]`, for all channels of a head alike; K is odd.

    Returns:
        `[batch, length, heads, width of a head]`.
    """
    length, kernel_size = values.shape[1], kernels.shape[-1]
    padded = F.pad(values, (0, 0, 0, 0, kernel_size // 2, kernel_size // 2))
    # A sum of shifted views: the windows side by side would hold every value K times.
    convolved = padded[:, :length] * kernels[..., :1]
    for k in range(1, kernel_size):
        convolved.addcmul_(padded[:, k : k + length], kernels[..., k : k + 1])
    return convolved


class MixedAttention(SelfAttention):
    """The mixed attention: heads of self-attention beside as many of span-based dynamic convolution.

    Both take the same queries. A convolution head's kernel at a position is made from the query there and from a key
    of the span around it, `softmax(W(query * key of the span))`, so that equal words in unequal spans have unequal
    kernels. Each kind of heads is H / 2 wide together (the paper's "bottleneck design for self-attention").
    """

    def __init__(self, config: ConvBertConfig) -> None:
        hidden, half, heads = config.hidden_size, config.attention_width, config.attention_heads
        kernel_size, std = config.conv_kernel_size, config.initializer_range
        super().__init__(
            query=Dense(hidden, half, std),
            key=Dense(hidden, half, std),
            value=Dense(hidden, half, std),
            num_heads=heads,
            dropout=config.attention_probs_dropout_prob,
        )
        self.mask_padding = config.mask_padding
        self.key_conv_attn_layer = SeparableConvolution(hidden, half, kernel_size, std)
        self.conv_kernel_layer = Dense(half, heads * kernel_size, std)
        self.conv_out_layer = Dense(hidden, half, std)

    def forward(  # type: ignore[override]
        self, hidden: Tensor, attention_mask: AttentionMask | None = None, output_attentions: bool = False
    ) -> tuple[Tensor, Tensor | None]:
        """Attend and convolve.

        Args:
            hidden: `[batch, length, H]`.
            attention_mask: which keys may be attended to.
            output_attentions: whether to return the probabilities.

        Returns:
            The attention heads' context beside the convolution heads', `[batch, length, H]`, and the attention heads'
            probabilities `[batch, heads, length, length]` or None.
        """
        query = self.query(hidden)
        context, probabilities = attend(
            self._split_heads(query),
            self._split_heads(self.key(hidden)),
            self._split_heads(self.value(hidden)),
            attention_mask,
            dropout=self.dropout_prob if self.training else 0.0,
            output_attentions=output_attentions,
        )
        convolved = self.convolve(hidden, query, attention_mask)
        return torch.cat([context.transpose(1, 2), convolved], dim=2).flatten(2), probabilities

    def convolve(self, hidden: Tensor, query: Tensor, attention_mask: AttentionMask | None = None) -> Tensor:
        """Return the convolution heads' context, `[batch, length, heads, width of a head]`.

        Args:
            hidden: `[batch, length, H]`.
            query: `[batch, length, H / 2]`.
            attention_mask: which positions are padding, if the convolutions are not to see it.
        """
        values, neighbours = self.conv_out_layer(hidden), hidden
        if self.mask_padding and attention_mask is not None:
            padding = padded_positions(attention_mask.keep[:, 0])[..., None]
            values, neighbours = values.masked_fill(padding, 0.0), hidden.masked_fill(padding, 0.0)
        kernels = self.conv_kernel_layer(self.key_conv_attn_layer(neighbours) * query)
        kernels = kernels.unflatten(-1, (self.num_heads, -1)).softmax(dim=-1)
        return dynamic_convolution(values.unflatten(-1, (self.num_heads, -1)), kernels)


class ConvBertAttention(nn.Module):
    """The mixed attention, and the sum with what it was computed from."""

    def __init__(self, config: ConvBertConfig) -> None:
        super().__init__()
        hidden = config.hidden_size
        self.self = MixedAttention(config)
        self.output = AddNorm(
            Dense(hidden, hidden, config.initializer_range),
            LayerNorm(hidden, config.layer_norm_eps),
            dropout=config.hidden_dropout_prob,
        )

    def forward(
        self, hidden: Tensor, attention_mask: AttentionMask | None = None, output_attentions: bool = False
    ) -> tuple[Tensor, Tensor | None]:
        """Map `[batch, length, H]` to the same shape; also return the attention heads' probabilities or None."""
        context, probabilities = self.self(hidden, attention_mask, output_attentions)
        return self.output(context, hidden), probabilities


class ConvBertLayer(nn.Module):
    """One layer: mixed attention, and a feed-forward network whose dense maps may be grouped.

    The paper calls such a map a "grouped linear operator".
    """

    def __init__(self, config: ConvBertConfig) -> None:
        super().__init__()
        hidden, wide = config.hidden_size, config.intermediate_size
        self.attention = ConvBertAttention(config)
        self.intermediate = Intermediate(self.make_dense(config, hidden, wide), config.hidden_act)
        self.output = AddNorm(
            self.make_dense(config, wide, hidden),
            LayerNorm(hidden, config.layer_norm_eps),
            dropout=config.hidden_dropout_prob,
        )

    @staticmethod
    def make_dense(config: ConvBertConfig, in_width: int, out_width: int) -> Dense | GroupedDense:
        """Return a dense map of the feed-forward network; a checkpoint holds a grouped one in another form."""
        if config.num_groups == 1:
            return Dense(in_width, out_width, config.initializer_range)
        return GroupedDense(in_width, out_width, config.num_groups, config.initializer_range)

    def forward(
        self, hidden: Tensor, attention_mask: AttentionMask | None = None, output_attentions: bool = False
    ) -> tuple[Tensor, Tensor | None]:
        """Map `[batch, length, H]` to the same shape; also return the attention heads' probabilities or None."""
        hidden, probabilities = self.attention(hidden, attention_mask, output_attentions)
        return self.output(self.intermediate(hidden), hidden), probabilities


class ConvBertLMHead(Dense):
    """Scores of every word, `x @ word embeddings^T + bias`, in the pretraining's generator (Clark et al. 2020)."""

    def __init__(self, config: ConvBertConfig) -> None:
        super().__init__(config.embedding_size, config.vocab_size, config.initializer_range)

    def tie_weights(self, embeddings: nn.Embedding | None) -> None:
        """Share the input embeddings' table, unless it is None."""
        if embeddings is not None:
            self.weight = embeddings.weight

    def resize(self, vocab_size: int) -> None:
        """Give the head scores for another number of words; new rows are drawn anew, their bias is zero."""
        self.weight = resized(self.weight, vocab_size, self.std)
        self.bias = resized(self.bias, vocab_size, std=0.0)
        self.out_features = vocab_size

    def forward(self, hidden: Tensor, labels: Tensor | None = None) -> Tensor:
        """Score `[batch, length, E]` as `[batch, length, vocab]`, or return the loss of labels `[batch, length]`."""
        if labels is None:
            return super().forward(hidden)
        return projected_cross_entropy(hidden, Projection(self.weight, self.bias), labels)


class ConvBertClassificationHead(nn.Module):
    """Scores of a whole sequence, from its first token: `out_proj(activation(dense(x)))`, with dropout before each."""

    def __init__(self, config: ConvBertConfig) -> None:
        super().__init__()
        hidden, std = config.hidden_size, config.initializer_range
        self.dense = Dense(hidden, hidden, std)
        self.activation = activation(config.hidden_act)
        self.dropout = Dropout(config.head_dropout_prob)
        self.out_proj = Dense(hidden, config.num_labels, std)

    def forward(self, hidden: Tensor) -> Tensor:
        """Score `[batch, length, H]` as `[batch, num_labels]`."""
        first = self.dropout(hidden[:, 0])
        return self.out_proj(self.dropout(self.activation(self.dense(first))))


class SequenceSummary(nn.Module):
    """One vector for a whole sequence; `core.convbert.SUMMARY_TYPES` tells from where it is taken."""

    def __init__(self, config: ConvBertConfig) -> None:
        super().__init__()
        hidden = config.hidden_size
        self.summary_type = config.summary_type
        self.summary = Dense(hidden, hidden, config.initializer_range) if config.summary_use_proj else None
        self.activation = activation(config.summary_activation or "linear")
        self.first_dropout = Dropout(config.summary_first_dropout)
        self.last_dropout = Dropout(config.summary_last_dropout)

    def forward(self, hidden: Tensor) -> Tensor:
        """Map `[batch, length, H]` to `[batch, H]`."""
        if self.summary_type == "mean":
            vector = hidden.mean(dim=1)
        else:
            vector = hidden[:, 0 if self.summary_type == "first" else -1]
        vector = self.first_dropout(vector)
        if self.summary is not None:
            vector = self.summary(vector)
        return self.last_dropout(self.activation(vector))


class ConvBertPreTrainedModel(PreTrainedModel):
    """What all ConvBERT models have in common."""

    config: ConvBertConfig
    config_class = ConvBertConfig
    base_model_prefix = "convbert"

    def make_base_model(self, add_pooling_layer: bool) -> ConvBertModel:
        """Return a new encoder for a model with a head; ConvBERT has no pooler, so it never gets one."""
        return ConvBertModel(self.config)

    def make_lm_head(self) -> ConvBertLMHead:
        """Return a new head that scores words."""
        return ConvBertLMHead(self.config)


class ConvBertModel(ConvBertPreTrainedModel):
    """The encoder without a head.

    Args:
        config: its shape.

    Example:
        >>> import torch
        >>> from isobert import ConvBertConfig
        >>> config = ConvBertConfig(
        ...     vocab_size=50, hidden_size=32, embedding_size=8, num_attention_heads=4, num_hidden_layers=2
        ... )
        >>> model = ConvBertModel(config).eval()
        >>> out = model(torch.tensor([[2, 7, 9, 3]]), output_attentions=True)
        >>> out.last_hidden_state.shape, out.attentions[0].shape
        (torch.Size([1, 4, 32]), torch.Size([1, 2, 4, 4]))
    """

    def __init__(self, config: ConvBertConfig) -> None:
        super().__init__(config)
        words, hidden = config.embedding_size, config.hidden_size
        self.embeddings = Embeddings(config, words, words, LayerNorm(words, config.layer_norm_eps))
        self.embeddings_project = None
        if words != hidden:
            self.embeddings_project = Dense(words, hidden, config.initializer_range)
        self.encoder = Encoder(ConvBertLayer(config) for _ in range(config.num_hidden_layers))

    def forward(
        self,
        input_ids: Tensor | None = None,
        attention_mask: Tensor | None = None,
        token_type_ids: Tensor | None = None,
        position_ids: Tensor | None = None,
        inputs_embeds: Tensor | None = None,
        output_attentions: bool | None = None,
        output_hidden_states: bool | None = None,
    ) -> BaseModelOutput:
        """Encode a batch.

        Args:
            input_ids: integers `[batch, length]`; or else `inputs_embeds`.
            attention_mask: `[batch, length]` or `[batch, length, length]`; 1 keeps, 0 masks. None keeps all.
            token_type_ids: integers `[batch, length]`: 0 in the first segment, 1 in the second. None is all 0.
            position_ids: integers `[batch, length]` or `[1, length]`; None counts from 0.
            inputs_embeds: word vectors `[batch, length, embedding_size]` in place of ids.
            output_attentions: whether to return the attention heads' probabilities; None takes the config's.
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
        embedded = self.embeddings(input_ids, token_type_ids, position_ids, inputs_embeds)
        if self.embeddings_project is not None:
            embedded = self.embeddings_project(embedded)
        encoded = self.encoder(
            embedded,
            AttentionMask.of(attention_mask, embedded.dtype),
            config.output_attentions if output_attentions is None else output_attentions,
            config.output_hidden_states if output_hidden_states is None else output_hidden_states,
        )
        return BaseModelOutput(encoded._asdict())


class ConvBertForMaskedLM(ForMaskedLM, ConvBertPreTrainedModel):
    """ConvBERT that scores the word at each position: the generator of its pretraining (Clark et al. 2020).

    Example:
        >>> import torch
        >>> from isobert import ConvBertConfig, ConvBertForMaskedLM
        >>> config = ConvBertConfig.from_size("convbert-small", num_hidden_layers=2)
        >>> model = ConvBertForMaskedLM(config).eval()
        >>> labels = torch.tensor([[-100, -100, 2088, -100]])
        >>> out = model(torch.tensor([[101, 7592, 103, 102]]), labels=labels, output_logits=True)
        >>> out.logits.shape, out.loss.shape
        (torch.Size([1, 4, 30522]), torch.Size([]))
    """

    def add_head(self) -> None:
        """Make the part that scores words. The activation before it is gelu, whatever `hidden_act` is."""
        config = self.config
        self.generator_predictions = PredictionHeadTransform(
            config.hidden_size, config.embedding_size, "gelu", config.layer_norm_eps, config.initializer_range
        )
        self.generator_lm_head = self.make_lm_head()

    def get_lm_head(self) -> ConvBertLMHead:
        """Return the part that scores words."""
        return self.generator_lm_head

    def logits(self, encoded: ModelOutput) -> Tensor:
        """Score `[batch, length, H]` as `[batch, length, vocab]`."""
        return self.generator_lm_head(self.generator_predictions(encoded.last_hidden_state))

    def loss_of_words(self, encoded: ModelOutput, labels: Tensor) -> Tensor:
        """Return the mean cross entropy of labels `[batch, length]`."""
        head = self.generator_lm_head
        if type(head) is not ConvBertLMHead or type(head.weight) not in PLAIN_TENSORS:
            return cross_entropy(self.logits(encoded), labels)
        return head(self.generator_predictions(encoded.last_hidden_state), labels)


class ConvBertForSequenceClassification(ForSequenceClassification, ConvBertPreTrainedModel):
    """ConvBERT that classifies a sequence, or scores it (regression).

    Example:
        >>> import torch
        >>> from isobert import ConvBertConfig, ConvBertForSequenceClassification
        >>> config = ConvBertConfig.from_size("convbert-small", num_hidden_layers=2, num_labels=3)
        >>> model = ConvBertForSequenceClassification(config).eval()
        >>> out = model(torch.tensor([[101, 7592, 102]]), labels=torch.tensor([2]))
        >>> out.logits.shape, out.loss.shape
        (torch.Size([1, 3]), torch.Size([]))
    """

    def add_head(self) -> None:
        """Make the classifier."""
        self.classifier = ConvBertClassificationHead(self.config)

    def logits(self, encoded: ModelOutput) -> Tensor:
        """Score `[batch, length, H]` as `[batch, num_labels]`."""
        return self.classifier(encoded.last_hidden_state)


class ConvBertForMultipleChoice(ForMultipleChoice, ConvBertPreTrainedModel):
    """ConvBERT that chooses among several continuations of a text.

    Example:
        >>> import torch
        >>> from isobert import ConvBertConfig, ConvBertForMultipleChoice
        >>> config = ConvBertConfig.from_size("convbert-small", num_hidden_layers=2)
        >>> model = ConvBertForMultipleChoice(config).eval()
        >>> two_choices = torch.tensor([[[101, 7592, 102], [101, 2088, 102]]])
        >>> model(two_choices, labels=torch.tensor([1])).logits.shape
        torch.Size([1, 2])
    """

    def add_head(self) -> None:
        """Make the summary of a text and its classifier."""
        self.sequence_summary = SequenceSummary(self.config)
        self.classifier = Dense(self.config.hidden_size, 1, self.config.initializer_range)

    def logits(self, encoded: ModelOutput) -> Tensor:
        """Score `[batch * choices, length, H]` as `[batch * choices, 1]`."""
        return self.classifier(self.sequence_summary(encoded.last_hidden_state))


class ConvBertForTokenClassification(ForTokenClassification, ConvBertPreTrainedModel):
    """ConvBERT that classifies each token.

    Example:
        >>> import torch
        >>> from isobert import ConvBertConfig, ConvBertForTokenClassification
        >>> config = ConvBertConfig.from_size("convbert-small", num_hidden_layers=2, num_labels=5)
        >>> model = ConvBertForTokenClassification(config).eval()
        >>> model(torch.tensor([[101, 7592, 2088, 102]])).logits.shape
        torch.Size([1, 4, 5])
    """


class ConvBertForQuestionAnswering(ForQuestionAnswering, ConvBertPreTrainedModel):
    """ConvBERT that finds an answer's start and end in a text.

    Example:
        >>> import torch
        >>> from isobert import ConvBertConfig, ConvBertForQuestionAnswering
        >>> config = ConvBertConfig.from_size("convbert-small", num_hidden_layers=2)
        >>> model = ConvBertForQuestionAnswering(config).eval()
        >>> out = model(torch.tensor([[101, 7592, 102, 2088, 102]]))
        >>> out.start_logits.shape, out.end_logits.shape
        (torch.Size([1, 5]), torch.Size([1, 5]))
    """
