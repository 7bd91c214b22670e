"""RemBERT's tokenizers say what SentencePiece says: the same pieces, and where in the text each comes from."""

from __future__ import annotations

import copy
import pickle
import time
from itertools import pairwise
from typing import Any

import pytest
import sentencepiece
from sentencepiece import SentencePieceProcessor
from tokenizers import AddedToken, normalizers

from isobert import RemBertTokenizer, RemBertTokenizerFast
from isobert.errors import TokenizerError
from isobert.tokenization.sentencepiece_model import SPACE
from support.corpus import strings
from support.languages import SENTENCES, train_model

COUNT = 20_000
MODELS: dict[str, dict[str, Any]] = {
    "nmt_nfkc": {},
    "nmt_nfkc_cf": {"normalization_rule_name": "nmt_nfkc_cf"},
    "nfkc": {"normalization_rule_name": "nfkc"},
    "nfkc_cf": {"normalization_rule_name": "nfkc_cf"},
    "identity": {"normalization_rule_name": "identity"},
    "bytes": {"byte_fallback": True},
    "bytes, identity": {"byte_fallback": True, "normalization_rule_name": "identity"},
    "user-defined symbols": {"user_defined_symbols": ["<new>", "running", "ÉtÉ", "\u0301", "ﬁ", "two words", "  "]},
    "no prefix": {"add_dummy_prefix": False},
    "blanks kept": {"remove_extra_whitespaces": False},
    "pieces of blanks": {"remove_extra_whitespaces": False, "allow_whitespace_only_pieces": True},
    "digits": {"split_digits": True},
    "blank as suffix": {"treat_whitespace_as_suffix": True},
    "pieces across words": {"split_by_whitespace": False},
}
PREPARATIONS: dict[str, dict[str, Any]] = {
    "lower": {"do_lower_case": True},
    "no accents": {"keep_accents": False},
    "both": {"do_lower_case": True, "keep_accents": False},
    "both, blanks kept": {"do_lower_case": True, "keep_accents": False, "remove_space": False},
    "blanks alone": {},
}
classes = pytest.mark.parametrize("cls", [RemBertTokenizer, RemBertTokenizerFast])


@pytest.fixture(scope="module")
def texts() -> list[str]:
    sentences = list(SENTENCES.values())
    long = [" ".join(sentences[i : i + 6]) for i in range(0, len(sentences), 6)]
    return [*sentences, *long, *strings(COUNT)]


def both(model: bytes, **settings: Any) -> tuple[RemBertTokenizer, RemBertTokenizerFast]:
    return RemBertTokenizer(model=model, **settings), RemBertTokenizerFast(model=model, **settings)


def plainly(tokenizer: Any, texts: list[str]) -> Any:
    """Encode texts as SentencePiece would: special tokens are neither added nor looked for."""
    return tokenizer(texts, add_special_tokens=False, split_special_tokens=True, return_offsets_mapping=True)


def test_there_are_sentences_in_more_than_thirty_languages() -> None:
    assert len(SENTENCES) > 30


@pytest.mark.parametrize(
    ("name", "count"),
    [
        *((name, 2000) for name in MODELS if name != "nmt_nfkc"),
        ("nmt_nfkc", None),
        *(pytest.param(name, None, marks=pytest.mark.slow) for name in MODELS if name != "nmt_nfkc"),
    ],
)
def test_both_find_the_pieces_that_sentencepiece_finds(name: str, count: int | None, texts: list[str]) -> None:
    some = texts[:count]
    model = train_model(**MODELS[name])
    processor = SentencePieceProcessor(model_proto=model)
    ids, pieces = processor.encode(some, out_type=int), processor.encode(some, out_type=str)
    slow, fast = (plainly(tokenizer, some) for tokenizer in both(model, remove_space=False))
    for index, text in enumerate(some):
        assert slow["input_ids"][index] == fast["input_ids"][index] == ids[index], ascii(text)
        assert slow.tokens(index) == fast.tokens(index) == pieces[index], ascii(text)
        assert slow["offset_mapping"][index] == fast["offset_mapping"][index], ascii(text)
        assert slow.word_ids(index) == fast.word_ids(index), ascii(text)


