"""What is particular to RemBERT: decoupled embeddings, and decoding with a cache, cross-attention and left padding."""

from __future__ import annotations

import logging
from itertools import pairwise
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from safetensors.numpy import load_file

from isobert.core.registry import FAMILIES, model_class
from isobert.errors import ConfigError, InputError
from support.configs import random_config
from support.weights import parameters, randomise

FRAMEWORKS = ("pt", "tf")
BATCH, LENGTH, ENCODER_LENGTH = 3, 10, 7
OUTPUT_SIDE = {
    "cls.predictions.dense.weight",
    "cls.predictions.dense.bias",
    "cls.predictions.LayerNorm.weight",
    "cls.predictions.LayerNorm.bias",
    "cls.predictions.decoder.weight",
    "cls.predictions.decoder.bias",
}
WORD_SCORING = ("ForMaskedLM", "ForCausalLM")
OTHERS = tuple(head for head in FAMILIES["rembert"].heads if head not in WORD_SCORING)


def make(framework: str, head: str = "Model", dtype: str = "float64", **overrides: Any) -> Any:
    """Return a model with random weights, without dropout; a decoder unless told otherwise."""
    overrides = {"is_decoder": True, "add_cross_attention": False, "num_hidden_layers": 2, **overrides}
    config = random_config("rembert", 3, max_position_embeddings=19, tie_word_embeddings=False, **overrides)
    model_type = model_class("rembert", head, framework)
    if framework == "tf":
        return randomise(model_type(config, dtype=dtype), 3)
    import torch

    return randomise(model_type(config).to(getattr(torch, dtype)).eval(), 3)


def tensor(model: Any, values: Any) -> Any:
    """Return an array as a tensor of the model's framework."""
    if values is None or hasattr(model, "add_weight"):
        return values
    import torch

    return torch.from_numpy(np.array(values))


def call(model: Any, **inputs: Any) -> Any:
    """Call a model of either framework with arrays, without gradients."""
    given = {name: tensor(model, v) if isinstance(v, np.ndarray) else v for name, v in inputs.items()}
    if hasattr(model, "add_weight"):
        return model(given)
    import torch

    with torch.no_grad():
        return model(**given)


def to_numpy(values: Any) -> np.ndarray:
    return np.asarray(values)


def ids_for(model: Any, length: int = LENGTH, seed: int = 0) -> np.ndarray:
    return np.random.default_rng(seed).integers(0, model.config.vocab_size, (BATCH, length))


def left_padded(lengths: tuple[int, ...] = (LENGTH, LENGTH - 4, LENGTH - 1)) -> np.ndarray:
    """Return a mask `[batch, length]` of rows that are padded on the left."""
    return (np.arange(LENGTH) >= LENGTH - np.array(lengths)[:, None]).astype(np.int64)


def positions_of(mask: np.ndarray) -> np.ndarray:
    return np.maximum(mask.cumsum(1) - 1, 0)


def encoder_output(model: Any, seed: int = 0) -> dict[str, np.ndarray]:
    """Return something to cross-attend to, padded on the right."""
    random = np.random.default_rng(seed)
    states = random.normal(size=(BATCH, ENCODER_LENGTH, model.config.hidden_size))
    mask = (np.arange(ENCODER_LENGTH) < np.array([[ENCODER_LENGTH], [3], [5]])).astype(np.int64)
    return {"encoder_hidden_states": states, "encoder_attention_mask": mask}


def assert_same(found: Any, expected: Any, tolerance: float = 1e-10) -> None:
    found, expected = to_numpy(found), to_numpy(expected)
    np.testing.assert_allclose(found, expected, rtol=0, atol=tolerance * np.abs(expected).max())


# The cache.


