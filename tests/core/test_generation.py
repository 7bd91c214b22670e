"""What a search decides, with scores written down in place of a model's."""

from __future__ import annotations

from typing import Any

import numpy as np
import pytest

from isobert import RemBertConfig
from isobert.core.generation import BeamSearch, GenerationSettings, RowSearch, new_search, prompt_mask
from isobert.errors import InputError

NOTHING: dict[str, Any] = {
    "max_new_tokens": None,
    "max_length": None,
    "min_new_tokens": None,
    "min_length": None,
    "do_sample": False,
    "temperature": 1.0,
    "top_k": None,
    "top_p": 1.0,
    "num_beams": 1,
    "length_penalty": 1.0,
    "early_stopping": False,
    "num_return_sequences": 1,
    "eos_token_id": None,
    "pad_token_id": None,
}


def settings(prompt_length: int = 2, vocab_size: int = 10, **asked: Any) -> GenerationSettings:
    config = RemBertConfig(vocab_size=vocab_size, max_position_embeddings=200, eos_token_id=9)
    return GenerationSettings.of(config, prompt_length, **{**NOTHING, **asked})


def run(chances: list[float], **asked: Any) -> np.ndarray:
    """Return the texts of beam search from one prompt, where words have the same probabilities at every step."""
    chosen = settings(vocab_size=len(chances), **asked)
    search = new_search(np.array([[0, 0]]), chosen)
    while not search.is_done:
        scores = (search.group_scores[:, :, None] + np.log(np.array(chances, np.float32))).reshape(1, -1)
        best = np.argsort(-scores, kind="stable")[:, : chosen.num_candidates]
        search.accept(np.take_along_axis(scores, best, axis=1), best)
    return search.texts()


@pytest.mark.parametrize(
    ("asked", "longest", "shortest"),
    [
        ({}, 22, 0),
        ({"max_new_tokens": 5, "min_new_tokens": 3}, 7, 5),
        ({"max_length": 5, "min_length": 3}, 5, 3),
        ({"max_length": 200}, 200, 0),
    ],
)
def test_lengths_with_and_without_the_prompt_mean_the_same(asked: dict[str, int], longest: int, shortest: int) -> None:
    found = settings(**asked)
    assert (found.max_length, found.min_length) == (longest, shortest)


@pytest.mark.parametrize(("new", "room"), [(1, 64), (62, 64), (63, 128), (198, 200)])
def test_a_cache_has_room_for_a_multiple_of_64_or_all_positions(new: int, room: int) -> None:
    assert settings(max_new_tokens=new).cache_length == room


def test_by_default_no_more_words_are_added_than_there_are_positions_for() -> None:
    assert settings(prompt_length=190).max_length == 200
    with pytest.raises(InputError, match="have 200 positions already"):
        settings(prompt_length=200)


def test_ids_are_those_given_or_else_the_configs() -> None:
    assert (settings().eos_token_ids, settings().pad_token_id) == ((9,), 0)
    given = settings(eos_token_id=[3, 4], pad_token_id=5)
    assert (given.eos_token_ids, given.pad_token_id) == ((3, 4), 5)
    assert settings(eos_token_id=[]).eos_token_ids == ()
    config = RemBertConfig(vocab_size=10, eos_token_id=9, pad_token_id=None)
    assert GenerationSettings.of(config, 2, **NOTHING).pad_token_id == 9


def test_padding_is_told_by_its_id_unless_it_also_ends_texts() -> None:
    ids = np.array([[0, 0, 4], [5, 0, 6]])
    assert prompt_mask(ids, None, settings(3)).tolist() == [[0, 0, 1], [1, 0, 1]]
    assert prompt_mask(ids, None, settings(3, eos_token_id=[0, 9])).tolist() == [[1, 1, 1], [1, 1, 1]]


def test_a_text_that_has_ended_is_filled_up() -> None:
    search = RowSearch(np.array([[1, 2], [3, 4]]), settings(max_new_tokens=5, pad_token_id=7))
    for words in ((9, 5), (6, 6), (8, 9)):
        assert not search.is_done
        search.accept(np.zeros((2, 1)), np.array(words)[:, None])
    assert search.is_done
    assert search.texts().tolist() == [[1, 2, 9, 7, 7], [3, 4, 5, 6, 9]]


def test_beams_go_on_though_every_likely_word_ends_a_text() -> None:
    # A strong penalty lets the longest text win, which only beams that went on can find.
    found = run(
        [0.01, 0.01, 0.23, 0.24, 0.25, 0.26],
        num_beams=2,
        max_new_tokens=6,
        eos_token_id=[2, 3, 4, 5],
        length_penalty=9.0,
        early_stopping="never",
    )
    assert found.shape == (1, 8)
    assert set(found[0, 2:7]) <= {0, 1}


def test_beams_begin_with_different_words() -> None:
    found = run([0.1, 0.2, 0.3, 0.4], num_beams=3, num_return_sequences=3, max_new_tokens=1, eos_token_id=[])
    assert found[:, 2].tolist() == [3, 2, 1]


def test_beams_filled_up_have_the_paddings_id_though_it_is_0() -> None:
    found = run([0.1, 0.3, 0.6], num_beams=2, num_return_sequences=2, max_new_tokens=3, eos_token_id=[2])
    assert found.tolist() == [[0, 0, 2, 0], [0, 0, 1, 2]]


@pytest.mark.parametrize(
    ("stopping", "penalty", "steps"),
    # Two texts have ended after two steps. With the strong penalty, those that go on look better step by step; with the
    # weak one they do not, and from the fifth step on could not become so.
    [(True, 1.0, 2), (False, 1.0, 2), ("never", 1.0, 5), (True, 3.0, 2), (False, 3.0, 6), ("never", 3.0, 6)],
)
def test_beam_search_stops_when_it_was_told_to(stopping: bool | str, penalty: float, steps: int) -> None:
    asked = {"num_beams": 2, "max_new_tokens": 6, "eos_token_id": [2]}
    chosen = settings(vocab_size=3, early_stopping=stopping, length_penalty=penalty, **asked)
    search = BeamSearch(np.array([[0, 0]]), chosen)
    taken = 0
    while not search.is_done:
        scores = (search.group_scores[:, :, None] + np.log(np.float32([0.1, 0.3, 0.6]))).reshape(1, -1)
        best = np.argsort(-scores, kind="stable")[:, : chosen.num_candidates]
        search.accept(np.take_along_axis(scores, best, axis=1), best)
        taken += 1
    assert taken == steps
