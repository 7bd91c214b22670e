"""Learning a WordPiece vocabulary or a Unigram model from text."""

from __future__ import annotations

import io
from collections import Counter
from collections.abc import Iterable, Iterator

import sentencepiece
from tokenizers import Tokenizer, models, normalizers, pre_tokenizers, trainers

from ..errors import TokenizerError

SPECIAL_TOKENS = ("[PAD]", "[UNK]", "[CLS]", "[SEP]", "[MASK]")

UNIGRAM_SPECIAL_TOKENS = ("<pad>", "<unk>", "[CLS]", "[SEP]", "[MASK]")


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


def train_unigram(texts: Iterable[str], vocab_size: int, *, character_coverage: float = 0.9995) -> bytes:
    """Return a SentencePiece model of the Unigram kind learned from texts (Kudo 2018, arXiv 1804.10959).

    It begins with `<pad>`, `<unk>`, `[CLS]`, `[SEP]` and `[MASK]`. The same texts and arguments always give the same
    model.

    Args:
        texts: the texts to learn from.
        vocab_size: the size wanted, those five included; fewer pieces come back if the texts hold no more.
        character_coverage: the share of the texts' characters that are to be pieces; the rarest are left unknown.

    Raises:
        TokenizerError: `vocab_size` leaves no room for the texts' characters, there is no text, or one is not a string.

    Example:
        >>> from isobert.tokenization.rembert import RemBertTokenizerFast
        >>> model = train_unigram(["low lower lowest", "new newer newest"] * 9, vocab_size=30)
        >>> tokenizer = RemBertTokenizerFast(model=model)
        >>> tokenizer.convert_ids_to_tokens([0, 1, 2, 3, 4])
        ['<pad>', '<unk>', '[CLS]', '[SEP]', '[MASK]']
        >>> tokenizer.decode(tokenizer("newest")["input_ids"], skip_special_tokens=True)
        'newest'
    """
    texts = _checked(texts)
    model = io.BytesIO()
    try:
        sentencepiece.SentencePieceTrainer.train(
            sentence_iterator=iter(texts),
            model_writer=model,
            model_type="unigram",
            vocab_size=vocab_size,
            hard_vocab_limit=False,
            character_coverage=character_coverage,
            # Longer texts would be left out; 10 is the least that it takes.
            max_sentence_length=max([10, *(len(text.encode()) for text in texts)]),
            pad_id=0,
            unk_id=1,
            bos_id=-1,
            eos_id=-1,
            pad_piece=UNIGRAM_SPECIAL_TOKENS[0],
            unk_piece=UNIGRAM_SPECIAL_TOKENS[1],
            control_symbols=list(UNIGRAM_SPECIAL_TOKENS[2:]),
            # More threads would add up the same numbers in another order.
            num_threads=1,
            minloglevel=3,
        )
    except (RuntimeError, OSError) as error:
        raise TokenizerError(
            f"No model of {vocab_size} pieces can be learned from {len(texts)} texts; SentencePiece says: {error}"
        ) from error
    return model.getvalue()


def _checked(texts: Iterable[str]) -> list[str]:
    """Return texts as a list.

    Raises:
        TokenizerError: they are one string, or one of them is no string of valid Unicode.
    """
    if isinstance(texts, str):
        raise TokenizerError("texts is one string; it must be a list or another iterable of texts.")
    found = list(texts)
    for index, text in enumerate(found):
        try:
            text.encode()
        except (AttributeError, UnicodeEncodeError) as error:
            raise TokenizerError(
                f"Text {index} is {text!r:.60} ({type(text).__name__}); it must be a string of valid Unicode."
            ) from error
    return found


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