@pytest.mark.parametrize("framework", FRAMEWORKS)
@pytest.mark.parametrize("cross", [False, True])
@pytest.mark.parametrize("padded", [False, True])
@pytest.mark.parametrize("start", ["new_cache", "use_cache"])
@pytest.mark.parametrize("cuts", [(0, 4, 5, 6, 9, 10), (0, 1, 2, 10), (0, 9, 10)])
def test_steps_with_a_cache_equal_one_call_without(
    cuts: tuple[int, ...], start: str, padded: bool, cross: bool, framework: str
) -> None:
    model = make(framework, "ForCausalLM", add_cross_attention=cross)
    ids = ids_for(model)
    segments = ids % model.config.type_vocab_size
    mask = left_padded() if padded else None
    positions = positions_of(mask) if mask is not None else None
    encoded = encoder_output(model) if cross else {}
    whole = call(
        model,
        input_ids=ids,
        attention_mask=mask,
        token_type_ids=segments,
        position_ids=positions,
        output_hidden_states=True,
        use_cache=False,
        **encoded,
    )
    past = model.new_cache(BATCH, LENGTH) if start == "new_cache" else None
    for step, (first, last) in enumerate(pairwise(cuts)):
        out = call(
            model,
            input_ids=ids[:, first:last],
            # The new positions' mask, and every other time that of all positions so far.
            attention_mask=None if mask is None else mask[:, 0 if step % 2 else first : last],
            token_type_ids=segments[:, first:last],
            position_ids=None if positions is None else positions[:, first:last],
            output_hidden_states=True,
            past_key_values=past,
            use_cache=True,
            # Later steps find in the cache what the first one was given.
            **(encoded if step == 0 else {}),
        )
        past = out.past_key_values
        assert int(past.position) == last
        assert past.max_length == (LENGTH if start == "new_cache" else model.config.max_position_embeddings)
        # A padding position's output is of no use: it sees no key, or those after it that are not there yet.
        kept = slice(None) if mask is None else mask[:, first:last].astype(bool)
        assert_same(to_numpy(out.logits)[kept], to_numpy(whole.logits)[:, first:last][kept])
        for mine, other in zip(out.hidden_states, whole.hidden_states, strict=True):
            assert_same(to_numpy(mine)[kept], to_numpy(other)[:, first:last][kept])


@pytest.mark.parametrize("framework", FRAMEWORKS)
def test_a_cache_may_be_larger_than_what_it_is_filled_with(framework: str) -> None:
    model = make(framework)
    ids = ids_for(model)
    whole = call(model, input_ids=ids).last_hidden_state
    for size in (LENGTH, LENGTH + 3, None):
        out = call(model, input_ids=ids[:, :6], past_key_values=model.new_cache(BATCH, size))
        out = call(model, input_ids=ids[:, 6:], past_key_values=out.past_key_values)
        assert_same(out.last_hidden_state, to_numpy(whole)[:, 6:])


@pytest.mark.parametrize("framework", FRAMEWORKS)
def test_attentions_of_a_cached_step_are_those_of_a_whole_call_and_nothing_on_the_rest(framework: str) -> None:
    model = make(framework, add_cross_attention=True)
    ids, encoded = ids_for(model), encoder_output(model)
    whole = call(model, input_ids=ids, output_attentions=True, **encoded)
    past = call(
        model, input_ids=ids[:, :6], past_key_values=model.new_cache(BATCH, LENGTH + 2), **encoded
    ).past_key_values
    out = call(model, input_ids=ids[:, 6:], past_key_values=past, output_attentions=True)
    for mine, other in zip(out.attentions, whole.attentions, strict=True):
        assert_same(to_numpy(mine)[..., :LENGTH], to_numpy(other)[:, :, 6:])
        assert not to_numpy(mine)[..., LENGTH:].any()
    for mine, other in zip(out.cross_attentions, whole.cross_attentions, strict=True):
        assert_same(mine, to_numpy(other)[:, :, 6:])


