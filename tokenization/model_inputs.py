"""From ids to a model's inputs: special tokens, truncation and padding of sequences that are already ids."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from typing import Any

from ..errors import TokenizerError
from .arguments import Lengths, Padding, check_count, check_side, truncation_strategy
from .encoding import BatchEncoding
from .rows import lengths_to_keep
from .special_tokens import SpecialTokens
from .tensors import check_tensor_type, to_list

# What each column is filled up with; `pad` leaves every other column alone.
_FILL = {"attention_mask": 0, "special_tokens_mask": 1, "offset_mapping": (0, 0)}


class ModelInputs(SpecialTokens):
    """Joins sequences of ids as BERT does (`[CLS] A [SEP]`, `[CLS] A [SEP] B [SEP]`), cuts and pads them."""

    model_input_names: list[str]
    model_max_length: int
    padding_side: str
    truncation_side: str

    def num_special_tokens_to_add(self, pair: bool = False) -> int:
        """Return how many special tokens a row has: 2, or 3 for a pair."""
        return 3 if pair else 2

    @property
    def max_len_single_sentence(self) -> int:
        """How many tokens of one text fit into the model."""
        return self.model_max_length - self.num_special_tokens_to_add(False)

    @property
    def max_len_sentences_pair(self) -> int:
        """How many tokens of two texts fit into the model."""
        return self.model_max_length - self.num_special_tokens_to_add(True)

    def build_inputs_with_special_tokens(
        self, token_ids_0: Sequence[int], token_ids_1: Sequence[int] | None = None
    ) -> list[int]:
        """Return `[CLS] A [SEP]`, or `[CLS] A [SEP] B [SEP]`."""
        cls, sep = self._joints()
        first = [cls, *token_ids_0, sep]
        return first if token_ids_1 is None else [*first, *token_ids_1, sep]

    def create_token_type_ids_from_sequences(
        self, token_ids_0: Sequence[int], token_ids_1: Sequence[int] | None = None
    ) -> list[int]:
        """Return 0 for `[CLS] A [SEP]` and 1 for `B [SEP]`."""
        first = [0] * (len(token_ids_0) + 2)
        return first if token_ids_1 is None else first + [1] * (len(token_ids_1) + 1)

    def get_special_tokens_mask(
        self,
        token_ids_0: Sequence[int],
        token_ids_1: Sequence[int] | None = None,
        already_has_special_tokens: bool = False,
    ) -> list[int]:
        """Return 1 for a special token and 0 for any other.

        Args:
            token_ids_0: the first sequence, or a whole row.
            token_ids_1: the second sequence.
            already_has_special_tokens: `token_ids_0` is a whole row; otherwise the mask is that of the row which
                `build_inputs_with_special_tokens` would build.
        """
        if already_has_special_tokens:
            if token_ids_1 is not None:
                raise TokenizerError(
                    "With already_has_special_tokens=True, token_ids_0 is the whole row: give it alone."
                )
            special = set(self.all_special_ids)
            return [int(token_id in special) for token_id in token_ids_0]
        first = [1, *([0] * len(token_ids_0)), 1]
        return first if token_ids_1 is None else [*first, *([0] * len(token_ids_1)), 1]

    def truncate_sequences(
        self,
        ids: list[int],
        pair_ids: list[int] | None = None,
        num_tokens_to_remove: int = 0,
        truncation_strategy: str | bool = "longest_first",
        stride: int = 0,
    ) -> tuple[list[int], list[int] | None, list[int]]:
        """Cut ids off a sequence or a pair.

        Returns:
            The two sequences, and what was cut off with `stride` ids before it (after it, on the left). When both
            sequences of a pair may be cut nothing is returned of what was cut off.

        Raises:
            TokenizerError: "only_first" or "only_second" would leave nothing of that sequence.
        """
        strategy = _strategy(truncation_strategy)
        if num_tokens_to_remove <= 0 or strategy == "do_not_truncate":
            return ids, pair_ids, []
        room = max(0, len(ids) + len(pair_ids or ()) - num_tokens_to_remove)
        first, second = lengths_to_keep(len(ids), None if pair_ids is None else len(pair_ids), room, strategy)
        overflow: list[int] = []
        if pair_ids is None or strategy == "only_first":
            overflow = self._cut_off(ids, first, stride)
        elif strategy == "only_second":
            overflow = self._cut_off(pair_ids, second, stride)
        kept_pair = None if pair_ids is None else self._keep(pair_ids, second)
        return self._keep(ids, first), kept_pair, overflow

    def _keep(self, ids: list[int], count: int) -> list[int]:
        return ids[:count] if self.truncation_side == "right" else ids[len(ids) - count :]

    def _cut_off(self, ids: list[int], kept: int, stride: int) -> list[int]:
        length = min(len(ids), len(ids) - kept + stride)
        return ids[len(ids) - length :] if self.truncation_side == "right" else ids[:length]

    def prepare_for_model(
        self,
        ids: list[int],
        pair_ids: list[int] | None = None,
        add_special_tokens: bool = True,
        padding: bool | str = False,
        truncation: bool | str | None = None,
        max_length: int | None = None,
        stride: int = 0,
        pad_to_multiple_of: int | None = None,
        padding_side: str | None = None,
        *,
        prepend_batch_axis: bool = False,
        return_attention_mask: bool | None = None,
        return_length: bool = False,
        return_overflowing_tokens: bool = False,
        return_special_tokens_mask: bool = False,
        return_tensors: str | None = None,
        return_token_type_ids: bool | None = None,
        verbose: bool = True,
    ) -> BatchEncoding:
        """Return the model's inputs for one sequence of ids, or a pair.

        The arguments are those of a call. `return_overflowing_tokens` adds `overflowing_tokens` (see
        `truncate_sequences`) and `num_truncated_tokens`.
        """
        lengths = Lengths.resolve(padding, truncation, max_length, pad_to_multiple_of, self.model_max_length, verbose)
        pair = pair_ids is not None
        special = self.num_special_tokens_to_add(pair) if add_special_tokens else 0
        total = len(ids) + len(pair_ids or ()) + special
        overflow: list[int] = []
        excess = 0
        if lengths.truncation != "do_not_truncate" and lengths.max_length is not None:
            excess = max(0, total - lengths.max_length)
            ids, pair_ids, overflow = self.truncate_sequences(ids, pair_ids, excess, lengths.truncation, stride)
        columns: dict[str, Any] = {}
        if return_overflowing_tokens:
            columns["overflowing_tokens"], columns["num_truncated_tokens"] = overflow, excess
        if add_special_tokens:
            columns["input_ids"] = self.build_inputs_with_special_tokens(ids, pair_ids)
            types, mask = (
                self.create_token_type_ids_from_sequences(ids, pair_ids),
                self.get_special_tokens_mask(ids, pair_ids),
            )
        else:
            columns["input_ids"] = [*ids, *(pair_ids or ())]
            types, mask = [0] * len(ids) + [1] * len(pair_ids or ()), [0] * len(columns["input_ids"])
        if self._wants("token_type_ids", return_token_type_ids):
            columns["token_type_ids"] = types
        if return_special_tokens_mask:
            columns["special_tokens_mask"] = mask
        result = self.pad(
            columns,
            padding=lengths.padding,
            max_length=lengths.max_length,
            pad_to_multiple_of=pad_to_multiple_of,
            padding_side=padding_side,
            return_attention_mask=return_attention_mask,
            verbose=verbose,
        )
        if return_length:
            result["length"] = len(result["input_ids"])
        return result.convert_to_tensors(return_tensors, prepend_batch_axis)

    def pad(
        self,
        encoded_inputs: Mapping[str, Any] | Sequence[Mapping[str, Any]],
        padding: bool | str = True,
        max_length: int | None = None,
        pad_to_multiple_of: int | None = None,
        padding_side: str | None = None,
        return_attention_mask: bool | None = None,
        return_tensors: str | None = None,
        verbose: bool = True,
    ) -> BatchEncoding:
        """Collate encoded examples into rows of one length.

        Args:
            encoded_inputs: one example, a batch, or a list of examples, with lists or tensors inside. `input_ids`,
                `token_type_ids`, `attention_mask`, `special_tokens_mask` and `offset_mapping` are filled up; every
                other column (labels, say) is left alone.
            padding: True or "longest", "max_length", or False.
            max_length: the length for "max_length"; the model's if None.
            pad_to_multiple_of: round the length up to a multiple of this.
            padding_side: "right" or "left"; the tokenizer's if None.
            return_attention_mask: whether to add the mask if it is not there; by `model_input_names` if None.
            return_tensors: "np", "pt", "tf" or None for lists.
            verbose: whether to warn.

        Raises:
            TokenizerError: there are no `input_ids`, the examples differ in their columns, or there is no pad token.
        """
        main = self.model_input_names[0]
        columns = _columns(encoded_inputs, main)
        check_tensor_type(return_tensors)
        ids = columns[main]
        batched = bool(ids) and isinstance(ids[0], list)
        rows: list[list[int]] = ids if batched else [ids]
        columns = columns if batched else {name: [column] for name, column in columns.items()}
        for name, column in columns.items():
            if batched and (not isinstance(column, list) or len(column) != len(rows)):
                count = len(column) if isinstance(column, list) else "no"
                raise TokenizerError(f"pad: {main} has {len(rows)} rows and {name} has {count}: they must be as many.")
        if self._wants("attention_mask", return_attention_mask) and "attention_mask" not in columns:
            columns["attention_mask"] = [[1] * len(row) for row in rows]
        lengths = Lengths.resolve(padding, False, max_length, None, self.model_max_length, verbose)
        if lengths.padding != "do_not_pad":
            length = lengths.max_length if lengths.padding == "max_length" else None
            plan = self._padding(length, pad_to_multiple_of, padding_side)
            target = plan.target(max(map(len, rows), default=0))
            fills = {main: plan.token_id, "token_type_ids": plan.type_id, **_FILL}
            columns = {
                name: [_filled(row, target, fills[name], plan.side) for row in column] if name in fills else column
                for name, column in columns.items()
            }
        if not batched:
            columns = {name: column[0] for name, column in columns.items()}
        return BatchEncoding(columns, tensor_type=return_tensors)

    def _joints(self) -> tuple[int, int]:
        cls, sep = self.cls_token_id, self.sep_token_id
        if cls is None or sep is None:
            raise TokenizerError("This tokenizer has no cls_token or no sep_token to join texts with: set both.")
        return cls, sep

    def _wants(self, column: str, asked: bool | None) -> bool:
        return column in self.model_input_names if asked is None else bool(asked)

    def _padding(self, length: int | None, multiple_of: int | None, side: str | None) -> Padding:
        token = self.pad_token
        if token is None or self._find(token) is None:
            raise TokenizerError(
                ("There is no pad_token" if token is None else f"The pad_token {token!r} is not in the vocabulary")
                + ", so nothing can be padded: call tokenizer.add_special_tokens({'pad_token': '[PAD]'})."
            )
        if multiple_of is not None:
            check_count("pad_to_multiple_of", multiple_of, 1)
        return Padding(
            length,
            multiple_of,
            check_side("padding_side", self.padding_side if side is None else side),
            token,
            self._id_of(token),
            self.pad_token_type_id,
        )


def _strategy(value: str | bool) -> str:
    return truncation_strategy(value)


def _filled(row: Any, length: int, value: Any, side: str) -> list[Any]:
    fill = [value] * (length - len(row))
    return [*fill, *row] if side == "left" else [*row, *fill]


def _columns(encoded_inputs: Any, main: str) -> dict[str, Any]:
    """Return one dictionary of columns, tensors as lists, from one example or many."""
    if isinstance(encoded_inputs, list | tuple):
        if not encoded_inputs or not all(isinstance(example, Mapping) for example in encoded_inputs):
            raise TokenizerError("pad needs an encoded example, a batch, or a list of encoded examples (dictionaries).")
        names = set(encoded_inputs[0])
        for index, example in enumerate(encoded_inputs):
            if set(example) != names:
                raise TokenizerError(
                    f"pad: example {index} has the columns {sorted(example)} and example 0 has {sorted(names)}: all "
                    "must have the same."
                )
        encoded_inputs = {name: [example[name] for example in encoded_inputs] for name in encoded_inputs[0]}
    if not isinstance(encoded_inputs, Mapping) or main not in encoded_inputs:
        held = list(encoded_inputs) if isinstance(encoded_inputs, Mapping) else type(encoded_inputs).__name__
        raise TokenizerError(f"pad needs {main}, and was given {held}.")
    return {name: to_list(column) for name, column in encoded_inputs.items()}
