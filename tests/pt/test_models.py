"""Every model with every head: what goes in, what comes out, and which ways to the same numbers there are."""

from __future__ import annotations

from collections.abc import Callable
from itertools import pairwise
from typing import Any

import pytest
import torch
from torch import nn

from isobert import MobileBertForPreTraining, MobileBertModel
from isobert.core.registry import FAMILIES
from isobert.errors import ConfigError
from isobert.pt.attention import SelfAttention
from isobert.pt.losses import cross_entropy
from isobert.pt.mobilebert import MobileBertEmbeddings
from support.configs import CONFIG_SEEDS, attention_heads, random_config

Make = Callable[..., Any]

LM_HEADS = [(f, h) for f, entry in FAMILIES.items() for h in entry.heads if h in ("ForMaskedLM", "ForPreTraining")]


def gradients(model: Any, loss: torch.Tensor) -> dict[str, torch.Tensor]:
    """Return the loss's gradient by each trained parameter, zeros where it has none."""
    named = {name: p for name, p in model.named_parameters() if p.requires_grad}
    found = torch.autograd.grad(loss, list(named.values()), allow_unused=True)
    return {
        name: torch.zeros_like(p) if slope is None else slope
        for (name, p), slope in zip(named.items(), found, strict=True)
    }


def scalar(output: Any) -> torch.Tensor:
    """Return the loss, or of a bare encoder something that hangs on all its outputs."""
    if output.get("loss") is not None:
        return output.loss
    return sum((output[name] ** 2).mean() for name in ("last_hidden_state", "pooler_output") if name in output)


def assert_same(mine: dict[str, torch.Tensor], other: dict[str, torch.Tensor]) -> None:
    assert mine.keys() == other.keys()
    for name, value in other.items():
        if not value.numel():
            continue
        # Relative to the module's largest: a key's bias has a gradient of exactly zero, but for rounding. So have
        # queries and keys where a position sees one key alone: then relative to the largest of the attention.
        module = name.rpartition(".")[0]
        own, whole = (
            max(v.abs().max().item() for n, v in other.items() if n.startswith(f"{part}.") and v.numel())
            for part in (module, module.removesuffix(".query").removesuffix(".key"))
        )
        size = whole if own < 1e-14 * whole else own
        torch.testing.assert_close(mine[name], value, rtol=0, atol=1e-11 * size, msg=name)


@pytest.mark.parametrize("seed", CONFIG_SEEDS)
def test_the_fused_and_the_explicit_path_are_equal_forward_and_backward(
    family: str, head: str, seed: int, make_model: Make, make_inputs: Make
) -> None:
    model = make_model(family, head, seed)
    square = seed % 2 == 1 and head != "ForMultipleChoice"
    inputs = make_inputs(model, seed, fully_padded_row=True, square_mask=square, position_ids=seed % 3 == 0)
    fused, explicit = model(**inputs), model(**inputs, output_attentions=True)
    for name, value in fused.items():
        assert value.isfinite().all(), name
        torch.testing.assert_close(value, explicit[name], rtol=1e-11, atol=1e-11)
    mine, other = gradients(model, scalar(fused)), gradients(model, scalar(explicit))
    assert all(value.isfinite().all() for value in mine.values())
    assert_same(mine, other)


@pytest.mark.parametrize("seed", CONFIG_SEEDS)
def test_asking_for_hidden_states_and_attentions_gives_one_of_each_layer(
    family: str, head: str, seed: int, make_model: Make, make_inputs: Make
) -> None:
    model = make_model(family, head, seed)
    inputs = make_inputs(model, seed)
    config, (*batch, length) = model.config, inputs["input_ids"].shape
    rows = int(torch.tensor(batch).prod())
    plain = model(**inputs)
    assert "hidden_states" not in plain
    assert "attentions" not in plain
    out = model(**inputs, output_hidden_states=True, output_attentions=True)
    assert [tuple(h.shape) for h in out.hidden_states] == [(rows, length, config.hidden_size)] * (
        config.num_hidden_layers + 1
    )
    assert [tuple(a.shape) for a in out.attentions] == [
        (rows, attention_heads(config), length, length)
    ] * config.num_hidden_layers
    for layer in out.attentions:
        torch.testing.assert_close(layer.sum(-1), torch.ones_like(layer[..., 0]))
    for earlier, later in pairwise(out.hidden_states):
        assert not earlier.equal(later)