def test_keras_leaves_a_cache_as_it_was_and_pytorch_writes_to_it() -> None:
    for framework, is_written in (("pt", True), ("tf", False)):
        model = make(framework)
        past = model.new_cache(BATCH, LENGTH)
        out = call(model, input_ids=ids_for(model), past_key_values=past)
        assert to_numpy(past.layers[0].key).any() == is_written
        assert to_numpy(out.past_key_values.layers[0].key).any()
        assert int(past.position) == 0


def test_a_cached_step_of_pytorch_is_compiled_once_without_a_break() -> None:
    import torch
    from torch._dynamo.testing import CompileCounterWithBackend

    model = make("pt", "ForCausalLM", add_cross_attention=True)
    ids, encoded = ids_for(model), encoder_output(model)
    whole = call(model, input_ids=ids, **encoded).logits
    torch.compiler.reset()
    counter = CompileCounterWithBackend("aot_eager")
    step = torch.compile(model, fullgraph=True, dynamic=False, backend=counter)
    out = call(model, input_ids=ids[:, :3], past_key_values=model.new_cache(BATCH, LENGTH), **encoded)
    for position in range(3, LENGTH):
        with torch.no_grad():
            out = step(torch.from_numpy(ids[:, position : position + 1]), past_key_values=out.past_key_values)
        assert_same(out.logits, whole[:, position : position + 1])
    assert counter.frame_count == 1


def test_a_cached_step_of_keras_is_compiled_by_xla_once() -> None:
    import tensorflow as tf

    model = make("tf", "ForCausalLM", add_cross_attention=True)
    ids, encoded = ids_for(model), encoder_output(model)
    whole = call(model, input_ids=ids, **encoded).logits
    step = tf.function(lambda ids, past: model(ids, past_key_values=past), jit_compile=True)
    out = call(model, input_ids=ids[:, :3], past_key_values=model.new_cache(BATCH, LENGTH), **encoded)
    for position in range(3, LENGTH):
        out = step(tf.constant(ids[:, position : position + 1]), out.past_key_values)
        assert_same(out.logits, to_numpy(whole)[:, position : position + 1])
    assert step.experimental_get_tracing_count() == 1


@pytest.mark.parametrize(("framework", "dtype"), [("pt", "bfloat16"), ("tf", "bfloat16"), ("tf", "mixed_bfloat16")])
def test_a_cache_has_the_dtype_that_keys_and_values_have(framework: str, dtype: str) -> None:
    model = make(framework, dtype=dtype)
    ids = ids_for(model)
    started = call(model, input_ids=ids[:, :4], use_cache=True).past_key_values
    for past in (started, model.new_cache(BATCH, LENGTH)):
        assert "bfloat16" in str(past.layers[0].key.dtype)
        assert "bfloat16" in str(call(model, input_ids=ids[:, :2], past_key_values=past).last_hidden_state.dtype)


@pytest.mark.parametrize("cross", [False, True])
def test_a_decoder_is_served_for_any_length_without_its_cache(cross: bool, tmp_path: Path) -> None:
    import tensorflow as tf

    model = make("tf", "ForCausalLM", add_cross_attention=cross)
    model.export(tmp_path, verbose=False)
    served = tf.saved_model.load(tmp_path)
    for length in (LENGTH, 3):
        names = ("input_ids", "attention_mask", "token_type_ids")
        values = (ids_for(model, length), left_padded()[:, -length:], np.zeros((BATCH, length)))
        inputs = {name: tf.constant(value, "int32") for name, value in zip(names, values, strict=True)}
        found = served.serve(inputs)
        assert set(found) == {"logits"}
        assert_same(found["logits"], model(inputs).logits)


# What a position sees.


