"""RemBERT in PyTorch, in the order of its paper.

Chung et al. 2020, "Rethinking embedding coupling in pre-trained language models", https://arxiv.org/abs/2010.12821.
It is BERT whose embeddings are decoupled: the input's are narrow and mapped to the stream's width, as they are kept in
fine-tuning; the output's are a wide table of their own, which pretraining alone needs. The parameters saved went into
the layers. The Hub's RemBERT can also be a decoder, with cross-attention (Vaswani et al. 2017, section 3.1).
"""

from __future__ import annotations

from typing import NamedTuple

import torch
from torch import Tensor, nn

from ..core.outputs import BaseModelOutputWithPoolingAndCrossAttentions
from ..core.rembert import RemBertConfig
from .attention import AttentionMask, SelfAttention, causal_mask
from .cache import KeyValueCache, LayerCache, write
from .heads import (
    ForCausalLM,
    ForMaskedLM,
    ForMultipleChoice,
    ForQuestionAnswering,
    ForSequenceClassification,
    ForTokenClassification,
)
from .inputs import check_cache, check_cache_size, check_encoder_output, check_inputs
from .layers import (
    AddNorm,
    Dense,
    Embeddings,
    Encoder,
    Intermediate,
    LayerNorm,
    Pooler,
    PredictionHeadTransform,
    is_plain,
    resized,
)
from .losses import cross_entropy
from .modeling import PreTrainedModel
from .projection import Projection, projected_cross_entropy


class RemBertAttention(nn.Module):
    """Multi-head attention, and the sum with what the queries were computed from."""

    def __init__(self, config: RemBertConfig) -> None:
        super().__init__()
        width, std = config.hidden_size, config.initializer_range
        self.self = SelfAttention(
            query=Dense(width, width, std),
            key=Dense(width, width, std),
            value=Dense(width, width, std),
            num_heads=config.num_attention_heads,
            dropout=config.attention_probs_dropout_prob,
        )
        norm = LayerNorm(width, config.layer_norm_eps)
        self.output = AddNorm(Dense(width, width, std), norm, dropout=config.hidden_dropout_prob)

    def forward(
        self,
        hidden: Tensor,
        key: Tensor,
        value: Tensor,
        attention_mask: AttentionMask | None = None,
        output_attentions: bool = False,
    ) -> tuple[Tensor, Tensor | None]:
        """Attend from `[batch, length, H]` to keys and values; return the same shape, and the probabilities or None."""
        context, probabilities = self.self.attend_to(hidden, key, value, attention_mask, output_attentions)
        return self.output(context, hidden), probabilities


class Decoding(NamedTuple):
    """What all layers of a decoder are given alike.

    Attributes:
        positions: integers `[length]`, where the new keys go in a cache.
        encoder_hidden_states: what to cross-attend to, `[batch, encoder's length, H]`; None for nothing, or for what a
            cache holds.
        encoder_mask: which of its positions may be attended to.
    """

    positions: Tensor
    encoder_hidden_states: Tensor | None = None
    encoder_mask: AttentionMask | None = None


class LayerOutput(NamedTuple):
    """What a layer yields.

    Attributes:
        hidden: `[batch, length, H]`.
        probabilities: of the self-attention, `[batch, heads, length, keys]`, or None.
        cross_probabilities: of the cross-attention, `[batch, heads, length, encoder's length]`, or None.
        cache: a decoder's keys and values; of this call's positions alone, unless a cache came in.
    """

    hidden: Tensor
    probabilities: Tensor | None
    cross_probabilities: Tensor | None
    cache: LayerCache | None


