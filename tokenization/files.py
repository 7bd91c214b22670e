"""A tokenizer's files: `vocab.txt`, `tokenizer.json`, `tokenizer_config.json` and `special_tokens_map.json`."""

from __future__ import annotations

import json
import os
from collections.abc import Iterable, Mapping
from pathlib import Path
from typing import TYPE_CHECKING, Any

from tokenizers import AddedToken, Tokenizer

from ..core.hub import read_json, resolve_file, write_json, write_text
from ..errors import CheckpointError, CheckpointNotFoundError, TokenizerError
from .special_tokens import ADDITIONAL, NAMES, token_fields

if TYPE_CHECKING:
    from .base import PreTrainedTokenizerBase

CONFIG_FILE = "tokenizer_config.json"
SPECIAL_FILE = "special_tokens_map.json"
ADDED_FILE = "added_tokens.json"
FAST_FILE = "tokenizer.json"


def read_settings(cls: type[PreTrainedTokenizerBase], name_or_path: str | os.PathLike[str]) -> dict[str, Any]:
    """Return the constructor's arguments for the tokenizer of a folder or Hub name.

    Of the files, `tokenizer_config.json` outweighs `special_tokens_map.json` and the old `added_tokens.json`, and those
    outweigh `tokenizer.json`. Any set of files that holds a vocabulary is enough.

    Raises:
        CheckpointNotFoundError: no file holds a vocabulary.
        TokenizerError: a file is damaged.
    """
    found: dict[str, Any] = {}
    for argument, filename in cls.vocab_files_names.items():
        path = resolve_file(name_or_path, filename, required=False)
        if path is not None:
            found[argument] = str(path)
    if not found:
        names = " nor ".join(cls.vocab_files_names.values())
        raise CheckpointNotFoundError(f"{name_or_path} holds no vocabulary: there is neither {names}.")
    config = _optional(name_or_path, CONFIG_FILE)
    special = _optional(name_or_path, SPECIAL_FILE)
    settings = {**{name: _token(value) for name, value in special.items() if name in (*NAMES, ADDITIONAL)}, **config}
    if "added_tokens_decoder" not in config:
        old = _optional(name_or_path, ADDED_FILE)
        if old:
            marked = {str(getattr(token, "content", token)) for token in _flat(settings)}
            settings["added_tokens_decoder"] = {
                token_id: {"content": token, "special": token in marked, "normalized": token not in marked}
                for token, token_id in old.items()
            }
    else:
        settings["added_tokens_decoder"] = {
            key: _token(token) for key, token in dict(config["added_tokens_decoder"]).items()
        }
    for name in (*NAMES, ADDITIONAL):
        if name in settings:
            settings[name] = _token(settings[name])
    return {**settings, **found, "name_or_path": str(name_or_path)}


def _optional(name_or_path: str | os.PathLike[str], filename: str) -> dict[str, Any]:
    path = resolve_file(name_or_path, filename, required=False)
    return {} if path is None else read_object(path)


def read_object(path: str | os.PathLike[str]) -> dict[str, Any]:
    """Return the object in a JSON file of a tokenizer."""
    try:
        return read_json(path, what="tokenizer file")
    except CheckpointError as error:
        raise TokenizerError(str(error)) from error


def _flat(settings: Mapping[str, Any]) -> Iterable[Any]:
    yield from (settings[name] for name in NAMES if name in settings)
    yield from settings.get(ADDITIONAL) or ()


def _token(value: Any) -> Any:
    """Return a token as the files write it (its text, or its fields) as text or `AddedToken`."""
    if isinstance(value, list):
        return [_token(item) for item in value]
    if isinstance(value, Mapping) and "content" in value:
        return AddedToken(**{key: item for key, item in value.items() if key != "__type"})
    return value