def test_the_fast_one_takes_its_rows_from_the_tokenizers_library_where_it_can() -> None:
    sentences = list(SENTENCES.values())
    rows = RemBertTokenizerFast(model=train_model())(sentences).encodings
    assert sum(type(row).__module__ == "tokenizers" for row in rows) > len(rows) / 3


@pytest.mark.parametrize("name", PREPARATIONS)
@pytest.mark.parametrize("kind", ["nmt_nfkc", "user-defined symbols", "no prefix", "blanks kept", "blank as suffix"])
def test_text_is_prepared_before_sentencepiece_sees_it(kind: str, name: str, texts: list[str]) -> None:
    settings, some = PREPARATIONS[name], texts[:1000]
    model = train_model(**MODELS[kind])
    steps = [normalizers.NFKD(), normalizers.StripAccents()] if "keep_accents" in settings else []
    steps += [normalizers.Lowercase()] if "do_lower_case" in settings else []
    prepare = normalizers.Sequence(steps).normalize_str

    def prepared(text: str) -> str:
        text = "".join(map(prepare, text))
        return " ".join(word for word in text.split(" ") if word) if settings.get("remove_space", True) else text

    wanted = SentencePieceProcessor(model_proto=model).encode([prepared(text) for text in some])
    slow, fast = (plainly(tokenizer, some) for tokenizer in both(model, **settings))
    assert slow["input_ids"] == fast["input_ids"] == wanted
    assert slow["offset_mapping"] == fast["offset_mapping"]
    for text, spans in zip(some, slow["offset_mapping"], strict=True):
        assert all(0 <= start <= stop <= len(text) for start, stop in spans), ascii(text)


def test_extra_blanks_are_removed_unless_they_are_to_stay() -> None:
    model = train_model(**MODELS["pieces of blanks"])
    text = "  This   morning  "
    removed, kept = (SentencePieceProcessor(model_proto=model).encode(t) for t in ("This morning", text))
    assert removed != kept
    for cls in (RemBertTokenizer, RemBertTokenizerFast):
        batch = plainly(cls(model=model), [text])
        assert batch["input_ids"] == [removed]
        assert all(text[a:b].strip() for a, b in batch["offset_mapping"][0])
        assert plainly(cls(model=model, remove_space=False), [text])["input_ids"] == [kept]


@pytest.mark.parametrize("name", ["nmt_nfkc", "identity", "bytes", "no prefix", "pieces across words"])
def test_offsets_cover_the_text_in_order(name: str, texts: list[str]) -> None:
    tokenizer = RemBertTokenizer(model=train_model(**MODELS[name]))
    for index, spans in enumerate(plainly(tokenizer, texts[:2000])["offset_mapping"]):
        assert all(0 <= start < stop <= len(texts[index]) for start, stop in spans), ascii(texts[index])
        assert all(a[0] <= b[0] and a[1] <= b[1] for a, b in pairwise(spans)), ascii(texts[index])


@pytest.mark.parametrize("language", SENTENCES)
def test_a_piece_that_normalisation_leaves_alone_is_found_at_its_offsets(language: str) -> None:
    text = SENTENCES[language]
    for tokenizer in both(train_model(normalization_rule_name="identity")):
        batch = plainly(tokenizer, text)
        for piece, (start, stop) in zip(batch.tokens(), batch["offset_mapping"], strict=True):
            assert piece == SPACE or piece.strip(SPACE) == text[start:stop].strip(" ")
        covered = {place for start, stop in batch["offset_mapping"] for place in range(start, stop)}
        assert covered == set(range(len(text)))


