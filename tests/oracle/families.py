"""What the oracle is asked: its families, their heads, and the small configs that it runs, as data.

Read by `make_fixtures.py`, which runs in the oracle's environment; nothing here imports a framework.
"""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass
from typing import Any

Fields = dict[str, Any]


@dataclass(frozen=True)
class Family:
    """One family as transformers has it.

    Attributes:
        prefix: what its classes' names begin with.
        base_prefix: what its encoder's names begin with inside a model with a head.
        heads: the heads that are run; "Model" is the bare encoder.
        checkpoint_head: the head whose checkpoint is written; it holds the whole encoder.
        all_gradients: the head of which every gradient is kept; the others show those of their own parameters and of
            `shared_gradients`.
        shared_gradients: ends of names of the encoder's parameters.
        cases: the configs' fields, by the fixture's name.
        runs_in_tensorflow: whether the TensorFlow classes can run a config.
        one_epsilon: whether all layer norms get `layer_norm_eps`, those too that transformers makes without it.
        attentions_are_scores: whether the PyTorch classes return scores before the softmax as `attentions`.
    """

    prefix: str
    base_prefix: str
    heads: tuple[str, ...]
    checkpoint_head: str
    all_gradients: str
    shared_gradients: tuple[str, ...]
    cases: dict[str, Fields]
    runs_in_tensorflow: Callable[[Fields], bool] = lambda fields: False
    one_epsilon: bool = False
    attentions_are_scores: bool = False


TASK_HEADS = (
    "ForMaskedLM",
    "ForSequenceClassification",
    "ForMultipleChoice",
    "ForTokenClassification",
    "ForQuestionAnswering",
)

COMMON: Fields = {"vocab_size": 31, "num_hidden_layers": 2, "max_position_embeddings": 11, "num_labels": 3}

MOBILEBERT: Fields = {
    **COMMON,
    "hidden_size": 12,
    "embedding_size": 5,
    "intra_bottleneck_size": 8,
    "intermediate_size": 9,
    "num_attention_heads": 2,
}

# What transformers can run: it has no "manual_layer_norm", and fails where queries and keys see the full stream.
MOBILEBERT_CASES: dict[str, Fields] = {
    "mobilebert-paper": {**MOBILEBERT, "num_feedforward_networks": 3},
    "mobilebert-inverted-layer-norm": {
        **MOBILEBERT,
        "normalization_type": "layer_norm",
        "layer_norm_eps": 1e-3,
        "hidden_act": "gelu_new",
        "intra_bottleneck_size": 16,
        "num_attention_heads": 4,
        "num_feedforward_networks": 1,
        "classifier_activation": False,
        "pad_token_id": 3,
    },
    "mobilebert-bottlenecked-attention": {
        **MOBILEBERT,
        "hidden_act": "silu",
        "use_bottleneck_attention": True,
        "key_query_shared_bottleneck": False,
        "num_feedforward_networks": 2,
        "trigram_input": False,
        "tie_word_embeddings": False,
        "problem_type": "regression",
    },
    "mobilebert-no-bottleneck": {
        **MOBILEBERT,
        "hidden_act": "gelu",
        "use_bottleneck": False,
        "trigram_input": False,
        "embedding_size": 12,
        "num_feedforward_networks": 1,
        "normalization_type": "layer_norm",
        "problem_type": "multi_label_classification",
    },
}

CONVBERT: Fields = {
    **COMMON,
    "hidden_size": 16,
    "embedding_size": 16,
    "intermediate_size": 20,
    "num_attention_heads": 4,
}

