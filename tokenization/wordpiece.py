"""WordPiece: BERT's text normalisation, its splitting into words, and its pieces; in Python and on `tokenizers`.

The steps are those of Devlin et al. 2018, "BERT" (and of its published code): clean the text, put spaces around Chinese
characters, strip accents, lower; split at white space and around punctuation; then cut each word into the longest
pieces of the vocabulary from left to right (Wu et al. 2016, "Google's Neural Machine Translation System", section 4.1).
What each character is, `characters.py` says; offsets count characters of the text as it was given.
"""

from __future__ import annotations

import json
import os
from collections import defaultdict, deque
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any, ClassVar

from tokenizers import AddedToken, Tokenizer, decoders, models, normalizers, pre_tokenizers

from ..core.hub import write_text
from ..errors import TokenizerError
from .base import PreTrainedTokenizerBase
from .characters import KINDS, Rules, canonical_order, decompose, may_reorder, rewrites
from .fast import PreTrainedTokenizerFast
from .files import read_object, read_vocab, vocab_of
from .rows import Span
from .slow import Normalized, PreTrainedTokenizer
from .special_tokens import TokenLike

_SPACE, _PUNCTUATION = 1, 2
_REMEMBERED_WORDS = 20_000
VOCAB_FILE = "vocab.txt"


@dataclass(frozen=True)
class WordPieceSettings:
    """How WordPiece treats text; the fields are `tokenizer_config.json`'s.

    Attributes:
        do_lower_case: lower capitals.
        strip_accents: remove accents; as `do_lower_case` says if None.
        tokenize_chinese_chars: make every Chinese character a word.
        clean_text: remove control characters and turn every white space into a blank.
        do_basic_tokenize: normalise, and split around punctuation; otherwise words are split at white space alone.
        wordpieces_prefix: what a piece inside a word begins with.
        max_input_chars_per_word: a longer word is unknown as a whole.
    """

    do_lower_case: bool = True
    strip_accents: bool | None = None
    tokenize_chinese_chars: bool = True
    clean_text: bool = True
    do_basic_tokenize: bool = True
    wordpieces_prefix: str = "##"
    max_input_chars_per_word: int = 100

    @property
    def rules(self) -> Rules:
        """The steps of normalisation that are on."""
        if not self.do_basic_tokenize:
            return Rules(False, False, False, False)
        strip = self.do_lower_case if self.strip_accents is None else self.strip_accents
        return Rules(self.clean_text, self.tokenize_chinese_chars, strip, self.do_lower_case)


def normalize(text: str, rules: Rules) -> Normalized:
    """Return BERT's normal form of a text.

    Every normal character stands for one original character, even where one became several.

    Example:
        >>> normalize("Ça 中", Rules()).text
        'ca  中 '
    """
    if rules.strip_accents and may_reorder(set(text)):
        return _normalize_in_steps(text, rules)
    table = rewrites(rules)
    parts: list[str] = []
    starts: list[int] = []
    for index, character in enumerate(text):
        normal = table[character]
        if len(normal) == 1:
            parts.append(normal)
            starts.append(index)
        elif normal:
            parts.append(normal)
            starts.extend([index] * len(normal))
    return Normalized("".join(parts), starts, [start + 1 for start in starts])


def _normalize_in_steps(text: str, rules: Rules) -> Normalized:
    """Normalise a text in which marks that stay are put into canonical order.

    Such a mark takes another's place, and with it, as in `tokenizers`, the other's offset.
    """
    clean = rewrites(Rules(rules.clean_text, rules.handle_chinese_chars, False, False))
    cleaned = [(part, index) for index, character in enumerate(text) for part in clean[character]]
    # Each decomposed character, and whether it is the first of its original one.
    decomposed = [(part, i == 0) for character, _ in cleaned for i, part in enumerate(decompose(character))]
    flags: defaultdict[str, deque[bool]] = defaultdict(deque)
    for part, first in decomposed:
        flags[part].append(first)
    kept = rewrites(Rules(False, False, True, False))
    lowered = rewrites(Rules(False, False, False, rules.lowercase))
    parts: list[str] = []
    starts: list[int] = []
    place = 0
    for part in canonical_order("".join(part for part, _ in decomposed)):
        place += flags[part].popleft()
        if kept[part]:
            parts.append(lowered[part])
            starts.extend([cleaned[max(place - 1, 0)][1]] * len(lowered[part]))
    return Normalized("".join(parts), starts, [start + 1 for start in starts])


