"""Unigram segmentation by SentencePiece, with the original text's characters for every piece.

The model is that of Kudo 2018, "Subword Regularization", section 3.2: of all ways to cut a text into pieces, the one
whose pieces' probabilities have the greatest product. SentencePiece itself does it, as it did when the checkpoints were
trained: its search adds scores in single precision from the text's beginning, so which of two ways with equal scores
wins depends on rounding, and no other implementation is sure to say the same. What is ours is where each piece comes
from.
"""

from __future__ import annotations

import re
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass, replace
from itertools import accumulate
from typing import Any

from sentencepiece import SentencePieceProcessor
from tokenizers import normalizers

from ..errors import TokenizerError
from .rows import Span
from .sentencepiece_model import BYTE, NORMAL, SPACE, UNKNOWN, USER_DEFINED, SentencePieceModel
from .slow import Normalized

_BLANKS = (SPACE, " ")
_SAMPLING = ("enable_sampling", "nbest_size", "alpha")


class Segmenter:
    """Cuts texts into the pieces of a SentencePiece model.

    It holds nothing that a call changes: one is shared by copies of a tokenizer, and by threads.

    Args:
        model: the model.
        where: what a message calls it.

    Attributes:
        removes_blanks: whether blanks at the ends, and all but one of several, go wherever they stand.

    Raises:
        TokenizerError: SentencePiece refuses the model.
    """

    def __init__(self, model: SentencePieceModel, where: str = "model") -> None:
        self.model = model
        self.processor = _processor(model, where)
        self.vocab = {piece: index for index, piece in enumerate(model.pieces)}
        wanted = (NORMAL, USER_DEFINED, BYTE) if model.byte_fallback else (NORMAL, USER_DEFINED)
        # Text can become only these: the others stand in the vocabulary, but a text that looks like them is plain text.
        kinds = enumerate(model.types)
        self._ids = {model.pieces[index]: index for index, kind in kinds if kind in wanted}
        self._spelling = model.pieces.__getitem__
        self._bytes = {piece: i for piece, i in self._ids.items() if model.types[i] == BYTE}
        self.byte_ids = frozenset(self._bytes.values())
        symbols = [p for p, kind in zip(model.pieces, model.types, strict=True) if kind == USER_DEFINED]
        self._symbols = re.compile("|".join(map(re.escape, symbols))) if symbols else None
        # SentencePiece takes a symbol that holds a blank for what it is before it looks at blanks.
        self.removes_blanks = model.remove_extra_whitespaces and not any(map(set(_BLANKS).intersection, symbols))
        self._characters: SentencePieceProcessor | None = None

    def __deepcopy__(self, memo: dict[int, Any]) -> Segmenter:
        return self

    def __reduce__(self) -> tuple[Any, ...]:
        return Segmenter, (self.model,)

    def ids(self, texts: list[str]) -> list[list[int]]:
        """Return the ids of each text's pieces; the texts are shared out among the machine's cores."""
        found: list[list[int]] = self.processor.encode(texts, out_type=int) if texts else []
        return found

    def is_plain(self, text: str) -> bool:
        """Return whether the model's rules change nothing in a text but blanks, and it holds no user-defined symbol.

        Each character of the normal form is then one of the text, and known without asking where it comes from.
        """
        # A symbol is one thing to the rules: all its characters are said to come from its first.
        if SPACE in text or (self._symbols and self._symbols.search(text)):
            return False
        blanks = text.replace("\n", " ").replace("\t", " ")
        if self.model.remove_extra_whitespaces:
            blanks = " ".join(word for word in blanks.split(" ") if word)
        before = SPACE if self.model.add_dummy_prefix and blanks else ""
        normal: str = self.processor.normalize(text)
        return normal == before + blanks.replace(" ", SPACE)

    def segment(
        self, text: str, sampling: Mapping[str, Any] | None = None
    ) -> tuple[list[int], list[str], list[Span], list[bool]]:
        """Cut a text into pieces.

        Args:
            text: the text.
            sampling: SentencePiece's arguments for drawing a segmentation at random (Kudo 2018, section 3.3), if any.

        Returns:
            One entry a piece: its id; its spelling, which for an unknown piece is the text's; the characters of `text`
            that it comes from; whether it begins a word. Of several blanks that became one the last counts. Pieces into
            which one character was spread all come from it.
        """
        unknown = self.model.unknown_id
        if sampling:
            pieces: list[str] = self.processor.encode(text, out_type=str, **sampling)
            ids = [self._ids.get(piece, unknown) for piece in pieces]
        else:
            ids = self.processor.encode(text, out_type=int)
            # Only an unknown piece is spelled otherwise than the model spells it.
            spelling = self.processor.encode(text, out_type=str) if unknown in ids else map(self._spelling, ids)
            pieces = list(spelling)
        if not pieces:
            return [], [], [], []
        normal, origins = self.processor.normalize(text, with_offsets=True)
        stops = list(accumulate(map(len, pieces)))
        if stops[-1] == len(normal) == len(text) + 1 and origins == [0, *range(stops[-1])]:
            # One blank before the text, and else nothing that changes a character's place.
            stops = [stop - 1 for stop in stops]
            spans = list(zip([0, *stops], stops, strict=False))
            if stops[0] == 0:
                spans[0] = (0, 1)
        else:
            places: Iterator[Span] = zip([0, *stops], stops, strict=False)
            spans = self._spans(places if stops[-1] == len(normal) else self._places(pieces), normal, origins)
        if self.model.whitespace_as_suffix:
            begins = [True, *(piece.endswith(_BLANKS) for piece in pieces[:-1])]
        else:
            begins = [piece.startswith(_BLANKS) for piece in pieces]
            begins[0] = True
        return ids, pieces, spans, begins

    @staticmethod
    def _spans(places: Iterator[Span], normal: str, origins: Sequence[int]) -> list[Span]:
        """Return the characters of the text that pieces at `places` of its normal form come from."""
        last = len(normal)
        spans: list[Span] = []
        for first, after in places:
            start = origins[first]
            following = origins[first + 1]
            if following > start and normal[first] in _BLANKS:
                start = following - 1
            end = origins[after - 1]
            while origins[after] == end and after < last:
                after += 1
            spans.append((start, origins[after]))
        return spans

    def _places(self, pieces: Sequence[str]) -> Iterator[Span]:
        """Yield the characters of the normal form that each piece covers, bytes' pieces among them."""
        place = 0
        for piece in pieces:
            if piece not in self._bytes:
                yield place, place + len(piece)
                place += len(piece)
                continue
            # Bytes of the form 10xxxxxx go on with the character that the byte before them is of.
            place += int(piece[3:5], 16) & 0xC0 != 0x80
            yield place - 1, place

    def normalize(self, text: str) -> Normalized:
        """Return a text after the model's character rules, blanks written as blanks, with nothing put before it."""
        if self._characters is None:
            # The smallest model with these rules: only its normaliser is used.
            symbols = [p for p, kind in zip(self.model.pieces, self.model.types, strict=True) if kind == USER_DEFINED]
            pieces = ("<unk>", SPACE, *(symbol for symbol in symbols if symbol not in ("<unk>", SPACE)))
            rules = replace(
                self.model,
                pieces=pieces,
                scores=(0.0,) * len(pieces),
                types=bytes([UNKNOWN, NORMAL]) + bytes([USER_DEFINED]) * (len(pieces) - 2),
                add_dummy_prefix=False,
                escape_whitespaces=False,
                byte_fallback=False,
                raw=b"",
            )
            self._characters = _processor(rules, "model")
        normal, origins = self._characters.normalize(text, with_offsets=True)
        stops: list[int] = []
        stop = origins[-1]
        for place in range(len(normal) - 1, -1, -1):
            if origins[place + 1] > origins[place]:
                stop = origins[place + 1]
            stops.append(stop)
        return Normalized(normal, origins[:-1], stops[::-1])

    def decode(self, pieces: Sequence[str]) -> str:
        """Join pieces into text."""
        text: str = self.processor.decode(list(pieces))
        return text