@pytest.mark.parametrize("framework", FRAMEWORKS)
@pytest.mark.parametrize("is_decoder", [True, False])
def test_a_decoders_position_sees_itself_and_earlier_ones_and_an_encoders_all(is_decoder: bool, framework: str) -> None:
    model = make(framework, is_decoder=is_decoder)
    ids = ids_for(model)
    changed = ids.copy()
    changed[:, 6] = (ids[:, 6] + 1) % model.config.vocab_size
    one, other = (to_numpy(call(model, input_ids=x).last_hidden_state) for x in (ids, changed))
    moved = np.abs(one - other).max(axis=(0, 2)) > 1e-6
    assert moved.tolist() == [not is_decoder or position >= 6 for position in range(LENGTH)]


@pytest.mark.parametrize("framework", FRAMEWORKS)
def test_a_square_mask_takes_the_place_of_the_causal_one(framework: str) -> None:
    model = make(framework)
    encoder = make(framework, is_decoder=False)
    ids = ids_for(model)
    square = np.ones((BATCH, LENGTH, LENGTH), np.int64)
    assert_same(
        call(model, input_ids=ids, attention_mask=square).last_hidden_state,
        call(encoder, input_ids=ids).last_hidden_state,
    )
    assert_same(
        call(encoder, input_ids=ids, attention_mask=np.tril(square)).last_hidden_state,
        call(model, input_ids=ids).last_hidden_state,
    )


@pytest.mark.parametrize("framework", FRAMEWORKS)
def test_a_row_padded_on_the_left_gives_what_it_gives_alone(framework: str) -> None:
    model = make(framework, "ForCausalLM")
    ids, mask = ids_for(model), left_padded()
    found = to_numpy(call(model, input_ids=ids, attention_mask=mask, position_ids=positions_of(mask)).logits)
    for row, length in enumerate(mask.sum(1)):
        alone = call(model, input_ids=ids[row : row + 1, LENGTH - length :]).logits
        assert_same(found[row : row + 1, LENGTH - length :], alone)


@pytest.mark.parametrize("framework", FRAMEWORKS)
def test_cross_attention_looks_at_the_encoders_output_and_not_at_its_padding(framework: str) -> None:
    model = make(framework, "ForCausalLM", add_cross_attention=True)
    ids, encoded = ids_for(model), encoder_output(model)
    expected = to_numpy(call(model, input_ids=ids, **encoded).logits)
    padding = encoded["encoder_attention_mask"] == 0
    other = {**encoded, "encoder_hidden_states": encoded["encoder_hidden_states"].copy()}
    other["encoder_hidden_states"][padding] = 9.0
    assert_same(call(model, input_ids=ids, **other).logits, expected)
    other["encoder_hidden_states"][:, 0] += 1.0
    assert np.abs(to_numpy(call(model, input_ids=ids, **other).logits) - expected).max() > 1e-3
    without = call(model, input_ids=ids)
    assert np.abs(to_numpy(without.logits) - expected).max() > 1e-3
    assert without.cross_attentions is None


@pytest.mark.parametrize("framework", FRAMEWORKS)
def test_a_head_that_is_given_no_encoders_output_does_not_train_cross_attention(framework: str) -> None:
    for head in FAMILIES["rembert"].heads:
        model = make(framework, head, add_cross_attention=True)
        if framework == "pt":
            trained = {name for name, parameter in model.named_parameters() if parameter.requires_grad}
        else:
            trained = {v.path for v in model.trainable_variables}
        assert any("crossattention" in name for name in parameters(model))
        assert any("crossattention" in name for name in trained) is (head in ("Model", "ForCausalLM"))


@pytest.mark.parametrize("framework", FRAMEWORKS)
def test_the_loss_of_a_causal_model_is_that_of_the_next_word(framework: str) -> None:
    model = make(framework, "ForCausalLM")
    ids = ids_for(model)
    labels = np.where(left_padded() == 1, ids, -100)
    logits = to_numpy(call(model, input_ids=ids).logits)
    logs = logits - np.log(np.exp(logits).sum(-1, keepdims=True))
    rows, columns = np.nonzero(labels[:, 1:] != -100)
    expected = -logs[rows, columns, ids[rows, columns + 1]].mean()
    out = call(model, input_ids=ids, labels=labels)
    assert out.logits is None
    assert out.past_key_values is None
    assert float(out.loss) == pytest.approx(expected, rel=1e-10)
    asked = call(model, input_ids=ids, labels=labels, output_logits=True)
    assert_same(asked.logits, logits)