def split_words(text: str, punctuation: bool = True) -> Iterator[Span]:
    """Yield where each word of a normalised text begins and ends; a punctuation character is a word of its own.

    Example:
        >>> [("don't stop")[a:b] for a, b in split_words("don't stop")]
        ['don', "'", 't', 'stop']
    """
    start = 0
    for index, character in enumerate(text):
        kind = KINDS[character]
        if kind and (punctuation or kind == _SPACE):
            if start < index:
                yield start, index
            if kind == _PUNCTUATION:
                yield index, index + 1
            start = index + 1
    if start < len(text):
        yield start, len(text)


def longest_pieces(
    word: str, vocab: Mapping[str, int], unknown: int, prefix: str = "##", limit: int = 100
) -> list[tuple[int, int, int]]:
    """Cut a word into the longest pieces of the vocabulary, from left to right.

    Returns:
        `(id, start, stop)` of each piece; one unknown piece if the word has more than `limit` characters or its rest
        begins with nothing in the vocabulary. At most `limit` squared look-ups.

    Example:
        >>> longest_pieces("unable", {"[UNK]": 0, "un": 1, "##able": 2, "##a": 3}, unknown=0)
        [(1, 0, 2), (2, 2, 6)]
    """
    length = len(word)
    whole = [(unknown, 0, length)]
    if length > limit:
        return whole
    pieces: list[tuple[int, int, int]] = []
    start = 0
    while start < length:
        for stop in range(length, start, -1):
            found = vocab.get(prefix + word[start:stop] if start else word[:stop])
            if found is not None:
                pieces.append((found, start, stop))
                start = stop
                break
        else:
            return whole
    return pieces


def wordpiece_backend(vocab: Mapping[str, int], settings: WordPieceSettings, unk_token: str) -> Tokenizer:
    """Return a `tokenizers.Tokenizer` with this vocabulary and these settings, without special tokens yet."""
    backend = Tokenizer(
        models.WordPiece(
            dict(vocab),
            unk_token=unk_token,
            continuing_subword_prefix=settings.wordpieces_prefix,
            max_input_chars_per_word=settings.max_input_chars_per_word,
        )
    )
    _set_text_steps(backend, settings)
    backend.decoder = decoders.WordPiece(prefix=settings.wordpieces_prefix)
    return backend


def _set_text_steps(backend: Tokenizer, settings: WordPieceSettings) -> None:
    if not settings.do_basic_tokenize:
        backend.normalizer = normalizers.Sequence([])
        backend.pre_tokenizer = pre_tokenizers.WhitespaceSplit()
        return
    backend.normalizer = normalizers.BertNormalizer(
        clean_text=settings.clean_text,
        handle_chinese_chars=settings.tokenize_chinese_chars,
        strip_accents=settings.strip_accents,
        lowercase=settings.do_lower_case,
    )
    backend.pre_tokenizer = pre_tokenizers.BertPreTokenizer()


