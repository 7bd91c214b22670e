"""A fuzz corpus for tokenizers, made by a seed: the same strings on every Python, whatever its Unicode version."""

from __future__ import annotations

import random
from collections.abc import Iterator

SCRIPTS = {
    "latin": ((0x41, 0x5A), (0x61, 0x7A), (0xC0, 0x24F), (0x1E00, 0x1EFF)),
    "greek": ((0x370, 0x3FF), (0x1F00, 0x1FFF)),
    "cyrillic": ((0x400, 0x52F), (0xA640, 0xA69F)),
    "armenian": ((0x531, 0x58F),),
    "hebrew": ((0x591, 0x5F4),),
    "arabic": ((0x600, 0x6FF), (0x750, 0x77F), (0xFE70, 0xFEFF)),
    "devanagari": ((0x900, 0x97F),),
    "bengali": ((0x980, 0x9FF),),
    "tamil": ((0xB80, 0xBFF),),
    "thai": ((0xE00, 0xE7F),),
    "tibetan": ((0xF00, 0xFFF),),
    "georgian": ((0x10A0, 0x10FF), (0x1C90, 0x1CBF)),
    "ethiopic": ((0x1200, 0x139F),),
    "cherokee": ((0x13A0, 0x13FF), (0xAB70, 0xABBF)),
    "khmer": ((0x1780, 0x17FF),),
    "mongolian": ((0x1800, 0x18AF),),
    "kana": ((0x3040, 0x30FF), (0xFF65, 0xFF9F)),
    "hangul": ((0x1100, 0x11FF), (0xAC00, 0xAF00)),
    "han": ((0x4E00, 0x5000), (0x3400, 0x3450), (0x20000, 0x20050), (0xF900, 0xFAFF), (0x2F800, 0x2F850)),
    "deseret": ((0x10400, 0x1044F),),
    "mathematical": ((0x1D400, 0x1D7FF),),
}
ODD_RANGES = (
    (0x0, 0x20),
    (0x7F, 0xA0),  # controls
    (0x21, 0x40),
    (0x2000, 0x206F),
    (0x2E00, 0x2E7F),
    (0x3000, 0x303F),  # punctuation, blanks, joiners; tone marks that stay and move
    (0x300, 0x36F),
    (0x1AB0, 0x1AFF),
    (0x1DC0, 0x1DFF),
    (0x20D0, 0x20FF),  # accents to combine, older and newer
    (0x1D15E, 0x1D1C0),  # musical symbols: decompositions with marks that stay
    (0x110B0, 0x110CF),
    (0x11930, 0x11946),  # marks and controls of later Unicode versions
    (0x13430, 0x13440),
    (0xE000, 0xE020),
    (0xFFF0, 0xFFFF),
    (0xE0000, 0xE0080),
    (0x10FFF0, 0x10FFFF),  # private, unassigned, tags
    (0x1F300, 0x1F6FF),
    (0x1F900, 0x1FAFF),
    (0x2600, 0x27BF),  # emoji, some unassigned
    (0xA7C0, 0xA7DF),
    (0x10D40, 0x10D90),
    (0x16E90, 0x16EE0),  # capitals of the newest versions
)
BLANKS = (" ", " ", " ", " ", "  ", "\t", "\n", "\r\n", "\u00a0", "\u202f", "\u3000", "\u2028", "\x0b", "\x1c", "\x85")
EMOJI = (
    "\U0001f468\u200d\U0001f469\u200d\U0001f467",  # family, joined by zero-width joiners
    "\U0001f1e9\U0001f1ea",  # flag of two regional indicators
    "\U0001f3f4\U000e0067\U000e0062\U000e0073\U000e0063\U000e0074\U000e007f",  # flag of tags
    "\U0001f44d\U0001f3fd",  # thumb with a skin tone
    "\u2764\ufe0f",
    "1\ufe0f\u20e3",
    "\U0001fae8",
    "\U0001fadf",
)
PIECES_OF_NOTE = (
    "[MASK]",
    "[SEP]",
    "[CLS]",
    "[PAD]",
    "[UNK]",
    "[mask]",
    "[MASK",
    "##ing",
    "don't",
    "U.S.A.",
    "\u0130stanbul",
    "\u039f\u03a3\u039f\u03a3",
    "\u1e9e\u00df",
    "\ufb01\ufb02",
    "e\u0301\u0327",
    "\u1e69\u0323\u0307",
    "a\u302e\u0327\u302a",
    "\U0001d15e\u0327\U0001d165",
    "\u0344x",
    "\u0f71\u0f72\u0f74",
    "\u00c5\u212b\u2126",
    "\ufeffbom",
    "x\u200by\u00adz",
    "\u166d",
    "\U000111c9",
)
ADDED = ("<new>", "Stra\u00dfe", "caf\u00e9", "two words", "\u00c9t\u00e9", "left", "right", "whole", "<S>", "a\u0301b")


def _characters(rng: random.Random, ranges: tuple[tuple[int, int], ...], count: int) -> str:
    return "".join(chr(rng.randint(*rng.choice(ranges))) for _ in range(count))


def _piece(rng: random.Random, script: str, ascii_words: tuple[str, ...]) -> str:
    choice = rng.random()
    if choice < 0.45:
        return _characters(rng, SCRIPTS[script], rng.randint(1, 8))
    if choice < 0.65:
        word = rng.choice(ascii_words)
        return rng.choice((word, word.upper(), word.title(), word + rng.choice(".,;!?-'\u2019\u2014\u3002")))
    if choice < 0.75:
        return _characters(rng, ODD_RANGES, rng.randint(1, 4))
    if choice < 0.80:
        return rng.choice(EMOJI)
    if choice < 0.86:
        base = _characters(rng, SCRIPTS[script], 1)
        return base + _characters(rng, ((0x300, 0x345), (0x302A, 0x302F), (0x1D165, 0x1D166)), rng.randint(1, 4))
    if choice < 0.93:
        return rng.choice(PIECES_OF_NOTE)
    return rng.choice(ADDED)


def _anything(rng: random.Random) -> str:
    """Return any code point that is a character: assigned or not, but no surrogate."""
    code = rng.randrange(0x110000 - 0x800)
    return chr(code if code < 0xD800 else code + 0x800)


def strings(count: int, seed: int = 0) -> Iterator[str]:
    """Yield `count` strings; every script comes equally often, each hundredth string holds a very long word."""
    rng = random.Random(seed)
    scripts = list(SCRIPTS)
    words = (
        "the",
        "running",
        "unaffable",
        "model",
        "left",
        "right",
        "whole",
        "tokens",
        "naive",
        "strasse",
        "x",
        "2026",
    )
    for index in range(count):
        script = scripts[index % len(scripts)]
        parts = [_piece(rng, script, words) for _ in range(rng.randint(0, 9))]
        if index % 100 == 99:
            parts.append(_characters(rng, SCRIPTS[script], rng.choice((98, 99, 100, 101, 102, 3000))))
        if index % 20 == 7:
            parts.append("".join(_anything(rng) for _ in range(12)))
        yield "".join(part + rng.choice((*BLANKS, "", "", "")) for part in parts)
