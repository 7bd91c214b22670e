"""The special tokens of a tokenizer and the tokens added to its vocabulary."""

from __future__ import annotations

import logging
from collections.abc import Mapping, Sequence
from typing import Any

from tokenizers import AddedToken

from ..errors import TokenizerError

logger = logging.getLogger("isobert")

NAMES = ("bos_token", "eos_token", "unk_token", "sep_token", "pad_token", "cls_token", "mask_token")
ADDITIONAL = "additional_special_tokens"

TokenLike = str | AddedToken | Mapping[str, Any]

_FIELDS = ("content", "single_word", "lstrip", "rstrip", "normalized", "special")


def as_token(value: TokenLike, *, special: bool) -> AddedToken:
    """Return a token from its text, its fields as a mapping, or another token.

    Raises:
        TokenizerError: it is none of these, or empty.
    """
    if isinstance(value, str):
        fields: dict[str, Any] = {"content": value, "normalized": not special}
    elif isinstance(value, AddedToken):
        fields = token_fields(value)
    elif isinstance(value, Mapping) and isinstance(value.get("content"), str):
        fields = {name: value[name] for name in _FIELDS if name in value}
    else:
        raise TokenizerError(f"A token is {value!r}; it must be a string or an AddedToken.")
    if not fields["content"]:
        raise TokenizerError("A token is the empty string: every token needs at least one character.")
    fields["special"] = special or bool(fields.get("special", False))
    return AddedToken(**fields)


def token_fields(token: AddedToken) -> dict[str, Any]:
    """Return a token's text and flags, as `tokenizer_config.json` holds them."""
    return {name: getattr(token, name) for name in _FIELDS}


def _token_property(name: str) -> Any:
    def read(self: SpecialTokens) -> str | None:
        token = self._special[name]
        return None if token is None else str(token.content)

    def write(self: SpecialTokens, value: TokenLike | None) -> None:
        self._assign(name, value)

    return property(read, write, doc=f"The {name.removesuffix('_token')} token, None if there is none. Settable.")


def _id_property(name: str) -> Any:
    def read(self: SpecialTokens) -> int | None:
        token = self._special[name]
        return None if token is None else self._id_of(token.content)

    def write(self: SpecialTokens, value: int | None) -> None:
        self._assign(name, None if value is None else self._token_of(value))

    return property(read, write, doc=f"The id of `{name}`, None if there is none. Settable.")


