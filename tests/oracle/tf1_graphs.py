"""Each family as a TensorFlow 1 graph, written with `tf.compat.v1` from its paper.

The variables have the scopes, shapes and layouts of the authors' code; nothing here comes from the tables that the
graphs are there to test.
"""

from __future__ import annotations

import math
import zlib
from collections.abc import Callable
from typing import Any

import numpy as np
import tensorflow as tf

v1 = tf.compat.v1

VOCABULARY = 19
INPUTS = {
    "input_ids": np.array([[2, 7, 9, 11, 18, 5, 3], [2, 8, 3, 0, 0, 0, 0], [2, 6, 1, 4, 17, 3, 0]], np.int32),
    "attention_mask": np.array([[1] * 7, [1] * 3 + [0] * 4, [1] * 6 + [0]], np.int32),
    "token_type_ids": np.array([[0, 0, 0, 1, 1, 1, 1], [0] * 7, [0, 0, 1, 1, 1, 1, 0]], np.int32),
}
"""The first row has no padding."""

Answers = dict[str, Any]


def variable(name: str, *shape: int) -> Any:
    """Return a variable of the present scope, of random values that hang on its name and shape alone."""
    full = f"{v1.get_variable_scope().name}/{name}".strip("/")
    random = np.random.default_rng(zlib.crc32(full.encode()))
    if name == "gamma":
        value = random.uniform(0.7, 1.2, shape)
    elif len(shape) == 1:
        value = random.normal(0.0, 0.2, shape)
    else:
        looked_up = "embedding" in name
        fan_in = 1 if looked_up else shape[1] if "weights" in name else math.prod(shape[:-1])
        value = random.normal(0.0, 0.7 / math.sqrt(max(fan_in, 1)), shape)
    return v1.get_variable(name, initializer=value.astype(np.float32))


def dense(x: Any, width: int, scope: str, activation: Callable[[Any], Any] = tf.identity) -> Any:
    with v1.variable_scope(scope):
        return activation(
            tf.einsum("...i,io->...o", x, variable("kernel", x.shape[-1], width)) + variable("bias", width)
        )


def norm(x: Any, kind: str = "layer_norm") -> Any:
    with v1.variable_scope("FakeLayerNorm" if kind == "no_norm" else "LayerNorm"):
        scale, shift = variable("gamma", x.shape[-1]), variable("beta", x.shape[-1])
    if kind != "no_norm":
        mean, variance = tf.nn.moments(x, -1, keepdims=True)
        x = (x - mean) / tf.sqrt(variance + (1e-6 if kind == "manual_layer_norm" else 1e-12))
    return x * scale + shift


def gelu_by_erf(x: Any) -> Any:
    return 0.5 * x * (1.0 + tf.math.erf(x / math.sqrt(2.0)))


def gelu_by_tanh(x: Any) -> Any:
    return 0.5 * x * (1.0 + tf.tanh(math.sqrt(2.0 / math.pi) * (x + 0.044715 * x**3)))


