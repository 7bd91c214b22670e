"""What users call: arguments, outputs and mistakes, alike for the Python and the fast tokenizer."""

from __future__ import annotations

import pickle
import sys
from typing import Any

import numpy as np
import pytest
from tokenizers import AddedToken

from isobert.errors import MissingDependencyError, TokenizerError
from isobert.tokenization.arguments import NO_MAX_LENGTH
from support.tokenizers import KINDS, is_unigram, spelled, tokenizer_class, vocabulary

WORDS = ["un", "##aff", "##able", "is", "she", "?", ".", "'", "t", "don"]


def make(name: str, words: list[str] = WORDS, **settings: Any) -> Any:
    return tokenizer_class(name)(**vocabulary(name, words), **settings)


@pytest.fixture(params=KINDS)
def tokenizer(request: pytest.FixtureRequest) -> Any:
    return make(request.param, model_max_length=16)


def test_one_text_gives_flat_lists_and_a_batch_nested_ones(tokenizer: Any) -> None:
    assert tokenizer("she is")["input_ids"] == [2, 9, 8, 3]
    assert tokenizer(["she is"])["input_ids"] == [[2, 9, 8, 3]]
    assert tokenizer("she is", return_tensors="np")["input_ids"].shape == (1, 4)
    assert tokenizer([])["input_ids"] == []


def test_a_batch_of_pairs_is_read_with_and_without_text_pair(tokenizer: Any) -> None:
    wanted = [[2, 9, 3, 8, 3], [2, 8, 3, 9, 3]]
    assert tokenizer(["she", "is"], ["is", "she"])["input_ids"] == wanted
    assert tokenizer([("she", "is"), ["is", "she"]])["input_ids"] == wanted
    assert tokenizer.batch_encode_plus([("she", "is"), ("is", "she")])["input_ids"] == wanted
    assert tokenizer.encode_plus("she", "is")["token_type_ids"] == [0, 0, 0, 1, 1]
    assert tokenizer.encode("she", "is") == wanted[0]


def test_words_keep_their_index_and_their_own_offsets(tokenizer: Any) -> None:
    batch = tokenizer(["she", "unaffable", "is"], is_split_into_words=True, return_offsets_mapping=True)
    assert batch.word_ids() == [None, 0, 1, 1, 1, 2, None]
    assert batch["offset_mapping"][2:5] == [(0, 2), (2, 5), (5, 9)]
    assert batch.sequence_ids() == [None, 0, 0, 0, 0, 0, None]


def test_windows_overlap_by_the_stride_and_say_whose_they_are(tokenizer: Any) -> None:
    batch = tokenizer(
        ["she is unaffable", "she"], max_length=5, truncation=True, stride=1, return_overflowing_tokens=True
    )
    assert batch["input_ids"] == [[2, 9, 8, 5, 3], [2, 5, 6, 7, 3], [2, 9, 3]]
    assert batch["overflow_to_sample_mapping"] == [0, 0, 1]


def test_the_way_between_tokens_words_and_characters(tokenizer: Any) -> None:
    batch = tokenizer("She unaffable.", "is she")
    # To Unigram a blank is of the piece that follows, and a word is what stands between blanks.
    unigram = is_unigram(tokenizer)
    wanted = ["[CLS]", "she", "un", "##aff", "##able", ".", "[SEP]", "is", "she", "[SEP]"]
    assert batch.tokens() == spelled(tokenizer, wanted)
    assert batch.char_to_token(6) == 3
    assert batch.char_to_token(0, 3, sequence_index=1) == 8
    assert batch.char_to_token(3) == (2 if unigram else None)
    assert batch.char_to_token(14) is None
    assert batch.token_to_chars(3) == (6, 9)
    assert batch.token_to_chars(0) is None
    assert batch.token_to_word(4) == 1
    assert batch.word_to_tokens(1) == ((2, 6) if unigram else (2, 5))
    assert batch.word_to_chars(1) == ((3, 14) if unigram else (4, 13))
    assert batch.word_to_tokens(7) is None
    assert batch.char_to_word(12) == 1
    assert batch.token_to_sequence(7) == 1
    assert batch.n_sequences == 2
    assert batch[0].ids == batch["input_ids"]


