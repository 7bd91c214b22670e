"""Checkpoints open as they were saved, vocabularies grow and shrink, and a trace tells what a model computes."""

from __future__ import annotations

import copy
import gc
import json
import logging
from collections.abc import Callable
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch
from safetensors.numpy import load_file
from torch.utils import _pytree as pytree

from isobert import (
    AutoModelForMaskedLM,
    MobileBertConfig,
    MobileBertForMaskedLM,
    MobileBertForPreTraining,
    MobileBertForSequenceClassification,
    MobileBertModel,
    SqueezeBertForMaskedLM,
)
from isobert.conversion.checkpoint import Checkpoint
from isobert.core.config import PretrainedConfig
from isobert.core.outputs import OUTPUT_CLASSES
from isobert.core.registry import model_class
from isobert.errors import CheckpointError, CheckpointNotFoundError, ConfigError, InputError
from support.configs import CONFIG_SEEDS, random_config
from support.inputs import random_inputs

Make = Callable[..., Any]
WORDS = "cls.predictions"


@pytest.mark.parametrize("seed", CONFIG_SEEDS)
def test_a_saved_model_opens_with_every_bit_in_place(
    family: str, head: str, seed: int, make_model: Make, tmp_path: Path
) -> None:
    model = make_model(family, head, seed)
    model.save_pretrained(tmp_path)
    opened, report = type(model).from_pretrained(tmp_path, dtype="float64", output_loading_info=True)
    assert not report
    assert opened.config == model.config.replace(architectures=[type(model).__name__])
    assert not any(module.training for module in opened.modules())
    mine, other = opened.state_dict(), model.state_dict()
    assert list(mine) == list(other)
    assert all(mine[name].equal(other[name]) for name in other)
    assert [p.requires_grad for p in opened.parameters()] == [p.requires_grad for p in model.parameters()]


@pytest.mark.parametrize("tied", [True, False])
@pytest.mark.parametrize("head", ["ForMaskedLM", "ForPreTraining"])
def test_tied_words_are_one_tensor_that_is_written_once(
    head: str, tied: bool, make_model: Make, tmp_path: Path
) -> None:
    model = make_model("mobilebert", head, tie_word_embeddings=tied)
    model.save_pretrained(tmp_path)
    written = set(load_file(tmp_path / "model.safetensors"))
    assert (f"{WORDS}.decoder.weight" in written) is not tied
    assert f"{WORDS}.decoder.bias" not in written
    opened = type(model).from_pretrained(tmp_path)
    for each in (model, opened, copy.deepcopy(model), type(model)(model.config)):
        predictions = each.cls["predictions"]
        assert (predictions.decoder.weight is each.get_input_embeddings().weight) is tied
        assert predictions.decoder.bias is predictions.bias


def test_the_class_that_saved_is_named_in_the_config(make_model: Make, tmp_path: Path) -> None:
    model = make_model("mobilebert", "ForMaskedLM")
    model.save_pretrained(tmp_path)
    assert json.loads((tmp_path / "config.json").read_text())["architectures"] == ["MobileBertForMaskedLM"]
    assert model.config.architectures is None


def test_a_checkpoint_is_written_in_shards_above_a_size(make_model: Make, tmp_path: Path) -> None:
    model = make_model("mobilebert", "ForMaskedLM")
    model.save_pretrained(tmp_path, max_shard_size=5000)
    assert len(list(tmp_path.glob("model-*.safetensors"))) > 2
    opened = MobileBertForMaskedLM.from_pretrained(tmp_path, dtype="auto")
    assert all(value.equal(model.state_dict()[name]) for name, value in opened.state_dict().items())


@pytest.mark.parametrize(
    ("asked", "expected"),
    [
        (None, torch.float32),
        ("auto", torch.bfloat16),
        ("float64", torch.float64),
        (torch.float16, torch.float16),
    ],
)
def test_the_dtype_is_the_one_asked_for(
    asked: Any, expected: torch.dtype, make_model: Make, make_inputs: Make, tmp_path: Path
) -> None:
    make_model("mobilebert", "ForMaskedLM").to(torch.bfloat16).save_pretrained(tmp_path)
    opened = MobileBertForMaskedLM.from_pretrained(tmp_path, dtype=asked)
    assert {p.dtype for p in opened.parameters()} == {expected}
    assert load_file(tmp_path / "model.safetensors")["cls.predictions.bias"].dtype.name == "bfloat16"