def test_offsets_lead_through_what_normalisation_spreads_joins_and_drops() -> None:
    text = "ﬁ e\u0301  \u200b½ ｶﾞ"
    for tokenizer in both(train_model()):
        row = plainly(tokenizer, text)
        seen = {piece: text[a:b] for piece, (a, b) in zip(row.tokens(), row["offset_mapping"], strict=True)}
        joined = "".join(row.tokens())
        assert joined == "▁fi▁é▁1⁄2▁ガ"
        assert next(part for piece, part in seen.items() if "é" in piece).strip() == "e\u0301"
        assert next(part for piece, part in seen.items() if "ガ" in piece).strip() == "ｶﾞ"
        assert "½" in next(part for piece, part in seen.items() if "2" in piece)


def test_the_bytes_of_a_character_all_come_from_it() -> None:
    text = "a\U0001f9ff\ua880 b"
    for tokenizer in both(train_model(**MODELS["bytes"])):
        batch = plainly(tokenizer, text)
        bytes_of = {
            "\U0001f9ff": "<0xF0><0x9F><0xA7><0xBF>",
            "\ua880": "<0xEA><0xA2><0x80>",
        }
        for character, spelled in bytes_of.items():
            span = text.index(character), text.index(character) + 1
            own = [t for t, found in zip(batch.tokens(), batch["offset_mapping"], strict=True) if found == span]
            assert "".join(own) == spelled
        assert tokenizer.decode(batch["input_ids"]) == text


def test_text_that_looks_like_a_control_byte_or_unknown_piece_is_text() -> None:
    for name in ("nmt_nfkc", "bytes"):
        model = train_model(**MODELS[name])
        processor = SentencePieceProcessor(model_proto=model)
        for text in ("[CLS] <unk> <pad>[SEP]", "<0xE2>", "a<0x41>b", "<s></s>"):
            for tokenizer in both(model):
                assert plainly(tokenizer, text)["input_ids"] == processor.encode(text)


def test_added_tokens_part_texts_that_are_each_segmented_alone() -> None:
    model = train_model()
    processor = SentencePieceProcessor(model_proto=model)
    first, second = processor.encode("This morning"), processor.encode("coffee")
    for tokenizer in both(model):
        mask = tokenizer.mask_token_id
        batch = tokenizer("This morning [MASK] coffee", return_offsets_mapping=True)
        assert batch["input_ids"][1:-1] == [*first, mask, *second]
        # The mask takes the blank before it.
        assert (12, 19) in batch["offset_mapping"]
        tokenizer.add_tokens(["<new>", AddedToken("CAFÉ", normalized=True)])
        new, cafe = tokenizer.convert_tokens_to_ids(["<new>", "CAFÉ"])
        assert tokenizer("This morning<new>coffee")["input_ids"][1:-1] == [*first, new, *second]
        # A token that is normalised is found however the text writes it.
        decomposed = tokenizer("coffee CAFE\u0301 coffee", return_offsets_mapping=True)
        assert decomposed["input_ids"][1:-1] == [*second, cafe, *second]
        assert (7, 12) in decomposed["offset_mapping"]
        assert tokenizer.decode(batch["input_ids"]) == "[CLS] This morning [MASK] coffee [SEP]"


@pytest.mark.parametrize("settings", [{}, *PREPARATIONS.values()], ids=["as it is", *PREPARATIONS])
def test_ids_alone_are_those_of_a_call(settings: dict[str, Any], texts: list[str]) -> None:
    tokenizer, some = RemBertTokenizer(model=train_model(), **settings), ["a [MASK] b", *texts[:600]]
    for added in (AddedToken("<new>", normalized=False), AddedToken("CAFÉ", normalized=True)):
        tokenizer.add_tokens([added])
        assert tokenizer.ids_alone(some) == tokenizer(some, add_special_tokens=False)["input_ids"]
    assert tokenizer.ids_alone([]) == []


def test_unknown_pieces_are_spelled_as_the_text_is() -> None:
    for tokenizer in both(train_model()):
        batch = tokenizer("a \U00010fff\U00010ffe b")
        assert "\U00010fff\U00010ffe" in batch.tokens()
        assert batch["input_ids"].count(tokenizer.unk_token_id) == 1