@pytest.mark.parametrize(("kind", "dtype"), [("np", "int64"), ("pt", "torch.int64"), ("tf", "<dtype: 'int32'>")])
def test_tensors_of_every_framework_hold_the_same(tokenizer: Any, kind: str, dtype: str) -> None:
    pytest.importorskip({"np": "numpy", "pt": "torch", "tf": "tensorflow"}[kind])
    lists = tokenizer(["she is", "she"], padding=True, return_offsets_mapping=True, return_length=True)
    tensors = tokenizer(
        ["she is", "she"], padding=True, return_offsets_mapping=True, return_length=True, return_tensors=kind
    )
    assert list(tensors) == list(lists)
    for name, column in tensors.items():
        assert str(column.dtype) == dtype
        np.testing.assert_array_equal(np.asarray(column), np.array(lists[name]))


def test_a_missing_framework_is_named_with_its_extra(tokenizer: Any, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setitem(sys.modules, "tensorflow", None)
    with pytest.raises(MissingDependencyError, match=r"isobert\[tf\]"):
        tokenizer("she", return_tensors="tf")


def test_pad_collates_examples_and_leaves_labels_alone(tokenizer: Any) -> None:
    examples = [{**tokenizer(text), "labels": label} for text, label in (("she is unaffable", 1), ("she", 0))]
    batch = tokenizer.pad(examples, return_tensors="np", pad_to_multiple_of=8)
    assert batch["input_ids"].tolist() == [[2, 9, 8, 5, 6, 7, 3, 0], [2, 9, 3, 0, 0, 0, 0, 0]]
    assert batch["attention_mask"].sum(axis=1).tolist() == [7, 3]
    assert batch["labels"].tolist() == [1, 0]
    left = tokenizer.pad([{"input_ids": [2, 3]}, {"input_ids": [3]}], padding_side="left")
    assert left["input_ids"] == [[2, 3], [0, 3]]
    assert left["attention_mask"] == [[1, 1], [0, 1]]
    assert tokenizer.pad({"input_ids": [2, 3]}, padding="max_length", max_length=3)["input_ids"] == [2, 3, 0]
    arrays = tokenizer.pad([{"input_ids": np.array([2, 3])}, {"input_ids": np.array([3])}])
    assert arrays["input_ids"] == [[2, 3], [3, 0]]


def test_ids_are_made_ready_as_text_is(tokenizer: Any) -> None:
    first, second = (tokenizer.convert_tokens_to_ids(spelled(tokenizer, text.split())) for text in ("she is", "is she"))
    made = tokenizer.prepare_for_model(
        first, second, return_special_tokens_mask=True, padding="max_length", max_length=9
    )
    wanted = tokenizer("she is", "is she", return_special_tokens_mask=True, padding="max_length", max_length=9)
    assert dict(made) == dict(wanted)
    assert tokenizer.build_inputs_with_special_tokens(first, second) == [2, 9, 8, 3, 8, 9, 3]
    assert tokenizer.create_token_type_ids_from_sequences(first, second) == [0, 0, 0, 0, 1, 1, 1]
    assert tokenizer.get_special_tokens_mask(first, second) == [1, 0, 0, 1, 0, 0, 1]
    assert tokenizer.get_special_tokens_mask([2, 9, 8, 3], already_has_special_tokens=True) == [1, 0, 0, 1]
    assert (tokenizer.num_special_tokens_to_add(), tokenizer.num_special_tokens_to_add(pair=True)) == (2, 3)
    assert tokenizer.truncate_sequences([1, 2, 3, 4, 5], None, 2, stride=1) == ([1, 2, 3], None, [3, 4, 5])
    assert tokenizer.truncate_sequences([1, 2], [3, 4, 5], 1, "only_second") == ([1, 2], [3, 4], [5])
    cut = tokenizer.prepare_for_model([9, 8, 9, 8], max_length=5, truncation=True, return_overflowing_tokens=True)
    assert cut["input_ids"] == [2, 9, 8, 9, 3]
    assert (cut["overflowing_tokens"], cut["num_truncated_tokens"]) == ([8], 1)


def test_decoding_joins_pieces_and_cleans_up(tokenizer: Any) -> None:
    unigram = is_unigram(tokenizer)
    ids = tokenizer("She is unaffable. Don't?")["input_ids"]
    clean, kept = "[CLS] she is unaffable. don't? [SEP]", "[CLS] she is unaffable . don ' t ? [SEP]"
    assert tokenizer.decode(ids) == clean
    assert tokenizer.decode(ids, clean_up_tokenization_spaces=True) == clean
    assert tokenizer.decode(ids, clean_up_tokenization_spaces=False) == (clean if unigram else kept)
    assert tokenizer.decode(ids, skip_special_tokens=True) == "she is unaffable. don't?"
    assert tokenizer.batch_decode(np.array([ids, ids])) == [tokenizer.decode(ids)] * 2
    assert tokenizer.decode(9) == "she"
    assert tokenizer.convert_ids_to_tokens([2, 5, 6]) == spelled(tokenizer, ["[CLS]", "un", "##aff"])
    assert tokenizer.convert_tokens_to_ids([*spelled(tokenizer, ["she"]), "nowhere"]) == [9, 1]
    assert tokenizer.convert_tokens_to_string(spelled(tokenizer, ["un", "##able"])) == "unable"


def test_added_tokens_are_found_as_they_say(tokenizer: Any) -> None:
    size = len(tokenizer)
    assert tokenizer.add_tokens(["<a>", *spelled(tokenizer, ["she"])]) == 1
    assert tokenizer.add_tokens("<a>") == 0
    assert tokenizer.add_tokens([AddedToken("whole", single_word=True), AddedToken("<l>", lstrip=True)]) == 2
    assert tokenizer.vocab_size == size
    assert len(tokenizer) == size + 3
    batch = tokenizer("She<A> is whole  <l>is", return_offsets_mapping=True)
    assert batch["input_ids"][1:-1] == [9, size, 8, size + 1, size + 2, 8]
    assert batch["offset_mapping"][1:-1] == [(0, 3), (3, 6), (7, 9), (10, 15), (15, 20), (20, 22)]
    assert batch.tokens()[5] == "<l>"
    assert size + 1 not in tokenizer("wholesome")["input_ids"]
    assert tokenizer.convert_ids_to_tokens(size) == "<a>"


def test_special_tokens_can_be_named_replaced_and_added(tokenizer: Any) -> None:
    assert tokenizer.add_special_tokens({"additional_special_tokens": ["<e>"], "bos_token": "<s>"}) == 2
    assert tokenizer.additional_special_tokens == ["<e>"]
    assert tokenizer.bos_token_id == tokenizer.convert_tokens_to_ids("<s>")
    assert tokenizer.bos_token_id in tokenizer.all_special_ids
    tokenizer.eos_token = None
    assert tokenizer.eos_token is None
    assert tokenizer.eos_token_id is None
    assert tokenizer.decode(tokenizer("she <e> is")["input_ids"], skip_special_tokens=True) == "she is"
    tokenizer.add_special_tokens({"additional_special_tokens": ["<f>"]}, replace_additional_special_tokens=False)
    assert tokenizer.additional_special_tokens == ["<e>", "<f>"]
    tokenizer.sep_token = "."
    assert tokenizer("she")["input_ids"] == [2, 9, 11]
    tokenizer.cls_token_id = 4
    assert tokenizer("she", "is")["input_ids"] == [4, 9, 11, 8, 11]


def test_special_tokens_in_a_text_are_special_unless_they_are_to_be_split(tokenizer: Any) -> None:
    whole = spelled(tokenizer, ["she", "[MASK]"])
    assert tokenizer.tokenize("she [MASK]") == whole
    split = tokenizer.tokenize("she [MASK]", split_special_tokens=True)
    assert tokenizer.mask_token not in split
    assert len(split) > 1
    assert set(tokenizer.convert_tokens_to_ids(split[1:])) == {1}
    assert tokenizer.tokenize("she [MASK]") == whole


def test_lengths_come_from_the_model_when_none_is_given(tokenizer: Any, caplog: pytest.LogCaptureFixture) -> None:
    text = "she " * 30
    assert len(tokenizer(text, truncation=True)["input_ids"]) == 16
    assert len(tokenizer("she", padding="max_length")["input_ids"]) == 16
    assert not caplog.records
    assert len(tokenizer(text)["input_ids"]) == 32
    assert len(caplog.records) == 1
    tokenizer(text)
    assert len(caplog.records) == 1
    tokenizer.model_max_length = NO_MAX_LENGTH
    assert len(tokenizer(text, truncation=True)["input_ids"]) == 32
    assert "max_length" in caplog.records[-1].getMessage()


def test_columns_can_be_chosen(tokenizer: Any) -> None:
    batch = tokenizer("she", return_token_type_ids=False, return_attention_mask=False, return_length=True)
    assert dict(batch) == {"input_ids": [2, 9, 3], "length": 3}
    tokenizer.model_input_names = ["input_ids", "attention_mask"]
    assert list(tokenizer("she")) == ["input_ids", "attention_mask"]
    with pytest.raises(AttributeError, match="attention_mask"):
        _ = batch.attention_mask


@pytest.mark.parametrize(
    ("arguments", "message"),
    [
        ({"text": None}, r"text is None \(NoneType\)"),
        ({"text": 3}, r"text is 3 \(int\)"),
        ({"text": ["she", None]}, r"text\[1\] is None"),
        ({"text": [["a", "b", "c"]]}, "is_split_into_words=True"),
        ({"text": "she is", "is_split_into_words": True}, "list of words"),
        ({"text": ["she", 4], "is_split_into_words": True}, r"text\[1\] is 4"),
        ({"text": ["she"], "text_pair": ["a", "b"]}, "1 entries and text_pair 2"),
        ({"text": ["she"], "text_pair": "a"}, "text_pair must be one too"),
        ({"text": "she", "text_pair": ["a"]}, "give both alike"),
        ({"text": "a\ud800b"}, "character 1"),
        ({"text": "she", "padding": "full"}, "padding is 'full'"),
        ({"text": "she", "truncation": "some"}, "truncation is 'some'"),
        ({"text": "she", "padding_side": "top", "padding": True}, "padding_side is 'top'"),
        ({"text": "she", "max_length": -1}, "max_length is -1"),
        ({"text": "she", "max_length": 2.5}, r"max_length is 2\.5"),
        ({"text": "she", "max_length": 1}, "leaves no room"),
        ({"text": "she", "stride": -1}, "stride is -1"),
        ({"text": "she is", "max_length": 5, "truncation": True, "stride": 3}, "stride=3 must be below"),
        ({"text": "she is", "truncation": "only_second", "max_length": 3}, "needs pairs"),
        ({"text": "she is", "text_pair": "is", "truncation": "only_second", "max_length": 4}, "has only 1"),
        ({"text": ["she", "she is"], "return_tensors": "np"}, r"rows have 3, 4 entries.*padding=True"),
        ({"text": "she", "return_tensors": "jax"}, "return_tensors is 'jax'"),
        ({"text": "she", "padding": True, "pad_to_multiple_of": 0}, "pad_to_multiple_of is 0"),
        (
            {"text": "she", "padding": True, "truncation": True, "max_length": 9, "pad_to_multiple_of": 8},
            "not a multiple",
        ),
    ],
)
def test_a_wrong_call_is_answered_by_what_was_wrong(tokenizer: Any, arguments: dict[str, Any], message: str) -> None:
    with pytest.raises(TokenizerError, match=message):
        tokenizer(**arguments)
    assert tokenizer("she")["input_ids"] == [2, 9, 3]


def test_padding_needs_a_pad_token(tokenizer: Any) -> None:
    tokenizer.pad_token = None
    with pytest.raises(TokenizerError, match="There is no pad_token"):
        tokenizer(["she"], padding=True)
    tokenizer.pad_token = "<fill>"
    with pytest.raises(TokenizerError, match="not in the vocabulary"):
        tokenizer.pad([{"input_ids": [1]}])


@pytest.mark.parametrize("wrong", [{}, [], 3, [{"input_ids": [1]}, {"labels": 2}], {"labels": [1]}])
def test_pad_says_what_it_needs(tokenizer: Any, wrong: Any) -> None:
    with pytest.raises(TokenizerError, match="pad"):
        tokenizer.pad(wrong)


def test_ids_out_of_range_are_refused(tokenizer: Any) -> None:
    with pytest.raises(TokenizerError, match="999"):
        tokenizer.decode([9, 999])
    with pytest.raises(TokenizerError, match="-100"):
        tokenizer.decode([-100])


def test_tokens_that_could_never_be_found_are_refused(tokenizer: Any) -> None:
    with pytest.raises(TokenizerError, match="nothing once text is normalised"):
        tokenizer.add_tokens(["\u0301"])
    with pytest.raises(TokenizerError, match="empty"):
        tokenizer.add_tokens([""])
    with pytest.raises(TokenizerError, match="'Zebra' and 'zebra' are the same"):
        tokenizer.add_tokens(["Zebra", "zebra"])
    assert tokenizer.add_tokens(["Zebra", AddedToken("ZEBRA", normalized=False)]) == 2
    assert tokenizer.tokenize("zebra ZEBRA") == ["Zebra", "ZEBRA"]
    with pytest.raises(TokenizerError, match="no special token called"):
        tokenizer.add_special_tokens({"end_token": "x"})
    assert tokenizer("she")["input_ids"] == [2, 9, 3]


def test_words_that_are_never_to_be_split_are_to_be_added() -> None:
    for name in KINDS[:2]:
        with pytest.raises(TokenizerError, match="never_split"):
            make(name, never_split=["a"])


@pytest.mark.parametrize("name", KINDS)
def test_files_whose_added_tokens_look_alike_open_with_a_warning(name: str, caplog: pytest.LogCaptureFixture) -> None:
    added = {15: {"content": "Zebra"}, 16: {"content": "zebra"}}
    assert len(make(name, added_tokens_decoder=added)) == 17
    assert "'Zebra' and 'zebra'" in caplog.text


@pytest.mark.parametrize("name", KINDS)
def test_special_tokens_missing_from_the_vocabulary_are_added(name: str) -> None:
    small = make(name, ["is"], mask_token="[GAP]")
    assert small.mask_token_id == 6
    assert small("is [GAP]")["input_ids"] == [2, 5, 6, 3]


@pytest.mark.parametrize("side", ["right", "left"])
@pytest.mark.parametrize("pair", [None, ["is", "she is she"]])
def test_arrays_hold_what_lists_hold(tokenizer: Any, side: str, pair: list[str] | None) -> None:
    columns = {"return_special_tokens_mask": True, "return_offsets_mapping": True, "return_length": True}
    how = {"padding": True, "padding_side": side, "pad_to_multiple_of": 4, **columns}
    lists = tokenizer(["she", "unaffable is"], pair, **how)
    arrays = tokenizer(["she", "unaffable is"], pair, return_tensors="np", **how)
    assert list(lists) == list(arrays)
    assert len(lists) == 6
    for name, column in lists.items():
        assert arrays[name].dtype == np.int64
        assert arrays[name].tolist() == np.array(column).tolist(), name


def test_a_row_is_as_long_as_it_is_said_to_be(tokenizer: Any) -> None:
    assert tokenizer(["she", "unaffable"], return_length=True)["length"] == [3, 5]
    assert tokenizer(["she", "unaffable"], return_length=True, padding=True)["length"] == [5, 5]


@pytest.mark.parametrize("side", ["right", "left"])
def test_the_rows_of_a_padded_batch_are_as_long_as_its_columns(tokenizer: Any, side: str) -> None:
    batch = tokenizer(["she", "unaffable is"], padding=True, padding_side=side, return_tensors="np")
    kept = pickle.loads(pickle.dumps(batch))
    for one in (batch, batch.copy(), kept):
        assert [row.ids for row in one.encodings] == batch["input_ids"].tolist()
        assert [row.attention_mask for row in one.encodings] == batch["attention_mask"].tolist()
        assert one.tokens(0).count(tokenizer.pad_token) == 3
        assert one.word_ids(0).count(None) == 5