class _WordPieceBase(PreTrainedTokenizerBase):
    """What both WordPiece tokenizers share: their arguments, their vocabulary, their spelling."""

    vocab_files_names: ClassVar[dict[str, str]] = {"vocab_file": VOCAB_FILE, "tokenizer_file": "tokenizer.json"}
    _settings: WordPieceSettings

    def __init__(
        self,
        vocab_file: str | os.PathLike[str] | None = None,
        do_lower_case: bool | None = None,
        *,
        vocab: Mapping[str, int] | Sequence[str] | None = None,
        tokenizer_file: str | os.PathLike[str] | None = None,
        tokenizer_object: Tokenizer | None = None,
        do_basic_tokenize: bool | None = None,
        never_split: Sequence[str] | None = None,
        unk_token: TokenLike = "[UNK]",
        sep_token: TokenLike = "[SEP]",
        pad_token: TokenLike | None = "[PAD]",
        cls_token: TokenLike = "[CLS]",
        mask_token: TokenLike | None = "[MASK]",
        tokenize_chinese_chars: bool | None = None,
        strip_accents: bool | None = None,
        clean_text: bool | None = None,
        wordpieces_prefix: str | None = None,
        max_input_chars_per_word: int | None = None,
        **kwargs: Any,
    ) -> None:
        if never_split:
            raise TokenizerError(
                f"never_split={never_split!r} is not supported, since the fast tokenizers cannot do it: use "
                "tokenizer.add_tokens(...) for words that must stay whole."
            )
        state = _backend_state(tokenizer_file, tokenizer_object)
        asked = {
            "do_lower_case": do_lower_case,
            "strip_accents": strip_accents,
            "tokenize_chinese_chars": tokenize_chinese_chars,
            "clean_text": clean_text,
            "do_basic_tokenize": do_basic_tokenize,
            "wordpieces_prefix": wordpieces_prefix,
            "max_input_chars_per_word": max_input_chars_per_word,
        }
        read = _read_settings(state) if state else {}
        self._settings = WordPieceSettings(**{**read, **{k: v for k, v in asked.items() if v is not None}})
        self._read_settings_from_backend = read
        if vocab is not None:
            ids = dict(vocab) if isinstance(vocab, Mapping) else vocab_of(vocab, "vocab")
        elif state and (self.is_fast or vocab_file is None):
            ids = dict(state["model"]["vocab"])
        elif vocab_file is not None:
            ids = read_vocab(vocab_file)
        else:
            raise TokenizerError("A tokenizer needs a vocabulary: pass vocab_file, vocab or tokenizer_file.")
        unknown = unk_token if isinstance(unk_token, str) else getattr(unk_token, "content", None)
        if unknown not in ids:
            raise TokenizerError(
                f"{'vocab' if vocab is not None else vocab_file or tokenizer_file}: the unknown token {unknown!r} is "
                "not in the vocabulary. Pass unk_token=... if it is called otherwise; if not, this is no WordPiece "
                "vocabulary."
            )
        if state and not kwargs.get("added_tokens_decoder"):
            kwargs["added_tokens_decoder"] = {
                entry["id"]: {key: value for key, value in entry.items() if key != "id"}
                for entry in state.get("added_tokens") or ()
            }
        self._start(ids, state)
        super().__init__(
            ids,
            special_tokens={
                "unk_token": unk_token,
                "sep_token": sep_token,
                "pad_token": pad_token,
                "cls_token": cls_token,
                "mask_token": mask_token,
            },
            settings={
                "do_lower_case": self._settings.do_lower_case,
                "do_basic_tokenize": self._settings.do_basic_tokenize,
                "never_split": None,
                "strip_accents": self._settings.strip_accents,
                "tokenize_chinese_chars": self._settings.tokenize_chinese_chars,
                **{
                    name: value
                    for name, value in asked.items()
                    if name in ("clean_text", "wordpieces_prefix", "max_input_chars_per_word") and value is not None
                },
            },
            rest=kwargs,
        )
        self._joints()
        self._finish()

    def _start(self, vocab: dict[str, int], state: dict[str, Any] | None) -> None:
        """Set up what must be there before the tokens are."""

    def _finish(self) -> None:
        """Set up what needs the tokens."""

    @property
    def do_lower_case(self) -> bool:
        """Whether capitals are lowered."""
        return self._settings.do_lower_case

    def _check_token(self, token: AddedToken) -> None:
        if token.normalized and not normalize(token.content, self._settings.rules).text:
            raise TokenizerError(
                f"The token {token.content!r} is nothing once text is normalised, so it could never be found: add it "
                "as AddedToken(..., normalized=False)."
            )

    def convert_tokens_to_string(self, tokens: Sequence[str]) -> str:
        """Join tokens into a text: pieces to the word before them, words with blanks.

        Example:
            >>> vocab = ["[PAD]", "[UNK]", "[CLS]", "[SEP]", "[MASK]", "un", "##able"]
            >>> WordPieceTokenizer(vocab=vocab).convert_tokens_to_string(["un", "##able", "[SEP]"])
            'unable [SEP]'
        """
        prefix = self._settings.wordpieces_prefix
        return " ".join(tokens).replace(" " + prefix, "").strip()

    def save_vocabulary(self, save_directory: str | os.PathLike[str], filename_prefix: str | None = None) -> tuple[str]:
        """Write `vocab.txt`, one token a line in the order of the ids, and return its path.

        Raises:
            TokenizerError: the ids have a gap, or a token holds a line break, so the file could not be read back.
        """
        tokens = sorted(self._vocab, key=lambda token: self._vocab[token])
        for index, token in enumerate(tokens):
            if self._vocab[token] != index:
                raise TokenizerError(f"vocab.txt cannot be written: the vocabulary has no token with id {index}.")
            if "\n" in token or token.endswith("\r"):
                raise TokenizerError(f"vocab.txt cannot be written: the token {token!r} holds a line break.")
        path = Path(save_directory) / (f"{filename_prefix}-{VOCAB_FILE}" if filename_prefix else VOCAB_FILE)
        write_text(path, "".join(f"{token}\n" for token in tokens))
        return (str(path),)


