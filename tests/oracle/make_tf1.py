"""Small TensorFlow 1 checkpoints of each family, and what their graphs answer.

`build` writes a checkpoint as a training leaves it, with the optimizer's slots and the step, and the JSON beside it; it
returns what the graph answers for `INPUTS`. That is quick enough for the tests to call it.
"""

from __future__ import annotations

import json
from collections.abc import Callable
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

import numpy as np
import tensorflow as tf
from oracle.tf1_graphs import (
    VOCABULARY,
    Answers,
    answered,
    classified,
    convbert,
    convbert_words,
    dense,
    gelu_by_erf,
    generated,
    mobilebert,
    norm,
    pretrained,
    rembert,
    v1,
    variable,
)


@dataclass(frozen=True)
class Case:
    """A checkpoint to build.

    Attributes:
        config: the content of the JSON beside it.
        graph: builds the variables and returns the answers.
        model: the Hub's class of it.
        expected: fields of the Hub's config that differ from its defaults or from the JSON.
        optimizer: whose slots lie beside the variables: "adamw" (also LAMB's names) or "adam".
        json_name: what the JSON is called.
    """

    config: dict[str, Any]
    graph: Callable[[dict[str, Any]], Answers]
    model: str
    expected: dict[str, Any] = field(default_factory=dict)
    optimizer: str = "adamw"
    json_name: str = "bert_config.json"


def _mobilebert_pretrained(config: dict[str, Any]) -> Answers:
    sequence, pooled, table = mobilebert(config)
    return {"last_hidden_state": sequence, **pretrained(config, sequence, pooled, table)}


def _mobilebert_classified(config: dict[str, Any]) -> Answers:
    sequence, pooled, _ = mobilebert(config)
    return {"last_hidden_state": sequence, **classified(pooled, 3)}


def _mobilebert_answered(config: dict[str, Any]) -> Answers:
    sequence, _, _ = mobilebert(config)
    return {"last_hidden_state": sequence, **answered(sequence)}


def _mobilebert_bare(config: dict[str, Any]) -> Answers:
    sequence, pooled, _ = mobilebert(config)
    return {"last_hidden_state": sequence, "pooler_output": pooled}


def _mobilebert_distilled(config: dict[str, Any]) -> Answers:
    """A student in the midst of its training: the teacher, the loss and simulated quantisation left their variables."""
    answers = _mobilebert_pretrained(config)
    with v1.variable_scope("teacher"):
        mobilebert({**config, "intermediate_size": 24, "key_query_shared_bottleneck": False})
    with v1.variable_scope("hidden_distill_0"):
        norm(answers["last_hidden_state"])
    with v1.variable_scope("bert/encoder/layer_0/output/dense/MobileBertWeightFakeQuantWithMinMaxVars"):
        variable("min", 1), variable("max", 1)
    return answers


def _convbert_tied(config: dict[str, Any]) -> Answers:
    words, table = convbert_words(config["embedding_size"])
    sequence = convbert(config, words)
    return {"last_hidden_state": sequence, **generated(sequence, table)}