class RemBertLayer(nn.Module):
    """One layer: self-attention, in some decoders cross-attention, and a feed-forward network."""

    def __init__(self, config: RemBertConfig) -> None:
        super().__init__()
        width, inner, std = config.hidden_size, config.intermediate_size, config.initializer_range
        self.attention = RemBertAttention(config)
        self.crossattention = RemBertAttention(config) if config.add_cross_attention else None
        self.intermediate = Intermediate(Dense(width, inner, std), config.hidden_act)
        norm = LayerNorm(width, config.layer_norm_eps)
        self.output = AddNorm(Dense(inner, width, std), norm, dropout=config.hidden_dropout_prob)

    def forward(
        self,
        hidden: Tensor,
        attention_mask: AttentionMask | None = None,
        decoding: Decoding | None = None,
        cache: LayerCache | None = None,
        output_attentions: bool = False,
    ) -> LayerOutput:
        """Map `[batch, length, H]` to the same shape. Into a cache that comes in, this call's keys and values go."""
        key, value = self.attention.self.keys_and_values(hidden, hidden)
        cross_key, cross_value = None, None
        if decoding is not None and cache is not None:
            key = write(cache.key, key, decoding.positions, axis=2)
            value = write(cache.value, value, decoding.positions, axis=2)
            cross_key, cross_value = cache.cross_key, cache.cross_value
        hidden, probabilities = self.attention(hidden, key, value, attention_mask, output_attentions)
        cross_probabilities = None
        if self.crossattention is not None and decoding is not None:
            states = decoding.encoder_hidden_states
            if cross_key is None and states is not None:
                cross_key, cross_value = self.crossattention.self.keys_and_values(states, states)
            if cross_key is not None:
                hidden, cross_probabilities = self.crossattention(
                    hidden, cross_key, cross_value, decoding.encoder_mask, output_attentions
                )
        hidden = self.output(self.intermediate(hidden), hidden)
        found = None if decoding is None else LayerCache(key, value, cross_key, cross_value)
        return LayerOutput(hidden, probabilities, cross_probabilities, found)


class DecoderOutput(NamedTuple):
    """What a stack of layers yields.

    Attributes:
        last_hidden_state: `[batch, length, H]`.
        hidden_states: the stack's input and each layer's output, or None.
        attentions: each layer's probabilities, or None.
        cross_attentions: each layer's probabilities over the encoder's positions, or None.
        caches: each layer's keys and values, or None.
    """

    last_hidden_state: Tensor
    hidden_states: tuple[Tensor, ...] | None
    attentions: tuple[Tensor, ...] | None
    cross_attentions: tuple[Tensor, ...] | None
    caches: tuple[LayerCache, ...] | None


class RemBertEncoder(Encoder):
    """The map from the embeddings' width to the stream's, and the stack of layers."""

    def __init__(self, config: RemBertConfig) -> None:
        super().__init__(RemBertLayer(config) for _ in range(config.num_hidden_layers))
        self.embedding_hidden_mapping_in = Dense(
            config.input_embedding_size, config.hidden_size, config.initializer_range
        )

    def forward(  # type: ignore[override]
        self,
        embedded: Tensor,
        attention_mask: AttentionMask | None = None,
        decoding: Decoding | None = None,
        caches: tuple[LayerCache, ...] | None = None,
        output_attentions: bool = False,
        output_hidden_states: bool = False,
        keep_caches: bool = False,
    ) -> DecoderOutput:
        """Run `[batch, length, input_embedding_size]` through the map and every layer in turn."""
        hidden = self.embedding_hidden_mapping_in(embedded)
        hidden_states: tuple[Tensor, ...] = (hidden,)
        attentions: tuple[Tensor, ...] = ()
        cross_attentions: tuple[Tensor, ...] = ()
        kept: tuple[LayerCache, ...] = ()
        for i, layer in enumerate(getattr(self, self.stack_name)):
            cache = None if caches is None else caches[i]
            out = self.run_layer(layer, hidden, attention_mask, decoding, cache, output_attentions)
            hidden = out.hidden
            # What is not asked for is not held on to: without a backward pass it is freed layer by layer.
            if output_hidden_states:
                hidden_states += (hidden,)
            if output_attentions:
                attentions += (out.probabilities,)
            if out.cross_probabilities is not None:
                cross_attentions += (out.cross_probabilities,)
            if keep_caches:
                kept += (out.cache,)
        return DecoderOutput(
            hidden,
            hidden_states if output_hidden_states else None,
            attentions if output_attentions else None,
            cross_attentions or None,
            kept if keep_caches else None,
        )


