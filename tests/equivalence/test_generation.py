"""Both frameworks write the same texts, which are transformers', and draw words by the probabilities of the model."""

from __future__ import annotations

import itertools
import json
import logging
import random
from functools import cache
from pathlib import Path
from typing import Any

import keras
import numpy as np
import pytest
import torch
from torch._dynamo.testing import CompileCounterWithBackend

import isobert
from isobert.core.registry import model_class
from isobert.errors import InputError
from support.configs import random_config
from support.inputs import random_inputs
from support.weights import randomise

FIXTURES = Path(__file__).parents[1] / "oracle" / "fixtures"
CASES = sorted(path.parent.name for path in FIXTURES.glob("*/generation.npz"))
CALLS: dict[str, dict[str, Any]] = json.loads((FIXTURES / CASES[0] / "calls.json").read_text())
FRAMEWORKS = ("pt", "tf")


@cache
def opened(case: str, framework: str) -> Any:
    """Return the model of a case; tests only read it."""
    return model_class("rembert", "ForCausalLM", framework).from_pretrained(FIXTURES / case)


def recorded(case: str) -> dict[str, np.ndarray]:
    with np.load(FIXTURES / case / "generation.npz") as file:
        return {name: file[name] for name in file.files}


def inputs_of(case: str) -> dict[str, np.ndarray]:
    return {name.partition("/")[2]: value for name, value in recorded(case).items() if name.startswith("inputs/")}


def generate(model: Any, inputs: dict[str, Any], **options: Any) -> np.ndarray:
    """Return a model's texts as an array; the inputs are arrays."""
    if isinstance(model, keras.Model):
        return keras.ops.convert_to_numpy(model.generate(**inputs, **options))
    tensors = {name: torch.from_numpy(value) for name, value in inputs.items()}
    tensors = {name: t.to(model.dtype) if t.is_floating_point() else t for name, t in tensors.items()}
    found: np.ndarray = model.generate(**tensors, **options).numpy()
    return found


def make(framework: str, seed: int = 0, dtype: str = "float64", **overrides: Any) -> Any:
    """Return a decoder with random weights."""
    fields = {"is_decoder": True, "eos_token_id": 7, "bos_token_id": 2, "pad_token_id": 3, **overrides}
    config = random_config("rembert", seed, **fields)
    kind = model_class("rembert", "ForCausalLM", framework)
    model = kind(config, dtype=dtype) if framework == "tf" else kind(config).to(getattr(torch, dtype)).eval()
    return randomise(model, seed)


def prompts(config: Any, *lengths: int, seed: int = 0) -> dict[str, np.ndarray]:
    """Return prompts padded on the left, and for cross-attention an encoder's output."""
    shape = (len(lengths), max(lengths))
    mask = (np.arange(shape[1]) >= shape[1] - np.array(lengths)[:, None]).astype(np.int64)
    words = np.random.default_rng(seed).integers(8, config.vocab_size, shape)
    found = {"input_ids": np.where(mask, words, 3), "attention_mask": mask}
    if config.add_cross_attention:
        encoder = random_inputs(config, "ForCausalLM", seed, batch=shape[0], length=5)
        found |= {name: value for name, value in encoder.items() if name.startswith("encoder")}
    return found


@pytest.mark.parametrize("framework", FRAMEWORKS)
@pytest.mark.parametrize("call", CALLS)
@pytest.mark.parametrize("case", CASES)
def test_texts_are_those_of_transformers(case: str, call: str, framework: str) -> None:
    found = generate(opened(case, framework), inputs_of(case), **CALLS[call])
    np.testing.assert_array_equal(found, recorded(case)[f"{call}/texts"])


def test_the_texts_of_transformers_end_at_different_lengths() -> None:
    texts = {name: value for name, value in recorded(CASES[0]).items() if name.endswith("/texts")}
    of_beams = {value.tobytes() for name, value in texts.items() if "early_stopping" in name}
    assert len({value.shape[1] for value in texts.values()}) > 4
    assert len(of_beams) > 12


