"""Predicting and measuring with PyTorch models, and how wrong input is answered."""

from __future__ import annotations

import logging
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch

import isobert
from isobert.core import inference
from isobert.core.batches import Batches
from isobert.core.tasks import task_of
from isobert.core.tasks.base import length_of
from isobert.core.tasks.options import TaskOptions
from isobert.errors import (
    CheckpointError,
    CheckpointNotFoundError,
    InputError,
    IsobertError,
    MissingDependencyError,
    UnknownNameError,
)
from isobert.pt.inference import Pipeline
from support.tasks import TEXTS, inputs_of, labelled_examples, make_checkpoint


def open_pipeline(folder: Path, task: str, family: str = "rembert", **options: Any) -> Any:
    make_checkpoint(folder, family, task)
    return isobert.pipeline(task, folder, framework="pt", **options)


def test_answers_come_in_the_order_of_the_inputs_however_they_are_batched(tmp_path: Path) -> None:
    pipeline = open_pipeline(tmp_path, "text-classification")
    expected = [pipeline(text)["scores"] for text in TEXTS]
    for size in (1, 3, 100):
        pipeline.batch_size = size
        found = [answer["scores"] for answer in pipeline(TEXTS)]
        assert [list(scores) for scores in found] == [list(scores) for scores in expected]
        np.testing.assert_allclose(*([list(s.values()) for s in both] for both in (found, expected)), atol=1e-6)
    assert np.ptp([scores["LABEL_0"] for scores in expected]) > 1e-3


def test_one_object_has_one_answer_and_several_have_a_list(tmp_path: Path) -> None:
    pipeline = open_pipeline(tmp_path, "text-classification")
    pair = ("anna is here", "who is here ?")
    one = pipeline(pair)
    assert one == pipeline({"text": pair[0], "text_pair": pair[1]})
    assert [one] == pipeline([pair]) == pipeline(value for value in [pair])
    assert one != pipeline(pair[0])


def test_only_masks_are_scored_and_by_the_models_own_scores(tmp_path: Path, monkeypatch: Any) -> None:
    pipeline = open_pipeline(tmp_path, "fill-mask", "mobilebert", top_k=3)
    inputs = inputs_of("fill-mask", pipeline.tokenizer)
    text = inputs[2]
    batch = pipeline.tokenizer([text], padding=True, pad_to_multiple_of=8, return_tensors="pt")
    logits = pipeline.model(**batch).logits[batch["input_ids"] == pipeline.tokenizer.mask_token_id]
    # The words that the model has more than its tokenizer are not offered.
    best = logits.softmax(-1)[:, : len(pipeline.tokenizer)].topk(3)
    found = pipeline(text)["tokens"]
    assert [token["token"] for token in found] == pipeline.tokenizer.convert_ids_to_tokens(best.indices.flatten())
    assert [token["mask"] for token in found] == np.repeat(range(len(logits)), 3).tolist()
    np.testing.assert_allclose([token["score"] for token in found], best.values.flatten().detach(), rtol=1e-5)
    expected = pipeline(inputs)
    # However few scores there may be at once.
    monkeypatch.setattr(inference, "_MOST_SCORES", 1)
    for one, other in zip(expected, pipeline(inputs), strict=True):
        assert [token["text"] for token in one["tokens"]] == [token["text"] for token in other["tokens"]]
        scores = ([token["score"] for token in answer["tokens"]] for answer in (one, other))
        np.testing.assert_allclose(*scores, rtol=1e-5)


@pytest.mark.parametrize(("task", "model_type"), [("fill-mask", "squeezebert"), ("text-generation", "rembert")])
def test_the_perplexity_is_that_of_the_models_loss(task: str, model_type: str, tmp_path: Path) -> None:
    model = make_checkpoint(tmp_path, model_type, task)
    tokenizer = isobert.AutoTokenizer.from_pretrained(tmp_path)
    options, examples = TaskOptions(max_length=12, seed=3), labelled_examples(task)
    features = task_of(task).encode(examples, tokenizer, model.config, options)
    (batch,) = Batches([length_of(row) for row in features], 100, seed=3, shuffle=False, most=12).epoch(0)
    rows = [features[row] for row in batch.rows]
    arrays = task_of(task).collate(rows, tokenizer, options, length=batch.length, random=batch.random())
    loss = model(**{name: torch.from_numpy(array) for name, array in arrays.items()}).loss
    for given in (None, features):
        found = Pipeline(model, tokenizer, task_of(task), options, batch_size=4).evaluate(examples, features=given)
        assert found["perplexity"] == pytest.approx(loss.exp().item(), rel=1e-5)


def test_nothing_is_learnt_and_dropout_is_off_until_the_end(tmp_path: Path) -> None:
    pipeline = open_pipeline(tmp_path, "text-classification")
    expected = pipeline(TEXTS)
    pipeline.model.train()
    pipeline.model.get_input_embeddings().eval()
    assert pipeline(TEXTS) == expected
    modes = [module.training for module in pipeline.model.modules()]
    assert (modes[0], modes.count(False)) == (True, 1)
    assert all(parameter.grad is None for parameter in pipeline.model.parameters())


