"""The tokenizers on the `tokenizers` library: text becomes rows, cut and padded, in Rust."""

from __future__ import annotations

import json
from collections.abc import Sequence
from typing import ClassVar

from tokenizers import AddedToken, Encoding, Tokenizer
from tokenizers.processors import TemplateProcessing

from ..errors import TokenizerError
from .arguments import Padding, Sample, Truncation
from .base import PreTrainedTokenizerBase, check_samples
from .special_tokens import token_fields


class PreTrainedTokenizerFast(PreTrainedTokenizerBase):
    """A tokenizer whose work is done by a `tokenizers.Tokenizer`, its `backend_tokenizer`."""

    is_fast: ClassVar[bool] = True
    _backend: Tokenizer

    def _set_up_backend(self, backend: Tokenizer) -> None:
        """Take over a backend, giving it this tokenizer's added tokens and its way to join texts."""
        backend.no_truncation()
        backend.no_padding()
        self._backend = backend
        self._sync_added()
        self._set_template()

    @property
    def backend_tokenizer(self) -> Tokenizer:
        """The `tokenizers.Tokenizer` that does the work."""
        return self._backend

    def _tokens_changed(self, fresh: Sequence[AddedToken], *, rebuild: bool) -> None:
        if rebuild:
            self._sync_added()
        else:
            for token in fresh:
                # The library overwrites the `special` of what it is given by the method's own.
                add = self._backend.add_special_tokens if token.special else self._backend.add_tokens
                add([AddedToken(**token_fields(token))])
        self._set_template()

    def _sync_added(self) -> None:
        """Make the backend's added tokens those of this tokenizer, flags included."""
        wanted = [{"id": token_id, **token_fields(token)} for token_id, token in self.added_tokens_decoder.items()]
        state = json.loads(self._backend.to_str())
        held = [{name: token.get(name) for name in wanted[0]} for token in state["added_tokens"]] if wanted else []
        if wanted and held == wanted:
            return
        state["added_tokens"] = wanted
        self._backend = Tokenizer.from_str(json.dumps(state))
        for token_id, token in self._added.items():
            given = self._backend.token_to_id(token.content)
            if given != token_id:
                raise TokenizerError(
                    f"The added token {token.content!r} has id {token_id} here and {given} in the file."
                )

    def _set_template(self) -> None:
        cls, sep = self._joints()
        cls_token, sep_token = self._token_of(cls), self._token_of(sep)
        self._backend.post_processor = TemplateProcessing(
            single=f"{cls_token}:0 $A:0 {sep_token}:0",
            pair=f"{cls_token}:0 $A:0 {sep_token}:0 $B:1 {sep_token}:1",
            special_tokens=[(cls_token, cls), (sep_token, sep)],
        )

    def _encode_rows(
        self,
        samples: list[Sample],
        is_split_into_words: bool,
        add_special_tokens: bool,
        truncation: Truncation | None,
        padding: Padding | None,
        split_special_tokens: bool,
    ) -> list[Encoding]:
        self._set_lengths(truncation, padding)
        if self._backend.encode_special_tokens != split_special_tokens:
            self._backend.encode_special_tokens = split_special_tokens
        if truncation is not None and truncation.strategy == "only_second":
            _check_pairs(samples)
        try:
            rows: list[Encoding] = self._backend.encode_batch(
                samples, is_pretokenized=is_split_into_words, add_special_tokens=add_special_tokens
            )
        except Exception as error:
            check_samples(samples)
            raise TokenizerError(f"The texts could not be encoded: {error}.") from error
        return rows

    def _set_lengths(self, truncation: Truncation | None, padding: Padding | None) -> None:
        """Tell the backend how to cut and pad, unless it was told so already."""
        backend = self._backend
        if truncation is None:
            if backend.truncation is not None:
                backend.no_truncation()
        else:
            wanted = {
                "max_length": truncation.max_length,
                "stride": truncation.stride,
                "strategy": truncation.strategy,
                "direction": truncation.side,
            }
            if backend.truncation != wanted:
                backend.enable_truncation(**wanted)
        if padding is None:
            if backend.padding is not None:
                backend.no_padding()
        else:
            filling = {
                "length": padding.length,
                "pad_to_multiple_of": padding.multiple_of,
                "pad_id": padding.token_id,
                "pad_token": padding.token,
                "pad_type_id": padding.type_id,
                "direction": padding.side,
            }
            if backend.padding != filling:
                backend.enable_padding(**filling)

    def backend_json(self) -> str:
        """Return the content of `tokenizer.json`."""
        self._set_lengths(None, None)
        content: str = self._backend.to_str(pretty=True)
        return content


def _check_pairs(samples: Sequence[Sample]) -> None:
    for index, sample in enumerate(samples):
        if not isinstance(sample, tuple):
            raise TokenizerError(f'truncation="only_second" needs pairs of texts, and example {index} is one text.')
