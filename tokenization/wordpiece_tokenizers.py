"""The WordPiece tokenizers, in Python and on `tokenizers`: their arguments, their files, their spelling."""

from __future__ import annotations

import json
import os
import re
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any, ClassVar

from tokenizers import AddedToken, Tokenizer, decoders, models, normalizers, pre_tokenizers

from ..core.hub import write_text
from ..errors import TokenizerError
from .added import AddedTokenMatcher
from .base import PreTrainedTokenizerBase
from .characters import may_reorder
from .fast import PreTrainedTokenizerFast
from .files import added_of, backend_state, read_vocab, vocab_of
from .rows import Encoding, Span
from .slow import Normalized, PreTrainedTokenizer
from .special_tokens import TokenLike
from .wordpiece import WordPieceSettings, longest_pieces, normalize, split_words

_CHUNK = re.compile(r"[^ \t\r\n]+")
_Chunk = tuple[list[int], list[str], list[Span], list[int]]

# How many chunks are remembered, and of how many characters.
_REMEMBERED, _LONGEST_REMEMBERED = 20_000, 64
VOCAB_FILE = "vocab.txt"


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
        clean_up_tokenization_spaces: bool | None = True,
        **kwargs: Any,
    ) -> None:
        if never_split:
            raise TokenizerError(
                f"never_split={never_split!r} is not supported, since the fast tokenizers cannot do it: use "
                "tokenizer.add_tokens(...) for words that must stay whole."
            )
        state = backend_state(tokenizer_file, tokenizer_object, "WordPiece", dict)
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
            kwargs["added_tokens_decoder"] = added_of(state)
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
            rest={**kwargs, "clean_up_tokenization_spaces": clean_up_tokenization_spaces is not False},
        )
        self._joints()
        self._warn_about_likes()
        self._finish()

    def _start(self, vocab: dict[str, int], state: dict[str, Any] | None) -> None:
        """Set up what must be there before the tokens are."""

    def _finish(self) -> None:
        """Set up what needs the tokens."""

    @property
    def do_lower_case(self) -> bool:
        """Whether capitals are lowered."""
        return self._settings.do_lower_case

    def _look(self, token: AddedToken) -> str:
        return normalize(token.content, self._settings.rules).text

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
    """WordPiece in Python.

    Args:
        vocab_file: a file with one token a line; the line's number, from 0, is the id.
        do_lower_case: lower capitals (True).
        vocab: the vocabulary itself instead of its file: a list of tokens, or a mapping from tokens to ids.
        tokenizer_file: a `tokenizer.json`, from which the vocabulary and the settings can come as well.
        tokenizer_object: the same as a `tokenizers.Tokenizer`.
        do_basic_tokenize: normalise text and split it around punctuation (True); otherwise at white space alone.
        never_split: not supported; use `add_tokens`.
        unk_token, sep_token, pad_token, cls_token, mask_token: the special tokens.
        tokenize_chinese_chars: make every Chinese character a word (True); switch it off for Japanese.
        strip_accents: remove accents; as `do_lower_case` says if None.
        clean_text: remove control characters, and make blanks of all white space (True).
        wordpieces_prefix: what a piece inside a word begins with ("##").
        max_input_chars_per_word: a longer word becomes one unknown token (100).
        clean_up_tokenization_spaces: whether `decode` removes spaces before English punctuation (True).
        kwargs: `model_max_length`, `padding_side`, `truncation_side`, `model_input_names`, `additional_special_tokens`,
            `added_tokens_decoder`; any other is kept and saved.

    Raises:
        TokenizerError: the vocabulary is missing, lacks the unknown token, or holds a token twice.
    """

    def _start(self, vocab: dict[str, int], state: dict[str, Any] | None) -> None:
        self._longest = max(map(len, vocab), default=0)
        self._remembered: dict[str, _Chunk | None] = {}
        if state:
            _refuse_foreign_steps(state)

    def _tokens_changed(self, fresh: Sequence[AddedToken], *, rebuild: bool) -> None:
        super()._tokens_changed(fresh, rebuild=rebuild)
        self._remembered = {}

    def _normalize(self, text: str) -> Normalized:
        return normalize(text, self._settings.rules)

    def _add_stretch(
        self, row: Encoding, text: str, offset: int, normalised: AddedTokenMatcher, word: int | None
    ) -> None:
        if normalised and normalised.finds(self._normalize(text).text):
            self._add_normal(row, text, offset, normalised, word)
            return
        # White space parts words, and nothing that is done to a text reaches over it.
        chunks: list[tuple[int, _Chunk]] = []
        for match in _CHUNK.finditer(text):
            chunk = self._chunk(match.group())
            if chunk is None:
                self._add_normal(row, text, offset, normalised, word)
                return
            chunks.append((offset + match.start(), chunk))
        for start, (ids, tokens, spans, words) in chunks:
            number = row.next_word
            row.ids += ids
            row.tokens += tokens
            row.offsets += [(start + first, start + after) for first, after in spans]
            row.word_ids += [number + index for index in words] if word is None else [word] * len(ids)

    def _chunk(self, chunk: str) -> _Chunk | None:
        """Return the tokens of a text without white space; None if what is around it may change their places."""
        try:
            return self._remembered[chunk]
        except KeyError:
            found = None
        if not (self._settings.rules.strip_accents and may_reorder(chunk)):
            row = Encoding()
            self._add_normal(row, chunk, 0, None, None)
            found = row.ids, row.tokens, row.offsets, row.word_ids
        if len(chunk) <= _LONGEST_REMEMBERED:
            if len(self._remembered) >= _REMEMBERED:
                self._remembered.clear()
            self._remembered[chunk] = found
        return found

    def _add_normal(
        self, row: Encoding, text: str, offset: int, normalised: AddedTokenMatcher | None, word: int | None
    ) -> None:
        """Add a text's tokens to a row by way of its whole normal form; the arguments are those of `_add_stretch`."""
        normal, starts, stops = self._normalize(text)
        settings = self._settings
        unknown = self._vocab[str(self.unk_token)]
        for found, left, right in normalised.split(normal) if normalised else [(None, 0, len(normal))]:
            if found is not None:
                self._add_token(row, found, offset + starts[left], offset + stops[right - 1], word)
                continue
            segment = normal[left:right]
            for start, stop in split_words(segment, settings.do_basic_tokenize):
                number = row.next_word if word is None else word
                pieces = longest_pieces(
                    segment[start:stop],
                    self._vocab,
                    unknown,
                    settings.wordpieces_prefix,
                    settings.max_input_chars_per_word,
                    self._longest,
                )
                at = left + start
                for token_id, first, after in pieces:
                    span = offset + starts[at + first], offset + stops[at + after - 1]
                    row.add(token_id, self._token_of(token_id), span, number)

    def backend_json(self) -> str:
        """Return the content of `tokenizer.json`: what the fast twin would save."""
        backend = wordpiece_backend(self._vocab, self._settings, str(self.unk_token))
        twin = WordPieceTokenizerFast(tokenizer_object=backend, **self.special_tokens_map_extended, **_added(self))
        return twin.backend_json()

    def __getstate__(self) -> dict[str, Any]:
        return {**super().__getstate__(), "_remembered": {}}


class WordPieceTokenizerFast(_WordPieceBase, PreTrainedTokenizerFast):
    """WordPiece on `tokenizers`; the arguments are those of `WordPieceTokenizer`."""

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