def _convbert_electra(config: dict[str, Any]) -> Answers:
    words, table = convbert_words(config["embedding_size"])
    small = {**config, "hidden_size": config["hidden_size"] // 2}
    generated(convbert(small, words, "generator"), table)
    sequence = convbert(config, words)
    with v1.variable_scope("discriminator_predictions"):
        dense(dense(sequence, config["hidden_size"], "dense", gelu_by_erf), 1, "dense_1")
    return {"last_hidden_state": sequence}


def _convbert_tagged(config: dict[str, Any]) -> Answers:
    words, _ = convbert_words(config["embedding_size"])
    sequence = convbert(config, words)
    with v1.variable_scope("task_specific/cola"):
        dense(sequence[:, 0], 2, "dense")
    with v1.variable_scope("task_specific/chunk"):
        return {"last_hidden_state": sequence, "logits": dense(sequence, 5, "dense")}


def _rembert_pretrained(config: dict[str, Any]) -> Answers:
    sequence, pooled = rembert(config)
    with v1.variable_scope("cls/predictions"):
        dense(sequence, 24, "dense")
        variable("output_embedding", VOCABULARY, 24), variable("output_bias", VOCABULARY)
    return {"last_hidden_state": sequence, "pooler_output": pooled}


def _rembert_classified(config: dict[str, Any]) -> Answers:
    sequence, pooled = rembert(config)
    return {"last_hidden_state": sequence, **classified(pooled, 2)}


_MOBILEBERT = {
    "vocab_size": VOCABULARY,
    "hidden_size": 16,
    "num_hidden_layers": 2,
    "num_attention_heads": 2,
    "intermediate_size": 12,
    "max_position_embeddings": 9,
}
_STUDENT = {
    **_MOBILEBERT,
    "hidden_act": "relu",
    "type_vocab_size": 2,
    "embedding_size": 6,
    "trigram_input": True,
    "use_bottleneck": True,
    "intra_bottleneck_size": 8,
    "normalization_type": "no_norm",
    "classifier_activation": False,
}
_CONVBERT = {
    "hidden_size": 16,
    "num_hidden_layers": 2,
    "num_attention_heads": 4,
    "conv_kernel_size": 5,
    "linear_groups": 1,
    "head_ratio": 2,
    "embedding_size": 16,
}
_REMBERT = {
    "vocab_size": VOCABULARY,
    "hidden_size": 16,
    "num_hidden_layers": 2,
    "num_attention_heads": 4,
    "intermediate_size": 20,
    "max_position_embeddings": 9,
    "input_embedding_size": 6,
    "output_embedding_size": 24,
}

CASES: dict[str, Case] = {
    "mobilebert": Case(
        {**_STUDENT, "key_query_shared_bottleneck": True, "num_feedforward_networks": 3},
        _mobilebert_distilled,
        "MobileBertForPreTraining",
        {"key_query_shared_bottleneck": True, "normalization_type": "no_norm", "classifier_activation": False},
        json_name="student.json",
    ),
    # The paper's teacher. Its JSON, like the authors', says little: the rest are the defaults of their code.
    "ib-bert": Case(
        {
            **_MOBILEBERT,
            "type_vocab_size": 2,
            "embedding_size": 6,
            "trigram_input": True,
            "use_bottleneck": True,
            "intra_bottleneck_size": 32,
        },
        _mobilebert_pretrained,
        "MobileBertForPreTraining",
        {
            "hidden_act": "gelu_new",
            "key_query_shared_bottleneck": False,
            "normalization_type": "layer_norm",
            "num_feedforward_networks": 1,
            "classifier_activation": True,
            "hidden_dropout_prob": 0.1,
        },
    ),
    "mobilebert-tiny": Case(
        {
            **_STUDENT,
            "use_bottleneck_attention": True,
            "key_query_shared_bottleneck": True,
            "num_feedforward_networks": 2,
        },
        _mobilebert_answered,
        "MobileBertForQuestionAnswering",
        {"use_bottleneck_attention": True, "key_query_shared_bottleneck": False},
    ),
    "mobilebert-classifier": Case(
        {
            **_STUDENT,
            "classifier_activation": True,
            "num_feedforward_networks": 1,
            "embedding_size": 16,
            "trigram_input": False,
        },
        _mobilebert_classified,
        "MobileBertForSequenceClassification",
        {"num_labels": 3, "key_query_shared_bottleneck": False},
        optimizer="adam",
    ),
    "mobilebert-bare": Case(
        {**_STUDENT, "trigram_input": False, "num_feedforward_networks": 2},
        _mobilebert_bare,
        "MobileBertModel",
        {"trigram_input": False},
    ),
    # Little more than BERT; the word embeddings are as wide as the stream, so neither they nor the output need a map.
    "mobilebert-without-bottleneck": Case(
        {**_MOBILEBERT, "normalization_type": "manual_layer_norm", "num_feedforward_networks": 2},
        _mobilebert_pretrained,
        "MobileBertForPreTraining",
        {
            "use_bottleneck": False,
            "embedding_size": 16,
            "type_vocab_size": 16,
            "normalization_type": "manual_layer_norm",
        },
    ),
    "convbert": Case(
        {"model_size": "base", "vocab_size": VOCABULARY, "conv_kernel_size": 5, "embedding_size": 6}
        | {"model_hparam_overrides": {"hidden_size": 16, "num_hidden_layers": 2, "num_attention_heads": 4}},
        lambda _: _convbert_tied({**_CONVBERT, "embedding_size": 6}),
        "ConvBertForMaskedLM",
        {"num_groups": 1, "embedding_size": 6, "intermediate_size": 64, "pad_token_id": 0},
        json_name="hparams.json",
    ),
    "convbert-medium-small": Case(
        {"vocab_size": VOCABULARY, "embedding_size": 16}
        | {"model_hparam_overrides": {"hidden_size": 96, "num_hidden_layers": 1}},
        # 96 / 48 heads in this size, and the size's own two groups.
        lambda _: _convbert_electra(
            {**_CONVBERT, "hidden_size": 96, "num_hidden_layers": 1, "num_attention_heads": 2}
            | {"linear_groups": 2, "conv_kernel_size": 9}
        ),
        "ConvBertModel",
        {"num_groups": 2, "num_attention_heads": 2, "conv_kernel_size": 9, "intermediate_size": 384},
        json_name="hparams.json",
    ),
    "convbert-tagger": Case(
        {**_CONVBERT, "vocab_size": VOCABULARY, "intermediate_size": 64},
        _convbert_tagged,
        "ConvBertForTokenClassification",
        {"num_labels": 5, "num_groups": 1, "hidden_act": "gelu"},
    ),
    "rembert": Case(
        _REMBERT, _rembert_pretrained, "RemBertModel", {"hidden_act": "gelu"}, json_name="rembert_config.json"
    ),
    "rembert-classifier": Case(
        _REMBERT, _rembert_classified, "RemBertForSequenceClassification", {"num_labels": 2}, optimizer="adam"
    ),
}


def build(name: str, folder: Path) -> dict[str, np.ndarray]:
    """Write a case's checkpoint and JSON into a folder; return what its graph answers for `INPUTS`."""
    case = CASES[name]
    folder.mkdir(parents=True, exist_ok=True)
    with tf.Graph().as_default(), v1.Session() as session:
        answers = case.graph(case.config)
        step = v1.train.get_or_create_global_step()
        if case.optimizer == "adam":
            loss = sum(tf.reduce_sum(answer) for answer in answers.values())
            v1.train.AdamOptimizer().minimize(loss, step)
        else:
            for held in v1.trainable_variables():
                for slot in ("adam_m", "adam_v"):
                    v1.get_variable(f"{held.op.name}/{slot}", held.shape, trainable=False)
        session.run(v1.global_variables_initializer())
        v1.train.Saver().save(session, str(folder / "model.ckpt"), global_step=100)
        found: dict[str, np.ndarray] = session.run(answers)
    (folder / case.json_name).write_text(json.dumps(case.config), encoding="utf-8")
    return found