class SpecialTokens:
    """Keeps the vocabulary, the tokens added to it, and which tokens are special.

    A subclass calls `_set_up_tokens` once and says in `_tokens_changed` what follows from a change.
    """

    _vocab: dict[str, int]
    _id_to_token: dict[int, str]
    _added: dict[int, AddedToken]
    _added_ids: dict[str, int]
    _special: dict[str, AddedToken | None]
    _additional: list[AddedToken]

    bos_token = _token_property("bos_token")
    eos_token = _token_property("eos_token")
    unk_token = _token_property("unk_token")
    sep_token = _token_property("sep_token")
    pad_token = _token_property("pad_token")
    cls_token = _token_property("cls_token")
    mask_token = _token_property("mask_token")
    bos_token_id = _id_property("bos_token")
    eos_token_id = _id_property("eos_token")
    unk_token_id = _id_property("unk_token")
    sep_token_id = _id_property("sep_token")
    pad_token_id = _id_property("pad_token")
    cls_token_id = _id_property("cls_token")
    mask_token_id = _id_property("mask_token")
    pad_token_type_id = 0

    def _set_up_tokens(
        self,
        vocab: dict[str, int],
        special: Mapping[str, TokenLike | None],
        additional: Sequence[TokenLike],
        added: Mapping[int, TokenLike],
    ) -> None:
        self._vocab = vocab
        self._added = {}
        self._added_ids = {}
        self._id_to_token = {token_id: token for token, token_id in vocab.items()}
        for token_id in sorted(added):
            token = as_token(added[token_id], special=False)
            given = self._add(token)
            if given != token_id:
                raise TokenizerError(
                    f"added_tokens_decoder says that {token.content!r} has id {token_id}, but with this vocabulary of "
                    f"{len(vocab)} tokens its id is {given}: the files belong to different tokenizers."
                )
        known = {token.content: token for token in self._added.values()}

        def resolve(value: TokenLike) -> AddedToken:
            # What an added token says of itself outweighs a special token's bare name.
            token = as_token(value, special=True)
            return known.get(token.content, token) if isinstance(value, str) else token

        self._special = dict.fromkeys(NAMES)
        for name, value in special.items():
            self._special[name] = None if value is None else resolve(value)
        self._additional = [resolve(value) for value in additional]
        for special_token in self._all_special():
            self._add(special_token, mark=True)

    def _tokens_changed(self, fresh: Sequence[AddedToken], *, rebuild: bool) -> None:
        """Take note of tokens just added; `rebuild` says that tokens already there changed their flags."""
        raise NotImplementedError

    def _look(self, token: AddedToken) -> str:
        """Return what a token is once text is normalised."""
        raise NotImplementedError

    def _check_tokens(self, tokens: Sequence[AddedToken]) -> None:
        """Raise a TokenizerError if a token could not be found in a text, or not be told from another."""
        looks = {self._look(token): token.content for token in self._added.values() if token.normalized}
        for token in tokens:
            if not token.normalized:
                continue
            look = self._look(token)
            if not look:
                raise TokenizerError(
                    f"The token {token.content!r} is nothing once text is normalised, so it could never be found: add "
                    "it as AddedToken(..., normalized=False)."
                )
            if looks.setdefault(look, token.content) != token.content:
                raise TokenizerError(
                    f"The tokens {looks[look]!r} and {token.content!r} are the same once text is normalised, so they "
                    "could not be told apart: leave one out, or add it as AddedToken(..., normalized=False)."
                )

    def _warn_about_likes(self) -> None:
        """Warn of a file's added tokens that cannot be told apart; to refuse them would be to refuse the file."""
        looks: dict[str, str] = {}
        for token in self._added.values():
            other = looks.setdefault(self._look(token), token.content) if token.normalized else token.content
            if other != token.content:
                logger.warning(
                    "The added tokens %r and %r are the same once text is normalised: which one is found in a text is "
                    "left to chance. Give one of them normalized=False in added_tokens_decoder.",
                    other,
                    token.content,
                )

    def _all_special(self) -> list[AddedToken]:
        tokens = [token for token in self._special.values() if token is not None] + self._additional
        return list({token.content: token for token in tokens}.values())

    def _next_id(self) -> int:
        return max(len(self._vocab), max(self._added, default=-1) + 1)

    def _find(self, content: str) -> int | None:
        found = self._vocab.get(content)
        return self._added_ids.get(content) if found is None else found

    def _add(self, token: AddedToken, *, mark: bool = False) -> int:
        """Enter a token that is new or, with `mark`, make the one that is there special. Return its id."""
        token_id = self._find(token.content)
        if token_id is None:
            token_id = self._next_id()
        there = self._added.get(token_id)
        if there is None or (mark and not there.special):
            self._added[token_id] = token
            self._added_ids[token.content] = token_id
            self._id_to_token[token_id] = token.content
        return token_id

    def _id_of(self, token: str) -> int:
        found = self._find(token)
        if found is not None:
            return found
        unknown = self._special["unk_token"]
        if unknown is None or unknown.content == token:
            raise TokenizerError(f"The token {token!r} is not in the vocabulary, and there is no unk_token for it.")
        return self._id_of(unknown.content)

    def _token_of(self, token_id: int) -> str:
        try:
            return self._id_to_token[token_id]
        except (KeyError, TypeError):
            raise TokenizerError(
                f"There is no token with id {token_id!r}; the ids of this tokenizer go from 0 to "
                f"{max(self._id_to_token)}."
            ) from None

    def _assign(self, name: str, value: TokenLike | None) -> None:
        """Make a token the one called `name`; it is not added to the vocabulary."""
        self._special[name] = None if value is None else as_token(value, special=True)
        self._tokens_changed([], rebuild=True)

    @property
    def additional_special_tokens(self) -> list[str]:
        """Special tokens beyond those that have a name. Settable."""
        return [token.content for token in self._additional]

    @additional_special_tokens.setter
    def additional_special_tokens(self, value: Sequence[TokenLike]) -> None:
        self._additional = [as_token(token, special=True) for token in value]

    @property
    def additional_special_tokens_ids(self) -> list[int]:
        """The ids of `additional_special_tokens`."""
        return [self._id_of(token.content) for token in self._additional]

    @property
    def all_special_tokens(self) -> list[str]:
        """Every special token, once."""
        return [token.content for token in self._all_special()]

    @property
    def all_special_ids(self) -> list[int]:
        """The ids of `all_special_tokens`."""
        return [self._id_of(token) for token in self.all_special_tokens]

    @property
    def special_tokens_map(self) -> dict[str, Any]:
        """The special tokens that are set, by name."""
        found: dict[str, Any] = {name: token.content for name, token in self._special.items() if token is not None}
        if self._additional:
            found[ADDITIONAL] = self.additional_special_tokens
        return found

    @property
    def special_tokens_map_extended(self) -> dict[str, Any]:
        """The special tokens that are set, by name, with their flags."""
        found: dict[str, Any] = {name: token for name, token in self._special.items() if token is not None}
        if self._additional:
            found[ADDITIONAL] = list(self._additional)
        return found

    @property
    def added_tokens_decoder(self) -> dict[int, AddedToken]:
        """The tokens that are looked for in the text before it is split into words, special ones among them, by id."""
        return dict(sorted(self._added.items()))

    @property
    def added_tokens_encoder(self) -> dict[str, int]:
        """The ids of the tokens of `added_tokens_decoder`."""
        return {token.content: token_id for token_id, token in sorted(self._added.items())}

    def get_added_vocab(self) -> dict[str, int]:
        """Return `added_tokens_encoder`."""
        return self.added_tokens_encoder

    def add_tokens(self, new_tokens: TokenLike | Sequence[TokenLike], special_tokens: bool = False) -> int:
        """Add tokens that are found in a text as they stand, and are not split.

        Args:
            new_tokens: one or more, as text or as `AddedToken`; those already there are passed over.
            special_tokens: make them special: neither normalised nor shown by `decode(skip_special_tokens=True)`.

        Returns:
            How many are new to the vocabulary. The model's `resize_token_embeddings(len(tokenizer))` makes room.
        """
        if isinstance(new_tokens, str | AddedToken | Mapping):
            new_tokens = [new_tokens]
        tokens = [as_token(value, special=special_tokens) for value in new_tokens]
        self._check_tokens(tokens)
        before, size = dict(self._added), len(self._id_to_token)
        for token in tokens:
            self._add(token, mark=token.special)
        fresh = [token for token_id, token in self._added.items() if token_id not in before]
        changed = any(self._added[token_id] is not token for token_id, token in before.items())
        if fresh or changed:
            self._tokens_changed(fresh, rebuild=changed)
        return len(self._id_to_token) - size

    def add_special_tokens(
        self, special_tokens_dict: Mapping[str, Any], replace_additional_special_tokens: bool = True
    ) -> int:
        """Set special tokens by name and add those that are not in the vocabulary yet.

        Args:
            special_tokens_dict: names such as "pad_token" to a token, "additional_special_tokens" to a list of them.
            replace_additional_special_tokens: let a given list of these replace the old one, instead of extending it.

        Returns:
            How many are new to the vocabulary.
        """
        tokens: list[AddedToken] = []
        for name, value in special_tokens_dict.items():
            if name == ADDITIONAL:
                if isinstance(value, str) or not isinstance(value, Sequence):
                    raise TokenizerError(f"{ADDITIONAL} is {value!r}; it must be a list of tokens.")
                given = [as_token(token, special=True) for token in value]
                kept = [] if replace_additional_special_tokens else self._additional
                self._additional = list({token.content: token for token in [*kept, *given]}.values())
                tokens += given
            elif name in NAMES:
                token = as_token(value, special=True)
                self._check_tokens([token])
                self._special[name] = token
                tokens.append(token)
            else:
                raise TokenizerError(
                    f"There is no special token called {name!r}; the names are {', '.join((*NAMES, ADDITIONAL))}."
                )
        added = self.add_tokens(tokens, special_tokens=True) if tokens else 0
        self._tokens_changed([], rebuild=True)
        return added