def test_progress_counts_the_rows_that_are_done(tmp_path: Path) -> None:
    pipeline = open_pipeline(tmp_path, "text-classification", batch_size=3)
    seen: list[tuple[int, int]] = []
    pipeline.predict(pipeline.task.gather(TEXTS), progress=lambda *counts: seen.append(counts))
    assert seen == [(3, 7), (6, 7), (7, 7)]


def test_bfloat16_gives_answers_too(tmp_path: Path) -> None:
    for task in ("embedding", "fill-mask"):
        expected = open_pipeline(tmp_path / task, task)
        inputs = inputs_of(task, expected.tokenizer)
        found = isobert.pipeline(task, tmp_path / task, framework="pt", dtype="bfloat16")(inputs)
        assert found[0].keys() == expected(inputs)[0].keys()
        assert found != expected(inputs)


def test_embeddings_are_the_last_layers_mean_or_first_vector(tmp_path: Path) -> None:
    model = make_checkpoint(tmp_path, "rembert", "embedding")
    tokenizer = isobert.AutoTokenizer.from_pretrained(tmp_path)
    for pooling in ("mean", "first"):
        found = isobert.pipeline("embedding", tmp_path, framework="pt", pooling=pooling)(TEXTS)
        for text, answer in zip(TEXTS, found, strict=True):
            hidden = model(**tokenizer([text], return_tensors="pt")).last_hidden_state[0]
            expected = hidden.mean(0) if pooling == "mean" else hidden[0]
            np.testing.assert_allclose(answer["embedding"], expected.detach(), atol=1e-5)


# Texts that are written.


def test_arguments_reach_generate_and_prompts_stay_in_front(tmp_path: Path) -> None:
    pipeline = open_pipeline(tmp_path, "text-generation", batch_size=3)
    found = pipeline(TEXTS, max_new_tokens=3, min_new_tokens=3)
    for text, answer in zip(TEXTS, found, strict=True):
        assert answer["text"].startswith(text)
        ids = pipeline.tokenizer([text], add_special_tokens=False)["input_ids"][0]
        prompt = torch.tensor([[pipeline.model.config.bos_token_id, *ids]])
        written = pipeline.model.generate(prompt, max_new_tokens=3, min_new_tokens=3)[0]
        known = written[written < len(pipeline.tokenizer)]
        assert pipeline.tokenizer.decode(known, skip_special_tokens=True) == answer["text"]


def test_long_prompts_lose_their_beginning_and_leave_room(tmp_path: Path, caplog: pytest.LogCaptureFixture) -> None:
    pipeline = open_pipeline(tmp_path, "text-generation")
    long = " ".join(TEXTS)
    with caplog.at_level(logging.WARNING, logger="isobert"):
        answer = pipeline(long, max_new_tokens=5, min_new_tokens=5, eos_token_id=[])
    assert "1 of 1 prompts are longer than 35 tokens" in caplog.text
    assert len(answer["text"]) > len(long) / 3
    with pytest.raises(InputError, match="max_position_embeddings"):
        isobert.pipeline("text-generation", tmp_path, framework="pt", max_length=40)(long)
    # Of 40 positions a prompt takes 34 and no padding, or there would be no room for 6.
    assert isobert.pipeline("text-generation", tmp_path, framework="pt", max_length=40)("anna " * 33, max_new_tokens=6)


def test_prompts_that_are_alike_go_on_differently_in_every_batch(tmp_path: Path) -> None:
    pipeline = open_pipeline(tmp_path, "text-generation", batch_size=1)
    drawn = [answer["text"] for answer in pipeline(["anna"] * 4, do_sample=True, seed=1)]
    assert len(set(drawn)) == 4
    assert drawn == [answer["text"] for answer in pipeline(["anna"] * 4, do_sample=True, seed=1)]


# Wrong input.


@pytest.fixture(scope="module")
def classifier(tmp_path_factory: pytest.TempPathFactory) -> Path:
    folder = tmp_path_factory.mktemp("classifier")
    make_checkpoint(folder, "squeezebert", "text-classification")
    return folder


@pytest.mark.parametrize(
    ("task", "options", "error", "words"),
    [
        ("sentiment", {}, UnknownNameError, "no task 'sentiment'; the tasks are text-classification, "),
        ("pretraining", {}, InputError, "pretraining is learnt and measured"),
        ("text-generation", {}, UnknownNameError, "SqueezeBert has no model 'ForCausalLM'"),
        (
            "token-classification",
            {},
            CheckpointError,
            "is no SqueezeBertForTokenClassification, .* called alike.* it is: SqueezeBertForSequenceClassification",
        ),
        ("fill-mask", {}, CheckpointError, r"is no SqueezeBertForMaskedLM, which fill-mask needs: cls\.\S+ .*others"),
        ("text-classification", {"max_lenght": 3}, InputError, "no option 'max_lenght'; .* max_length, "),
        ("text-classification", {"max_length": 3}, InputError, "max_length is 3; it must be"),
        ("text-classification", {"framework": "jax"}, UnknownNameError, "no framework 'jax'; .* 'pt', 'tf'"),
        ("text-classification", {"device": "cuda:9"}, InputError, 'device is \'cuda:9\'; it must be "cpu" or "gpu"'),
        ("text-classification", {"dtype": "int8"}, InputError, "dtype is 'int8'"),
    ],
)
def test_what_cannot_be_opened_is_answered(
    classifier: Path, task: str, options: dict[str, Any], error: type[IsobertError], words: str
) -> None:
    with pytest.raises(error, match=words):
        isobert.pipeline(task, classifier, **{"framework": "pt", **options})


