"""Passages: nothing held out is trained on, and text that does not suffice is named."""

import pytest

from isobert.cli.passages import WORDS_PER_PASSAGE, read_language_reference, read_text_files, split_into_passages
from isobert.errors import InputError


def test_the_language_reference_splits_into_topics_with_nothing_in_both_parts():
    passages = split_into_passages(read_language_reference(), most_topics=8, seed=0)
    train, held_out = ([text for text, _ in part] for part in (passages.train, passages.held_out))
    assert len(passages.topics) == 8
    assert len(train) > 3 * len(held_out) > 300
    assert not set(train) & set(held_out)
    assert {topic for _, topic in passages.train} == {topic for _, topic in passages.held_out} == set(range(8))
    assert 0.1 < passages.majority_share() < 0.5


def test_a_paragraph_that_topics_share_is_given_to_one_of_them():
    shared = " ".join(f"shared{index}" for index in range(WORDS_PER_PASSAGE))
    texts = {
        name: "\n\n".join([shared, " ".join(f"{name}{index}" for index in range(WORDS_PER_PASSAGE * 12))])
        for name in ("one", "another")
    }
    passages = split_into_passages(texts, most_topics=2, seed=0)
    assert sum("shared0 " in text for text, _ in passages.train + passages.held_out) == 1


def test_the_same_seed_shuffles_alike_and_another_does_not():
    texts = read_language_reference()
    first, again, other = (split_into_passages(texts, most_topics=3, seed=seed).train for seed in (1, 1, 2))
    assert first == again
    assert first != other


def test_text_that_does_not_suffice_is_named(tmp_path):
    one, short = tmp_path / "one.txt", tmp_path / "short.txt"
    one.write_text("word " * 5000)
    short.write_text("word " * 10)
    with pytest.raises(InputError, match="got 1"):
        read_text_files([one])
    with pytest.raises(InputError, match="Only 1 of 2 texts"):
        split_into_passages(read_text_files([one, short]), most_topics=2, seed=0)
    with pytest.raises(InputError, match="cannot be read: No such file"):
        read_text_files([one, tmp_path / "none.txt"])
    (tmp_path / "binary.txt").write_bytes(b"\xff\xfe\x00")
    with pytest.raises(InputError, match="not UTF-8"):
        read_text_files([one, tmp_path / "binary.txt"])
    (tmp_path / "more").mkdir()
    (tmp_path / "more" / "one.txt").write_text("again")
    with pytest.raises(InputError, match="rename one"):
        read_text_files([one, tmp_path / "more" / "one.txt"])
