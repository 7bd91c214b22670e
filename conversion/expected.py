"""Which tensors a model has, from its config alone: what lets a checkpoint be judged without a framework.

The models themselves decide; a test holds these tables to the PyTorch models, name by name and shape by shape.
"""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

from ..core.convbert import ConvBertConfig
from ..core.mobilebert import MobileBertConfig
from ..core.registry import family_of
from ..core.rembert import RemBertConfig
from ..core.squeezebert import SqueezeBertConfig
from ..errors import UnknownNameError

Shapes = dict[str, tuple[int, ...]]


def expected_tensors(config: Any, head: str) -> Shapes:
    """Return the shape of every tensor of a model, by its Hub name; of tied tensors the source alone.

    They come in the order of the PyTorch model's `named_parameters()`, by which its optimizer numbers them.

    Args:
        config: a family's config.
        head: the model's name after its family's, such as "ForMaskedLM"; "Model" is the bare encoder.

    Raises:
        UnknownNameError: the family has no such head, or its tensors are not known here.
        ConfigError: the config does not allow this head.

    Example:
        >>> expected_tensors(MobileBertConfig(num_labels=3), "ForSequenceClassification")["classifier.weight"]
        (3, 512)
    """
    family = family_of(config.model_type)
    if head not in family.heads or config.model_type not in _ENCODERS:
        raise UnknownNameError(f"the tensors of {family.prefix}{head} are not known.")
    encoder = _ENCODERS[config.model_type](config, has_pooler=head in _POOLED)
    if head == "Model":
        return encoder
    make_head = _OWN_HEADS.get((config.model_type, head), _HEADS[head])
    return _prefixed(f"{config.base_model_prefix}.", encoder) | make_head(config)


# Heads that classify tokens have no use for the vector of the whole sequence.
_POOLED = (
    "Model",
    "ForPreTraining",
    "ForNextSentencePrediction",
    "ForSequenceClassification",
    "ForMultipleChoice",
)


def _prefixed(prefix: str, shapes: Shapes) -> Shapes:
    return {prefix + name: shape for name, shape in shapes.items()}


def _dense(name: str, width_in: int, width_out: int) -> Shapes:
    return {f"{name}.weight": (width_out, width_in), f"{name}.bias": (width_out,)}


def _norm(name: str, width: int) -> Shapes:
    return {f"{name}.weight": (width,), f"{name}.bias": (width,)}


def _dense_norm(name: str, width_in: int, width_out: int) -> Shapes:
    return _dense(f"{name}.dense", width_in, width_out) | _norm(f"{name}.LayerNorm", width_out)