CONVBERT_CASES: dict[str, Fields] = {
    "convbert-base": CONVBERT,
    "convbert-medium-small": {
        **CONVBERT,
        "embedding_size": 9,
        "num_groups": 2,
        "conv_kernel_size": 3,
        "pad_token_id": 0,
        "layer_norm_eps": 1e-3,
        "hidden_act": "gelu_new",
        "problem_type": "regression",
        # The TensorFlow classes look at the type only where the config has `summary_use_proj`, be it false.
        "summary_type": "mean",
        "summary_use_proj": False,
    },
    "convbert-untied": {
        **CONVBERT,
        "hidden_size": 24,
        "embedding_size": 10,
        "num_attention_heads": 6,
        "num_groups": 4,
        "conv_kernel_size": 5,
        "pad_token_id": 3,
        "tie_word_embeddings": False,
        "problem_type": "single_label_classification",
        "summary_type": "cls_index",
        "summary_use_proj": True,
    },
    "convbert-head-ratio-1": {
        **CONVBERT,
        "num_hidden_layers": 1,
        "head_ratio": 1,
        "num_attention_heads": 2,
        "conv_kernel_size": 3,
        "hidden_act": "relu",
        "summary_type": "first",
        "summary_use_proj": True,
        "summary_activation": "tanh",
    },
    # Two heads are left, for the division is rounded down.
    "convbert-head-ratio-4": {
        **CONVBERT,
        "num_hidden_layers": 1,
        "head_ratio": 4,
        "num_attention_heads": 11,
        "conv_kernel_size": 1,
        "problem_type": "multi_label_classification",
        "summary_type": "mean",
        "summary_use_proj": True,
        "summary_activation": "gelu",
    },
    # One head is left, so the heads that the config names need not divide the width.
    "convbert-head-ratio-above-the-heads": {
        **CONVBERT,
        "num_hidden_layers": 1,
        "head_ratio": 5,
        "num_attention_heads": 3,
        "conv_kernel_size": 5,
        "hidden_act": "silu",
    },
}

SQUEEZEBERT: Fields = {
    **COMMON,
    "hidden_size": 12,
    "embedding_size": 12,
    "intermediate_size": 24,
    "num_attention_heads": 2,
}


def groups(query: int, key: int, value: int, post_attention: int, intermediate: int, output: int) -> Fields:
    """Return the fields for these numbers of groups, in the order in which a layer's convolutions are applied."""
    return {
        "q_groups": query,
        "k_groups": key,
        "v_groups": value,
        "post_attention_groups": post_attention,
        "intermediate_groups": intermediate,
        "output_groups": output,
    }


SQUEEZEBERT_CASES: dict[str, Fields] = {
    "squeezebert-paper": {**SQUEEZEBERT, **groups(4, 4, 4, 1, 4, 4)},
    "squeezebert-every-other-group": {
        **SQUEEZEBERT,
        **groups(1, 2, 3, 4, 6, 12),
        "num_attention_heads": 3,
        "layer_norm_eps": 1e-3,
        "hidden_act": "gelu_new",
        "pad_token_id": 3,
        "problem_type": "regression",
    },
    "squeezebert-one-group": {
        **SQUEEZEBERT,
        **groups(1, 1, 1, 1, 1, 1),
        "hidden_act": "relu",
        "tie_word_embeddings": False,
        "problem_type": "multi_label_classification",
    },
    # Each channel is a group of its own.
    "squeezebert-depthwise": {
        **SQUEEZEBERT,
        **groups(12, 12, 12, 12, 12, 12),
        "num_attention_heads": 4,
        "hidden_act": "silu",
        "type_vocab_size": 3,
        "problem_type": "single_label_classification",
    },
}

# SqueezeBERT is BERT where all groups are 1. The layers' layer norms have this epsilon there.
BERT_CASES: dict[str, Fields] = {
    "bert-as-squeezebert": {
        **COMMON,
        "hidden_size": 12,
        "intermediate_size": 20,
        "num_attention_heads": 3,
        "layer_norm_eps": 1e-12,
    },
}

REMBERT: Fields = {
    **COMMON,
    "hidden_size": 12,
    "input_embedding_size": 7,
    "output_embedding_size": 17,
    "intermediate_size": 20,
    "num_attention_heads": 2,
    "bos_token_id": 1,
    "eos_token_id": 2,
}

