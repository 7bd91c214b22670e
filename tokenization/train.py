"""Learning a WordPiece vocabulary from text."""

from __future__ import annotations

from collections import Counter
from collections.abc import Iterable, Iterator

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
    "Japanese and Korean voice search"; here, as in the `tokenizers` library, the two neighbouring pieces that occur
    together most often become one piece, until there are enough. The texts are read once; what is kept in memory is
    their distinct words.

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
        >>> "lo" in vocab, "##west" in vocab
        (True, True)
    """
    if vocab_size <= len(special_tokens):
        raise TokenizerError(
            f"vocab_size={vocab_size} must be above {len(special_tokens)}, the number of special tokens."
        )
    normalizer = normalizers.BertNormalizer(
        clean_text=True,
        handle_chinese_chars=tokenize_chinese_chars,
        strip_accents=strip_accents,
        lowercase=lowercase,
    )
    words = _count_words(texts, normalizer)
    letters, pieces = _alphabet(words, limit_alphabet, vocab_size - len(special_tokens))
    tokenizer = Tokenizer(models.WordPiece(unk_token="[UNK]"))
    tokenizer.pre_tokenizer = pre_tokenizers.WhitespaceSplit()
    trainer = trainers.WordPieceTrainer(
        vocab_size=vocab_size,
        min_frequency=min_frequency,
        initial_alphabet=letters,
        limit_alphabet=len(letters),
        # The trainer numbers single characters in the order of a hash table, which differs from run to run and decides
        # which of two equally frequent pairs comes first. As "special" tokens they get fixed numbers.
        special_tokens=[*special_tokens, *pieces],
        continuing_subword_prefix="##",
        show_progress=show_progress,
    )
    tokenizer.train_from_iterator(_repeated(words), trainer)
    ids = tokenizer.get_vocab()
    return sorted(ids, key=lambda token: ids[token])


def _count_words(texts: Iterable[str], normalizer: normalizers.Normalizer) -> Counter[str]:
    if isinstance(texts, str):
        raise TokenizerError("texts is one string; it must be a list or another iterable of texts.")
    split = pre_tokenizers.BertPreTokenizer().pre_tokenize_str
    words: Counter[str] = Counter()
    for index, text in enumerate(texts):
        try:
            words.update(word for word, _ in split(normalizer.normalize_str(text)))
        except TypeError as error:
            raise TokenizerError(
                f"Text {index} is {text!r:.60} ({type(text).__name__}); it must be a string of valid Unicode."
            ) from error
    return words


def _alphabet(words: Counter[str], limit: int, room: int) -> tuple[list[str], list[str]]:
    """Return the characters to keep, and the pieces of one character that they make; at most `room` pieces."""
    counts: Counter[str] = Counter()
    inside: set[str] = set()
    for word, count in words.items():
        inside.update(word[1:])
        for character in word:
            counts[character] += count
    letters: list[str] = []
    for character in sorted(counts, key=lambda character: (-counts[character], character))[:limit]:
        room -= 2 if character in inside else 1
        if room < 0:
            break
        letters.append(character)
    letters.sort()
    return letters, letters + [f"##{character}" for character in letters if character in inside]


def _repeated(words: Counter[str], at_once: int = 1000) -> Iterator[str]:
    """Yield every word as often as it was counted."""
    for word in sorted(words):
        for done in range(0, words[word], at_once):
            yield " ".join([word] * min(at_once, words[word] - done))