@pytest.mark.parametrize("asked", ["int64", "float99", 32])
def test_a_dtype_that_is_none_is_refused(asked: Any, make_model: Make, tmp_path: Path) -> None:
    make_model("mobilebert").save_pretrained(tmp_path)
    with pytest.raises(InputError, match="dtype is"):
        MobileBertModel.from_pretrained(tmp_path, dtype=asked)


def test_a_bare_encoder_opens_in_a_head_which_is_newly_drawn_and_reported(
    make_model: Make, tmp_path: Path, caplog: pytest.LogCaptureFixture
) -> None:
    encoder = make_model("mobilebert", hidden_size=64, num_attention_heads=2, classifier_activation=True)
    encoder.save_pretrained(tmp_path)
    torch.manual_seed(0)
    with caplog.at_level(logging.WARNING, logger="isobert"):
        opened, report = MobileBertForSequenceClassification.from_pretrained(
            tmp_path, dtype="float64", num_labels=20, output_loading_info=True
        )
    assert set(report.missing) == {"classifier.weight", "classifier.bias"}
    assert not report.unexpected
    assert "classifier.weight" in caplog.text
    held = encoder.state_dict()
    assert all(value.equal(held[name]) for name, value in opened.mobilebert.state_dict().items())
    assert opened.classifier.weight.std().item() == pytest.approx(0.88 * 0.02, rel=0.05)
    assert not opened.classifier.bias.any()
    assert opened.config.num_labels == 20


def test_a_model_with_a_head_opens_as_a_bare_encoder(make_model: Make, tmp_path: Path) -> None:
    whole = make_model("mobilebert", "ForPreTraining")
    whole.save_pretrained(tmp_path)
    opened, report = MobileBertModel.from_pretrained(tmp_path, dtype="float64", output_loading_info=True)
    assert not report.missing
    assert all(name.startswith("cls.") for name in report.unexpected)
    assert all(value.equal(whole.mobilebert.state_dict()[name]) for name, value in opened.state_dict().items())


def test_a_checkpoint_without_a_head_that_scores_words_leaves_it_tied_and_newly_drawn(
    make_model: Make, tmp_path: Path
) -> None:
    make_model("mobilebert", tie_word_embeddings=True, hidden_size=12, embedding_size=5).save_pretrained(tmp_path)
    opened = MobileBertForMaskedLM.from_pretrained(tmp_path)
    predictions = opened.cls["predictions"]
    assert predictions.decoder.weight is opened.get_input_embeddings().weight
    assert predictions.decoder.bias is predictions.bias
    assert not predictions.bias.any()
    assert not any(parameter.is_meta for parameter in opened.parameters())


def test_a_tensor_of_another_shape_is_an_error_unless_it_may_be_drawn_anew(make_model: Make, tmp_path: Path) -> None:
    model = make_model("mobilebert", "ForSequenceClassification", num_labels=3, problem_type=None)
    model.save_pretrained(tmp_path)
    with pytest.raises(CheckpointError, match=r"classifier\.weight is \[3, \d+\] in the checkpoint and \[4, \d+\]"):
        MobileBertForSequenceClassification.from_pretrained(tmp_path, num_labels=4)
    opened, report = MobileBertForSequenceClassification.from_pretrained(
        tmp_path, num_labels=4, ignore_mismatched_sizes=True, output_loading_info=True
    )
    assert [mismatch.name for mismatch in report.mismatched] == ["classifier.weight", "classifier.bias"]
    assert opened.classifier.weight.shape[0] == 4
    assert opened.classifier.weight.isfinite().all()


def test_a_config_given_in_place_of_the_checkpoints_is_used(make_model: Make, tmp_path: Path) -> None:
    model = make_model("mobilebert")
    model.save_pretrained(tmp_path)
    config = model.config.replace(hidden_act="relu6")
    opened = MobileBertModel.from_pretrained(tmp_path, config=config, hidden_dropout_prob=0.25)
    assert (opened.config.hidden_act, opened.config.hidden_dropout_prob) == ("relu6", 0.25)


def test_a_folder_without_a_checkpoint_is_an_error(tmp_path: Path) -> None:
    with pytest.raises(CheckpointNotFoundError):
        MobileBertModel.from_pretrained(tmp_path)
    random_config("mobilebert", 0).save_pretrained(tmp_path)
    with pytest.raises(CheckpointNotFoundError):
        MobileBertModel.from_pretrained(tmp_path)


def test_a_model_takes_only_a_config_of_its_own_family() -> None:
    with pytest.raises(ConfigError, match="takes a MobileBertConfig; it got a PretrainedConfig"):
        MobileBertModel(PretrainedConfig())