@pytest.mark.parametrize("options", [{}, {"num_beams": 3, "num_return_sequences": 2, "length_penalty": 0.5}])
@pytest.mark.parametrize("seed", range(4))
def test_both_frameworks_write_the_same_texts(seed: int, options: dict[str, Any], tmp_path: Path) -> None:
    pt = make("pt", seed, max_position_embeddings=20, add_cross_attention=seed % 2 == 0)
    pt.save_pretrained(tmp_path)
    tf = isobert.TFRemBertForCausalLM.from_pretrained(tmp_path, dtype="float64")
    inputs = prompts(pt.config, 4, 1, 6, seed=seed)
    found, expected = (generate(model, inputs, max_new_tokens=9, **options) for model in (tf, pt))
    np.testing.assert_array_equal(found, expected)
    assert len({tuple(row) for row in found[:, 6:]}) > 1


@pytest.mark.parametrize("framework", FRAMEWORKS)
def test_the_best_word_of_the_whole_text_so_far_is_taken(framework: str) -> None:
    model = make(framework, 1, add_cross_attention=False, max_position_embeddings=19)
    ids = prompts(model.config, 5, 5)["input_ids"]
    text = ids
    for _ in range(9):
        logits = model(text if framework == "tf" else torch.from_numpy(text)).logits
        logits = logits.numpy() if framework == "tf" else logits.detach().numpy()
        text = np.concatenate([text, logits[:, -1:].argmax(-1)], axis=1)
    found = generate(model, {"input_ids": ids}, max_new_tokens=9, eos_token_id=[])
    np.testing.assert_array_equal(found, text)


@pytest.mark.parametrize("options", [{}, {"num_beams": 3}])
@pytest.mark.parametrize("framework", FRAMEWORKS)
def test_padding_on_the_left_changes_no_text(framework: str, options: dict[str, Any]) -> None:
    model = make(framework, 4, add_cross_attention=True, max_position_embeddings=19)
    inputs = prompts(model.config, 6, 2, 4)
    found = generate(model, inputs, max_new_tokens=6, **options)
    unmasked = {name: value for name, value in inputs.items() if name != "attention_mask"}
    np.testing.assert_array_equal(generate(model, unmasked, max_new_tokens=6, **options), found)
    for row, length in enumerate((6, 2, 4)):
        alone = {name: value[row : row + 1] for name, value in inputs.items()}
        alone |= {name: alone[name][:, 6 - length :] for name in ("input_ids", "attention_mask")}
        text = generate(model, alone, max_new_tokens=6, **options)[0]
        np.testing.assert_array_equal(found[row, 6 - length :][: len(text)], text)
        assert (found[row, 6 - length + len(text) :] == 3).all()


@pytest.mark.parametrize("framework", FRAMEWORKS)
def test_with_beams_enough_the_likeliest_of_all_texts_is_found(framework: str) -> None:
    model = make(framework, 3, vocab_size=8, add_cross_attention=False)
    ids = np.array([[4, 6]])
    every = np.array(list(itertools.product(range(8), repeat=3)))
    whole = np.concatenate([np.repeat(ids, len(every), axis=0), every], axis=1)
    logits = model(whole if framework == "tf" else torch.from_numpy(whole)).logits
    logits = np.asarray(logits if framework == "tf" else logits.detach())
    chances = logits - np.log(np.exp(logits).sum(-1, keepdims=True))
    of_words = np.take_along_axis(chances[:, 1:-1], every[..., None], axis=2)[..., 0]
    # What follows the word that ends a text does not count.
    ended = np.cumsum(every == 7, axis=1) - (every == 7)
    lengths = (ended == 0).sum(axis=1)
    for penalty in (0.0, 1.0):
        best = ((of_words * (ended == 0)).sum(axis=1) / lengths**penalty).argmax()
        found = generate(
            model,
            {"input_ids": ids},
            max_new_tokens=3,
            num_beams=64,
            pad_token_id=0,
            length_penalty=penalty,
            early_stopping="never",
        )
        np.testing.assert_array_equal(found[0], whole[best][: 2 + lengths[best]])


def expected_shares(scores: np.ndarray, temperature: float, top_k: int | None, top_p: float) -> np.ndarray:
    """Return the probability of each word that is drawn, computed word by word."""
    shares = np.exp((scores - scores.max()) / temperature)
    order = np.argsort(-shares)
    shares[order[top_k or len(shares) :]] = 0
    shares /= shares.sum()
    total = 0.0
    for word in order:
        if total >= top_p:
            shares[word] = 0
        total += shares[word]
    found: np.ndarray = shares / shares.sum()
    return found