class RemBertLMPredictionHead(PredictionHeadTransform):
    """Scores of every word: `layer_norm(activation(dense(x))) @ output embeddings^T + bias`.

    The output embeddings are a table of the head's own, `[vocab, output_embedding_size]`, unless they are tied.
    """

    def __init__(self, config: RemBertConfig) -> None:
        width, std = config.output_embedding_size, config.initializer_range
        super().__init__(config.hidden_size, width, config.hidden_act, config.layer_norm_eps, std)
        self.decoder = Dense(width, config.vocab_size, std)

    def tie_weights(self, embeddings: nn.Embedding | None) -> None:
        """Share the input embeddings' table, unless it is None."""
        if embeddings is not None:
            self.decoder.weight = embeddings.weight

    def resize(self, vocab_size: int) -> None:
        """Give the head scores for another number of words; new rows are drawn anew, their bias is zero."""
        self.decoder.weight = resized(self.decoder.weight, vocab_size, self.decoder.std)
        self.decoder.bias = resized(self.decoder.bias, vocab_size, std=0.0)
        self.decoder.out_features = vocab_size

    def projection(self) -> Projection | None:
        """Return what follows the transform; None where the decoder has been exchanged for one of another kind."""
        return Projection(self.decoder.weight, self.decoder.bias) if is_plain(self.decoder) else None

    def forward(self, hidden: Tensor, labels: Tensor | None = None) -> Tensor:
        """Score `[batch, length, H]` as `[batch, length, vocab]`, or return the loss of labels `[batch, length]`.

        The loss is a scalar; it takes and holds fewer scores than there are (`projected_cross_entropy`).
        """
        projection = None if labels is None else self.projection()
        if labels is not None and projection is not None:
            return projected_cross_entropy(hidden, projection, labels, super().forward)
        scores = self.decoder(super().forward(hidden))
        return scores if labels is None else cross_entropy(scores, labels)


class RemBertPreTrainedModel(PreTrainedModel):
    """What all RemBERT models have in common."""

    config: RemBertConfig
    config_class = RemBertConfig
    base_model_prefix = "rembert"

    def make_base_model(self, add_pooling_layer: bool) -> RemBertModel:
        """Return a new encoder for a model with a head."""
        model = RemBertModel(self.config, add_pooling_layer)
        if not isinstance(self, ForCausalLM):
            # Only that head is given an encoder's output; unused, cross-attention is not trained.
            for name, parameter in model.encoder.named_parameters():
                if "crossattention" in name:
                    parameter.requires_grad_(False)
        return model

    def make_lm_head(self) -> RemBertLMPredictionHead:
        """Return a new head that scores words."""
        return RemBertLMPredictionHead(self.config)