def test_a_config_made_illegal_after_its_making_builds_no_model() -> None:
    config = MobileBertConfig()
    config.num_attention_heads = 7
    with pytest.raises(ConfigError, match="num_attention_heads"):
        MobileBertModel(config)


def test_saving_over_the_folder_that_a_model_came_from_loses_nothing(make_model: Make, tmp_path: Path) -> None:
    make_model("mobilebert").save_pretrained(tmp_path)
    opened = MobileBertModel.from_pretrained(tmp_path, dtype="auto")
    with torch.no_grad():
        for parameter in opened.parameters():
            parameter.mul_(2)
    expected = {name: value.clone() for name, value in opened.state_dict().items()}
    opened.save_pretrained(tmp_path)
    again = MobileBertModel.from_pretrained(tmp_path, dtype="auto")
    assert all(value.equal(expected[name]) for name, value in again.state_dict().items())


def mappings_of(folder: Path) -> int:
    """Return how many of this process's mappings are of a folder's files."""
    return sum(str(folder) in line for line in Path("/proc/self/maps").read_text().splitlines())


@pytest.mark.skipif(not Path("/proc/self/maps").exists(), reason="only Linux tells what is mapped")
def test_a_model_lies_in_its_file_until_it_is_altered_and_the_file_stays_as_it_is(
    make_model: Make, tmp_path: Path
) -> None:
    made = make_model("mobilebert", head="ForSequenceClassification").float()
    made.save_pretrained(tmp_path)
    file = tmp_path / "model.safetensors"
    content = file.read_bytes()
    opened = MobileBertForSequenceClassification.from_pretrained(tmp_path)
    assert mappings_of(tmp_path) == 1
    before = {name: parameter.clone() for name, parameter in opened.named_parameters()}
    optimizer = torch.optim.AdamW(opened.parameters(), lr=0.1)
    opened(torch.tensor([[2, 5, 3]])).logits.square().sum().backward()
    optimizer.step()
    assert any(not parameter.equal(before[name]) for name, parameter in opened.named_parameters())
    assert file.read_bytes() == content
    # Saved where it lies.
    opened.save_pretrained(tmp_path)
    again = MobileBertForSequenceClassification.from_pretrained(tmp_path)
    assert all(a.equal(b) for a, b in zip(opened.parameters(), again.parameters(), strict=True))


def test_parts_that_are_not_trained_are_not_when_they_have_been_opened(make_model: Make, tmp_path: Path) -> None:
    made = make_model("squeezebert", head="ForMaskedLM")
    made.save_pretrained(tmp_path)
    trained = {name: parameter.requires_grad for name, parameter in made.named_parameters()}
    opened = SqueezeBertForMaskedLM.from_pretrained(tmp_path)
    assert not all(trained.values())
    assert {name: parameter.requires_grad for name, parameter in opened.named_parameters()} == trained


