"""Learning a WordPiece vocabulary from text."""

from __future__ import annotations

from collections.abc import Iterable

from tokenizers import Tokenizer, models, normalizers, pre_tokenizers, trainers

from ..errors import TokenizerError

SPECIAL_TOKENS = ("[PAD]", "[UNK]", "[CLS]", "[SEP]", "[MASK]")


def train_wordpiece(
    texts: Iterable[str],
    vocab_size: int,
    *,
    min_frequency: int = 2,
    lowercase: bool = True,
    strip_accents: bool | None = None,
    tokenize_chinese_chars: bool = True,
    limit_alphabet: int = 1000,
    special_tokens: tuple[str, ...] = SPECIAL_TOKENS,
    show_progress: bool = False,
) -> list[str]:
    """Return a WordPiece vocabulary learned from texts; a token's place in the list is its id.

    The same texts and arguments always give the same vocabulary. WordPiece is described in Schuster and Nakajima 2012,
    "Japanese and Korean voice search"; pairs of pieces are merged by how often they occur together.

    Args:
        texts: the texts to learn from.
        vocab_size: the size wanted, special tokens included; fewer tokens come back if the texts hold no more.
        min_frequency: how often a pair must occur to be merged.
        lowercase: lower the texts' capitals; give the tokenizer the same `do_lower_case`.
        strip_accents: remove accents; as `lowercase` says if None.
        tokenize_chinese_chars: make every Chinese character a word.
        limit_alphabet: how many different characters are kept at most, the most frequent ones.
        special_tokens: the first tokens, in this order.
        show_progress: draw a progress bar.

    Raises:
        TokenizerError: `vocab_size` leaves no room beside the special tokens, or a text is not a string.

    Example:
        >>> vocab = train_wordpiece(["low lower lowest", "new newer newest"], vocab_size=40)
        >>> vocab[:5]
        ['[PAD]', '[UNK]', '[CLS]', '[SEP]', '[MASK]']
        >>> "low" in vocab, "##est" in vocab
        (True, True)
    """
    if vocab_size <= len(special_tokens):
        raise TokenizerError(
            f"vocab_size={vocab_size} must be above {len(special_tokens)}, the number of special tokens."
        )
    tokenizer = Tokenizer(models.WordPiece(unk_token="[UNK]"))
    tokenizer.normalizer = normalizers.BertNormalizer(
        clean_text=True,
        handle_chinese_chars=tokenize_chinese_chars,
        strip_accents=strip_accents,
        lowercase=lowercase,
    )
    tokenizer.pre_tokenizer = pre_tokenizers.BertPreTokenizer()
    trainer = trainers.WordPieceTrainer(
        vocab_size=vocab_size,
        min_frequency=min_frequency,
        limit_alphabet=limit_alphabet,
        special_tokens=list(special_tokens),
        continuing_subword_prefix="##",
        show_progress=show_progress,
    )
    try:
        tokenizer.train_from_iterator(texts, trainer)
    except TypeError as error:
        raise TokenizerError(f"Every one of the texts must be a string: {error}.") from error
    ids = tokenizer.get_vocab()
    return sorted(ids, key=lambda token: ids[token])
