"""RemBERT in Keras, in the order of its paper.

Chung et al. 2020, "Rethinking embedding coupling in pre-trained language models", https://arxiv.org/abs/2010.12821.
It is BERT whose embeddings are decoupled: the input's are narrow and mapped to the stream's width, as they are kept in
fine-tuning; the output's are a wide table of their own, which pretraining alone needs. The parameters saved went into
the layers. The Hub's RemBERT can also be a decoder, with cross-attention (Vaswani et al. 2017, section 3.1).
"""

from __future__ import annotations

from typing import Any, NamedTuple

import keras
from keras import ops

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
    Block,
    Dense,
    Embedding,
    Embeddings,
    Encoder,
    Intermediate,
    LayerNorm,
    Pooler,
    PredictionHeadTransform,
    replace_weight,
    resized,
    truncated_normal,
)
from .modeling import TFPreTrainedModel
from .projection import Projection, projected_cross_entropy


class RemBertAttention(Block):
    """Multi-head attention, and the sum with what the queries were computed from."""

    def __init__(self, config: RemBertConfig, **kwargs: Any) -> None:
        super().__init__(**kwargs)
        width, std, dtype = config.hidden_size, config.initializer_range, self.dtype_policy
        self.self = SelfAttention(
            query=Dense(width, width, std, dtype=dtype, name="query"),
            key=Dense(width, width, std, dtype=dtype, name="key"),
            value=Dense(width, width, std, dtype=dtype, name="value"),
            num_heads=config.num_attention_heads,
            dropout=config.attention_probs_dropout_prob,
            dtype=dtype,
            name="self",
        )
        self.output_ = AddNorm(
            Dense(width, width, std, dtype=dtype, name="dense"),
            LayerNorm(width, config.layer_norm_eps, dtype=dtype, name="LayerNorm"),
            dropout=config.hidden_dropout_prob,
            dtype=dtype,
            name="output",
        )

    def call(
        self,
        hidden: Any,
        key: Any,
        value: Any,
        attention_mask: AttentionMask | None = None,
        output_attentions: bool = False,
    ) -> tuple[Any, Any]:
        """Attend from `[batch, length, H]` to keys and values; return the same shape, and the probabilities or None."""
        context, probabilities = self.self.attend_to(hidden, key, value, attention_mask, output_attentions)
        return self.output_(context, hidden), probabilities


class Decoding(NamedTuple):
    """What all layers of a decoder are given alike.

    Attributes:
        positions: integers `[length]`, where the new keys go in a cache.
        encoder_hidden_states: what to cross-attend to, `[batch, encoder's length, H]`; None for nothing, or for what a
            cache holds.
        encoder_mask: which of its positions may be attended to.
    """

    positions: Any
    encoder_hidden_states: Any = None
    encoder_mask: AttentionMask | None = None


class LayerOutput(NamedTuple):
    """What a layer yields.

    Attributes:
        hidden: `[batch, length, H]`.
        probabilities: of the self-attention, `[batch, heads, length, keys]`, or None.
        cross_probabilities: of the cross-attention, `[batch, heads, length, encoder's length]`, or None.
        cache: a decoder's keys and values; of this call's positions alone, unless a cache came in.
    """

    hidden: Any
    probabilities: Any
    cross_probabilities: Any
    cache: LayerCache | None