class RemBertModel(RemBertPreTrainedModel):
    """The encoder, or with `config.is_decoder` the decoder, without a head.

    Args:
        config: its shape.
        add_pooling_layer: whether the output has `pooler_output`.

    Example:
        >>> import torch
        >>> from isobert import RemBertConfig
        >>> config = RemBertConfig(
        ...     vocab_size=50, input_embedding_size=8, hidden_size=32, num_attention_heads=2, intermediate_size=64,
        ...     num_hidden_layers=2
        ... )
        >>> model = RemBertModel(config).eval()
        >>> out = model(torch.tensor([[2, 7, 9, 3]]), output_attentions=True)
        >>> out.last_hidden_state.shape, out.pooler_output.shape, len(out.attentions)
        (torch.Size([1, 4, 32]), torch.Size([1, 32]), 2)
        >>> decoder = RemBertModel(config.replace(is_decoder=True)).eval()
        >>> whole = decoder(torch.tensor([[2, 7, 9, 3]])).last_hidden_state
        >>> cache = decoder(torch.tensor([[2, 7, 9]]), use_cache=True).past_key_values
        >>> step = decoder(torch.tensor([[3]]), past_key_values=cache)
        >>> torch.allclose(step.last_hidden_state, whole[:, 3:], atol=1e-6), int(step.past_key_values.position)
        (True, 4)
    """

    def __init__(self, config: RemBertConfig, add_pooling_layer: bool = True) -> None:
        super().__init__(config)
        words = config.input_embedding_size
        self.embeddings = Embeddings(config, words, words, LayerNorm(words, config.layer_norm_eps))
        self.encoder = RemBertEncoder(config)
        self.pooler = Pooler(config.hidden_size, config.initializer_range) if add_pooling_layer else None

    def new_cache(self, batch_size: int, max_length: int | None = None) -> KeyValueCache:
        """Return an empty cache, to be given as `past_key_values`.

        Args:
            batch_size: rows.
            max_length: how many positions it has room for; None is `max_position_embeddings`. Every step attends to all
                of them, filled or not, so no more than needed is fastest.

        Raises:
            InputError: the model is no decoder, or has no such number of positions.
        """
        config = self.config
        size = check_cache_size(batch_size, max_length, config.max_position_embeddings, config.is_decoder)
        heads = config.num_attention_heads
        return KeyValueCache.empty(
            config.num_hidden_layers,
            batch_size,
            heads,
            size,
            config.hidden_size // heads,
            dtype=self.dtype,
            device=self.device,
        )

    def forward(
        self,
        input_ids: Tensor | None = None,
        attention_mask: Tensor | None = None,
        token_type_ids: Tensor | None = None,
        position_ids: Tensor | None = None,
        inputs_embeds: Tensor | None = None,
        output_attentions: bool | None = None,
        output_hidden_states: bool | None = None,
        encoder_hidden_states: Tensor | None = None,
        encoder_attention_mask: Tensor | None = None,
        past_key_values: KeyValueCache | None = None,
        use_cache: bool | None = None,
    ) -> BaseModelOutputWithPoolingAndCrossAttentions:
        """Encode a batch, or decode it as far as it goes.

        Args:
            input_ids: integers `[batch, length]`; or else `inputs_embeds`.
            attention_mask: `[batch, length]`; 1 keeps, 0 masks. None keeps all. Without a cache also
                `[batch, length, length]`, by query and key, which takes the place of a decoder's causal mask. With one
                also longer than `length`: it then tells of all positions from the first, those in the cache included.
            token_type_ids: integers `[batch, length]`: 0 in the first segment, 1 in the second. None is all 0.
            position_ids: integers `[batch, length]` or `[1, length]`; None counts from 0, or on from the cache. Rows
                that are padded on the left want `attention.positions_of` their mask.
            inputs_embeds: word vectors `[batch, length, input_embedding_size]` in place of ids.
            output_attentions: whether to return the probabilities; None takes the config's.
            output_hidden_states: whether to return every layer's output; None takes the config's.
            encoder_hidden_states: `[batch, encoder's length, hidden_size]`, for a decoder's cross-attention. A cache
                holds what was made of the first ones it met; those given later are not looked at.
            encoder_attention_mask: `[batch, encoder's length]`; None keeps all, or what the cache remembers.
            past_key_values: a decoder's cache, of `new_cache` or an earlier output. It is written to in place: go on
                with the one that comes back.
            use_cache: whether to return the cache; None: if one came in. Without one, it has room for
                `max_position_embeddings`.

        Raises:
            InputError: an argument has a wrong shape, dtype or range, is for a decoder and this is none, or the cache
                has no room left.
        """
        config, past = self.config, past_key_values
        check_cache(past, use_cache, attention_mask, is_decoder=config.is_decoder)
        batch, length = check_inputs(
            input_ids,
            attention_mask,
            token_type_ids,
            position_ids,
            inputs_embeds,
            vocab_size=config.vocab_size,
            embedding_size=config.input_embedding_size,
            type_vocab_size=config.type_vocab_size,
            max_position_embeddings=config.max_position_embeddings,
            past_key_values=past,
        )
        check_encoder_output(
            encoder_hidden_states,
            encoder_attention_mask,
            past,
            batch=batch,
            width=config.hidden_size,
            add_cross_attention=config.add_cross_attention,
        )
        positions = torch.arange(length, device=self.device)
        if past is not None:
            positions = positions + past.position
            attention_mask = past.remember(attention_mask, positions)
            position_ids = positions[None] if position_ids is None else position_ids
            if encoder_attention_mask is None:
                encoder_attention_mask = past.encoder_mask
        embedded = self.embeddings(input_ids, token_type_ids, position_ids, inputs_embeds)
        decoding, keep = None, attention_mask
        if config.is_decoder:
            if keep is None or keep.dim() == 2:
                keep = causal_mask(positions, keep, length if past is None else past.max_length)
            states = None if encoder_hidden_states is None else encoder_hidden_states.to(embedded.dtype)
            decoding = Decoding(positions, states, AttentionMask.of(encoder_attention_mask, embedded.dtype))
        keep_cache = past is not None if use_cache is None else use_cache
        encoded = self.encoder(
            embedded,
            AttentionMask.of(keep, embedded.dtype),
            decoding,
            None if past is None else past.layers,
            config.output_attentions if output_attentions is None else output_attentions,
            config.output_hidden_states if output_hidden_states is None else output_hidden_states,
            keep_cache,
        )
        cache = None
        if keep_cache:
            if attention_mask is None:
                attention_mask = torch.ones(batch, length, device=self.device)
            cache = KeyValueCache(
                encoded.caches,
                attention_mask.bool(),
                None if encoder_attention_mask is None else encoder_attention_mask.bool(),
                positions[-1] + 1,
            )
            cache = cache if past is not None else cache.with_room(config.max_position_embeddings)
        return BaseModelOutputWithPoolingAndCrossAttentions(
            last_hidden_state=encoded.last_hidden_state,
            pooler_output=None if self.pooler is None else self.pooler(encoded.last_hidden_state),
            hidden_states=encoded.hidden_states,
            past_key_values=cache,
            attentions=encoded.attentions,
            cross_attentions=encoded.cross_attentions,
        )