def test_a_metric_sees_the_scores_beside_the_words_that_they_are_for() -> None:
    import keras

    model = make("tf", "ForCausalLM")
    ids = ids_for(model)
    model.compile(weighted_metrics=[keras.metrics.SparseCategoricalAccuracy(name="accuracy")])
    found = model.evaluate({"input_ids": ids, "labels": ids}, verbose=0, return_dict=True)["accuracy"]
    guesses = to_numpy(call(model, input_ids=ids).logits).argmax(-1)
    assert found == pytest.approx((guesses[:, :-1] == ids[:, 1:]).mean())


# Decoupled embeddings.


@pytest.mark.parametrize("framework", FRAMEWORKS)
def test_only_heads_that_score_words_hold_the_output_embeddings(framework: str, tmp_path: Path) -> None:
    for head in FAMILIES["rembert"].heads:
        model = make(framework, head, output_embedding_size=43)
        model.save_pretrained(tmp_path / head)
        held = load_file(tmp_path / head / "model.safetensors")
        assert held.keys() == parameters(model).keys()
        found = {name for name in held if name.startswith("cls.")}
        assert found == (OUTPUT_SIDE if head in WORD_SCORING else set())
        assert not any(43 in held[name].shape for name in held.keys() - OUTPUT_SIDE)


@pytest.mark.parametrize("framework", FRAMEWORKS)
@pytest.mark.parametrize("head", OTHERS)
def test_the_output_side_of_a_pretrained_checkpoint_is_reported_and_dropped_on_save(
    head: str, framework: str, tmp_path: Path, caplog: pytest.LogCaptureFixture
) -> None:
    pretrained = make("pt", "ForMaskedLM", is_decoder=False)
    pretrained.save_pretrained(tmp_path / "pretrained")
    with caplog.at_level(logging.WARNING, logger="isobert"):
        model, report = model_class("rembert", head, framework).from_pretrained(
            tmp_path / "pretrained", dtype="float64", output_loading_info=True
        )
    assert set(report.unexpected) == OUTPUT_SIDE
    assert "cls.predictions.decoder.weight" in caplog.text
    model.save_pretrained(tmp_path / "tuned")
    tuned = load_file(tmp_path / "tuned" / "model.safetensors")
    assert not tuned.keys() & OUTPUT_SIDE
    prefix = "rembert." if head == "Model" else ""
    kept = parameters(pretrained)["rembert.embeddings.word_embeddings.weight"]
    np.testing.assert_array_equal(tuned[f"{'' if prefix else 'rembert.'}embeddings.word_embeddings.weight"], kept)


@pytest.mark.parametrize("framework", FRAMEWORKS)
def test_the_output_embeddings_are_those_of_the_input_only_if_tied(framework: str) -> None:
    table = "cls.predictions.decoder.weight"
    for tied in (True, False):
        model = make(framework, "ForMaskedLM")
        width = model.config.input_embedding_size if tied else model.config.output_embedding_size
        config = model.config.replace(tie_word_embeddings=tied, output_embedding_size=width)
        model = model_class("rembert", "ForMaskedLM", framework)(config)
        assert (table in parameters(model)) is not tied
        assert "cls.predictions.decoder.bias" in parameters(model)