@pytest.mark.parametrize("framework", FRAMEWORKS)
@pytest.mark.parametrize(
    "options",
    [
        {},
        {"temperature": 0.6},
        {"temperature": 2.0, "top_k": 4},
        {"top_p": 0.7},
        {"temperature": 1.5, "top_k": 9, "top_p": 0.8},
        {"top_p": 1e-6},
    ],
)
def test_words_are_drawn_as_often_as_they_are_probable(framework: str, options: dict[str, Any]) -> None:
    model = make(framework, 5, vocab_size=23, add_cross_attention=False)
    ids = prompts(model.config, 4)["input_ids"]
    logits = model(ids if framework == "tf" else torch.from_numpy(ids)).logits
    scores = np.asarray(logits if framework == "tf" else logits.detach())[0, -1]
    shares = expected_shares(scores, **{"temperature": 1.0, "top_k": None, "top_p": 1.0, **options})
    count = 6000
    found = generate(
        model, {"input_ids": ids}, max_new_tokens=1, do_sample=True, seed=3, num_return_sequences=count, **options
    )
    drawn = np.bincount(found[:, -1], minlength=23)
    assert drawn[shares == 0].sum() == 0
    # Five standard deviations of each count, so that one in a million such tests fails for right frequencies.
    assert (np.abs(drawn - count * shares) <= 5 * np.sqrt(count * shares * (1 - shares)) + 1e-9).all()


@pytest.mark.parametrize("framework", FRAMEWORKS)
def test_beams_can_be_drawn_too_without_drawing_one_twice(framework: str) -> None:
    model = make(framework, 5, vocab_size=23, add_cross_attention=False)
    ids = prompts(model.config, 4, 2)
    options = {"num_beams": 3, "num_return_sequences": 3, "do_sample": True, "max_new_tokens": 5, "top_p": 0.9}
    found = {seed: generate(model, ids, seed=seed, **options) for seed in (1, 2)}
    assert not np.array_equal(found[1], found[2])
    for texts in found.values():
        assert all(len({tuple(text) for text in group}) == 3 for group in texts.reshape(2, 3, -1))


@pytest.mark.parametrize("framework", FRAMEWORKS)
def test_a_seed_decides_what_is_drawn_and_leaves_other_random_numbers_alone(framework: str) -> None:
    model = make(framework, 2, add_cross_attention=False)
    inputs = prompts(model.config, 3, 3)

    def write(seed: int | None) -> np.ndarray:
        return generate(model, inputs, max_new_tokens=8, do_sample=True, seed=seed)

    def numbers() -> tuple[Any, ...]:
        drawn = torch.rand(3).tolist() if framework == "pt" else keras.random.uniform((3,)).numpy().tolist()
        return drawn, random.random(), np.random.get_state()[2]  # noqa: NPY002

    keras.utils.set_random_seed(1)
    torch.manual_seed(1)
    untouched = numbers()
    keras.utils.set_random_seed(1)
    torch.manual_seed(1)
    first = write(11)
    assert numbers() == untouched
    np.testing.assert_array_equal(write(11), first)
    assert not np.array_equal(write(12), first)
    assert not np.array_equal(write(None), write(None))


def test_without_a_seed_the_frameworks_own_decides() -> None:
    for framework, set_seed in (("pt", torch.manual_seed), ("tf", keras.utils.set_random_seed)):
        model = make(framework, 2, add_cross_attention=False)
        texts = []
        for _ in range(2):
            set_seed(5)
            texts.append(generate(model, prompts(model.config, 3), max_new_tokens=8, do_sample=True))
        np.testing.assert_array_equal(*texts)


@pytest.mark.parametrize("options", [{}, {"num_beams": 2, "do_sample": True, "top_p": 0.9}])
def test_a_compiled_step_serves_every_step_and_every_prompt(options: dict[str, Any]) -> None:
    model = make("pt", 1, "float32", add_cross_attention=True, max_position_embeddings=80)
    calls = [(prompts(model.config, *lengths), new) for lengths, new in (((4, 2), 5), ((3, 7), 30), ((1, 1), 62))]
    options = {**options, "eos_token_id": [], "seed": 0}
    expected = [generate(model, inputs, max_new_tokens=new, **options) for inputs, new in calls]
    torch.compiler.reset()
    compiler = CompileCounterWithBackend("aot_eager")
    model.compile(fullgraph=True, backend=compiler)
    for (inputs, new), text in zip(calls, expected, strict=True):
        np.testing.assert_array_equal(generate(model, inputs, max_new_tokens=new, **options), text)
    assert compiler.frame_count == 1