def _processor(model: SentencePieceModel, where: str) -> SentencePieceProcessor:
    try:
        return SentencePieceProcessor(model_proto=model.to_bytes())
    except (RuntimeError, ValueError) as error:
        raise TokenizerError(f"{where}: SentencePiece cannot read this model: {error}.") from error


@dataclass(frozen=True)
class Preparation:
    """What is done to a text before SentencePiece sees it; the fields are `tokenizer_config.json`'s.

    Attributes:
        do_lower_case: lower capitals, one by one.
        remove_space: drop blanks at the ends and make one of several; most models do so themselves.
        keep_accents: keep accents; otherwise characters are decomposed (Unicode's form NFKD) and marks dropped.
    """

    do_lower_case: bool = False
    remove_space: bool = True
    keep_accents: bool = True

    def steps(self) -> list[normalizers.Normalizer]:
        """Return the steps on characters, as the `tokenizers` library names them."""
        found: list[normalizers.Normalizer] = []
        if not self.keep_accents:
            found += [normalizers.NFKD(), normalizers.StripAccents()]
        if self.do_lower_case:
            found.append(normalizers.Lowercase())
        return found


class _Letters(dict[str, str]):
    """What each character becomes, filled in as characters are met; the `tokenizers` library's tables decide."""

    def __init__(self, preparation: Preparation) -> None:
        super().__init__()
        self._normalize = normalizers.Sequence(preparation.steps()).normalize_str

    def __missing__(self, character: str) -> str:
        value: str = self._normalize(character)
        self[character] = value
        return value


