"""A Unigram model as the `tokenizers` library holds it: written to `tokenizer.json`, and read from there."""

from __future__ import annotations

import base64
import binascii
import json
from collections.abc import Mapping
from typing import Any

from tokenizers import Regex, Tokenizer, decoders, models, normalizers, pre_tokenizers

from ..errors import TokenizerError
from .sentencepiece_model import (
    BYTE,
    BYTE_PIECE,
    CONTROL,
    NORMAL,
    SPACE,
    UNKNOWN,
    USER_DEFINED,
    SentencePieceModel,
)
from .unigram import Preparation

# Steps of a `tokenizer.json` that say nothing about the model. The first two are those of transformers, which rewrites
# quotation marks although RemBERT was not trained so; the others are what `do_lower_case` and `keep_accents` are about.
_PASSED_OVER = ({"String": "``"}, {"String": "''"})
_OF_SETTINGS = ("NFKD", "StripAccents", "Lowercase")
_BLANKS = {"Regex": " {2,}"}


def unigram_backend(model: SentencePieceModel, preparation: Preparation) -> Tokenizer:
    """Return a `tokenizers.Tokenizer` as near to a SentencePiece model as that library can come.

    Blanks at the ends go after the added tokens are found, so that each stretch between them is a text of its own.
    """
    backend = Tokenizer(models.Unigram(_backend_pieces(model), model.unknown_id, model.byte_fallback))
    steps = preparation.steps()
    if model.charsmap:
        steps.append(normalizers.Precompiled(model.charsmap))
    trims = model.remove_extra_whitespaces or preparation.remove_space
    if trims:
        steps.append(normalizers.Replace(Regex(" {2,}"), " "))
    backend.normalizer = normalizers.Sequence(steps)
    scheme = "always" if model.add_dummy_prefix else "never"
    whole = any(SPACE in piece[1:] for piece in model.pieces)
    spaces = pre_tokenizers.Metaspace(replacement=SPACE, prepend_scheme=scheme, split=not whole)
    ends = pre_tokenizers.Split(Regex(r"\A | \z"), "removed")
    backend.pre_tokenizer = pre_tokenizers.Sequence([ends, spaces]) if trims else spaces
    backend.decoder = decoders.Metaspace(replacement=SPACE, prepend_scheme=scheme)
    return backend


def _backend_pieces(model: SentencePieceModel) -> list[tuple[str, float]]:
    """Return the pieces with scores that let `tokenizers` choose as SentencePiece does."""

    def score(piece: str, given: float, kind: int) -> float:
        if kind == NORMAL:
            return given
        if kind == USER_DEFINED:
            # SentencePiece prefers these to whatever else could stand in their place.
            return 0.1 * (len(piece) - 1)
        # That of the other kinds must not count, since the lowest one decides what an unknown character costs.
        return model.least_score

    return [(p, score(p, s, k)) for p, s, k in zip(model.pieces, model.scores, model.types, strict=True)]


def model_of_backend(state: Mapping[str, Any], where: str) -> SentencePieceModel:
    """Return the model that a `tokenizer.json` was made from, as far as that file says.

    A piece that is a special token there is a control piece; other control pieces and unused ones cannot be told
    from normal ones.

    Raises:
        TokenizerError: the file's vocabulary is malformed, or it prepares text as SentencePiece does not.
    """
    model = state["model"]
    try:
        pieces = tuple(str(piece) for piece, _ in model["vocab"])
        scores = tuple(float(score) for _, score in model["vocab"])
        unknown = int(model["unk_id"])
    except (KeyError, TypeError, ValueError) as error:
        raise TokenizerError(
            f"{where}: a Unigram model lists pieces with scores and the unknown piece's number, and this one does "
            f"not ({error!r})."
        ) from error
    special = {token.get("id") for token in state.get("added_tokens") or () if token.get("special")}
    byte_fallback = bool(model.get("byte_fallback", False))
    types = bytearray([NORMAL]) * len(pieces)
    for index, piece in enumerate(pieces):
        if index in special:
            types[index] = CONTROL
        elif byte_fallback and BYTE_PIECE.fullmatch(piece):
            types[index] = BYTE
    if not 0 <= unknown < len(pieces):
        raise TokenizerError(f"{where}: the unknown piece's number is {unknown}, and there are {len(pieces)} pieces.")
    types[unknown] = UNKNOWN
    steps = _steps(state, where)
    found = SentencePieceModel(pieces, scores, bytes(types), byte_fallback=byte_fallback, **steps)
    found.check(where)
    return found


def backend_steps(state: Mapping[str, Any]) -> list[Mapping[str, Any]]:
    """Return the steps of a `tokenizer.json`'s normaliser."""
    normalizer = state.get("normalizer") or {}
    steps = (
        normalizer.get("normalizers") if normalizer.get("type") == "Sequence" else [normalizer] if normalizer else []
    )
    return list(steps or ())


def _steps(state: Mapping[str, Any], where: str) -> dict[str, Any]:
    """Return the fields of a model that a `tokenizer.json`'s text steps say."""
    found: dict[str, Any] = {"charsmap": b"", "remove_extra_whitespaces": False}
    for step in backend_steps(state):
        kind = step.get("type")
        if kind == "Precompiled":
            try:
                found["charsmap"] = base64.b64decode(step["precompiled_charsmap"], validate=True)
            except (KeyError, TypeError, binascii.Error) as error:
                raise TokenizerError(f"{where}: the compiled character rules are damaged ({error}).") from error
        elif kind == "Replace" and step.get("pattern") == _BLANKS and step.get("content") == " ":
            found["remove_extra_whitespaces"] = True
        elif not (kind in _OF_SETTINGS or (kind == "Replace" and step.get("pattern") in _PASSED_OVER)):
            raise TokenizerError(_foreign(where, step))
    splitter = state.get("pre_tokenizer") or {}
    steps = splitter.get("pretokenizers", ()) if splitter.get("type") == "Sequence" else [splitter]
    kinds = [step.get("type") for step in steps]
    if kinds not in (["Metaspace"], ["Split", "Metaspace"]):
        raise TokenizerError(_foreign(where, splitter))
    spaces = steps[-1]
    found["add_dummy_prefix"] = spaces.get("prepend_scheme", "always") != "never" and spaces.get(
        "add_prefix_space", True
    )
    return found


def _foreign(where: str, step: Mapping[str, Any]) -> str:
    shown = json.dumps(step, ensure_ascii=False)
    return (
        f"{where}: this file prepares text by {shown if len(shown) < 120 else shown[:117] + '...'}, which "
        "SentencePiece does not do: open the tokenizer from its sentencepiece.model."
    )