@pytest.mark.parametrize(
    ("options", "jit_compile"),
    [({}, False), ({}, True), ({"num_beams": 2, "do_sample": True, "top_p": 0.9}, True)],
)
def test_a_step_in_keras_is_traced_once_for_every_step_and_every_prompt(
    options: dict[str, Any], jit_compile: bool
) -> None:
    model = make("tf", 1, add_cross_attention=True, max_position_embeddings=80)
    options = {**options, "eos_token_id": [], "seed": 0}
    calls = [(prompts(model.config, *lengths), new) for lengths, new in (((4, 2), 5), ((3, 7), 30), ((1, 1), 62))]
    model.compile(run_eagerly=True)
    expected = [generate(model, inputs, max_new_tokens=new, **options) for inputs, new in calls[:1]]
    model.compile(jit_compile=jit_compile)
    model.decode_function = None
    found = [generate(model, inputs, max_new_tokens=new, **options) for inputs, new in calls[:1]]
    step = model.decode_function
    found += [generate(model, inputs, max_new_tokens=new, **options) for inputs, new in calls[1:]]
    assert model.decode_function is step
    assert step.experimental_get_tracing_count() == 1
    np.testing.assert_array_equal(found[0], expected[0])
    assert [texts.shape[1] for texts in found] == [9, 37, 63]


def test_a_keras_step_is_traced_anew_once_the_vocabulary_has_another_size() -> None:
    model = make("tf", 1, add_cross_attention=False, tie_word_embeddings=False)
    inputs = prompts(model.config, 3)
    generate(model, inputs, max_new_tokens=3)
    model.resize_token_embeddings(model.config.vocab_size + 5)
    randomise(model, 8)
    found = generate(model, inputs, max_new_tokens=5)
    model.compile(run_eagerly=True)
    model.decode_function = None
    np.testing.assert_array_equal(generate(model, inputs, max_new_tokens=5), found)


@pytest.mark.parametrize("framework", FRAMEWORKS)
def test_prompts_are_read_once_whatever_the_number_of_their_texts(
    framework: str, monkeypatch: pytest.MonkeyPatch
) -> None:
    model = make(framework, 1, add_cross_attention=False, max_position_embeddings=19)
    read = []
    kind, method = type(model.base_model), "call" if framework == "tf" else "forward"
    original = getattr(kind, method)

    def spied(self: Any, input_ids: Any, *args: Any, **kwargs: Any) -> Any:
        read.append(tuple(input_ids.shape))
        return original(self, input_ids, *args, **kwargs)

    # Keras looks at what its layers' calls take.
    spied.__signature__ = __import__("inspect").signature(original)  # type: ignore[attr-defined]
    monkeypatch.setattr(kind, method, spied)
    generate(model, prompts(model.config, 5, 3), max_new_tokens=4, num_beams=3, eos_token_id=[])
    assert read[0] == (2, 5)
    assert set(read[1:]) == {(6, 1)}


def test_a_model_in_training_writes_without_dropout_and_goes_on_training() -> None:
    model = make("pt", 1, add_cross_attention=False)
    inputs = prompts(model.config, 4, 2)
    expected = generate(model, inputs, max_new_tokens=6)
    model.train()
    model.rembert.embeddings.eval()
    logits = []
    model.register_forward_hook(lambda module, args, out: logits.append(out.logits))
    np.testing.assert_array_equal(generate(model, inputs, max_new_tokens=6), expected)
    assert model.training
    assert not model.rembert.embeddings.training
    assert not any(scores.requires_grad for scores in logits)


@pytest.mark.parametrize("framework", FRAMEWORKS)
def test_without_prompts_a_text_begins_with_the_id_that_begins_texts(framework: str) -> None:
    model = make(framework, 1, add_cross_attention=True)
    about = random_inputs(model.config, "ForCausalLM", 0, batch=3, length=5)["encoder_hidden_states"]
    begun = np.full((3, 1), 2)
    expected = generate(model, {"input_ids": begun, "encoder_hidden_states": about}, max_new_tokens=4)
    np.testing.assert_array_equal(generate(model, {"encoder_hidden_states": about}, max_new_tokens=4), expected)
    assert (generate(model, {}, max_new_tokens=2, bos_token_id=5)[:, 0] == 5).all()