REMBERT_CASES: dict[str, Fields] = {
    "rembert-paper": REMBERT,
    "rembert-other-fields": {
        **REMBERT,
        "num_attention_heads": 3,
        "hidden_act": "gelu_new",
        "layer_norm_eps": 1e-3,
        "pad_token_id": 3,
        "type_vocab_size": 3,
        "problem_type": "regression",
    },
    "rembert-decoder": {**REMBERT, "is_decoder": True, "problem_type": "multi_label_classification"},
    "rembert-decoder-with-cross-attention": {
        **REMBERT,
        "num_hidden_layers": 1,
        "is_decoder": True,
        "add_cross_attention": True,
        "hidden_act": "relu",
        "problem_type": "single_label_classification",
    },
}

FAMILIES: dict[str, Family] = {
    "mobilebert": Family(
        prefix="MobileBert",
        base_prefix="mobilebert",
        heads=("Model", "ForPreTraining", "ForMaskedLM", "ForNextSentencePrediction", *TASK_HEADS[1:]),
        checkpoint_head="ForPreTraining",
        all_gradients="ForPreTraining",
        shared_gradients=("embeddings.word_embeddings.weight", "encoder.layer.0.attention.self.query.weight"),
        cases=MOBILEBERT_CASES,
        runs_in_tensorflow=lambda fields: True,
        # Its layer norms in the embeddings and at the layers' ends run with torch's default epsilon; the authors' code
        # has one epsilon for all.
        one_epsilon=True,
    ),
    "convbert": Family(
        prefix="ConvBert",
        base_prefix="convbert",
        heads=("Model", *TASK_HEADS),
        checkpoint_head="ForMaskedLM",
        all_gradients="ForMaskedLM",
        shared_gradients=(
            "embeddings.word_embeddings.weight",
            "encoder.layer.0.attention.self.query.weight",
            "encoder.layer.0.attention.self.key_conv_attn_layer.depthwise.weight",
        ),
        cases=CONVBERT_CASES,
        # There a head's width is the hidden size over the config's heads, right only where half of the heads are left;
        # elsewhere shapes do not fit.
        runs_in_tensorflow=lambda fields: fields.get("head_ratio", 2) == 2,
    ),
    "squeezebert": Family(
        prefix="SqueezeBert",
        base_prefix="transformer",
        heads=("Model", *TASK_HEADS),
        checkpoint_head="ForMaskedLM",
        all_gradients="ForMaskedLM",
        shared_gradients=(
            "embeddings.word_embeddings.weight",
            "encoder.layers.0.attention.query.weight",
            "pooler.dense.weight",
        ),
        cases=SQUEEZEBERT_CASES,
        attentions_are_scores=True,
    ),
    "rembert": Family(
        prefix="RemBert",
        base_prefix="rembert",
        heads=("Model", "ForCausalLM", *TASK_HEADS),
        # The heads that score words have no pooler.
        checkpoint_head="ForSequenceClassification",
        all_gradients="ForCausalLM",
        shared_gradients=(
            "embeddings.word_embeddings.weight",
            "encoder.embedding_hidden_mapping_in.weight",
            "encoder.layer.0.attention.self.query.weight",
            "pooler.dense.weight",
        ),
        cases=REMBERT_CASES,
        runs_in_tensorflow=lambda fields: True,
    ),
    "bert": Family(
        prefix="Bert",
        base_prefix="bert",
        heads=("Model", "ForMaskedLM", "ForSequenceClassification"),
        # The one with both a pooler and a language-model head.
        checkpoint_head="ForPreTraining",
        all_gradients="ForMaskedLM",
        shared_gradients=(
            "embeddings.word_embeddings.weight",
            "encoder.layer.0.attention.self.query.weight",
            "pooler.dense.weight",
        ),
        cases=BERT_CASES,
    ),
}