def test_a_head_with_labels_of_another_number_is_refused(classifier: Path, tmp_path: Path) -> None:
    # Both heads of the family have a `classifier`, and only its shape could tell that it is another's.
    config = isobert.AutoConfig.from_pretrained(classifier).replace(num_labels=5)
    (tmp_path / "model.safetensors").write_bytes((classifier / "model.safetensors").read_bytes())
    config.save_pretrained(tmp_path)
    with pytest.raises(CheckpointError, match="classifier.weight"):
        isobert.pipeline("text-classification", tmp_path, framework="pt")


def test_no_gpu_is_answered_where_one_was_asked_for(classifier: Path, monkeypatch: Any) -> None:
    monkeypatch.setattr(torch.accelerator, "current_accelerator", lambda check_available: None)
    with pytest.raises(InputError, match="PyTorch sees no GPU"):
        isobert.pipeline("text-classification", classifier, framework="pt", device="gpu")


def test_a_folder_without_tokenizer_is_answered(classifier: Path, tmp_path: Path) -> None:
    for name in ("config.json", "model.safetensors"):
        (tmp_path / name).write_bytes((classifier / name).read_bytes())
    with pytest.raises(CheckpointNotFoundError, match=r"vocab\.txt"):
        isobert.pipeline("text-classification", tmp_path, framework="pt")


def test_pytorch_comes_first_and_a_missing_framework_is_answered(monkeypatch: Any) -> None:
    assert inference.choose_framework(None) == "pt"
    monkeypatch.setattr(inference, "find_spec", lambda name: name if name == "tensorflow" else None)
    assert inference.choose_framework(None) == "tf"
    monkeypatch.setattr(inference, "find_spec", lambda name: None)
    with pytest.raises(MissingDependencyError, match=r"isobert\[pt\].*isobert\[tf\]"):
        inference.choose_framework(None)


@pytest.mark.parametrize(
    ("inputs", "arguments", "words"),
    [
        ([], {}, "there is no example"),
        ([3], {}, r"input 0: text is 3 \(int\); it must be a text"),
        (["anna", {"txt": "anna"}], {}, "input 1: no column is called text"),
        ("anna", {"max_new_tokens": 3}, "'max_new_tokens' is an argument of text generation"),
    ],
)
def test_what_is_no_example_is_answered(classifier: Path, inputs: Any, arguments: Any, words: str) -> None:
    with pytest.raises(InputError, match=words):
        isobert.pipeline("text-classification", classifier, framework="pt")(inputs, **arguments)


def test_wrong_arguments_of_generate_are_answered(tmp_path: Path) -> None:
    pipeline = open_pipeline(tmp_path, "text-generation")
    with pytest.raises(InputError, match="unknown: .*'max_new'"):
        pipeline("anna", max_new=3)
    with pytest.raises(InputError, match="num_return_sequences must be 1"):
        pipeline("anna", num_return_sequences=2, do_sample=True)
    pipeline.model.config = pipeline.model.config.replace(is_decoder=False)
    with pytest.raises(InputError, match="is_decoder=False"):
        pipeline("anna")


def test_a_text_beyond_the_positions_is_cut_with_a_warning(classifier: Path, caplog: pytest.LogCaptureFixture) -> None:
    pipeline = isobert.pipeline("text-classification", classifier, framework="pt")
    with caplog.at_level(logging.WARNING, logger="isobert"):
        assert pipeline(" ".join(TEXTS))["label"]
    assert "1 of 1 examples are longer than 40 tokens" in caplog.text


def test_a_tokenizer_of_another_model_is_answered(classifier: Path) -> None:
    pipeline = isobert.pipeline("text-classification", classifier, framework="pt")
    pipeline.tokenizer.add_tokens(["danube", "rhine", "rhone", "seine"])
    with pytest.raises(InputError, match=r"the id \d+ \('seine'\), and the model has \d+ words"):
        pipeline("the seine is long")


def test_weights_that_are_no_numbers_are_answered(classifier: Path) -> None:
    pipeline = isobert.pipeline("text-classification", classifier, framework="pt")
    with torch.no_grad():
        pipeline.model.classifier.bias[0] = torch.nan
    with pytest.raises(CheckpointError, match="no finite numbers"):
        pipeline("anna")


def test_a_wrong_label_is_answered_with_its_place(classifier: Path) -> None:
    pipeline = isobert.pipeline("text-classification", classifier, framework="pt")
    examples = pipeline.task.gather([{"text": "anna", "label": "person"}], labelled=True)
    with pytest.raises(InputError, match="input 0: label 'person' is none of the model's"):
        pipeline.evaluate(examples)