def backend_state(
    path: str | os.PathLike[str] | None, backend: Tokenizer | None, kind: str, vocabulary: type[Any]
) -> dict[str, Any] | None:
    """Return the content of a `tokenizer.json`, of a file or of a tokenizer; None if there is neither.

    Args:
        path: the file.
        backend: the tokenizer.
        kind: the model's type that is needed.
        vocabulary: what such a model's vocabulary is in JSON, a dict or a list.

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
    model = model if isinstance(model, dict) else {}
    found = model.get("type", kind)
    if found != kind or not isinstance(model.get("vocab"), vocabulary):
        raise TokenizerError(f"{where}: this holds a model of type {found!r}, and {kind} is needed.")
    try:
        Tokenizer.from_str(json.dumps(state))
    except Exception as error:
        raise TokenizerError(f"{where}: the tokenizers library cannot read this file: {error}.") from error
    return state


def added_of(state: Mapping[str, Any]) -> dict[int, dict[str, Any]]:
    """Return the added tokens of a `tokenizer.json` as `added_tokens_decoder` holds them."""
    return {
        entry["id"]: {key: value for key, value in entry.items() if key != "id"}
        for entry in state.get("added_tokens") or ()
    }


def read_vocab(path: str | os.PathLike[str]) -> dict[str, int]:
    """Return the vocabulary of a file with one token a line; the line's number is the id, counted from 0.

    Raises:
        TokenizerError: there is no such file, it is not UTF-8, or a token stands in it twice.
    """
    try:
        text = Path(path).read_bytes().decode("utf-8-sig")
    except FileNotFoundError as error:
        raise TokenizerError(f"{path}: there is no such vocabulary file.") from error
    except (UnicodeDecodeError, IsADirectoryError) as error:
        raise TokenizerError(f"{path}: a vocabulary is a UTF-8 text file with one token a line ({error}).") from error
    lines = text.split("\n")
    if lines[-1] == "":
        lines.pop()
    return vocab_of([line.removesuffix("\r") for line in lines], str(path))


def vocab_of(tokens: Iterable[str], where: str) -> dict[str, int]:
    """Return the ids of a list of tokens.

    Raises:
        TokenizerError: the list is empty, or a token stands in it twice.
    """
    ids: dict[str, int] = {}
    for index, token in enumerate(tokens):
        if not isinstance(token, str):
            raise TokenizerError(f"{where}: entry {index} is {token!r}; every token must be a string.")
        if token in ids:
            raise TokenizerError(
                f"{where}: the token {token!r} stands on line {ids[token] + 1} and again on line {index + 1}, so "
                "its id would be unclear. Replace one of the two by an unused token such as '[unused0]'."
            )
        ids[token] = index
    if not ids:
        raise TokenizerError(f"{where}: the vocabulary is empty.")
    return ids


def settings_of(tokenizer: PreTrainedTokenizerBase) -> dict[str, Any]:
    """Return the content of `tokenizer_config.json`: what the constructor takes, and every key that was not known."""
    return {
        **tokenizer.unknown_settings,
        **tokenizer.init_settings,
        **_plain(tokenizer.special_tokens_map),
        "added_tokens_decoder": {
            str(token_id): token_fields(token) for token_id, token in tokenizer.added_tokens_decoder.items()
        },
        "clean_up_tokenization_spaces": tokenizer.clean_up_tokenization_spaces,
        "model_max_length": tokenizer.model_max_length,
        "padding_side": tokenizer.padding_side,
        "truncation_side": tokenizer.truncation_side,
        "tokenizer_class": type(tokenizer).__name__.removesuffix("Fast"),
        # Written only when it is not the family's: a reader that lacks the key takes its own default.
        **(
            {"model_input_names": tokenizer.model_input_names}
            if tokenizer.model_input_names != type(tokenizer).model_input_names
            else {}
        ),
    }


def _plain(value: Any) -> Any:
    if isinstance(value, AddedToken):
        return token_fields(value)
    if isinstance(value, Mapping):
        return {key: _plain(item) for key, item in value.items()}
    if isinstance(value, list | tuple):
        return [_plain(item) for item in value]
    return value


def write_tokenizer(tokenizer: PreTrainedTokenizerBase, folder: str | os.PathLike[str]) -> tuple[str, ...]:
    """Write all files of a tokenizer into a folder, so that both kinds and the `tokenizers` library can read it.

    Returns:
        The paths written.
    """
    target = Path(folder)
    if target.exists() and not target.is_dir():
        raise TokenizerError(f"{target} is a file; a tokenizer is saved into a folder.")
    # Whatever cannot be written is found out before the first file changes.
    config = json.loads(_dump(_plain(tokenizer.settings())))
    special = json.loads(_dump(_plain(tokenizer.special_tokens_map_extended)))
    backend = tokenizer.backend_json()
    vocabulary = tokenizer.save_vocabulary(target)
    write_text(target / FAST_FILE, backend)
    write_json(target / SPECIAL_FILE, special)
    write_json(target / CONFIG_FILE, config)
    return (*vocabulary, *(str(target / name) for name in (FAST_FILE, SPECIAL_FILE, CONFIG_FILE)))


def _dump(content: Any) -> str:
    try:
        return json.dumps(content)
    except (TypeError, ValueError) as error:
        raise TokenizerError(f"The tokenizer's settings cannot be written as JSON: {error}.") from error