def test_the_config_says_what_is_returned_and_a_call_overrules_it(make_model: Make) -> None:
    model = make_model("mobilebert", output_hidden_states=True, output_attentions=True)
    ids = torch.tensor([[3, 4]])
    assert {"hidden_states", "attentions"} <= set(model(ids))
    assert not {"hidden_states", "attentions"} & set(model(ids, output_hidden_states=False, output_attentions=False))


@pytest.mark.parametrize("dtype", [torch.bool, torch.int32, torch.float32, torch.float64])
@pytest.mark.parametrize("square", [False, True])
def test_a_mask_may_be_of_any_dtype(dtype: torch.dtype, square: bool, make_model: Make, make_inputs: Make) -> None:
    model = make_model("mobilebert", "ForTokenClassification", 1)
    inputs = make_inputs(model, square_mask=square)
    expected = model(**inputs).logits
    inputs["attention_mask"] = inputs["attention_mask"].to(dtype)
    assert model(**inputs).logits.equal(expected)


def test_a_square_mask_that_says_the_same_to_every_query_is_a_flat_one(
    family: str, make_model: Make, make_inputs: Make
) -> None:
    model = make_model(family, seed=2)
    inputs = make_inputs(model, fully_padded_row=True)
    flat = model(**inputs).last_hidden_state
    length = inputs["input_ids"].shape[1]
    inputs["attention_mask"] = inputs["attention_mask"][:, None, :].expand(-1, length, -1)
    torch.testing.assert_close(model(**inputs).last_hidden_state, flat)


def test_a_mask_of_ones_and_segments_and_positions_by_default_change_nothing(family: str, make_model: Make) -> None:
    model = make_model(family)
    ids = torch.tensor([[3, 4, 5, 6], [7, 8, 9, 2]])
    spelled_out = model(ids, torch.ones(2, 4), torch.zeros_like(ids), torch.arange(4).expand(2, 4))
    torch.testing.assert_close(model(ids).last_hidden_state, spelled_out.last_hidden_state)


@pytest.mark.parametrize("seed", CONFIG_SEEDS)
def test_word_vectors_in_place_of_ids_give_the_same(
    family: str, head: str, seed: int, make_model: Make, make_inputs: Make
) -> None:
    model = make_model(family, head, seed)
    inputs = make_inputs(model, seed)
    expected = model(**inputs)
    inputs["inputs_embeds"] = model.get_input_embeddings()(inputs.pop("input_ids"))
    for name, value in model(**inputs).items():
        assert value.equal(expected[name]), name


def test_word_vectors_are_taken_to_the_models_dtype_and_get_a_gradient(make_model: Make) -> None:
    model = make_model("mobilebert", embedding_size=5)
    vectors = torch.randn(1, 4, 5, requires_grad=True)
    model(inputs_embeds=vectors).last_hidden_state.sum().backward()
    assert vectors.grad.abs().sum() > 0


@pytest.mark.parametrize("seed", CONFIG_SEEDS)
def test_checkpointing_gives_the_same_loss_and_gradients(
    family: str, head: str, seed: int, make_model: Make, make_inputs: Make
) -> None:
    model = make_model(family, head, seed).train()
    inputs = make_inputs(model, seed)

    def run() -> dict[str, torch.Tensor]:
        torch.manual_seed(0)  # the same dropout
        return gradients(model, scalar(model(**inputs)))

    plain = run()
    model.gradient_checkpointing_enable()
    assert_same(run(), plain)
    model.gradient_checkpointing_disable()
    assert_same(run(), plain)


def test_checkpointing_runs_each_layer_a_second_time_in_the_backward_pass(make_model: Make) -> None:
    model = make_model("mobilebert", num_hidden_layers=2).train()
    runs: list[int] = []
    for layer in model.encoder.layer:
        layer.register_forward_pre_hook(lambda *_: runs.append(1))

    def passes() -> tuple[int, int]:
        runs.clear()
        loss = model(torch.tensor([[3, 4]])).last_hidden_state.sum()
        forward = len(runs)
        loss.backward()
        return forward, len(runs)

    assert passes() == (2, 2)
    model.gradient_checkpointing_enable()
    assert passes() == (2, 4)
    model.gradient_checkpointing_disable()
    assert passes() == (2, 2)