@pytest.mark.parametrize("framework", FRAMEWORKS)
@pytest.mark.parametrize(
    ("options", "message"),
    [
        ({"max_length": 4}, "have 4 positions already"),
        ({"max_length": 3}, "have 4 positions already"),
        ({"max_new_tokens": 9}, "this model has 12"),
        ({"max_new_tokens": 0}, "max_new_tokens is 0; it must be None or an integer >= 1"),
        ({"max_new_tokens": 2, "max_length": 6}, "not both"),
        ({"max_new_tokens": 2, "min_new_tokens": 3}, "at least 7 positions and at most 6"),
        ({"do_sample": True, "temperature": 0.0}, "temperature is 0.0; it must be a number above 0"),
        ({"do_sample": True, "top_p": 0.0}, "top_p is 0.0; it must be a number above 0 and at most 1"),
        ({"do_sample": True, "top_p": 1.1}, "top_p is 1.1"),
        ({"do_sample": True, "top_k": -1}, "top_k is -1"),
        ({"num_beams": 0}, "num_beams is 0"),
        ({"num_beams": 2, "early_stopping": "soon"}, "early_stopping is 'soon'; it must be True, False or \"never\""),
        ({"num_beams": 2, "num_return_sequences": 3}, "no more texts than beams"),
        ({"num_return_sequences": 2}, "no more texts than beams"),
        ({"eos_token_id": 99}, "eos_token_id is 99; it must be below vocab_size, 23"),
        ({"eos_token_id": [1, -1]}, "eos_token_id is"),
        ({"pad_token_id": 23}, "pad_token_id is 23"),
        ({"seed": -1}, "seed is -1"),
    ],
)
def test_wrong_settings_get_one_clear_error(framework: str, options: dict[str, Any], message: str) -> None:
    model = make(framework, 1, vocab_size=23, max_position_embeddings=12)
    with pytest.raises(InputError, match=message):
        generate(model, {"input_ids": np.full((2, 4), 9)}, **options)


@pytest.mark.parametrize("framework", FRAMEWORKS)
def test_wrong_inputs_get_one_clear_error(framework: str) -> None:
    model = make(framework, 1, vocab_size=23, add_cross_attention=False)
    ids = np.full((2, 4), 9)
    padded = np.array([[9, 9, 9, 9], [9, 9, 3, 3]])
    about = np.zeros((2, 3, model.config.hidden_size))
    for inputs, message in (
        ({"input_ids": padded}, "Row 1 of the prompts ends with padding"),
        ({"input_ids": ids, "attention_mask": (padded != 3).astype(int)}, "Row 1 of the prompts ends with padding"),
        ({"input_ids": ids, "attention_mask": np.ones((2, 5), int)}, "attention_mask has the shape"),
        ({"input_ids": ids[0]}, "input_ids has the shape"),
        ({"input_ids": ids[:, :0]}, "Leave it out to begin with bos_token_id"),
        ({"input_ids": ids + 20}, "input_ids goes from 29 to 29"),
        ({"input_ids": ids, "encoder_hidden_states": about}, "add_cross_attention=False"),
    ):
        with pytest.raises(InputError, match=message):
            generate(model, inputs, max_new_tokens=2)
    encoder = make(framework, 1, is_decoder=False, add_cross_attention=False)
    with pytest.raises(InputError, match="is_decoder=False"):
        generate(encoder, {"input_ids": ids}, max_new_tokens=2)
    outside = make(framework, 1, bos_token_id=None)
    with pytest.raises(InputError, match="nothing to begin with"):
        generate(outside, {})
    with pytest.raises(InputError, match=r"RemBertConfig\.eos_token_id is 313"):
        generate(make(framework, 1, eos_token_id=313), {"input_ids": ids})


def test_settings_that_change_nothing_are_told(caplog: pytest.LogCaptureFixture) -> None:
    model = make("pt", 1, add_cross_attention=False)
    with caplog.at_level(logging.WARNING, logger="isobert"):
        generate(model, prompts(model.config, 2), max_new_tokens=2, temperature=0.5, length_penalty=2.0)
    told = [record.getMessage() for record in caplog.records]
    assert any("temperature; without do_sample=True" in message for message in told)
    assert any("length_penalty; without num_beams" in message for message in told)