class RemBertLayer(Block):
    """One layer: self-attention, in some decoders cross-attention, and a feed-forward network."""

    def __init__(self, config: RemBertConfig, **kwargs: Any) -> None:
        super().__init__(**kwargs)
        width, inner, std = config.hidden_size, config.intermediate_size, config.initializer_range
        dtype = self.dtype_policy
        self.attention = RemBertAttention(config, dtype=dtype, name="attention")
        self.crossattention = None
        if config.add_cross_attention:
            self.crossattention = RemBertAttention(config, dtype=dtype, name="crossattention")
        self.intermediate = Intermediate(
            Dense(width, inner, std, dtype=dtype, name="dense"), config.hidden_act, dtype=dtype, name="intermediate"
        )
        self.output_ = AddNorm(
            Dense(inner, width, std, dtype=dtype, name="dense"),
            LayerNorm(width, config.layer_norm_eps, dtype=dtype, name="LayerNorm"),
            dropout=config.hidden_dropout_prob,
            dtype=dtype,
            name="output",
        )

    def call(
        self,
        hidden: Any,
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
        hidden, probabilities = self.attention(hidden, key, value, attention_mask, output_attentions=output_attentions)
        cross_probabilities = None
        if self.crossattention is not None and decoding is not None:
            states = decoding.encoder_hidden_states
            if cross_key is None and states is not None:
                cross_key, cross_value = self.crossattention.self.keys_and_values(states, states)
            if cross_key is not None:
                hidden, cross_probabilities = self.crossattention(
                    hidden, cross_key, cross_value, decoding.encoder_mask, output_attentions=output_attentions
                )
        hidden = self.output_(self.intermediate(hidden), hidden)
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

    last_hidden_state: Any
    hidden_states: tuple[Any, ...] | None
    attentions: tuple[Any, ...] | None
    cross_attentions: tuple[Any, ...] | None
    caches: tuple[LayerCache, ...] | None


class RemBertEncoder(Encoder):
    """The map from the embeddings' width to the stream's, and the stack of layers."""

    def __init__(self, config: RemBertConfig, **kwargs: Any) -> None:
        dtype = kwargs.get("dtype")
        layers = [RemBertLayer(config, dtype=dtype, name=f"layer.{i}") for i in range(config.num_hidden_layers)]
        super().__init__(layers, **kwargs)
        self.embedding_hidden_mapping_in = Dense(
            config.input_embedding_size,
            config.hidden_size,
            config.initializer_range,
            dtype=dtype,
            name="embedding_hidden_mapping_in",
        )

    def call(  # type: ignore[override]
        self,
        embedded: Any,
        attention_mask: AttentionMask | None = None,
        decoding: Decoding | None = None,
        caches: tuple[LayerCache, ...] | None = None,
        output_attentions: bool = False,
        output_hidden_states: bool = False,
        keep_caches: bool = False,
        training: bool | None = None,
    ) -> DecoderOutput:
        """Run `[batch, length, input_embedding_size]` through the map and every layer in turn."""
        hidden = self.embedding_hidden_mapping_in(embedded)
        hidden_states: tuple[Any, ...] = (hidden,)
        attentions: tuple[Any, ...] = ()
        cross_attentions: tuple[Any, ...] = ()
        kept: tuple[LayerCache, ...] = ()
        for i, layer in enumerate(self.layer):
            cache = None if caches is None else caches[i]
            out = self.run_layer(
                layer, hidden, attention_mask, decoding, cache, output_attentions=output_attentions, training=training
            )
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

    def __init__(self, config: RemBertConfig, **kwargs: Any) -> None:
        width, std = config.output_embedding_size, config.initializer_range
        super().__init__(config.hidden_size, width, config.hidden_act, config.layer_norm_eps, std, **kwargs)
        self.decoder = _Decoder(width, config.vocab_size, std, dtype=self.dtype_policy, name="decoder")

    def tie_weights(self, embeddings: Embedding | None) -> None:
        """Share the input embeddings' table, unless it is None. To be done once, before building."""
        self.decoder.tied = embeddings

    def resize(self, vocab_size: int) -> None:
        """Give the head scores for another number of words; new rows are drawn anew, their bias is zero."""
        if self.decoder.tied is None:
            replace_weight(self.decoder, "weight", resized(self.decoder.weight, vocab_size, self.decoder.std))
        replace_weight(self.decoder, "bias", resized(self.decoder.bias, vocab_size, std=0.0))

    def projection(self) -> Projection:
        """Return what follows the transform."""
        return Projection(self.decoder.table, self.decoder.bias)

    def call(self, hidden: Any, labels: Any = None) -> Any:
        """Score `[batch, length, H]` as `[batch, length, vocab]`, or return the loss of labels `[batch, length]`.

        The loss is a scalar; it takes and holds fewer scores than there are (`projected_cross_entropy`).
        """
        if labels is not None:
            return projected_cross_entropy(hidden, self.projection(), labels, super().call)
        # Outside of a graph, a transposed table would be a copy of it.
        return ops.einsum("...d,vd->...v", super().call(hidden), self.decoder.table) + self.decoder.bias


class _Decoder(keras.layers.Layer):
    """The variables of a head that scores words: a table `weight` `[vocab, width]`, unless one is shared, and a bias.

    `keras.layers.Dense` would hold the table as `[width, vocab]`, which no embeddings could share.
    """

    def __init__(self, width: int, vocab_size: int, std: float, **kwargs: Any) -> None:
        super().__init__(**kwargs)
        self.width = width
        self.vocab_size = vocab_size
        self.std = std
        self.tied: Embedding | None = None

    def build(self, input_shape: Any = None) -> None:
        """Make the variables; the bias starts as zeros."""
        if self.tied is None:
            initializer = truncated_normal(self.std)
            shape = (self.vocab_size, self.width)
            self.weight = self.add_weight(shape=shape, initializer=initializer, name="weight")
        self.bias = self.add_weight(shape=(self.vocab_size,), initializer="zeros", name="bias")

    @property
    def table(self) -> Any:
        """The output embeddings, `[vocab, width]`."""
        return self.weight if self.tied is None else self.tied.embeddings


class RemBertPreTrainedModel(TFPreTrainedModel):
    """What all RemBERT models have in common."""

    config: RemBertConfig
    config_class = RemBertConfig
    base_model_prefix = "rembert"

    def make_base_model(self, add_pooling_layer: bool) -> TFRemBertModel:
        """Return a new encoder for a model with a head."""
        prefix = self.base_model_prefix
        model = TFRemBertModel(self.config, add_pooling_layer, dtype=self.dtype_policy, name=prefix)
        if self.config.add_cross_attention and not isinstance(self, ForCausalLM):
            # Only that head is given an encoder's output; unused, cross-attention is not trained.
            for layer in model.encoder.layer:
                layer.crossattention.trainable = False
        return model

    def make_lm_head(self) -> RemBertLMPredictionHead:
        """Return a new head that scores words."""
        return RemBertLMPredictionHead(self.config, dtype=self.dtype_policy, name="predictions")


class TFRemBertModel(RemBertPreTrainedModel):
    """The encoder, or with `config.is_decoder` the decoder, without a head.

    Args:
        config: its shape.
        add_pooling_layer: whether the output has `pooler_output`.
        dtype: a dtype or policy, such as "float64" or "mixed_bfloat16"; None is Keras's global policy.
        name: the model's name.

    Example:
        >>> import numpy as np
        >>> from isobert import RemBertConfig
        >>> config = RemBertConfig(
        ...     vocab_size=50, input_embedding_size=8, hidden_size=32, num_attention_heads=2, intermediate_size=64,
        ...     num_hidden_layers=2
        ... )
        >>> model = TFRemBertModel(config)
        >>> out = model(np.array([[2, 7, 9, 3]]), output_attentions=True)
        >>> out.last_hidden_state.shape, out.pooler_output.shape, len(out.attentions)
        (TensorShape([1, 4, 32]), TensorShape([1, 32]), 2)
        >>> decoder = TFRemBertModel(config.replace(is_decoder=True))
        >>> whole = decoder(np.array([[2, 7, 9, 3]])).last_hidden_state
        >>> cache = decoder(np.array([[2, 7, 9]]), use_cache=True).past_key_values
        >>> step = decoder(np.array([[3]]), past_key_values=cache)
        >>> np.allclose(step.last_hidden_state, whole[:, 3:], atol=1e-6), int(step.past_key_values.position)
        (True, 4)
    """

    def __init__(
        self,
        config: RemBertConfig,
        add_pooling_layer: bool = True,
        *,
        dtype: Any = None,
        name: str | None = None,
        **kwargs: Any,
    ) -> None:
        super().__init__(config, dtype=dtype, name=name, **kwargs)
        words, dtype = config.input_embedding_size, self.dtype_policy
        norm = LayerNorm(words, config.layer_norm_eps, dtype=dtype, name="LayerNorm")
        self.embeddings = Embeddings(config, words, words, norm, dtype=dtype, name="embeddings")
        self.encoder = RemBertEncoder(config, dtype=dtype, name="encoder")
        self.pooler = None
        if add_pooling_layer:
            self.pooler = Pooler(config.hidden_size, config.initializer_range, dtype=dtype, name="pooler")
        self.build()

    def get_config(self) -> dict[str, Any]:
        """Return the constructor's arguments, ready for JSON."""
        return {**super().get_config(), "add_pooling_layer": self.pooler is not None}

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
            config.num_hidden_layers, batch_size, heads, size, config.hidden_size // heads, dtype=self.compute_dtype
        )

    def call(
        self,
        input_ids: Any = None,
        attention_mask: Any = None,
        token_type_ids: Any = None,
        position_ids: Any = None,
        inputs_embeds: Any = None,
        output_attentions: bool | None = None,
        output_hidden_states: bool | None = None,
        encoder_hidden_states: Any = None,
        encoder_attention_mask: Any = None,
        past_key_values: KeyValueCache | None = None,
        use_cache: bool | None = None,
        training: bool | None = None,
    ) -> BaseModelOutputWithPoolingAndCrossAttentions:
        """Encode a batch, or decode it as far as it goes.

        Args:
            input_ids: integers `[batch, length]`, or else `inputs_embeds`; or a dict of all the arguments.
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
            past_key_values: a decoder's cache, of `new_cache` or an earlier output. It stays as it is: go on with the
                one that comes back.
            use_cache: whether to return the cache; None: if one came in. Without one, it has room for
                `max_position_embeddings`.
            training: whether dropout is on.

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
        positions = ops.arange(length, dtype="int32")
        if past is not None:
            positions = positions + past.position
            attention_mask = past.remember(attention_mask, positions)
            position_ids = positions[None] if position_ids is None else position_ids
            if encoder_attention_mask is None:
                encoder_attention_mask = past.encoder_mask
        embedded = self.embeddings(input_ids, token_type_ids, position_ids, inputs_embeds, training=training)
        decoding, keep = None, attention_mask
        if config.is_decoder:
            if keep is None or len(keep.shape) == 2:
                keep = causal_mask(positions, keep, length if past is None else past.max_length)
            states = None if encoder_hidden_states is None else ops.cast(encoder_hidden_states, embedded.dtype)
            decoding = Decoding(positions, states, AttentionMask.of(encoder_attention_mask))
        keep_cache = past is not None if use_cache is None else use_cache
        encoded = self.encoder(
            embedded,
            AttentionMask.of(keep),
            decoding,
            None if past is None else past.layers,
            output_attentions=config.output_attentions if output_attentions is None else output_attentions,
            output_hidden_states=config.output_hidden_states if output_hidden_states is None else output_hidden_states,
            keep_caches=keep_cache,
            training=training,
        )
        cache = None
        if keep_cache:
            if attention_mask is None:
                attention_mask = ops.ones((batch, length), "bool")
            cache = KeyValueCache(
                encoded.caches,
                ops.cast(attention_mask, "bool"),
                None if encoder_attention_mask is None else ops.cast(encoder_attention_mask, "bool"),
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


class TFRemBertForMaskedLM(ForMaskedLM, RemBertPreTrainedModel):
    """RemBERT that scores the word at each position; a checkpoint kept for fine-tuning lacks the part that does so.

    Example:
        >>> import numpy as np
        >>> from isobert import RemBertConfig, TFRemBertForMaskedLM
        >>> config = RemBertConfig(
        ...     vocab_size=50, input_embedding_size=8, output_embedding_size=40, hidden_size=32,
        ...     num_attention_heads=2, intermediate_size=64, num_hidden_layers=2
        ... )
        >>> model = TFRemBertForMaskedLM(config)
        >>> model(np.array([[2, 7, 4, 3]])).logits.shape
        TensorShape([1, 4, 50])
        >>> model(np.array([[2, 7, 4, 3]]), labels=np.array([[-100, -100, 9, -100]])).loss.shape
        TensorShape([])
    """


class TFRemBertForCausalLM(ForCausalLM, RemBertPreTrainedModel):
    """RemBERT that scores the next word after each position; it needs `config.is_decoder`.

    Example:
        >>> import numpy as np
        >>> from isobert import RemBertConfig, TFRemBertForCausalLM
        >>> config = RemBertConfig(
        ...     vocab_size=50, input_embedding_size=8, output_embedding_size=40, hidden_size=32,
        ...     num_attention_heads=2, intermediate_size=64, num_hidden_layers=2, is_decoder=True
        ... )
        >>> model = TFRemBertForCausalLM(config)
        >>> out = model(np.array([[2, 7, 4]]))
        >>> out = model(np.argmax(out.logits[:, -1:], axis=-1), past_key_values=out.past_key_values)
        >>> out.logits.shape, int(out.past_key_values.position)
        (TensorShape([1, 1, 50]), 4)
    """


class TFRemBertForSequenceClassification(ForSequenceClassification, RemBertPreTrainedModel):
    """RemBERT that classifies a sequence, or scores it (regression).

    Example:
        >>> import numpy as np
        >>> from isobert import RemBertConfig, TFRemBertForSequenceClassification
        >>> config = RemBertConfig(vocab_size=999, num_hidden_layers=1, num_labels=3)
        >>> model = TFRemBertForSequenceClassification(config)
        >>> out = model(np.array([[312, 572, 313]]), labels=np.array([2]))
        >>> out.logits.shape, out.loss.shape
        (TensorShape([1, 3]), TensorShape([]))
    """


class TFRemBertForMultipleChoice(ForMultipleChoice, RemBertPreTrainedModel):
    """RemBERT that chooses among several continuations of a text.

    Example:
        >>> import numpy as np
        >>> from isobert import RemBertConfig, TFRemBertForMultipleChoice
        >>> config = RemBertConfig(vocab_size=999, num_hidden_layers=1)
        >>> model = TFRemBertForMultipleChoice(config)
        >>> two_choices = np.array([[[312, 572, 313], [312, 908, 313]]])
        >>> model(two_choices, labels=np.array([1])).logits.shape
        TensorShape([1, 2])
    """


class TFRemBertForTokenClassification(ForTokenClassification, RemBertPreTrainedModel):
    """RemBERT that classifies each token.

    Example:
        >>> import numpy as np
        >>> from isobert import RemBertConfig, TFRemBertForTokenClassification
        >>> config = RemBertConfig(vocab_size=999, num_hidden_layers=1, num_labels=5)
        >>> model = TFRemBertForTokenClassification(config)
        >>> model(np.array([[312, 572, 908, 313]])).logits.shape
        TensorShape([1, 4, 5])
    """


class TFRemBertForQuestionAnswering(ForQuestionAnswering, RemBertPreTrainedModel):
    """RemBERT that finds an answer's start and end in a text.

    Example:
        >>> import numpy as np
        >>> from isobert import RemBertConfig, TFRemBertForQuestionAnswering
        >>> config = RemBertConfig(vocab_size=999, num_hidden_layers=1)
        >>> model = TFRemBertForQuestionAnswering(config)
        >>> out = model(np.array([[312, 572, 313, 908, 313]]))
        >>> out.start_logits.shape, out.end_logits.shape
        (TensorShape([1, 5]), TensorShape([1, 5]))
    """