@pytest.mark.parametrize(
    ("fields", "message"),
    [
        ({"add_cross_attention": True}, "needs is_decoder=True"),
        ({"tie_word_embeddings": True}, "input_embedding_size is 256 and output_embedding_size 1664"),
        ({"num_attention_heads": 5}, "num_attention_heads is 5; it must divide hidden_size, 1152"),
    ],
)
def test_a_config_that_cannot_be_is_refused(fields: dict[str, Any], message: str) -> None:
    from isobert import RemBertConfig

    with pytest.raises(ConfigError, match=message):
        RemBertConfig(**fields)


@pytest.mark.parametrize("framework", FRAMEWORKS)
def test_a_causal_model_that_is_no_decoder_says_so(framework: str, caplog: pytest.LogCaptureFixture) -> None:
    with caplog.at_level(logging.WARNING, logger="isobert"):
        make(framework, "ForCausalLM")
        assert not caplog.records
        make(framework, "ForCausalLM", is_decoder=False)
    assert "is_decoder=False, so each position sees those after it" in caplog.text


# Mistakes.


@pytest.mark.parametrize("framework", FRAMEWORKS)
@pytest.mark.parametrize(
    ("fields", "wrong", "message"),
    [
        ({"is_decoder": False}, {"use_cache": True}, "A cache is for a decoder"),
        ({}, {"past_key_values": "full"}, "room for 10 positions; 10 are filled, and 10 are to come"),
        ({}, {"past_key_values": "other rows"}, "past_key_values is for 4 rows; the inputs have 3"),
        ({}, {"past_key_values": 3}, "past_key_values is of the type int; give a KeyValueCache"),
        (
            {},
            {"past_key_values": "wide", "attention_mask": np.ones((3, 12))},
            "2 positions in the cache and 10 new ones",
        ),
        ({}, {"past_key_values": "new", "attention_mask": np.ones((3, 10, 10))}, r"must be \[3, 10\] for the new"),
        (
            {},
            {"use_cache": True, "attention_mask": np.ones((3, 10, 10))},
            r"what a cache remembers is \[batch, length\]",
        ),
        ({}, {"encoder_hidden_states": np.ones((3, 4, 8))}, "add_cross_attention=False"),
        ({"add_cross_attention": True}, {"encoder_hidden_states": np.ones((3, 4, 5))}, r"must be \[3, 4, "),
        ({"add_cross_attention": True}, {"encoder_hidden_states": np.ones((3, 4))}, "floating-point vectors"),
        ({"add_cross_attention": True}, {"encoder_attention_mask": np.ones((3, 4))}, "of no use without"),
    ],
)
def test_what_a_decoder_cannot_be_given_is_refused(
    fields: dict[str, Any], wrong: dict[str, Any], message: str, framework: str
) -> None:
    model = make(framework, **fields)
    past = wrong.get("past_key_values")
    if past == "full":
        past = call(model, input_ids=ids_for(model), past_key_values=model.new_cache(BATCH, LENGTH)).past_key_values
    elif past == "other rows":
        past = model.new_cache(4)
    elif past == "wide":
        filled = call(model, input_ids=ids_for(model)[:, :2], past_key_values=model.new_cache(BATCH, 19))
        past, wrong = filled.past_key_values, {**wrong, "attention_mask": np.ones((3, 11))}
    elif past == "new":
        past = model.new_cache(BATCH)
    with pytest.raises(InputError, match=message):
        call(model, input_ids=ids_for(model), **{**wrong, "past_key_values": past})


@pytest.mark.parametrize("framework", FRAMEWORKS)
@pytest.mark.parametrize(
    ("fields", "sizes", "message"),
    [
        ({"is_decoder": False}, (1, 4), "A cache is for a decoder"),
        ({}, (1, 20), "20 positions was asked for; there must be a row at least, and 1 to 19"),
        ({}, (0, 4), "0 rows"),
    ],
)
def test_a_cache_that_cannot_be_is_refused(
    fields: dict[str, Any], sizes: tuple[int, int], message: str, framework: str
) -> None:
    with pytest.raises(InputError, match=message):
        make(framework, "ForCausalLM", **fields).new_cache(*sizes)