class WordPieceTokenizer(_WordPieceBase, PreTrainedTokenizer):
    """WordPiece in Python. The arguments are those of a family's class, such as `MobileBertTokenizer`."""

    def _start(self, vocab: dict[str, int], state: dict[str, Any] | None) -> None:
        self._remembered: dict[str, list[tuple[int, int, int]]] = {}
        if state:
            _refuse_foreign_steps(state)

    def _normalize(self, text: str) -> Normalized:
        return normalize(text, self._settings.rules)

    def _words(self, text: str) -> Iterator[Span]:
        return split_words(text, self._settings.do_basic_tokenize)

    def _word_pieces(self, word: str) -> Sequence[tuple[int, int, int]]:
        pieces = self._remembered.get(word)
        if pieces is None:
            settings = self._settings
            unknown = self._vocab[str(self.unk_token)]
            pieces = longest_pieces(
                word, self._vocab, unknown, settings.wordpieces_prefix, settings.max_input_chars_per_word
            )
            if len(word) <= settings.max_input_chars_per_word:
                if len(self._remembered) >= _REMEMBERED_WORDS:
                    self._remembered.clear()
                self._remembered[word] = pieces
        return pieces

    def backend_json(self) -> str:
        """Return the content of `tokenizer.json`: what the fast twin would save."""
        backend = wordpiece_backend(self._vocab, self._settings, str(self.unk_token))
        twin = WordPieceTokenizerFast(tokenizer_object=backend, **self.special_tokens_map_extended, **_added(self))
        return twin.backend_json()

    def __getstate__(self) -> dict[str, Any]:
        return {**super().__getstate__(), "_remembered": {}}


class WordPieceTokenizerFast(_WordPieceBase, PreTrainedTokenizerFast):
    """WordPiece on `tokenizers`. The arguments are those of a family's class, such as `MobileBertTokenizerFast`."""

    def _start(self, vocab: dict[str, int], state: dict[str, Any] | None) -> None:
        self._first_backend = None if state is None else Tokenizer.from_str(json.dumps(state))

    def _finish(self) -> None:
        backend = self._first_backend
        del self._first_backend
        if backend is None:
            backend = wordpiece_backend(self._vocab, self._settings, str(self.unk_token))
        else:
            backend.model.unk_token = str(self.unk_token)
            if self._read_settings_from_backend != _in_force(self._settings, self._read_settings_from_backend):
                backend.model.continuing_subword_prefix = self._settings.wordpieces_prefix
                backend.model.max_input_chars_per_word = self._settings.max_input_chars_per_word
                _set_text_steps(backend, self._settings)
        self._set_up_backend(backend)


def _added(tokenizer: PreTrainedTokenizerBase) -> dict[str, Any]:
    return {"added_tokens_decoder": tokenizer.added_tokens_decoder}


def _in_force(settings: WordPieceSettings, names: Mapping[str, Any]) -> dict[str, Any]:
    return {name: getattr(settings, name) for name in names}


def _backend_state(path: str | os.PathLike[str] | None, backend: Tokenizer | None) -> dict[str, Any] | None:
    """Return the content of a `tokenizer.json`, of a file or of a tokenizer.

    Raises:
        TokenizerError: it is damaged, or of another algorithm.
    """
    if backend is not None:
        state: dict[str, Any] = json.loads(backend.to_str())
        where = "tokenizer_object"
    elif path is not None:
        state, where = read_object(path), str(path)
    else:
        return None
    model = state.get("model")
    kind = model.get("type", "WordPiece") if isinstance(model, dict) else None
    if kind != "WordPiece" or not isinstance(model.get("vocab"), dict):
        raise TokenizerError(f"{where}: this holds a model of type {kind!r}, and WordPiece is needed.")
    try:
        Tokenizer.from_str(json.dumps(state))
    except Exception as error:
        raise TokenizerError(f"{where}: the tokenizers library cannot read this file: {error}.") from error
    return state


def _read_settings(state: Mapping[str, Any]) -> dict[str, Any]:
    """Return the settings that a `tokenizer.json` says."""
    model, normalizer = state["model"], state.get("normalizer") or {}
    found = {
        "wordpieces_prefix": model.get("continuing_subword_prefix", "##"),
        "max_input_chars_per_word": model.get("max_input_chars_per_word", 100),
    }
    if normalizer.get("type") == "BertNormalizer":
        found |= {
            "do_lower_case": normalizer["lowercase"],
            "strip_accents": normalizer["strip_accents"],
            "tokenize_chinese_chars": normalizer["handle_chinese_chars"],
            "clean_text": normalizer["clean_text"],
        }
    elif (state.get("pre_tokenizer") or {}).get("type") == "WhitespaceSplit":
        found["do_basic_tokenize"] = False
    return found


def _refuse_foreign_steps(state: Mapping[str, Any]) -> None:
    """Raise a TokenizerError if a `tokenizer.json` prepares text in a way that is not BERT's."""
    steps = tuple((state.get(name) or {}).get("type") for name in ("normalizer", "pre_tokenizer"))
    if steps not in (
        ("BertNormalizer", "BertPreTokenizer"),
        ("Sequence", "WhitespaceSplit"),
        (None, "WhitespaceSplit"),
    ):
        raise TokenizerError(
            f"tokenizer.json prepares text by {steps[0]} and {steps[1]}, which the tokenizer in Python does not know: "
            "use the fast one."
        )