def _convolution(name: str, width_in: int, width_out: int, groups: int) -> Shapes:
    return {f"{name}.weight": (width_out, width_in // groups, 1), f"{name}.bias": (width_out,)}


def _mobilebert_encoder(config: MobileBertConfig, has_pooler: bool) -> Shapes:
    hidden, words = config.hidden_size, config.embedding_size
    shapes: Shapes = {
        "embeddings.word_embeddings.weight": (config.vocab_size, words),
        "embeddings.position_embeddings.weight": (config.max_position_embeddings, hidden),
        "embeddings.token_type_embeddings.weight": (config.type_vocab_size, hidden),
        **_norm("embeddings.LayerNorm", hidden),
        **_dense("embeddings.embedding_transformation", words * (3 if config.trigram_input else 1), hidden),
    }
    for i in range(config.num_hidden_layers):
        shapes |= _prefixed(f"encoder.layer.{i}.", _mobilebert_layer(config))
    if has_pooler and config.classifier_activation:
        shapes |= _dense("pooler.dense", hidden, hidden)
    return shapes


def _mobilebert_layer(config: MobileBertConfig) -> Shapes:
    hidden, inner = config.hidden_size, config.true_hidden_size
    shapes: Shapes = {}
    if config.use_bottleneck:
        shapes |= _dense_norm("bottleneck.input", hidden, inner)
        if config.key_query_shared_bottleneck:
            shapes |= _dense_norm("bottleneck.attention", hidden, inner)
    is_narrow = config.use_bottleneck_attention
    query_width = inner if is_narrow or config.key_query_shared_bottleneck else hidden
    for name, width in (("query", query_width), ("key", query_width), ("value", inner if is_narrow else hidden)):
        shapes |= _dense(f"attention.self.{name}", width, inner)
    shapes |= _dense_norm("attention.output", inner, inner)
    for i in range(config.num_feedforward_networks - 1):
        shapes |= _dense(f"ffn.{i}.intermediate.dense", inner, config.intermediate_size)
        shapes |= _dense_norm(f"ffn.{i}.output", config.intermediate_size, inner)
    shapes |= _dense("intermediate.dense", inner, config.intermediate_size)
    shapes |= _dense_norm("output", config.intermediate_size, inner)
    if config.use_bottleneck:
        shapes |= _dense_norm("output.bottleneck", inner, hidden)
    return shapes


def _mobilebert_lm_head(config: MobileBertConfig) -> Shapes:
    shapes: Shapes = {"cls.predictions.bias": (config.vocab_size,)}
    shapes |= _dense_norm("cls.predictions.transform", config.hidden_size, config.hidden_size)
    if not config.tie_word_embeddings:
        shapes["cls.predictions.decoder.weight"] = (config.vocab_size, config.embedding_size)
    return shapes | {"cls.predictions.dense.weight": (config.extra_output_width(), config.vocab_size)}


def _squeezebert_encoder(config: SqueezeBertConfig, has_pooler: bool) -> Shapes:
    hidden = config.hidden_size
    shapes: Shapes = {
        "embeddings.word_embeddings.weight": (config.vocab_size, hidden),
        "embeddings.position_embeddings.weight": (config.max_position_embeddings, hidden),
        "embeddings.token_type_embeddings.weight": (config.type_vocab_size, hidden),
        **_norm("embeddings.LayerNorm", hidden),
    }
    for i in range(config.num_hidden_layers):
        shapes |= _prefixed(f"encoder.layers.{i}.", _squeezebert_layer(config))
    # It is there in every checkpoint, also where it has nothing to do.
    return shapes | _dense("pooler.dense", hidden, hidden)


def _squeezebert_layer(config: SqueezeBertConfig) -> Shapes:
    hidden, inner = config.hidden_size, config.intermediate_size
    return {
        **_convolution("attention.query", hidden, hidden, config.q_groups),
        **_convolution("attention.key", hidden, hidden, config.k_groups),
        **_convolution("attention.value", hidden, hidden, config.v_groups),
        **_convolution("post_attention.conv1d", hidden, hidden, config.post_attention_groups),
        **_norm("post_attention.layernorm", hidden),
        **_convolution("intermediate.conv1d", hidden, inner, config.intermediate_groups),
        **_convolution("output.conv1d", inner, hidden, config.output_groups),
        **_norm("output.layernorm", hidden),
    }


def _squeezebert_lm_head(config: SqueezeBertConfig) -> Shapes:
    shapes: Shapes = {"cls.predictions.bias": (config.vocab_size,)}
    shapes |= _dense_norm("cls.predictions.transform", config.hidden_size, config.hidden_size)
    if not config.tie_word_embeddings:
        shapes["cls.predictions.decoder.weight"] = (config.vocab_size, config.hidden_size)
    return shapes


def _convbert_encoder(config: ConvBertConfig, has_pooler: bool) -> Shapes:
    hidden, words = config.hidden_size, config.embedding_size
    shapes: Shapes = {
        "embeddings.word_embeddings.weight": (config.vocab_size, words),
        "embeddings.position_embeddings.weight": (config.max_position_embeddings, words),
        "embeddings.token_type_embeddings.weight": (config.type_vocab_size, words),
        **_norm("embeddings.LayerNorm", words),
    }
    if words != hidden:
        shapes |= _dense("embeddings_project", words, hidden)
    for i in range(config.num_hidden_layers):
        shapes |= _prefixed(f"encoder.layer.{i}.", _convbert_layer(config))
    return shapes


def _convbert_layer(config: ConvBertConfig) -> Shapes:
    hidden, half, inner = config.hidden_size, config.attention_width, config.intermediate_size
    shapes: Shapes = {}
    for name in ("query", "key", "value"):
        shapes |= _dense(f"attention.self.{name}", hidden, half)
    shapes |= {
        "attention.self.key_conv_attn_layer.bias": (half, 1),
        "attention.self.key_conv_attn_layer.depthwise.weight": (hidden, 1, config.conv_kernel_size),
        "attention.self.key_conv_attn_layer.pointwise.weight": (half, hidden, 1),
    }
    shapes |= _dense("attention.self.conv_kernel_layer", half, config.attention_heads * config.conv_kernel_size)
    shapes |= _dense("attention.self.conv_out_layer", hidden, half)
    shapes |= _dense_norm("attention.output", hidden, hidden)
    shapes |= _dense("intermediate.dense", hidden, inner) | _dense_norm("output", inner, hidden)
    if config.num_groups > 1:
        groups = config.num_groups
        shapes["intermediate.dense.weight"] = (groups, hidden // groups, inner // groups)
        shapes["output.dense.weight"] = (groups, inner // groups, hidden // groups)
    return shapes


def _convbert_lm_head(config: ConvBertConfig) -> Shapes:
    shapes = _dense_norm("generator_predictions", config.hidden_size, config.embedding_size)
    if not config.tie_word_embeddings:
        shapes["generator_lm_head.weight"] = (config.vocab_size, config.embedding_size)
    return shapes | {"generator_lm_head.bias": (config.vocab_size,)}


def _convbert_classifier(config: ConvBertConfig) -> Shapes:
    hidden = config.hidden_size
    return _dense("classifier.dense", hidden, hidden) | _dense("classifier.out_proj", hidden, config.num_labels)


def _convbert_choice(config: ConvBertConfig) -> Shapes:
    hidden = config.hidden_size
    summary = _dense("sequence_summary.summary", hidden, hidden) if config.summary_use_proj else {}
    return summary | _dense("classifier", hidden, 1)


def _rembert_encoder(config: RemBertConfig, has_pooler: bool) -> Shapes:
    hidden, words, inner = config.hidden_size, config.input_embedding_size, config.intermediate_size
    shapes: Shapes = {
        "embeddings.word_embeddings.weight": (config.vocab_size, words),
        "embeddings.position_embeddings.weight": (config.max_position_embeddings, words),
        "embeddings.token_type_embeddings.weight": (config.type_vocab_size, words),
        **_norm("embeddings.LayerNorm", words),
    }
    attentions = ("attention", "crossattention") if config.add_cross_attention else ("attention",)
    for i in range(config.num_hidden_layers):
        layer = f"encoder.layer.{i}"
        for attention in attentions:
            for name in ("query", "key", "value"):
                shapes |= _dense(f"{layer}.{attention}.self.{name}", hidden, hidden)
            shapes |= _dense_norm(f"{layer}.{attention}.output", hidden, hidden)
        shapes |= _dense(f"{layer}.intermediate.dense", hidden, inner) | _dense_norm(f"{layer}.output", inner, hidden)
    shapes |= _dense("encoder.embedding_hidden_mapping_in", words, hidden)
    return shapes | (_dense("pooler.dense", hidden, hidden) if has_pooler else {})


def _rembert_lm_head(config: RemBertConfig) -> Shapes:
    shapes = _dense_norm("cls.predictions", config.hidden_size, config.output_embedding_size)
    if not config.tie_word_embeddings:
        shapes["cls.predictions.decoder.weight"] = (config.vocab_size, config.output_embedding_size)
    return shapes | {"cls.predictions.decoder.bias": (config.vocab_size,)}


_ENCODERS: dict[str, Callable[..., Shapes]] = {
    "convbert": _convbert_encoder,
    "mobilebert": _mobilebert_encoder,
    "rembert": _rembert_encoder,
    "squeezebert": _squeezebert_encoder,
}

_LM_HEADS: dict[str, Callable[..., Shapes]] = {
    "convbert": _convbert_lm_head,
    "mobilebert": _mobilebert_lm_head,
    "rembert": _rembert_lm_head,
    "squeezebert": _squeezebert_lm_head,
}

_HEADS: dict[str, Callable[[Any], Shapes]] = {
    "ForPreTraining": lambda c: _mobilebert_lm_head(c) | _dense("cls.seq_relationship", c.hidden_size, 2),
    "ForMaskedLM": lambda c: _LM_HEADS[c.model_type](c),
    "ForCausalLM": lambda c: _LM_HEADS[c.model_type](c),
    "ForNextSentencePrediction": lambda c: _dense("cls.seq_relationship", c.hidden_size, 2),
    "ForSequenceClassification": lambda c: _dense("classifier", c.hidden_size, c.num_labels),
    "ForMultipleChoice": lambda c: _dense("classifier", c.hidden_size, 1),
    "ForTokenClassification": lambda c: _dense("classifier", c.hidden_size, c.num_labels),
    "ForQuestionAnswering": lambda c: _dense("qa_outputs", c.hidden_size, 2),
}

# Heads whose parts are a family's own.
_OWN_HEADS: dict[tuple[str, str], Callable[[Any], Shapes]] = {
    ("convbert", "ForSequenceClassification"): _convbert_classifier,
    ("convbert", "ForMultipleChoice"): _convbert_choice,
}