def heads_of(x: Any, count: int) -> Any:
    return tf.reshape(x, [x.shape[0], x.shape[1], count, x.shape[2] // count])


def attend(query: Any, key: Any, value: Any, count: int, mask: Callable[[Any, Any], Any]) -> Any:
    scores = tf.einsum("bqhd,bkhd->bhqk", heads_of(query, count), heads_of(key, count))
    scores = scores / math.sqrt(query.shape[-1] // count)
    kept = tf.constant(INPUTS["attention_mask"][:, None, None, :], tf.float32)
    context = tf.einsum("bhqk,bkhd->bqhd", tf.nn.softmax(mask(scores, kept)), heads_of(value, count))
    return tf.reshape(context, value.shape)


def minus_six(scores: Any, kept: Any) -> Any:
    """MobileBERT's mask, kind to quantisation."""
    return scores * kept - 6.0 * (1.0 - kept)


def minus_ten_thousand(scores: Any, kept: Any) -> Any:
    return scores - 10000.0 * (1.0 - kept)


def words_of(width: int) -> tuple[Any, Any]:
    table = variable("word_embeddings", VOCABULARY, width)
    return tf.gather(table, INPUTS["input_ids"]), table


def places_and_types(x: Any, positions: int, types: int) -> Any:
    kinds = variable("token_type_embeddings", types, x.shape[-1])
    places = variable("position_embeddings", positions, x.shape[-1])
    return x + tf.gather(kinds, INPUTS["token_type_ids"]) + places[: x.shape[1]]


def mobilebert(config: dict[str, Any]) -> tuple[Any, Any, Any]:
    """Return the sequence, the pooled vector and the table of words (Sun et al. 2020, section 3)."""
    hidden, count = config.get("hidden_size", 768), config.get("num_attention_heads", 12)
    kind = config.get("normalization_type", "layer_norm")
    activation = {"gelu": gelu_by_tanh, "relu": tf.nn.relu}[config.get("hidden_act", "gelu")]
    has_bottleneck = config.get("use_bottleneck", False)
    inner = (config.get("intra_bottleneck_size") or hidden) if has_bottleneck else hidden
    wide = config.get("intermediate_size", 3072)
    with v1.variable_scope("bert"):
        with v1.variable_scope("embeddings"):
            words, table = words_of(config.get("embedding_size") or hidden)
            if config.get("trigram_input", False):
                after, before = (
                    tf.pad(words[:, 1:], [[0, 0], [0, 1], [0, 0]]),
                    tf.pad(words[:, :-1], [[0, 0], [1, 0], [0, 0]]),
                )
                words = tf.concat([after, words, before], 2)
            if config.get("trigram_input", False) or words.shape[-1] != hidden:
                words = dense(words, hidden, "embedding_transformation")
            positions, types = config.get("max_position_embeddings", 512), config.get("type_vocab_size", 16)
            stream = norm(places_and_types(words, positions, types), kind)
        for i in range(config.get("num_hidden_layers", 12)):
            with v1.variable_scope(f"encoder/layer_{i}"):
                entry, asks, values = stream, stream, stream
                if has_bottleneck:
                    with v1.variable_scope("bottleneck/input"):
                        entry = norm(dense(stream, inner, "dense"), kind)
                    if config.get("use_bottleneck_attention", False):
                        asks = values = entry
                    elif config.get("key_query_shared_bottleneck", False):
                        with v1.variable_scope("bottleneck/attention"):
                            asks = norm(dense(stream, inner, "dense"), kind)
                with v1.variable_scope("attention"):
                    with v1.variable_scope("self"):
                        three = [
                            dense(x, inner, name) for x, name in ((asks, "query"), (asks, "key"), (values, "value"))
                        ]
                        context = attend(*three, count, minus_six)
                    with v1.variable_scope("output"):
                        x = norm(dense(context, inner, "dense") + entry, kind)
                for j in range(config.get("num_feedforward_networks", 1)):
                    last = j == config.get("num_feedforward_networks", 1) - 1
                    scope = "" if last else f"ffn_layer_{j}/"
                    y = dense(x, wide, f"{scope}intermediate/dense", activation)
                    with v1.variable_scope(f"{scope}output"):
                        x = norm(dense(y, inner, "dense") + x, kind)
                if has_bottleneck:
                    with v1.variable_scope("output/bottleneck"):
                        x = norm(dense(x, hidden, "dense") + stream, kind)
                stream = x
        pooled = stream[:, 0]
        if config.get("classifier_activation", True):
            pooled = dense(pooled, hidden, "pooler/dense", tf.tanh)
    return stream, pooled, table


def pretrained(config: dict[str, Any], sequence: Any, pooled: Any, table: Any) -> Answers:
    """BERT's two heads of pretraining, with MobileBERT's factorised output table."""
    hidden, words = sequence.shape[-1], table.shape[-1]
    activation = {"gelu": gelu_by_tanh, "relu": tf.nn.relu}[config.get("hidden_act", "gelu")]
    with v1.variable_scope("cls/predictions"):
        with v1.variable_scope("transform"):
            x = norm(dense(sequence, hidden, "dense", activation))
        bias = variable("output_bias", VOCABULARY)
        if words != hidden:
            table = tf.concat([table, variable("extra_output_weights", VOCABULARY, hidden - words)], 1)
    with v1.variable_scope("cls/seq_relationship"):
        follows = tf.matmul(pooled, variable("output_weights", 2, hidden), transpose_b=True) + variable(
            "output_bias", 2
        )
    return {"prediction_logits": tf.einsum("blh,vh->blv", x, table) + bias, "seq_relationship_logits": follows}


def classified(pooled: Any, labels: int) -> Answers:
    weights, bias = variable("output_weights", labels, pooled.shape[-1]), variable("output_bias", labels)
    return {"logits": tf.matmul(pooled, weights, transpose_b=True) + bias}


def answered(sequence: Any) -> Answers:
    with v1.variable_scope("cls/squad"):
        weights, bias = variable("output_weights", 2, sequence.shape[-1]), variable("output_bias", 2)
    scores = tf.einsum("blh,ch->blc", sequence, weights) + bias
    return {"start_logits": scores[..., 0], "end_logits": scores[..., 1]}


def grouped_dense(x: Any, width: int, groups: int, activation: Callable[[Any], Any] = tf.identity) -> Any:
    if groups == 1:
        return dense(x, width, "dense", activation)
    with v1.variable_scope("g_dense"):
        kernel = variable("kernel", groups, x.shape[-1] // groups, width // groups)
        y = tf.einsum("blgi,gio->blgo", heads_of(x, groups), kernel)
        return activation(tf.reshape(y, [*x.shape[:2], width]) + variable("bias", width))


def convbert(config: dict[str, Any], words: Any, scope: str = "electra") -> Any:
    """Return the sequence of an encoder from the embeddings (Jiang et al. 2020, section 3)."""
    hidden, size = config["hidden_size"], config["conv_kernel_size"]
    per_head = hidden // config["num_attention_heads"]
    count = max(config["num_attention_heads"] // config["head_ratio"], 1)
    half, groups, wide = count * per_head, config["linear_groups"], 4 * hidden
    with v1.variable_scope(scope):
        x = words if words.shape[-1] == hidden else dense(words, hidden, "embeddings_project")
        for i in range(config["num_hidden_layers"]):
            with v1.variable_scope(f"encoder/layer_{i}"):
                with v1.variable_scope("attention/self"):
                    query, key, value = (dense(x, half, name) for name in ("query", "key", "value"))
                    with v1.variable_scope("conv_attn_key"):
                        depthwise, pointwise = (
                            variable("depthwise_kernel", size, hidden, 1),
                            variable("pointwise_kernel", 1, hidden, half),
                        )
                        # A separable convolution of one dimension is one of two with a height of 1.
                        span = tf.nn.separable_conv2d(
                            x[:, None], depthwise[None], pointwise[None], [1, 1, 1, 1], "SAME"
                        )
                        span = span[:, 0] + variable("bias", half)
                    kernels = dense(span * query, count * size, "conv_attn_kernel")
                    kernels = tf.nn.softmax(tf.reshape(kernels, [*x.shape[:2], count, size]))
                    points = dense(x, half, "conv_attn_point")
                    padded = tf.pad(points, [[0, 0], [size // 2, size // 2], [0, 0]])
                    windows = tf.stack([padded[:, j : j + x.shape[1]] for j in range(size)], -1)
                    windows = tf.reshape(windows, [*x.shape[:2], count, per_head, size])
                    convolved = tf.reshape(tf.einsum("blhdk,blhk->blhd", windows, kernels), points.shape)
                    context = tf.concat([attend(query, key, value, count, minus_ten_thousand), convolved], -1)
                with v1.variable_scope("attention/output"):
                    x = norm(dense(context, hidden, "dense") + x)
                with v1.variable_scope("intermediate"):
                    y = grouped_dense(x, wide, groups, gelu_by_erf)
                with v1.variable_scope("output"):
                    x = norm(grouped_dense(y, hidden, groups) + x)
    return x


def convbert_words(width: int) -> tuple[Any, Any]:
    with v1.variable_scope("electra/embeddings"):
        words, table = words_of(width)
        return norm(places_and_types(words, 512, 2)), table


def generated(sequence: Any, table: Any) -> Answers:
    with v1.variable_scope("generator_predictions"):
        x = norm(dense(sequence, table.shape[-1], "dense", gelu_by_erf))
        return {"logits": tf.einsum("ble,ve->blv", x, table) + variable("output_bias", VOCABULARY)}


def rembert(config: dict[str, Any]) -> tuple[Any, Any]:
    """Return the sequence and the pooled vector (Chung et al. 2020; the layers are BERT's)."""
    hidden = config["hidden_size"]
    with v1.variable_scope("bert"):
        with v1.variable_scope("embeddings"):
            words, _ = words_of(config["input_embedding_size"])
            x = norm(places_and_types(words, config["max_position_embeddings"], 2))
        x = dense(x, hidden, "encoder/embedding_hidden_mapping_in")
        for i in range(config["num_hidden_layers"]):
            with v1.variable_scope(f"encoder/layer_{i}"):
                with v1.variable_scope("attention/self"):
                    three = [dense(x, hidden, name) for name in ("query", "key", "value")]
                with v1.variable_scope("attention/output"):
                    x = norm(
                        dense(attend(*three, config["num_attention_heads"], minus_ten_thousand), hidden, "dense") + x
                    )
                y = dense(x, config["intermediate_size"], "intermediate/dense", gelu_by_erf)
                with v1.variable_scope("output"):
                    x = norm(dense(y, hidden, "dense") + x)
        return x, dense(x[:, 0], hidden, "pooler/dense", tf.tanh)
