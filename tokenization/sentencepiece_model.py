"""A SentencePiece model's file: read and written here, in protobuf's wire format, without protobuf.

The file is one message of the schema `sentencepiece_model.proto` (Kudo and Richardson 2018, "SentencePiece", section
3.3: a model is self-contained). A message is a row of fields; each begins with a key, the field's number times eight
plus its wire type (0 a variable-length integer, 1 eight bytes, 2 a length and so many bytes, 5 four bytes), and a field
that is missing has the schema's default.
"""

from __future__ import annotations

import re
import struct
from collections.abc import Iterator
from dataclasses import dataclass, field
from functools import cached_property
from pathlib import Path
from typing import Any

from ..errors import TokenizerError

NORMAL, UNKNOWN, CONTROL, USER_DEFINED, UNUSED, BYTE = 1, 2, 3, 4, 5, 6
SPACE = "\u2581"
"""What SentencePiece writes for a blank."""

BYTE_PIECE = re.compile("<0x[0-9A-F]{2}>")
_ALGORITHMS = {1: "Unigram", 2: "BPE", 3: "word", 4: "character"}
_MASK = (1 << 64) - 1


@dataclass(frozen=True)
class SentencePieceModel:
    """What a SentencePiece model says; `to_bytes` writes it, so that a changed copy is a model too.

    Attributes:
        pieces: every piece; its place is its id.
        scores: each piece's logarithm of a probability.
        types: each piece's kind, `NORMAL` to `BYTE`.
        charsmap: the compiled rules by which characters are replaced; nothing if there are none.
        add_dummy_prefix: a blank is put before the text.
        remove_extra_whitespaces: blanks at the ends go, and several become one.
        escape_whitespaces: a blank becomes `SPACE`.
        whitespace_as_suffix: pieces end with the blank instead of beginning with it.
        byte_fallback: a character that no piece holds becomes its UTF-8 bytes, each a piece.
        denormalizer: the message of rules for decoding, as it was read.
        raw: the file's content, if it came from a file.
    """

    pieces: tuple[str, ...]
    scores: tuple[float, ...]
    types: bytes
    charsmap: bytes = b""
    add_dummy_prefix: bool = True
    remove_extra_whitespaces: bool = True
    escape_whitespaces: bool = True
    whitespace_as_suffix: bool = False
    byte_fallback: bool = False
    denormalizer: bytes = b""
    raw: bytes = field(default=b"", repr=False, compare=False)

    @cached_property
    def unknown_id(self) -> int:
        """The id of the one unknown piece."""
        return self.types.index(UNKNOWN)

    @cached_property
    def least_score(self) -> float:
        """The lowest score of a normal piece."""
        return min((s for s, kind in zip(self.scores, self.types, strict=True) if kind == NORMAL), default=0.0)

    def __deepcopy__(self, memo: dict[int, Any]) -> SentencePieceModel:
        return self

    @classmethod
    def from_file(cls, path: str | Path) -> SentencePieceModel:
        """Read a model's file.

        Raises:
            TokenizerError: there is no such file, or it is no whole Unigram model.
        """
        try:
            data = Path(path).read_bytes()
        except FileNotFoundError as error:
            raise TokenizerError(f"{path}: there is no such SentencePiece model.") from error
        except OSError as error:
            raise TokenizerError(
                f"{path}: a SentencePiece model is one file, and this cannot be read: {error}."
            ) from error
        return cls.from_bytes(data, str(path))

    @classmethod
    def from_bytes(cls, data: bytes, where: str = "model") -> SentencePieceModel:
        """Read a model from the content of its file; `where` is what a message calls it.

        Raises:
            TokenizerError: this is no whole Unigram model.
        """
        if not data:
            raise TokenizerError(f"{where}: the file is empty, and a SentencePiece model is needed.")
        try:
            return cls._parsed(data, where)
        except (IndexError, struct.error, UnicodeDecodeError, TypeError, _WireError) as error:
            raise TokenizerError(
                f"{where}: this is no SentencePiece model, or only a part of one ({error}). Download it anew; a "
                "pointer of Git LFS in its place is a short text file."
            ) from error

    @classmethod
    def _parsed(cls, data: bytes, where: str) -> SentencePieceModel:
        pieces: list[str] = []
        scores: list[float] = []
        types = bytearray()
        trainer: dict[int, Any] = {}
        normalizer: dict[int, Any] = {}
        denormalizer = b""
        for number, value in _fields(data):
            if number == 1:
                piece, score, kind = _piece(value)
                pieces.append(piece)
                scores.append(score)
                types.append(kind)
            elif number == 2:
                trainer.update(_fields(value))
            elif number == 3:
                normalizer.update(_fields(value))
            elif number == 5:
                denormalizer = value
        algorithm = trainer.get(3, 1)
        if algorithm != 1:
            raise TokenizerError(
                f"{where}: this is a SentencePiece model of the kind {_ALGORITHMS.get(algorithm, algorithm)}, and a "
                "Unigram model is needed."
            )
        found = cls(
            tuple(pieces),
            tuple(scores),
            bytes(types),
            charsmap=bytes(normalizer.get(2, b"")),
            add_dummy_prefix=bool(normalizer.get(3, 1)),
            remove_extra_whitespaces=bool(normalizer.get(4, 1)),
            escape_whitespaces=bool(normalizer.get(5, 1)),
            whitespace_as_suffix=bool(trainer.get(24, 0)),
            byte_fallback=bool(trainer.get(35, 0)),
            denormalizer=bytes(denormalizer),
            raw=bytes(data),
        )
        found.check(where)
        return found

    def check(self, where: str) -> None:
        """Raise a TokenizerError if the pieces are not those of a model."""
        if not self.pieces:
            raise TokenizerError(f"{where}: this SentencePiece model has no pieces.")
        if self.types.count(UNKNOWN) != 1:
            raise TokenizerError(
                f"{where}: a SentencePiece model has one unknown piece, and this one has {self.types.count(UNKNOWN)}."
            )
        if len(set(self.pieces)) != len(self.pieces):
            seen: set[str] = set()
            twice = next(piece for piece in self.pieces if piece in seen or seen.add(piece))  # type: ignore[func-returns-value]
            raise TokenizerError(
                f"{where}: the piece {twice!r} stands in this model twice, so its id would be unclear."
            )

    def to_bytes(self) -> bytes:
        """Return the content of a model's file: the one that was read, or what the fields say.

        To change a model, give `dataclasses.replace` the new fields and `raw=b""`.
        """
        if self.raw:
            return self.raw
        parts = [
            _bytes_field(
                1,
                _bytes_field(1, piece.encode()) + b"\x15" + struct.pack("<f", score) + _integer_field(3, kind),
            )
            for piece, score, kind in zip(self.pieces, self.scores, self.types, strict=True)
        ]
        trainer = (
            _integer_field(3, 1)
            + _integer_field(4, len(self.pieces))
            + _integer_field(24, self.whitespace_as_suffix)
            + _integer_field(35, self.byte_fallback)
            + _integer_field(40, self.unknown_id)
            + _bytes_field(45, self.pieces[self.unknown_id].encode())
        )
        normalizer = (
            (_bytes_field(2, self.charsmap) if self.charsmap else b"")
            + _integer_field(3, self.add_dummy_prefix)
            + _integer_field(4, self.remove_extra_whitespaces)
            + _integer_field(5, self.escape_whitespaces)
        )
        rest = _bytes_field(5, self.denormalizer) if self.denormalizer else b""
        return b"".join(parts) + _bytes_field(2, trainer) + _bytes_field(3, normalizer) + rest