class RemBertForMaskedLM(ForMaskedLM, RemBertPreTrainedModel):
    """RemBERT that scores the word at each position; a checkpoint kept for fine-tuning lacks the part that does so.

    Example:
        >>> import torch
        >>> from isobert import RemBertConfig, RemBertForMaskedLM
        >>> config = RemBertConfig(
        ...     vocab_size=50, input_embedding_size=8, output_embedding_size=40, hidden_size=32,
        ...     num_attention_heads=2, intermediate_size=64, num_hidden_layers=2
        ... )
        >>> model = RemBertForMaskedLM(config).eval()
        >>> model(torch.tensor([[2, 7, 4, 3]])).logits.shape
        torch.Size([1, 4, 50])
        >>> model(torch.tensor([[2, 7, 4, 3]]), labels=torch.tensor([[-100, -100, 9, -100]])).loss.shape
        torch.Size([])
    """


class RemBertForCausalLM(ForCausalLM, RemBertPreTrainedModel):
    """RemBERT that scores the next word after each position; it needs `config.is_decoder`.

    Example:
        >>> import torch
        >>> from isobert import RemBertConfig, RemBertForCausalLM
        >>> config = RemBertConfig(
        ...     vocab_size=50, input_embedding_size=8, output_embedding_size=40, hidden_size=32,
        ...     num_attention_heads=2, intermediate_size=64, num_hidden_layers=2, is_decoder=True
        ... )
        >>> model = RemBertForCausalLM(config).eval()
        >>> out = model(torch.tensor([[2, 7, 4]]))
        >>> out = model(out.logits[:, -1:].argmax(-1), past_key_values=out.past_key_values)
        >>> out.logits.shape, int(out.past_key_values.position)
        (torch.Size([1, 1, 50]), 4)
    """


class RemBertForSequenceClassification(ForSequenceClassification, RemBertPreTrainedModel):
    """RemBERT that classifies a sequence, or scores it (regression).

    Example:
        >>> import torch
        >>> from isobert import RemBertConfig, RemBertForSequenceClassification
        >>> config = RemBertConfig(vocab_size=999, num_hidden_layers=1, num_labels=3)
        >>> model = RemBertForSequenceClassification(config).eval()
        >>> out = model(torch.tensor([[312, 572, 313]]), labels=torch.tensor([2]))
        >>> out.logits.shape, out.loss.shape
        (torch.Size([1, 3]), torch.Size([]))
    """


class RemBertForMultipleChoice(ForMultipleChoice, RemBertPreTrainedModel):
    """RemBERT that chooses among several continuations of a text.

    Example:
        >>> import torch
        >>> from isobert import RemBertConfig, RemBertForMultipleChoice
        >>> config = RemBertConfig(vocab_size=999, num_hidden_layers=1)
        >>> model = RemBertForMultipleChoice(config).eval()
        >>> two_choices = torch.tensor([[[312, 572, 313], [312, 908, 313]]])
        >>> model(two_choices, labels=torch.tensor([1])).logits.shape
        torch.Size([1, 2])
    """


class RemBertForTokenClassification(ForTokenClassification, RemBertPreTrainedModel):
    """RemBERT that classifies each token.

    Example:
        >>> import torch
        >>> from isobert import RemBertConfig, RemBertForTokenClassification
        >>> config = RemBertConfig(vocab_size=999, num_hidden_layers=1, num_labels=5)
        >>> model = RemBertForTokenClassification(config).eval()
        >>> model(torch.tensor([[312, 572, 908, 313]])).logits.shape
        torch.Size([1, 4, 5])
    """


class RemBertForQuestionAnswering(ForQuestionAnswering, RemBertPreTrainedModel):
    """RemBERT that finds an answer's start and end in a text.

    Example:
        >>> import torch
        >>> from isobert import RemBertConfig, RemBertForQuestionAnswering
        >>> config = RemBertConfig(vocab_size=999, num_hidden_layers=1)
        >>> model = RemBertForQuestionAnswering(config).eval()
        >>> out = model(torch.tensor([[312, 572, 313, 908, 313]]))
        >>> out.start_logits.shape, out.end_logits.shape
        (torch.Size([1, 5]), torch.Size([1, 5]))
    """
