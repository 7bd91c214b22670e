"""Which tensor of a checkpoint goes where, and what is said of the others."""

from __future__ import annotations

from collections.abc import Mapping

import numpy as np
import pytest

from isobert.conversion.matching import LoadPlan, Mismatch, match_tensors
from isobert.conversion.names import family_names
from isobert.errors import CheckpointError

WORDS = "mobilebert.embeddings.word_embeddings.weight"
NORM = "mobilebert.embeddings.LayerNorm.weight"
DECODER = "cls.predictions.decoder.weight"
HEAD = {WORDS: (5, 3), NORM: (3,), "cls.predictions.bias": (5,)}
BARE = {"embeddings.word_embeddings.weight": (5, 3), "embeddings.LayerNorm.weight": (3,)}


class Held:
    """A checkpoint in memory; every tensor holds ones."""

    def __init__(self, shapes: Mapping[str, tuple[int, ...]]) -> None:
        self.was_read = False
        self.tensors = {name: np.full(shape, 1.0) for name, shape in shapes.items()}

    def names(self) -> list[str]:
        return list(self.tensors)

    def shape(self, name: str) -> tuple[int, ...]:
        return self.tensors[name].shape

    def dtype(self, name: str) -> str:
        return self.tensors[name].dtype.name

    def read(self, name: str) -> np.ndarray:
        self.was_read = True
        return self.tensors[name]


def match(
    wanted: Mapping[str, tuple[int, ...]], held: Held | Mapping[str, tuple[int, ...]], **options: bool
) -> LoadPlan:
    held = held if isinstance(held, Held) else Held(held)
    return match_tensors(wanted, held, family_names("mobilebert"), **options)


def test_equal_names_match_and_the_report_is_empty_and_false() -> None:
    plan = match(HEAD, HEAD)
    assert plan.sources == {name: name for name in HEAD}
    assert not plan.report
    assert "none was left over" in str(plan.report)


def test_a_bare_encoders_checkpoint_fits_a_model_with_a_head_and_lacks_only_the_head() -> None:
    plan = match(HEAD, BARE)
    assert plan.sources == {WORDS: "embeddings.word_embeddings.weight", NORM: "embeddings.LayerNorm.weight"}
    assert plan.report.missing == ("cls.predictions.bias",)
    assert not plan.report.unexpected


def test_a_checkpoint_with_a_head_fits_the_bare_encoder_and_leaves_only_the_head_over() -> None:
    plan = match(BARE, HEAD)
    assert plan.sources == {"embeddings.word_embeddings.weight": WORDS, "embeddings.LayerNorm.weight": NORM}
    assert not plan.report.missing
    assert plan.report.unexpected == ("cls.predictions.bias",)


def test_a_head_beside_an_encoder_without_prefix_is_found() -> None:
    assert not match(HEAD, {**BARE, "cls.predictions.bias": (5,)}).report


def test_names_of_older_checkpoints_are_understood() -> None:
    old = NORM.replace("weight", "gamma")
    assert match(HEAD, {WORDS: (5, 3), old: (3,), "cls.predictions.bias": (5,)}).sources[NORM] == old
    assert match(BARE, {"embeddings.word_embeddings.weight": (5, 3), "embeddings.LayerNorm.gamma": (3,)}).sources


def test_an_old_name_beside_its_new_one_is_refused() -> None:
    with pytest.raises(CheckpointError, match="LayerNorm.gamma are both"):
        match(HEAD, {**HEAD, NORM.replace("weight", "gamma"): (3,)})


@pytest.mark.parametrize("name", ["mobilebert.embeddings.position_ids", "cls.predictions.decoder.bias", DECODER])
def test_what_carries_no_weights_or_repeats_a_tied_tensor_is_passed_over(name: str) -> None:
    shape = {"mobilebert.embeddings.position_ids": (1, 9), DECODER: (5, 3)}.get(name, (5,))
    assert not match(HEAD, {**HEAD, name: shape}).report


def test_a_tied_tensor_that_is_not_a_repetition_is_reported() -> None:
    held = Held({**HEAD, DECODER: (5, 3)})
    held.tensors[DECODER][0, 0] += 1e-6
    assert match(HEAD, held).report.unexpected == (DECODER,)


def test_a_table_of_another_shape_is_no_repetition_and_is_not_read_to_find_that_out() -> None:
    held = Held({**HEAD, DECODER: (5, 4)})
    assert match(BARE, held).report.unexpected == ("cls.predictions.bias", DECODER)
    assert not held.was_read
    match(BARE, same := Held({**HEAD, DECODER: (5, 3)}))
    assert same.was_read


def test_a_table_of_the_models_own_with_another_width_is_missing_rather_than_taken_from_the_words() -> None:
    report = match({**HEAD, DECODER: (5, 4)}, HEAD).report
    assert report.missing == (DECODER,)
    assert not report.mismatched


def test_the_largest_tensors_are_loaded_first() -> None:
    assert list(match(HEAD, HEAD).sources) == [WORDS, "cls.predictions.bias", NORM]


def test_either_of_two_tied_names_will_do() -> None:
    assert match(HEAD, {DECODER: (5, 3), NORM: (3,), "cls.predictions.decoder.bias": (5,)}).sources == {
        WORDS: DECODER,
        NORM: NORM,
        "cls.predictions.bias": "cls.predictions.decoder.bias",
    }


def test_an_untied_model_takes_its_own_table_and_otherwise_the_shared_one() -> None:
    untied = {**HEAD, DECODER: (5, 3)}
    assert match(untied, untied).sources[DECODER] == DECODER
    assert match(untied, HEAD).sources[DECODER] == WORDS


def test_another_shape_is_refused_with_both_shapes() -> None:
    with pytest.raises(CheckpointError, match=r"word_embeddings.weight is \[6, 3\] in the checkpoint and \[5, 3\]"):
        match(HEAD, {**HEAD, WORDS: (6, 3)})


def test_another_shape_is_left_out_and_reported_when_that_is_asked_for() -> None:
    plan = match(HEAD, {**HEAD, WORDS: (6, 3)}, ignore_mismatched_sizes=True)
    assert WORDS not in plan.sources
    assert plan.report.mismatched == (Mismatch(WORDS, WORDS, (6, 3), (5, 3)),)
    assert not plan.report.unexpected


def test_a_checkpoint_of_another_family_is_refused() -> None:
    with pytest.raises(CheckpointError, match="another family"):
        match(HEAD, {"rembert.embeddings.words": (5, 3)})


def test_a_report_names_every_tensor() -> None:
    text = str(match({**HEAD, "classifier.weight": (2, 3)}, {**HEAD, "lost": (1,), "qa.bias": (2,)}).report)
    for name in ("classifier.weight", "lost", "qa.bias", "1 tensor not", "2 tensors in"):
        assert name in text