class _WireError(Exception):
    """Bytes that are no protobuf message."""


def _varint(data: bytes | memoryview, place: int) -> tuple[int, int]:
    value = shift = 0
    while True:
        byte = data[place]
        place += 1
        value |= (byte & 0x7F) << shift
        if byte < 0x80:
            return value, place
        shift += 7
        if shift > 63:
            raise _WireError(f"a number at byte {place} does not end")


def _fields(data: bytes | memoryview) -> Iterator[tuple[int, Any]]:
    """Yield the number and the value of each field of a message."""
    view = memoryview(data)
    place, size = 0, len(view)
    while place < size:
        start = place
        key, place = _varint(view, place)
        number, wire = key >> 3, key & 7
        value: Any
        if wire == 2:
            length, place = _varint(view, place)
            value = view[place : place + length]
            place += length
        elif wire == 0:
            value, place = _varint(view, place)
        elif wire == 5:
            (value,) = struct.unpack_from("<f", view, place)
            place += 4
        elif wire == 1:
            (value,) = struct.unpack_from("<d", view, place)
            place += 8
        else:
            raise _WireError(f"byte {start} begins no field")
        if place > size or number == 0:
            raise _WireError(f"the field at byte {start} does not end")
        yield number, value


def _piece(message: memoryview) -> tuple[str, float, int]:
    # Nearly every piece is its text, then its score: such a one is read at once, since there are 250,000.
    data = bytes(message)
    if len(data) > 6 and data[0] == 0x0A and data[1] == len(data) - 7 and data[-5] == 0x15:
        return data[2:-5].decode(), struct.unpack("<f", data[-4:])[0], NORMAL
    fields = dict(_fields(data))
    kind = fields.get(3, NORMAL)
    if not NORMAL <= kind <= BYTE:
        raise _WireError(f"a piece has the type {kind}")
    return bytes(fields.get(1, b"")).decode(), float(fields.get(2, 0.0)), kind


def _write_varint(value: int) -> bytes:
    value &= _MASK
    out = bytearray()
    while value > 0x7F:
        out.append(value & 0x7F | 0x80)
        value >>= 7
    out.append(value)
    return bytes(out)


def _integer_field(number: int, value: int) -> bytes:
    return _write_varint(number << 3) + _write_varint(int(value))


def _bytes_field(number: int, value: bytes) -> bytes:
    return _write_varint(number << 3 | 2) + _write_varint(len(value)) + value
