"""The Unigram tokenizers, in Python and on `tokenizers`: their arguments, their files, their spelling."""

from __future__ import annotations

import os
from collections.abc import Mapping, Sequence
from dataclasses import asdict
from functools import cached_property
from itertools import accumulate
from pathlib import Path
from typing import Any, ClassVar

from tokenizers import AddedToken, Tokenizer

from ..core.hub import atomic_write
from ..errors import TokenizerError
from .added import AddedTokenMatcher
from .arguments import Sample, Truncation, check_encodable
from .base import PreTrainedTokenizerBase, logger
from .fast import PreTrainedTokenizerFast
from .files import added_of, backend_state
from .rows import Encoding
from .sentencepiece_model import SPACE, SentencePieceModel
from .slow import Normalized, PreTrainedTokenizer
from .special_tokens import TokenLike, as_token
from .unigram import Preparation, Preparer, Segmenter, checked_sampling
from .unigram_backend import backend_steps, model_of_backend, unigram_backend

VOCAB_FILE = "sentencepiece.model"
_Matchers = tuple[AddedTokenMatcher, AddedTokenMatcher]


class _UnigramBase(PreTrainedTokenizerBase):
    """What both Unigram tokenizers share: their arguments, their vocabulary, their spelling."""

    vocab_files_names: ClassVar[dict[str, str]] = {"vocab_file": VOCAB_FILE, "tokenizer_file": "tokenizer.json"}
    _preparation: Preparation
    _segmenter: Segmenter
    _sampling: dict[str, Any]

    def __init__(
        self,
        vocab_file: str | os.PathLike[str] | None = None,
        do_lower_case: bool | None = None,
        remove_space: bool | None = None,
        keep_accents: bool | None = None,
        bos_token: TokenLike | None = "[CLS]",
        eos_token: TokenLike | None = "[SEP]",
        unk_token: TokenLike = "<unk>",
        sep_token: TokenLike = "[SEP]",
        pad_token: TokenLike | None = "<pad>",
        cls_token: TokenLike = "[CLS]",
        mask_token: TokenLike | None = "[MASK]",
        *,
        model: SentencePieceModel | Segmenter | bytes | None = None,
        tokenizer_file: str | os.PathLike[str] | None = None,
        tokenizer_object: Tokenizer | None = None,
        sp_model_kwargs: Mapping[str, Any] | None = None,
        **kwargs: Any,
    ) -> None:
        state = None
        if isinstance(model, bytes):
            model = SentencePieceModel.from_bytes(model)
        if model is None and vocab_file is not None:
            model = SentencePieceModel.from_file(os.fspath(vocab_file))
        where = str(vocab_file or tokenizer_file or "model")
        if model is None:
            state = backend_state(tokenizer_file, tokenizer_object, "Unigram", list)
            if state is None:
                raise TokenizerError("A tokenizer needs a vocabulary: pass vocab_file, model or tokenizer_file.")
            model = model_of_backend(state, where)
            kinds = {step.get("type") for step in backend_steps(state)}
            do_lower_case = "Lowercase" in kinds if do_lower_case is None else do_lower_case
            keep_accents = "StripAccents" not in kinds if keep_accents is None else keep_accents
            if not kwargs.get("added_tokens_decoder"):
                kwargs["added_tokens_decoder"] = added_of(state)
        # A segmenter comes from a twin, so that a large model is not held twice.
        self._segmenter = model if isinstance(model, Segmenter) else Segmenter(model, where)
        model = self._segmenter.model
        self._preparation = Preparation(bool(do_lower_case), remove_space is not False, keep_accents is not False)
        self._prepare = Preparer(self._preparation, self._segmenter.removes_blanks)
        self._sampling = checked_sampling(sp_model_kwargs)
        unknown = as_token(unk_token, special=True).content
        if model.pieces[model.unknown_id] != unknown:
            raise TokenizerError(
                f"{where}: the model's unknown piece is {model.pieces[model.unknown_id]!r} and unk_token is {unknown!r}"
                f": pass unk_token={model.pieces[model.unknown_id]!r}."
            )
        if isinstance(mask_token, str):
            # A mask stands for a word, and the blank before a word is the word's.
            mask_token = AddedToken(mask_token, lstrip=True, special=True, normalized=False)
        super().__init__(
            self._segmenter.vocab,
            special_tokens={
                "bos_token": bos_token,
                "eos_token": eos_token,
                "unk_token": unk_token,
                "sep_token": sep_token,
                "pad_token": pad_token,
                "cls_token": cls_token,
                "mask_token": mask_token,
            },
            settings={**asdict(self._preparation), "sp_model_kwargs": dict(sp_model_kwargs or {})},
            rest=kwargs,
        )
        self._joints()
        self._warn_about_likes()
        self._finish()

    def _finish(self) -> None:
        """Set up what needs the tokens."""

    @property
    def do_lower_case(self) -> bool:
        """Whether capitals are lowered."""
        return self._preparation.do_lower_case

    @property
    def remove_space(self) -> bool:
        """Whether blanks at the ends are dropped, and several blanks taken for one."""
        return self._preparation.remove_space

    @property
    def keep_accents(self) -> bool:
        """Whether accents are kept."""
        return self._preparation.keep_accents

    @property
    def model(self) -> SentencePieceModel:
        """The SentencePiece model."""
        return self._segmenter.model

    def _look(self, token: AddedToken) -> str:
        prepared = self._prepare.letters(token.content)
        return self._segmenter.normalize(token.content if prepared is None else prepared.text).text

    def _spelled(self) -> dict[int, str]:
        # An unknown piece is spelled as the text is, as SentencePiece spells it.
        return {token_id: name for token_id, name in super()._spelled().items() if token_id != self.model.unknown_id}

    def convert_tokens_to_string(self, tokens: Sequence[str]) -> str:
        """Join tokens into a text: pieces as SentencePiece joins them, added tokens with blanks around them."""
        parts: list[str] = []
        pieces: list[str] = []
        for token in tokens:
            if token not in self._added_ids:
                pieces.append(token)
                continue
            parts += [self._segmenter.decode(pieces), token]
            pieces = []
        parts.append(self._segmenter.decode(pieces))
        return " ".join(part for part in parts if part)

    def save_vocabulary(self, save_directory: str | os.PathLike[str], filename_prefix: str | None = None) -> tuple[str]:
        """Write `sentencepiece.model`, byte for byte as it was read, and return its path."""
        path = Path(save_directory) / (f"{filename_prefix}-{VOCAB_FILE}" if filename_prefix else VOCAB_FILE)
        with atomic_write(path) as temporary:
            temporary.write_bytes(self.model.to_bytes())
        return (str(path),)

    def _twin(self, cls: type[Any]) -> Any:
        """Return the tokenizer of another class with this one's model and tokens."""
        return cls(
            model=self._segmenter,
            **asdict(self._preparation),
            **{
                **dict.fromkeys(("bos_token", "eos_token", "pad_token", "mask_token")),
                **self.special_tokens_map_extended,
            },
            added_tokens_decoder=self.added_tokens_decoder,
        )


