"""Predicting and measuring with Keras models."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import keras
import numpy as np
import pytest

import isobert
from isobert.core import inference
from isobert.core.tasks import task_of
from isobert.core.tasks.options import TaskOptions
from isobert.errors import CheckpointError, InputError
from isobert.tf.inference import Pipeline
from support.tasks import TEXTS, inputs_of, labelled_examples, make_checkpoint


def open_pipeline(folder: Path, task: str, kind: str = "rembert", **options: Any) -> Any:
    make_checkpoint(folder, kind, task, num_hidden_layers=1)
    return isobert.pipeline(task, folder, framework="tf", **options)


def test_answers_come_in_the_order_of_the_inputs_from_one_graph(tmp_path: Path) -> None:
    pipeline = open_pipeline(tmp_path, "text-classification")
    expected = [pipeline(text)["scores"] for text in TEXTS]
    for size in (3, 100):
        pipeline.batch_size = size
        found = [list(answer["scores"].values()) for answer in pipeline(TEXTS)]
        np.testing.assert_allclose(found, [list(scores.values()) for scores in expected], atol=1e-6)
    assert np.ptp([scores["LABEL_0"] for scores in expected]) > 1e-3
    assert pipeline._outputs.experimental_get_tracing_count() == 1


def test_only_masks_are_scored_and_by_the_models_own_scores(tmp_path: Path, monkeypatch: Any) -> None:
    pipeline = open_pipeline(tmp_path, "fill-mask", top_k=3)
    inputs = inputs_of("fill-mask", pipeline.tokenizer)
    batch = dict(pipeline.tokenizer([inputs[2]], return_tensors="np"))
    logits = pipeline.model(batch).logits.numpy()[batch["input_ids"] == pipeline.tokenizer.mask_token_id]
    # The words that the model has more than its tokenizer are not offered.
    known = keras.ops.softmax(logits)[:, : len(pipeline.tokenizer)]
    found = pipeline(inputs[2])["tokens"]
    best, ids = (part.numpy() for part in keras.ops.top_k(known, 3))
    assert len(found) == ids.size
    np.testing.assert_allclose([token["score"] for token in found], best.ravel(), rtol=1e-5)
    expected = pipeline(inputs)
    # However few scores there may be at once.
    monkeypatch.setattr(inference, "_MOST_SCORES", 1)
    for one, other in zip(expected, pipeline(inputs), strict=True):
        assert [token["text"] for token in one["tokens"]] == [token["text"] for token in other["tokens"]]
    assert pipeline._encode.experimental_get_tracing_count() == 1
    assert pipeline._score_words.experimental_get_tracing_count() == 1


def test_dropout_is_off_though_the_model_is_being_trained(tmp_path: Path) -> None:
    pipeline = open_pipeline(tmp_path, "text-classification")
    assert pipeline.model.config.hidden_dropout_prob > 0
    expected = pipeline(TEXTS)
    eager = Pipeline(pipeline.model, pipeline.tokenizer, pipeline.task, batch_size=32)
    eager.model.compile("sgd", run_eagerly=True)
    found = eager(TEXTS)
    scores = ([list(answer["scores"].values()) for answer in answers] for answers in (found, expected))
    np.testing.assert_allclose(*scores, atol=1e-6)


def test_new_weights_give_new_figures(tmp_path: Path) -> None:
    make_checkpoint(tmp_path, "squeezebert", "text-classification")
    model = isobert.TFAutoModelForSequenceClassification.from_pretrained(tmp_path)
    tokenizer = isobert.AutoTokenizer.from_pretrained(tmp_path)
    pipeline = Pipeline(model, tokenizer, task_of("text-classification"), TaskOptions(max_length=16), batch_size=4)
    examples = labelled_examples("text-classification")
    features = pipeline.task.encode(examples, tokenizer, model.config, pipeline.options)
    before = pipeline.evaluate(examples, features=features)
    # Whoever evaluates in the course of training holds one pipeline, whose graph sees the weights as they are.
    model.classifier.bias.assign([0.0, 0.0, 9.0])
    after = pipeline.evaluate(examples)
    assert after["accuracy"] == 2 / 8
    assert before != after


def test_bfloat16_gives_answers_too(tmp_path: Path) -> None:
    for task in ("embedding", "fill-mask"):
        expected = open_pipeline(tmp_path / task, task)
        inputs = inputs_of(task, expected.tokenizer)
        found = isobert.pipeline(task, tmp_path / task, framework="tf", dtype="bfloat16")(inputs)
        assert found[0].keys() == expected(inputs)[0].keys()
        assert found != expected(inputs)


def test_a_device_is_taken_or_its_absence_answered(tmp_path: Path) -> None:
    pipeline = open_pipeline(tmp_path, "embedding", "squeezebert", device="cpu")
    assert len(pipeline("anna")["embedding"]) == pipeline.model.config.hidden_size
    with pytest.raises(InputError, match=r'device is \'cuda\'; it must be "cpu", "gpu" or "tpu"'):
        isobert.pipeline("embedding", tmp_path, framework="tf", device="cuda")
    if not keras.distribution.list_devices("gpu"):
        with pytest.raises(InputError, match="Keras sees no GPU"):
            isobert.pipeline("embedding", tmp_path, framework="tf", device="gpu")


def test_wrong_input_is_answered(tmp_path: Path) -> None:
    pipeline = open_pipeline(tmp_path, "text-generation")
    with pytest.raises(InputError, match="unknown: .*'max_new'"):
        pipeline("anna", max_new=3)
    with pytest.raises(CheckpointError, match="is no RemBertForQuestionAnswering"):
        isobert.pipeline("question-answering", tmp_path, framework="tf")
    pipeline.tokenizer.add_tokens(["danube", "rhine", "rhone", "seine"])
    with pytest.raises(InputError, match=r"the id \d+ \('seine'\), and the model has \d+ words"):
        pipeline("seine")