def test_what_is_converted_on_the_way_is_never_in_memory_as_a_whole(
    make_model: Make, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    make_model("mobilebert").float().save_pretrained(tmp_path)
    # The pages of a mapping stay in memory until all of its tensors are gone.
    monkeypatch.setattr(Checkpoint, "view", lambda self, name: pytest.fail(f"{name} is mapped"))
    assert MobileBertModel.from_pretrained(tmp_path, dtype="bfloat16").dtype == torch.bfloat16


@pytest.mark.skipif(not Path("/proc/self/maps").exists(), reason="only Linux tells what is mapped")
def test_a_file_is_let_go_with_its_model_and_at_once_by_one_that_is_converted_on_the_way(
    make_model: Make, tmp_path: Path
) -> None:
    make_model("mobilebert").float().save_pretrained(tmp_path)
    opened = MobileBertModel.from_pretrained(tmp_path, dtype="float64")
    assert mappings_of(tmp_path) == 0
    assert opened.dtype == torch.float64
    opened = MobileBertModel.from_pretrained(tmp_path)
    assert mappings_of(tmp_path) == 1
    del opened
    gc.collect()
    assert mappings_of(tmp_path) == 0


# The bare encoder, and each kind of head that scores words: MobileBERT's has a table of its own beside the shared one.
RESIZED = [(family, head) for family in ("mobilebert", "squeezebert") for head in ("Model", "ForMaskedLM")]
RESIZED += [("mobilebert", "ForPreTraining")]


@pytest.mark.parametrize("tied", [True, False])
@pytest.mark.parametrize(("model_type", "task"), RESIZED)
@pytest.mark.parametrize("size", [23, 57])
def test_resizing_keeps_the_scores_of_the_words_that_stay(
    model_type: str, task: str, size: int, tied: bool, make_model: Make, make_inputs: Make, tmp_path: Path
) -> None:
    model = make_model(model_type, task, 1, vocab_size=37, tie_word_embeddings=tied, pad_token_id=1)
    inputs = make_inputs(model, labels=False)
    inputs["input_ids"] %= 20
    before, old_config = next(iter(model(**inputs).values())), model.config
    table = model.resize_token_embeddings(size)
    assert table is model.get_input_embeddings()
    assert table.weight.shape[0] == table.num_embeddings == model.config.vocab_size == size
    assert model.base_model.config is model.config
    assert old_config.vocab_size == 37
    after = next(iter(model(**inputs).values()))
    if task == "Model":
        torch.testing.assert_close(after, before)
    else:
        assert after.shape[-1] == size
        torch.testing.assert_close(after[..., : min(size, 37)], before[..., : min(size, 37)])
        assert (model.cls["predictions"].decoder.weight is table.weight) is tied
        assert not model.cls["predictions"].bias[37:].any()
    model.save_pretrained(tmp_path)
    _, report = type(model).from_pretrained(tmp_path, output_loading_info=True)
    assert not report


def test_a_new_size_is_rounded_up_and_new_vectors_are_drawn(make_model: Make) -> None:
    model = make_model("mobilebert", vocab_size=37)
    table = model.resize_token_embeddings(38, pad_to_multiple_of=8)
    assert table.num_embeddings == 40
    assert table.weight[37:].all()
    assert table.weight[37:].abs().max() <= 2 * model.config.initializer_range
    assert model.resize_token_embeddings(40, pad_to_multiple_of=8).num_embeddings == 40


def test_a_size_that_is_not_legal_changes_nothing(make_model: Make) -> None:
    model = make_model("mobilebert", "ForMaskedLM", vocab_size=37, pad_token_id=5)
    for size in (0, 5):
        with pytest.raises(ConfigError):
            model.resize_token_embeddings(size)
    assert model.get_input_embeddings().weight.shape[0] == model.config.vocab_size == 37


def test_a_new_table_of_words_is_shared_by_the_head_and_must_fit(make_model: Make) -> None:
    model = make_model("mobilebert", "ForMaskedLM", tie_word_embeddings=True)
    config = model.config
    table = torch.nn.Embedding(config.vocab_size, config.embedding_size)
    model.set_input_embeddings(table)
    assert model.get_input_embeddings() is table
    assert model.cls["predictions"].decoder.weight is table.weight
    with pytest.raises(InputError, match="new table of word embeddings"):
        model.set_input_embeddings(torch.nn.Embedding(config.vocab_size + 1, config.embedding_size))


def test_parameters_are_counted_once_and_frozen_ones_on_request(make_model: Make) -> None:
    tied = make_model("mobilebert", "ForMaskedLM", hidden_size=12, embedding_size=5, tie_word_embeddings=True)
    loose = make_model("mobilebert", "ForMaskedLM", hidden_size=12, embedding_size=5, tie_word_embeddings=False)
    assert loose.num_parameters() - tied.num_parameters() == tied.config.vocab_size * 5
    tied.get_input_embeddings().weight.requires_grad_(False)
    assert tied.num_parameters() - tied.num_parameters(trainable_only=True) == tied.config.vocab_size * 5


def test_the_published_model_has_the_published_number_of_parameters() -> None:
    with torch.device("meta"):
        model = MobileBertModel(MobileBertConfig.from_size("mobilebert-uncased"))
    # What transformers counts in its MobileBertModel of `google/mobilebert-uncased`.
    assert model.num_parameters() == 24_581_888


def test_new_weights_are_the_same_for_the_same_seed_and_of_the_configs_deviation() -> None:
    config = random_config("mobilebert", 0, hidden_size=64, initializer_range=0.3)
    models = []
    for _ in range(2):
        torch.manual_seed(7)
        models.append(MobileBertForPreTraining(config))
    first, second = (model.state_dict() for model in models)
    assert all(first[name].equal(second[name]) for name in first)
    dense = first["mobilebert.embeddings.embedding_transformation.weight"]
    assert dense.std().item() == pytest.approx(0.88 * 0.3, rel=0.1)
    assert not first["mobilebert.embeddings.word_embeddings.weight"][config.pad_token_id].any()
    for name, value in first.items():
        if name.endswith("bias"):
            assert not value.any(), name
        elif "LayerNorm" in name:
            assert (value == 1).all(), name


@pytest.mark.parametrize("seed", CONFIG_SEEDS)
def test_a_trace_is_what_the_model_computes(family: str, head: str, seed: int, make_model: Make) -> None:
    model = make_model(family, head, seed)
    inputs = random_inputs(model.config, head, seed, length=min(9, model.config.max_position_embeddings))
    tensors = {name: torch.from_numpy(array) for name, array in inputs.items()}
    scores = {} if model.get_lm_head() is None else {"output_logits": True}
    out = model(**tensors, output_hidden_states=True, output_attentions=True, **scores)
    model.train()
    trace = model.trace(inputs)
    expected = {name: value for name, value in out.items() if isinstance(value, torch.Tensor) and name != "loss"}
    for name in ("hidden_states", "attentions", "cross_attentions"):
        expected |= {f"{name}.{i}": value for i, value in enumerate(out.get(name) or ())}
    assert set(trace.outputs) == set(expected)
    for name, value in expected.items():
        np.testing.assert_allclose(trace.outputs[name], value.detach(), rtol=1e-10, atol=1e-11, err_msg=name)
    assert all(module.training for module in model.modules())
    assert all(parameter.grad is None for parameter in model.parameters())
    if head == "Model":
        assert trace.loss is None
        assert trace.gradients == {}
        return
    assert trace.loss == pytest.approx(out.loss.item(), rel=1e-12)
    model.eval()(**tensors).loss.backward()
    trained = {name: p for name, p in model.named_parameters() if p.requires_grad}
    assert set(trace.gradients) == set(trained)
    for name, parameter in trained.items():
        np.testing.assert_array_equal(trace.gradients[name], parameter.grad, err_msg=name)
    assert model.trace(inputs, gradients=False).gradients == {}


def test_a_trace_leaves_each_part_in_the_mode_it_was_in(make_model: Make) -> None:
    model = make_model("mobilebert", num_hidden_layers=2).train()
    model.encoder.layer[0].eval()
    modes = [module.training for module in model.modules()]
    model.trace({"input_ids": np.array([[3, 4]])})
    assert [module.training for module in model.modules()] == modes


def test_a_trace_of_a_bfloat16_model_is_in_single_precision(make_model: Make) -> None:
    model = make_model("mobilebert", "ForMaskedLM").to(torch.bfloat16)
    trace = model.trace(random_inputs(model.config, "ForMaskedLM", 0))
    assert {array.dtype for array in (*trace.outputs.values(), *trace.gradients.values())} == {np.dtype("float32")}


@pytest.mark.parametrize("output_class", OUTPUT_CLASSES)
def test_torch_sees_the_tensors_inside_an_output(output_class: Any) -> None:
    first, last = output_class.fields[0], output_class.fields[-1]
    output = output_class(**{last: (torch.ones(1), torch.ones(2)), first: torch.zeros(1)})
    doubled = pytree.tree_map(lambda tensor: tensor + 1, output)
    assert type(doubled) is output_class
    assert doubled[first].tolist() == [1.0]
    assert [tensor.tolist() for tensor in doubled[last]] == [[2.0], [2.0, 2.0]]


def test_the_auto_classes_open_the_family_of_a_checkpoint(
    family: str, head: str, make_model: Make, tmp_path: Path
) -> None:
    import isobert

    auto = getattr(isobert, "AutoModel" if head == "Model" else f"AutoModel{head}")
    model = make_model(family, head)
    model.save_pretrained(tmp_path)
    opened, report = auto.from_pretrained(tmp_path, output_loading_info=True, dtype="float64")
    assert type(opened) is type(model) is model_class(family, head, "pt")
    assert not report
    assert opened.state_dict().keys() == model.state_dict().keys()
    assert type(auto.from_config(model.config)) is type(model)


def test_an_auto_class_passes_its_arguments_on(make_model: Make, tmp_path: Path) -> None:
    model = make_model("mobilebert", "ForMaskedLM")
    model.save_pretrained(tmp_path)
    opened = AutoModelForMaskedLM.from_pretrained(tmp_path, config=model.config, hidden_act="tanh", dtype="bfloat16")
    assert opened.config.hidden_act == "tanh"
    assert opened.dtype == torch.bfloat16


@pytest.mark.parametrize("dtype", ["float32", "bfloat16"])
def test_a_saved_model_states_its_dtype_where_its_config_did(dtype: str, tmp_path: Path) -> None:
    model = MobileBertModel(random_config("mobilebert", 0).replace(torch_dtype="float16")).to(getattr(torch, dtype))
    model.save_pretrained(tmp_path)
    assert json.loads((tmp_path / "config.json").read_text())["torch_dtype"] == dtype