def test_defaults_are_those_of_the_checkpoints() -> None:
    for tokenizer in both(train_model()):
        assert (tokenizer.do_lower_case, tokenizer.remove_space, tokenizer.keep_accents) == (False, True, True)
        named = ("bos", "eos", "unk", "sep", "pad", "cls", "mask")
        tokens = [getattr(tokenizer, f"{name}_token") for name in named]
        assert tokens == ["[CLS]", "[SEP]", "<unk>", "[SEP]", "<pad>", "[CLS]", "[MASK]"]
        assert [getattr(tokenizer, f"{name}_token_id") for name in named] == [2, 3, 1, 3, 0, 2, 4]
        assert tokenizer.added_tokens_decoder[4].lstrip
        assert tokenizer.vocab_size == len(tokenizer) == len(SentencePieceProcessor(model_proto=train_model()))


def test_segmentations_are_drawn_when_that_is_asked_for() -> None:
    text = SENTENCES["English"]
    sampling = {"enable_sampling": True, "alpha": 0.1, "nbest_size": -1}
    tokenizer = RemBertTokenizer(model=train_model(), sp_model_kwargs=sampling)
    sentencepiece.set_random_generator_seed(3)
    drawn = {tuple(tokenizer(text)["input_ids"]) for _ in range(20)}
    assert len(drawn) > 10
    assert {tokenizer.decode(ids, skip_special_tokens=True) for ids in drawn} == {text}
    few = RemBertTokenizer(model=train_model(), sp_model_kwargs={**sampling, "nbest_size": 2})
    assert len({tuple(few(text)["input_ids"]) for _ in range(40)}) <= 2
    off = RemBertTokenizer(model=train_model(), sp_model_kwargs={**sampling, "enable_sampling": False})
    assert off(text)["input_ids"] == RemBertTokenizer(model=train_model())(text)["input_ids"]


def test_the_fast_one_says_that_it_cannot_draw(caplog: pytest.LogCaptureFixture) -> None:
    sampling = {"enable_sampling": True, "alpha": 0.1, "nbest_size": -1}
    fast = RemBertTokenizerFast(model=train_model(), sp_model_kwargs=sampling)
    assert "use_fast=False" in caplog.text
    assert fast.settings()["sp_model_kwargs"] == sampling


@classes
@pytest.mark.parametrize(
    ("sampling", "message"),
    [
        ({"seed": 1}, "'seed'"),
        ({"enable_sampling": True, "nbest_size": 1}, "nbest_size=1"),
        ({"nbest_size": "all"}, "nbest_size is 'all'"),
        ({"alpha": None}, "alpha is None"),
    ],
)
def test_sampling_is_checked_when_the_tokenizer_is_made(cls: type[Any], sampling: Any, message: str) -> None:
    with pytest.raises(TokenizerError, match=message):
        cls(model=train_model(), sp_model_kwargs=sampling)


@classes
@pytest.mark.parametrize("name", ["nmt_nfkc", "bytes", "user-defined symbols"])
def test_copies_and_pickles_say_the_same(cls: type[Any], name: str, texts: list[str]) -> None:
    original = cls(model=train_model(**MODELS[name]))
    for other in (pickle.loads(pickle.dumps(original)), copy.deepcopy(original)):
        assert dict(plainly(other, texts[:200])) == dict(plainly(original, texts[:200]))


@pytest.mark.parametrize("text", ["a" * 200_000, "\u4e00" * 50_000, " " * 200_000, "a " * 50_000], ids=len)
def test_long_texts_take_time_in_proportion_to_their_length(text: str) -> None:
    slow, fast = both(train_model())
    wanted = SentencePieceProcessor(model_proto=train_model()).encode(text)
    for tokenizer in (slow, fast):
        started = time.perf_counter()
        assert plainly(tokenizer, text)["input_ids"] == wanted
        # A tenth of a second; work that grows with the square of the length would take many minutes.
        assert time.perf_counter() - started < 20