@pytest.mark.parametrize("seed", CONFIG_SEEDS)
def test_a_bfloat16_model_runs_forward_and_backward(
    family: str, head: str, seed: int, make_model: Make, make_inputs: Make
) -> None:
    exact = make_model(family, head, seed)
    inputs = make_inputs(exact, seed, fully_padded_row=True)
    expected = exact(**inputs)
    model = exact.to(torch.bfloat16)
    out = model(**inputs)
    for name, value in out.items():
        assert value.dtype == (torch.float32 if name == "loss" else torch.bfloat16)
        error = (value.double() - expected[name]).abs().max() / expected[name].abs().max().clamp(min=1e-3)
        assert error < 0.3, name
    if "loss" in out:
        assert all(value.isfinite().all() for value in gradients(model, out.loss).values())


def test_automatic_mixed_precision_runs_with_padding(
    family: str, head: str, make_model: Make, make_inputs: Make
) -> None:
    model = make_model(family, head, 1).float()
    inputs = make_inputs(model, 1, fully_padded_row=True)
    with torch.autocast("cpu", dtype=torch.bfloat16):
        out = model(**inputs)
    assert all(value.isfinite().all() for value in out.values())
    assert all(value.isfinite().all() for value in gradients(model, scalar(out)).values())


def test_every_dropout_is_felt_in_training_and_none_in_evaluation(
    family: str, head: str, make_model: Make, make_inputs: Make
) -> None:
    model = make_model(family, head, 2)
    inputs = make_inputs(model, labels=False)

    def is_random() -> bool:
        first, second = (model(**inputs)[0] for _ in range(2))
        return not first.equal(second)

    assert not is_random()
    dropping = [m for m in model.modules() if isinstance(m, SelfAttention) or (isinstance(m, nn.Dropout) and m.p > 0)]
    # Of the embeddings, of each layer's attention and way out, and before a classifier.
    assert len(dropping) >= 1 + 2 * model.config.num_hidden_layers
    for module in dropping:
        module.train()
        assert is_random()
        module.eval()


@pytest.mark.parametrize("head", ["ForSequenceClassification", "ForMultipleChoice", "ForTokenClassification"])
def test_a_classifier_has_the_dropout_of_the_config(head: str, make_model: Make) -> None:
    assert make_model("mobilebert", head, classifier_dropout=0.45).dropout.p == 0.45
    assert make_model("mobilebert", head, classifier_dropout=None, hidden_dropout_prob=0.15).dropout.p == 0.15


@pytest.mark.parametrize("head", ["ForSequenceClassification", "ForMultipleChoice", "ForTokenClassification"])
def test_a_classifier_drops_out_in_training(head: str, make_model: Make, make_inputs: Make) -> None:
    model = make_model("mobilebert", head, classifier_dropout=0.45)
    inputs = make_inputs(model)
    model.dropout.train()
    assert not model(**inputs).logits.equal(model(**inputs).logits)


@pytest.mark.parametrize("seed", CONFIG_SEEDS)
def test_every_trained_parameter_has_a_part_in_the_loss(
    family: str, head: str, seed: int, make_model: Make, make_inputs: Make
) -> None:
    # With smooth activations and two classes or more, so that no gradient is zero by accident.
    model = make_model(family, head, seed, hidden_act="gelu", num_labels=3, problem_type="single_label_classification")
    inputs = make_inputs(model, seed)
    found = gradients(model, scalar(model(**inputs)))
    without = {name for name, value in found.items() if value.numel() and not value.any()}
    if getattr(model.config, "conv_kernel_size", 0) == 1:
        # Of a softmax over one number nothing depends on what made the number.
        without = {name for name in without if "conv_kernel_layer" not in name and "key_conv_attn_layer" not in name}
    # A bias that is added to the score of every choice, or of every position, alike does not change which is likelier.
    assert without <= {"ForMultipleChoice": {"classifier.bias"}, "ForQuestionAnswering": {"qa_outputs.bias"}}.get(
        head, set()
    )


def test_pretraining_adds_its_two_losses_and_has_none_without_both_labels(make_model: Make, make_inputs: Make) -> None:
    model = make_model("mobilebert", "ForPreTraining", 1)
    inputs = make_inputs(model)
    out = model(**inputs, output_logits=True)
    masked = cross_entropy(out.prediction_logits, inputs["labels"])
    following = cross_entropy(out.seq_relationship_logits, inputs["next_sentence_label"])
    torch.testing.assert_close(out.loss, masked + following)
    for name in ("labels", "next_sentence_label"):
        assert model(**{key: value for key, value in inputs.items() if key != name}).loss is None