class UnigramTokenizer(_UnigramBase, PreTrainedTokenizer):
    """Unigram by SentencePiece, with the original text's characters for every piece.

    Args:
        vocab_file: a `sentencepiece.model`.
        do_lower_case: lower capitals before SentencePiece sees the text (False).
        remove_space: drop blanks at the ends, and make one of several, before SentencePiece sees the text (True).
        keep_accents: keep accents (True); otherwise they are dropped before SentencePiece sees the text.
        bos_token, eos_token, unk_token, sep_token, pad_token, cls_token, mask_token: the special tokens. `unk_token` is
            the model's unknown piece; any other that is no piece of the model is added after its pieces. A
            `mask_token` given as text takes the blank before it.
        model: the model itself instead of its file: a `SentencePieceModel`, or the file's content.
        tokenizer_file: a `tokenizer.json`, used if there is no model.
        tokenizer_object: the same as a `tokenizers.Tokenizer`.
        sp_model_kwargs: `enable_sampling`, `nbest_size` and `alpha`: draw each text's segmentation at random (Kudo
            2018, section 3.3). `sentencepiece.set_random_generator_seed` sets the seed.
        kwargs: `model_max_length`, `padding_side`, `truncation_side`, `model_input_names`, `additional_special_tokens`,
            `added_tokens_decoder`, `clean_up_tokenization_spaces`; any other is kept and saved.

    Raises:
        TokenizerError: the model is missing, damaged or not of the Unigram kind, or its unknown piece is another.
    """

    def _normalize(self, text: str) -> Normalized:
        prepared = self._prepare.letters(text)
        if prepared is None:
            return self._segmenter.normalize(text)
        normal = self._segmenter.normalize(prepared.text)
        starts = [prepared.starts[start] for start in normal.starts]
        return Normalized(normal.text, starts, [prepared.stops[stop - 1] for stop in normal.stops])

    def _add_stretch(
        self, row: Encoding, text: str, offset: int, normalised: AddedTokenMatcher, word: int | None
    ) -> None:
        if not normalised:
            self._add_pieces(row, text, offset, word)
            return
        normal = self._normalize(text)
        for found, left, right in normalised.split(normal.text):
            start, stop = normal.starts[left], normal.stops[right - 1]
            if found is None:
                self._add_pieces(row, text[start:stop], offset + start, word)
            else:
                self._add_token(row, found, offset + start, offset + stop, word)

    def _add_pieces(self, row: Encoding, text: str, offset: int, word: int | None) -> None:
        """Add the pieces of a text without added tokens, which begins at character `offset` of the whole."""
        prepared = self._prepare(text)
        ids, pieces, spans, begins = self._segmenter.segment(
            text if prepared is None else prepared.text, self._sampling
        )
        if prepared is not None:
            # A piece that SentencePiece puts after the text covers nothing of it.
            spans = [(prepared.starts[a] if a < b else prepared.stops[b - 1], prepared.stops[b - 1]) for a, b in spans]
        row.ids += ids
        row.tokens += pieces
        row.offsets += [(offset + start, offset + stop) for start, stop in spans] if offset else spans
        if word is not None:
            row.word_ids += [word] * len(ids)
        elif ids:
            row.word_ids += accumulate(begins[1:], initial=row.next_word)

    def ids_alone(self, texts: Sequence[str]) -> list[list[int]]:
        """Return the ids of each text without special tokens: those of a call, but nothing else is worked out."""
        as_written, normalised = self._matchers_for(False)
        parted = [index for index, text in enumerate(texts) if normalised or as_written.finds(text)]
        whole = sorted({*range(len(texts))}.difference(parted))
        prepared = [(self._prepare(texts[index]), texts[index]) for index in whole]
        rows = dict(zip(whole, self._segmenter.ids([new.text if new else old for new, old in prepared]), strict=True))
        found = self([texts[index] for index in parted], add_special_tokens=False, verbose=False)
        rows.update(zip(parted, found["input_ids"], strict=True))
        return [rows[index] for index in range(len(texts))]

    def backend_json(self) -> str:
        """Return the content of `tokenizer.json`: what the fast twin would save."""
        content: str = self._twin(UnigramTokenizerFast).backend_json()
        return content


