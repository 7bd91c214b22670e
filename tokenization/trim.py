"""Leaving out of a Unigram vocabulary what given texts do not use.

The best way to cut a text into pieces (Kudo 2018, "Subword Regularization", section 3.2) is made of pieces that stay,
and leaving others out adds no better one. What could: SentencePiece derives the cost of an unknown character from the
lowest score, and the gain of a user-defined symbol from the highest. So the pieces with these scores stay too.
"""

from __future__ import annotations

from collections.abc import Collection, Iterable, Iterator
from dataclasses import replace
from itertools import islice
from typing import NamedTuple

from ..errors import TokenizerError
from .arguments import check_encodable
from .sentencepiece_model import NORMAL, UNUSED
from .unigram_tokenizers import UnigramTokenizer, UnigramTokenizerFast

_AT_ONCE = 10_000

AnyUnigram = UnigramTokenizer | UnigramTokenizerFast


class Trimmed(NamedTuple):
    """A tokenizer with fewer pieces, and what its ids were.

    Attributes:
        tokenizer: the new tokenizer.
        kept: the old id of each new one, in ascending order.
    """

    tokenizer: AnyUnigram
    kept: tuple[int, ...]


def trim_tokenizer(tokenizer: AnyUnigram, texts: Iterable[str], also: Collection[int] = ()) -> Trimmed:
    """Return a tokenizer of the same class that holds only what some texts use, and cuts them into the same pieces.

    Kept are the pieces of the texts; each of their characters that is a piece by itself, so that other texts in the
    same letters are not unknown; every control, unknown, user-defined and byte piece; every added and special token;
    and the pieces with the lowest and the highest score. They keep their scores and their order. Then the texts are
    cut by both tokenizers and compared.

    Args:
        tokenizer: the tokenizer; it stays as it is.
        texts: the texts, gone through twice: a list, or anything else that can be.
        also: further ids to keep; those that the tokenizer lacks are passed over.

    Raises:
        TokenizerError: there is no text, the texts can be gone through only once, the tokenizer draws its segmentations
            at random, or a text is cut otherwise.

    Example:
        >>> from isobert.tokenization.rembert import RemBertTokenizer
        >>> from isobert.tokenization.sentencepiece_model import CONTROL, NORMAL, UNKNOWN, SentencePieceModel
        >>> pieces = ("<unk>", "[CLS]", "[SEP]", "[MASK]", "<pad>", "\u2581she", "\u2581is", "\u2581un", "s", "h")
        >>> types = bytes([UNKNOWN, *[CONTROL] * 4, *[NORMAL] * 5])
        >>> model = SentencePieceModel(pieces, (0.0,) * 5 + (-2.0, -2.0, -2.0, -3.0, -3.0), types)
        >>> trimmed = trim_tokenizer(RemBertTokenizer(model=model), ["is"])
        >>> trimmed.kept
        (0, 1, 2, 3, 4, 5, 6, 8)
        >>> trimmed.tokenizer.convert_ids_to_tokens([6, 7])
        ['\u2581is', 's']
    """
    if isinstance(texts, str):
        raise TokenizerError("texts is one string; give a list of texts.")
    if isinstance(texts, Iterator):
        raise TokenizerError("The texts are gone through twice, and this iterator ends after once: give a list.")
    if tokenizer.settings()["sp_model_kwargs"].get("enable_sampling"):
        raise TokenizerError(
            "The tokenizer draws its segmentations at random (sp_model_kwargs), so what a text uses is not settled: "
            "open it with sp_model_kwargs={}."
        )
    used: set[int] = set()
    for rows in _encoded(tokenizer, texts):
        for row in rows:
            used.update(row)
    if not used:
        raise TokenizerError("There is no text to trim the vocabulary to.")
    kept = _kept(tokenizer, used, also)
    trimmed = Trimmed(_with_pieces(tokenizer, kept), kept)
    _check(tokenizer, trimmed, texts)
    return trimmed


def _kept(tokenizer: AnyUnigram, used: Collection[int], also: Collection[int]) -> tuple[int, ...]:
    model, held = tokenizer.model, range(len(tokenizer))
    normal = [index for index, kind in enumerate(model.types) if kind == NORMAL]
    kept = {index for index, kind in enumerate(model.types) if kind not in (NORMAL, UNUSED)}
    kept.update(used, tokenizer.added_tokens_decoder, tokenizer.all_special_ids)
    kept.update(index for index in also if index in held)
    letters = {letter for index in used if index < len(model.pieces) for letter in model.pieces[index]}
    kept.update(index for index in normal if model.pieces[index] in letters)
    if normal:
        kept.update(extreme(normal, key=model.scores.__getitem__) for extreme in (min, max))
    return tuple(sorted(kept))


def _with_pieces(tokenizer: AnyUnigram, kept: tuple[int, ...]) -> AnyUnigram:
    """Return the same tokenizer with these pieces alone."""
    model = tokenizer.model
    own = [index for index in kept if index < len(model.pieces)]
    small = replace(
        model,
        pieces=tuple(model.pieces[index] for index in own),
        scores=tuple(model.scores[index] for index in own),
        types=bytes(model.types[index] for index in own),
        raw=b"",
    )
    new = {old: index for index, old in enumerate(kept)}
    added = {new[index]: token for index, token in tokenizer.added_tokens_decoder.items()}
    # A token that the tokenizer lacks is said to be lacking, since the class has one of its own otherwise.
    absent = dict.fromkeys(("bos_token", "eos_token", "pad_token", "mask_token"))
    special = tokenizer.special_tokens_map_extended
    return type(tokenizer)(model=small, **{**absent, **tokenizer.settings(), **special, "added_tokens_decoder": added})


def _check(old: AnyUnigram, trimmed: Trimmed, texts: Iterable[str]) -> None:
    """Raise where the two tokenizers differ on a text."""
    kept = trimmed.kept
    place = 0
    for rows, found in zip(_encoded(old, texts), _encoded(trimmed.tokenizer, texts), strict=True):
        for row, ids in zip(rows, found, strict=True):
            if row != [kept[index] for index in ids]:
                text = next(islice(iter(texts), place, None))
                before, after = (
                    " ".join(t.convert_ids_to_tokens(i)) for t, i in ((old, row), (trimmed.tokenizer, ids))
                )
                raise TokenizerError(
                    f"Text {place + 1} ({text[:80]!r}) would be cut otherwise with fewer pieces: {before[:200]!r} "
                    f"would become {after[:200]!r}. Leave this text out."
                )
            place += 1


def _encoded(tokenizer: AnyUnigram, texts: Iterable[str]) -> Iterator[list[list[int]]]:
    """Yield the ids of the texts' pieces, some texts at a time."""
    exact = tokenizer if isinstance(tokenizer, UnigramTokenizer) else tokenizer._twin(UnigramTokenizer)
    waiting = iter(texts)
    while batch := list(islice(waiting, _AT_ONCE)):
        check_encodable(batch)
        yield exact.ids_alone(batch)