@pytest.mark.parametrize(("kind", "task"), LM_HEADS)
def test_a_loss_of_words_comes_without_their_scores_unless_these_are_asked_for(
    kind: str, task: str, make_model: Make, make_inputs: Make
) -> None:
    model = make_model(kind, task, 1)
    name = "prediction_logits" if task == "ForPreTraining" else "logits"
    labelled, bare = make_inputs(model), make_inputs(model, labels=False)
    out = model(**labelled, output_logits=True)
    without = model(**labelled)
    assert name in out
    assert name not in without
    torch.testing.assert_close(without.loss, out.loss)
    torch.testing.assert_close(model(**bare)[name], out[name])
    assert name not in model(**bare, output_logits=False)
    if task == "ForMaskedLM":
        torch.testing.assert_close(out.loss, cross_entropy(out.logits, labelled["labels"]))


@pytest.mark.parametrize(
    ("kind", "decoder"), [("mobilebert", "cls.predictions.decoder"), ("convbert", "generator_lm_head")]
)
def test_a_decoder_that_was_exchanged_for_another_is_the_one_that_scores(
    kind: str, decoder: str, make_model: Make, make_inputs: Make
) -> None:
    class Adapted(torch.nn.Module):
        def __init__(self, base: torch.nn.Module) -> None:
            super().__init__()
            self.base, self.weight, self.in_features = base, base.weight, base.weight.shape[1]

        def forward(self, hidden: torch.Tensor) -> torch.Tensor:
            return 2 * self.base(hidden)

    model = make_model(kind, "ForMaskedLM", 1)
    inputs = make_inputs(model)
    before = model(**inputs).loss
    parent = model.get_submodule(decoder.rpartition(".")[0])
    setattr(parent, decoder.rpartition(".")[2], Adapted(model.get_submodule(decoder)))
    out = model(**inputs, output_logits=True)
    torch.testing.assert_close(out.loss, cross_entropy(out.logits, inputs["labels"]))
    assert (out.loss - before).abs() > 1e-3


def test_the_labels_of_the_next_sentence_have_two_names(make_model: Make, make_inputs: Make) -> None:
    model = make_model("mobilebert", "ForNextSentencePrediction")
    inputs = make_inputs(model)
    labels = inputs.pop("labels")
    assert model(**inputs, labels=labels).loss.equal(model(**inputs, next_sentence_label=labels).loss)
    assert model(**inputs).loss is None


def test_each_choice_is_scored_on_its_own(family: str, make_model: Make, make_inputs: Make) -> None:
    model = make_model(family, "ForMultipleChoice", 1)
    inputs = make_inputs(model, batch=2, choices=3, labels=False)
    together = model(**inputs).logits
    assert together.shape == (2, 3)
    for choice in range(3):
        alone = model(**{name: value[:, choice : choice + 1] for name, value in inputs.items()}).logits
        torch.testing.assert_close(together[:, choice : choice + 1], alone)


def test_a_trigram_has_the_next_word_the_word_and_the_one_before() -> None:
    words = torch.tensor([[[1.0, 2.0], [3.0, 4.0], [5.0, 6.0]]])
    expected = [[3.0, 4.0, 1.0, 2.0, 0.0, 0.0], [5.0, 6.0, 3.0, 4.0, 1.0, 2.0], [0.0, 0.0, 5.0, 6.0, 3.0, 4.0]]
    assert MobileBertEmbeddings.trigram(words)[0].tolist() == expected


def test_an_embedding_map_that_has_nothing_to_do_is_there_and_frozen() -> None:
    config = random_config("mobilebert", 0, trigram_input=False, hidden_size=12, embedding_size=12)
    transformation = MobileBertModel(config).embeddings.embedding_transformation
    assert transformation.weight.shape == (12, 12)
    assert not any(parameter.requires_grad for parameter in transformation.parameters())


def test_a_head_that_scores_words_needs_a_stream_as_wide_as_they_are() -> None:
    with pytest.raises(ConfigError, match="embedding_size is 13"):
        MobileBertForPreTraining(random_config("mobilebert", 0, hidden_size=12, embedding_size=13))
