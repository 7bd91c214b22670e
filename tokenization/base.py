"""The surface that every tokenizer shares: calling it, decoding, converting, loading and saving."""

from __future__ import annotations

import copy
import logging
import os
from collections.abc import Mapping, Sequence
from typing import Any, ClassVar, Self

from ..errors import TokenizerError
from . import files
from .arguments import (
    NO_MAX_LENGTH,
    Lengths,
    Padding,
    Sample,
    Truncation,
    check_count,
    check_pairs,
    check_side,
    gather_samples,
)
from .columns import columns_of
from .encoding import BatchEncoding
from .model_inputs import ModelInputs
from .special_tokens import ADDITIONAL, NAMES, TokenLike
from .tensors import check_tensor_type, to_list

logger = logging.getLogger("isobert")

# English spaces that WordPiece puts where none belong; applied in this order.
_CLEAN_UP = (
    *((f" {mark}", mark) for mark in ".?!,"),
    (" ' ", "'"),
    *((f" {ending}", ending) for ending in ("n't", "'m", "'s", "'ve", "'re")),
)


class PreTrainedTokenizerBase(ModelInputs):
    """What the Python and the fast tokenizers have in common.

    A subclass turns samples into rows in `_encode_rows`, and joins tokens into text in `convert_tokens_to_string`.
    """

    vocab_files_names: ClassVar[dict[str, str]] = {}
    is_fast: ClassVar[bool] = False
    model_input_names: list[str] = ["input_ids", "token_type_ids", "attention_mask"]

    def __init__(
        self,
        vocab: dict[str, int],
        *,
        special_tokens: Mapping[str, TokenLike | None],
        settings: Mapping[str, Any],
        rest: Mapping[str, Any],
    ) -> None:
        """Set up what does not depend on the algorithm.

        Args:
            vocab: the algorithm's vocabulary.
            special_tokens: the family's special tokens by name.
            settings: the algorithm's own settings, as `tokenizer_config.json` is to hold them.
            rest: further keywords: the ones known here are taken, all others are kept and written back on saving.
        """
        rest = dict(rest)
        self.init_settings = dict(settings)
        limit = rest.pop("model_max_length", None)
        self.model_max_length = NO_MAX_LENGTH if limit is None else int(check_count("model_max_length", int(limit), 1))
        self.padding_side = check_side("padding_side", rest.pop("padding_side", "right"))
        self.truncation_side = check_side("truncation_side", rest.pop("truncation_side", "right"))
        self.clean_up_tokenization_spaces = bool(rest.pop("clean_up_tokenization_spaces", None) or False)
        self.model_input_names = list(rest.pop("model_input_names", None) or type(self).model_input_names)
        self.name_or_path = str(rest.pop("name_or_path", ""))
        added = {int(key): token for key, token in (rest.pop("added_tokens_decoder", None) or {}).items()}
        additional = rest.pop(ADDITIONAL, None) or ()
        named = {**special_tokens, **{name: rest.pop(name) for name in NAMES if name in rest}}
        for key in ("tokenizer_class", "tokenizer_file", "vocab_file", "special_tokens_map_file"):
            rest.pop(key, None)
        self.unknown_settings = rest
        self._set_up_tokens(vocab, named, additional, added)
        self._warned_about_length = False

    def _encode_rows(
        self,
        samples: list[Sample],
        is_split_into_words: bool,
        add_special_tokens: bool,
        truncation: Truncation | None,
        split_special_tokens: bool,
    ) -> list[Any]:
        """Return one encoding a sample, without padding, with its further windows in `overflowing`."""
        raise NotImplementedError

    def convert_tokens_to_string(self, tokens: Sequence[str]) -> str:
        """Join tokens into a text."""
        raise NotImplementedError

    # -- vocabulary ---------------------------------------------------------------------------------------------------

    @property
    def vocab_size(self) -> int:
        """The size of the vocabulary without added tokens."""
        return len(self._vocab)

    @property
    def vocab(self) -> dict[str, int]:
        """`get_vocab()`."""
        return self.get_vocab()

    def get_vocab(self) -> dict[str, int]:
        """Return every token's id, added tokens included."""
        return {**self._vocab, **self._added_ids}

    def __len__(self) -> int:
        return len(self._id_to_token)

    def __bool__(self) -> bool:
        return True

    def __repr__(self) -> str:
        return (
            f"{type(self).__name__}(vocab_size={self.vocab_size}, model_max_length={self.model_max_length}, "
            f"padding_side={self.padding_side!r}, truncation_side={self.truncation_side!r}, "
            f"special_tokens={self.special_tokens_map})"
        )

    def convert_tokens_to_ids(self, tokens: str | Sequence[str]) -> Any:
        """Return the id of a token, or of each in a list; the unknown token's for one that is not there."""
        if isinstance(tokens, str):
            return self._id_of(tokens)
        return [self._id_of(token) for token in tokens]

    def convert_ids_to_tokens(self, ids: Any, skip_special_tokens: bool = False) -> Any:
        """Return the token of an id, or of each in a list or array.

        Raises:
            TokenizerError: an id is out of range.
        """
        ids = to_list(ids)
        if not isinstance(ids, list):
            return self._token_of(ids)
        skipped = set(self.all_special_ids) if skip_special_tokens else ()
        return [self._token_of(token_id) for token_id in ids if token_id not in skipped]

    # -- from text to ids ---------------------------------------------------------------------------------------------

    def __call__(
        self,
        text: Any,
        text_pair: Any = None,
        add_special_tokens: bool = True,
        padding: bool | str = False,
        truncation: bool | str | None = None,
        max_length: int | None = None,
        *,
        is_split_into_words: bool = False,
        pad_to_multiple_of: int | None = None,
        padding_side: str | None = None,
        return_attention_mask: bool | None = None,
        return_length: bool = False,
        return_offsets_mapping: bool = False,
        return_overflowing_tokens: bool = False,
        return_special_tokens_mask: bool = False,
        return_tensors: str | None = None,
        return_token_type_ids: bool | None = None,
        split_special_tokens: bool = False,
        stride: int = 0,
        verbose: bool = True,
    ) -> BatchEncoding:
        """Turn texts into a model's inputs.

        Args:
            text: a text or a list of texts; with `is_split_into_words`, a list of words or a list of such lists. An
                entry of a batch may also be a pair of texts.
            text_pair: the second texts, nested like `text`.
            add_special_tokens: add `[CLS]` and `[SEP]`.
            padding: True or "longest" (of the batch), "max_length", or False.
            truncation: True or "longest_first", "only_first", "only_second", or False.
            max_length: the length to pad and cut to, special tokens included; the model's own limit if None.
            stride: how many tokens neighbouring windows share when rows are cut.
            is_split_into_words: the texts are lists of words; offsets then count within a word, word ids are theirs.
            pad_to_multiple_of: round the padded length up to a multiple of this.
            padding_side: "right" or "left"; the tokenizer's if None.
            return_attention_mask: 1 for tokens, 0 for padding; by `model_input_names` if None.
            return_length: each row's `length`.
            return_offsets_mapping: `offset_mapping`, each token's first and last-plus-one character in its text.
            return_overflowing_tokens: return the windows that truncation cuts off as further rows, and
                `overflow_to_sample_mapping`, which says what text each row is of.
            return_special_tokens_mask: 1 for special tokens and padding.
            return_tensors: "np", "pt" or "tf" for arrays `[rows, length]`; None for lists.
            return_token_type_ids: which text each token is of, 0 or 1; by `model_input_names` if None.
            split_special_tokens: take the special tokens that stand in the text for plain text.
            verbose: whether to warn.

        Raises:
            TokenizerError: an argument is wrong; the message names it.
        """
        samples, batched = gather_samples(text, text_pair, is_split_into_words)
        tensor_type = check_tensor_type(return_tensors)
        lengths = Lengths.resolve(padding, truncation, max_length, pad_to_multiple_of, self.model_max_length, verbose)
        if lengths.truncation == "only_second":
            check_pairs(samples)
        pair = any(isinstance(sample, tuple) for sample in samples)
        cut = self._truncation(lengths, stride, add_special_tokens, pair, return_overflowing_tokens)
        fill = self._padding_of(lengths, pad_to_multiple_of, padding_side)
        rows = self._encode_rows(samples, is_split_into_words, add_special_tokens, cut, split_special_tokens)
        mapping = list(range(len(rows)))
        if return_overflowing_tokens:
            # The library copies a row's windows whenever it is asked for them.
            windows = [(row, *row.overflowing) for row in rows]
            mapping = [index for index, of_row in enumerate(windows) for _ in of_row]
            rows = [window for of_row in windows for window in of_row]
        longest = max(map(len, rows), default=0)
        fill = None if fill is None else fill.settled(longest)
        width = 0 if fill is None else fill.target(longest)
        if lengths.max_length is None and verbose:
            self._warn_about_length(max(longest, width))
        names = ["input_ids"]
        if self._wants("token_type_ids", return_token_type_ids):
            names.append("token_type_ids")
        if self._wants("attention_mask", return_attention_mask):
            names.append("attention_mask")
        if return_special_tokens_mask:
            names.append("special_tokens_mask")
        if return_offsets_mapping:
            names.append("offset_mapping")
        columns = columns_of(rows, names, pair, fill, tensor_type)
        if return_length:
            columns["length"] = [max(len(row), width) for row in rows]
        if not batched and tensor_type is None and not return_overflowing_tokens:
            columns = {name: column[0] for name, column in columns.items()}
        if return_overflowing_tokens:
            columns["overflow_to_sample_mapping"] = mapping
        added = self._spelled()
        return BatchEncoding(columns, rows, padding=fill, tensor_type=tensor_type, is_fast=self.is_fast, added=added)

    def _spelled(self) -> dict[int, str]:
        """Return the tokens whose spelling is theirs, and not that of the text they were found in."""
        return {token_id: token.content for token_id, token in self._added.items()}

    def encode_plus(self, text: Any, text_pair: Any = None, **kwargs: Any) -> BatchEncoding:
        """Encode one text or one pair; the arguments are those of a call."""
        return self(text, text_pair, **kwargs)

    def batch_encode_plus(self, batch_text_or_text_pairs: Sequence[Any], **kwargs: Any) -> BatchEncoding:
        """Encode a list of texts or of pairs; the arguments are those of a call."""
        if not isinstance(batch_text_or_text_pairs, list | tuple):
            kind = type(batch_text_or_text_pairs).__name__
            raise TokenizerError(f"batch_text_or_text_pairs is a {kind}; it must be a list of texts or of pairs.")
        return self(batch_text_or_text_pairs, **kwargs)

    def encode(self, text: Any, text_pair: Any = None, add_special_tokens: bool = True, **kwargs: Any) -> Any:
        """Return the `input_ids` of a call with these arguments."""
        return self(text, text_pair, add_special_tokens, **kwargs)["input_ids"]

    def tokenize(
        self, text: str, pair: str | None = None, add_special_tokens: bool = False, **kwargs: Any
    ) -> list[str]:
        """Return the tokens of a text, or of a pair, as strings."""
        return self(text, pair, add_special_tokens, verbose=False, **kwargs).tokens()

    def _truncation(
        self, lengths: Lengths, stride: int, special: bool, pair: bool, overflow: bool
    ) -> Truncation | None:
        check_count("stride", stride, 0)
        if lengths.truncation == "do_not_truncate" or lengths.max_length is None:
            return None
        room = lengths.max_length - (self.num_special_tokens_to_add(pair) if special else 0)
        least = 0
        if overflow or lengths.truncation != "longest_first":
            # Each text that is cut keeps a token, or its windows would never advance.
            least = 2 if pair and lengths.truncation == "longest_first" else 1
        if room < least:
            raise TokenizerError(
                f"max_length={lengths.max_length} leaves no room for text beside the special tokens "
                f"({self.num_special_tokens_to_add(pair)}): raise it or pass add_special_tokens=False."
            )
        if stride >= room and stride:
            raise TokenizerError(
                f"stride={stride} must be below the number of text tokens in a row, which is {room} "
                f"(max_length={lengths.max_length} less special tokens), or windows would never advance."
            )
        side = check_side("truncation_side", self.truncation_side)
        return Truncation(lengths.max_length, stride if overflow else 0, lengths.truncation, side, overflow)

    def _padding_of(self, lengths: Lengths, multiple_of: int | None, side: str | None) -> Padding | None:
        if lengths.padding == "do_not_pad":
            return None
        return self._padding(lengths.max_length if lengths.padding == "max_length" else None, multiple_of, side)

    def _warn_about_length(self, longest: int) -> None:
        if longest > self.model_max_length and not self._warned_about_length:
            self._warned_about_length = True
            logger.warning(
                "A row has %d tokens and the model takes %d: pass truncation=True, or the model will refuse it.",
                longest,
                self.model_max_length,
            )

    # -- from ids to text ---------------------------------------------------------------------------------------------

    def decode(
        self, token_ids: Any, skip_special_tokens: bool = False, clean_up_tokenization_spaces: bool | None = None
    ) -> str:
        """Return the text of a row of ids (a list, array or tensor, or one id).

        Args:
            token_ids: the ids.
            skip_special_tokens: leave special tokens out.
            clean_up_tokenization_spaces: remove the spaces before English punctuation and contractions; the
                tokenizer's own setting if None.

        Raises:
            TokenizerError: an id is out of range.
        """
        ids = to_list(token_ids)
        tokens = self.convert_ids_to_tokens(ids if isinstance(ids, list) else [ids], skip_special_tokens)
        text = self.convert_tokens_to_string(tokens)
        if clean_up_tokenization_spaces is None:
            clean_up_tokenization_spaces = self.clean_up_tokenization_spaces
        return self.clean_up_tokenization(text) if clean_up_tokenization_spaces else text

    def batch_decode(
        self, sequences: Any, skip_special_tokens: bool = False, clean_up_tokenization_spaces: bool | None = None
    ) -> list[str]:
        """Return the text of each row."""
        return [self.decode(row, skip_special_tokens, clean_up_tokenization_spaces) for row in to_list(sequences)]

    @staticmethod
    def clean_up_tokenization(text: str) -> str:
        """Remove the spaces before English punctuation and contractions."""
        for spaced, joined in _CLEAN_UP:
            text = text.replace(spaced, joined)
        return text

    # -- files --------------------------------------------------------------------------------------------------------

    @classmethod
    def from_pretrained(cls, name_or_path: str | os.PathLike[str], **overrides: Any) -> Self:
        """Open a tokenizer from a folder or a Hub name.

        Args:
            name_or_path: a folder that holds the tokenizer's files, or a Hub repository's name.
            overrides: constructor arguments that outweigh the files'.

        Raises:
            CheckpointNotFoundError: there is nothing of that name, or no vocabulary in it.
            TokenizerError: a file is damaged.
        """
        return cls(**{**files.read_settings(cls, name_or_path), **overrides})

    def save_pretrained(self, folder: str | os.PathLike[str]) -> tuple[str, ...]:
        """Write the tokenizer's files into a folder and return their paths; each is replaced in one step."""
        return files.write_tokenizer(self, folder)

    def save_vocabulary(self, save_directory: str | os.PathLike[str], filename_prefix: str | None = None) -> tuple[str]:
        """Write the vocabulary alone into a folder and return its path."""
        raise NotImplementedError

    def backend_json(self) -> str:
        """Return the content of `tokenizer.json`: this tokenizer as the `tokenizers` library reads it."""
        raise NotImplementedError

    def settings(self) -> dict[str, Any]:
        """Return the content of `tokenizer_config.json`."""
        return files.settings_of(self)

    def __deepcopy__(self, memo: dict[int, Any]) -> Self:
        fresh = copy.copy(self)
        memo[id(self)] = fresh
        fresh.__dict__.update({name: copy.deepcopy(value, memo) for name, value in self.__dict__.items()})
        return fresh