class UnigramTokenizerFast(_UnigramBase, PreTrainedTokenizerFast):
    """Unigram on `tokenizers`; the arguments are those of `UnigramTokenizer`, without sampling.

    The library's Unigram is not SentencePiece in every case, and SentencePiece is what a model was trained with. So a
    row of the library's is taken where the text is plain (no added token in it, nothing but blanks that normalisation
    changes) and SentencePiece finds the same pieces; every other row is the Python tokenizer's.
    """

    def _finish(self) -> None:
        if self._sampling:
            logger.warning("sp_model_kwargs asks for sampling, which the fast tokenizer cannot do: use_fast=False can.")
        self._set_up_backend(unigram_backend(self.model, self._preparation))

    def _set_up_backend(self, backend: Tokenizer) -> None:
        super()._set_up_backend(backend)
        self._reference: UnigramTokenizer | None = None

    def _tokens_changed(self, fresh: Sequence[AddedToken], *, rebuild: bool) -> None:
        super()._tokens_changed(fresh, rebuild=rebuild)
        self._reference = None

    def __getstate__(self) -> dict[str, Any]:
        return {**self.__dict__, "_reference": None}

    def _encode_rows(
        self,
        samples: list[Sample],
        is_split_into_words: bool,
        add_special_tokens: bool,
        truncation: Truncation | None,
        split_special_tokens: bool,
    ) -> list[Any]:
        check_encodable(samples)
        if self._reference is None:
            self._reference = self._twin(UnigramTokenizer)
        encode = super()._encode_rows
        flags = is_split_into_words, add_special_tokens
        rows: dict[int, Any] = {}
        expected = self._expected(samples, add_special_tokens, split_special_tokens)
        found = encode([samples[i] for i in expected], *flags, None, split_special_tokens)
        for (index, ids), row in zip(expected.items(), found, strict=True):
            # The library lays every byte's piece on all unknown characters around it.
            if row.ids == ids and self._segmenter.byte_ids.isdisjoint(ids):
                rows[index] = row
        others = [index for index in range(len(samples)) if index not in rows]
        if truncation is not None:
            long = [index for index, row in rows.items() if len(row) > truncation.max_length]
            try:
                found = encode([samples[i] for i in long], *flags, truncation, split_special_tokens)
            except TokenizerError:
                # The first text that is at fault is to be named, and it may be among the others.
                others, found = list(range(len(samples))), []
            rows.update(zip(long, found, strict=False))
        exact = [samples[i] for i in others]
        rows.update(
            zip(
                others,
                self._reference._encode_rows(exact, *flags, truncation, split_special_tokens),
                strict=True,
            )
        )
        return [rows[index] for index in range(len(samples))]

    def _expected(self, samples: list[Sample], add_special_tokens: bool, split_special: bool) -> dict[int, list[int]]:
        """Return the ids that SentencePiece finds for each sample, by index; those that are not plain are left out."""
        if not self._comparable:
            return {}
        assert self._reference is not None
        matchers = self._reference._matchers_for(split_special)
        texts: list[str] = []
        plain: dict[int, list[int]] = {}
        for index, sample in enumerate(samples):
            parts = sample if isinstance(sample, tuple) else (sample,)
            own = [[part] if isinstance(part, str) else part for part in parts]
            if all(self._is_plain(text, matchers) for part in own for text in part):
                plain[index] = [len(part) for part in own]
                texts += [text for part in own for text in part]
        found = iter(self._segmenter.ids(texts))
        cls, sep = self._joints()
        expected = {}
        for index, counts in plain.items():
            ids = [cls] if add_special_tokens else []
            for count in counts:
                for _ in range(count):
                    ids += next(found)
                if add_special_tokens:
                    ids.append(sep)
            expected[index] = ids
        return expected

    @cached_property
    def _comparable(self) -> bool:
        """Whether a row of the library's can be like SentencePiece's in its words and offsets too."""
        model = self.model
        inside = any(SPACE in piece[1:] for piece in model.pieces)
        return not inside and model.escape_whitespaces and not model.whitespace_as_suffix

    def _is_plain(self, text: str, matchers: _Matchers) -> bool:
        """Whether text is only pieces, and normalisation changes nothing in it but blanks."""
        as_written, normalised = matchers
        if as_written.finds(text) or self._prepare(text) is not None or not self._segmenter.is_plain(text):
            return False
        return not normalised or not normalised.finds(self._segmenter.normalize(text).text)
