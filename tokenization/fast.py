"""The tokenizers on the `tokenizers` library: text becomes rows, cut to length, in Rust."""

from __future__ import annotations

import json
from collections.abc import Sequence
from typing import Any, ClassVar

from tokenizers import AddedToken, Encoding, Tokenizer
from tokenizers.processors import TemplateProcessing

from ..errors import TokenizerError
from .arguments import Sample, Truncation, check_encodable
from .base import PreTrainedTokenizerBase
from .rows import checked_lengths
from .special_tokens import token_fields


class PreTrainedTokenizerFast(PreTrainedTokenizerBase):
    """A tokenizer whose work is done by a `tokenizers.Tokenizer`, its `backend_tokenizer`."""

    is_fast: ClassVar[bool] = True
    _backend: Tokenizer
    _joined: bool

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

    def _set_template(self, joined: bool = True) -> None:
        """Tell the backend how to join texts: with special tokens, or by nothing."""
        self._joined = joined
        names, special = [], []
        for name, token_id in zip(("cls", "sep"), self._joints(), strict=True):
            token = self._token_of(token_id)
            # The template's own language gives these two characters a meaning.
            names.append(name if ":" in token or token.startswith("$") else token)
            special.append({"id": names[-1], "ids": [token_id], "tokens": [token]})
        cls, sep = names
        self._backend.post_processor = TemplateProcessing(
            single=[f"{cls}:0", "$A:0", f"{sep}:0"] if joined else ["$A:0"],
            pair=[f"{cls}:0", "$A:0", f"{sep}:0", "$B:1", f"{sep}:1"] if joined else ["$A:0", "$B:1"],
            special_tokens=special,
        )

    def _encode_rows(
        self,
        samples: list[Sample],
        is_split_into_words: bool,
        add_special_tokens: bool,
        truncation: Truncation | None,
        split_special_tokens: bool,
    ) -> list[Encoding]:
        if self._backend.encode_special_tokens != split_special_tokens:
            self._backend.encode_special_tokens = split_special_tokens
        if truncation is not None and self._may_stall(samples, is_split_into_words, add_special_tokens, truncation):
            self._explain(samples, is_split_into_words, add_special_tokens, truncation)
        # The library takes room for special tokens off `max_length` even when it is to add none.
        joined = add_special_tokens or truncation is None
        if joined != self._joined:
            self._set_template(joined)
        self._set_lengths(truncation)
        try:
            rows: list[Encoding] = self._backend.encode_batch(
                samples, is_pretokenized=is_split_into_words, add_special_tokens=add_special_tokens
            )
        except BaseException as error:
            # A failed assertion in Rust arrives as a BaseException of its own; Ctrl-C passes through.
            if not isinstance(error, Exception) and type(error).__name__ != "PanicException":
                raise
            self._explain(samples, is_split_into_words, add_special_tokens, truncation)
            raise TokenizerError(f"The texts could not be encoded: {error}.") from error
        return rows

    def _may_stall(
        self, samples: list[Sample], is_split_into_words: bool, special: bool, truncation: Truncation
    ) -> bool:
        """Return whether windows might not advance, which the library would answer with a crash report.

        It depends on the text of a pair that is not cut; that is the short one, so a look at it costs little.
        """
        pairs = [sample for sample in samples if isinstance(sample, tuple)]
        if not pairs or not truncation.stride:
            return False
        room = truncation.max_length - (self.num_special_tokens_to_add(True) if special else 0)
        if truncation.strategy == "longest_first":
            return truncation.stride >= room // 2
        self._set_lengths(None)
        whole = [pair[truncation.strategy == "only_first"] for pair in pairs]
        rows = self._backend.encode_batch(whole, is_pretokenized=is_split_into_words, add_special_tokens=False)
        return truncation.stride >= room - max(map(len, rows))

    def _explain(
        self, samples: list[Sample], is_split_into_words: bool, special: bool, truncation: Truncation | None
    ) -> None:
        """Raise the TokenizerError that the Python tokenizer would raise for these samples, if it would."""
        check_encodable(samples)
        if truncation is None:
            return
        self._set_lengths(None)
        for sample in samples:
            row = self._backend.encode_batch([sample], is_pretokenized=is_split_into_words, add_special_tokens=False)[0]
            pair = isinstance(sample, tuple)
            first, second = row.sequence_ids.count(0), row.sequence_ids.count(1) if pair else None
            joints = self.num_special_tokens_to_add(pair) if special else 0
            checked_lengths(first, second, truncation, joints)

    def _set_lengths(self, truncation: Truncation | None) -> None:
        """Tell the backend how to cut, unless it was told so already."""
        backend = self._backend
        if truncation is None:
            if backend.truncation is not None:
                backend.no_truncation()
        else:
            wanted: dict[str, Any] = {
                "max_length": truncation.max_length,
                "stride": truncation.stride,
                "strategy": truncation.strategy,
                "direction": truncation.side,
            }
            if backend.truncation != wanted:
                backend.enable_truncation(**wanted)

    def backend_json(self) -> str:
        """Return the content of `tokenizer.json`."""
        self._set_lengths(None)
        self._set_template()
        content: str = self._backend.to_str(pretty=True)
        return content