class Preparer:
    """Prepares texts as a `Preparation` says.

    Args:
        preparation: what is to be done.
        strips_itself: the model removes extra blanks, so that it need not be done here.
    """

    def __init__(self, preparation: Preparation, strips_itself: bool) -> None:
        self._arguments = preparation, strips_itself
        self._letters = _Letters(preparation) if preparation.steps() else None
        self._strips = preparation.remove_space and not strips_itself

    def __reduce__(self) -> tuple[Any, ...]:
        return Preparer, self._arguments

    def __deepcopy__(self, memo: dict[int, Any]) -> Preparer:
        return self

    def letters(self, text: str) -> Normalized | None:
        """Return the text with its characters prepared; None if it is as it was."""
        if self._letters is None:
            return None
        table = self._letters
        parts = [table[character] for character in text]
        prepared = "".join(parts)
        if prepared == text:
            return None
        starts = [index for index, part in enumerate(parts) for _ in part]
        return Normalized(prepared, starts, [start + 1 for start in starts])

    def __call__(self, text: str) -> Normalized | None:
        """Return the prepared text; None if it is as it was."""
        normal = self.letters(text)
        if not self._strips:
            return normal
        prepared = text if normal is None else normal.text
        last = len(prepared) - 1
        kept = [
            index
            for index, character in enumerate(prepared)
            if character != " " or (index < last and prepared[index + 1] != " ")
        ]
        if kept and prepared[kept[0]] == " ":
            kept = kept[1:]
        if len(kept) == len(prepared):
            return normal
        starts = kept if normal is None else [normal.starts[index] for index in kept]
        return Normalized("".join(prepared[index] for index in kept), starts, [start + 1 for start in starts])


def checked_sampling(given: Mapping[str, Any] | None) -> dict[str, Any]:
    """Return SentencePiece's arguments for drawing segmentations; none if it is not to."""
    arguments = dict(given or {})
    unknown = [name for name in arguments if name not in _SAMPLING]
    if unknown:
        raise TokenizerError(f"sp_model_kwargs has {unknown[0]!r}; it takes {', '.join(_SAMPLING)}.")
    size, alpha = arguments.get("nbest_size", -1), arguments.get("alpha", 0.1)
    if isinstance(size, bool) or not isinstance(size, int):
        raise TokenizerError(f"sp_model_kwargs: nbest_size is {size!r}; it must be a whole number.")
    if isinstance(alpha, bool) or not isinstance(alpha, int | float):
        raise TokenizerError(f"sp_model_kwargs: alpha is {alpha!r}; it must be a number.")
    if not arguments.get("enable_sampling"):
        return {}
    if size in (0, 1):
        raise TokenizerError(
            f"sp_model_kwargs: nbest_size={size} leaves nothing to draw from: use at least 2, or -1 for all ways."
        )
    return {"enable_sampling": True, "nbest_size": size, "alpha": float(alpha)}
