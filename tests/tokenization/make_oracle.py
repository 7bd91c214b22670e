"""Write what transformers 4.57.6 makes of the fuzz corpus, where its slow and fast tokenizers agree.

Run in an environment of its own (CONTRIBUTING says how), from the repository's root:

    .peers/bin/python tests/tokenization/make_oracle.py
    .peers/bin/python tests/tokenization/make_oracle.py --vocab vocab.txt --count 20000 --out /tmp/measured

The first form writes the files that the tests read; the second one takes another vocabulary and more strings.
"""

from __future__ import annotations

import argparse
import hashlib
import json
import sys
from collections import Counter
from pathlib import Path
from typing import Any

import transformers

TESTS = Path(__file__).resolve().parents[1]
sys.path.insert(0, str(TESTS))

from support.corpus import strings  # noqa: E402

FOLDER = Path(__file__).parent / "oracle"
SEED, COUNT = 11, 500
SPECIAL = ["[PAD]", "[UNK]", "[CLS]", "[SEP]", "[MASK]"]
PIECES = "the running un ##aff ##able ##ing model left right whole token ##s naive stras ##se 20 ##26 x don istanbul"
FAMILIES = ("MobileBert", "ConvBert", "SqueezeBert")
SETTINGS: dict[str, dict[str, Any]] = {
    "uncased": {},
    "cased": {"do_lower_case": False},
    "accented": {"strip_accents": False},
    "unspaced": {"tokenize_chinese_chars": False},
}
CALLS: list[dict[str, Any]] = [
    {},
    {"add_special_tokens": False},
    {"padding": True},
    {"padding": "max_length", "max_length": 40, "truncation": True},
    {"padding": "max_length", "max_length": 24, "truncation": True, "padding_side": "left"},
    {"padding": True, "pad_to_multiple_of": 8, "return_special_tokens_mask": True},
    {"max_length": 9, "truncation": True},
    {"max_length": 12, "truncation": "only_first", "return_length": True},
    {"max_length": 6},
]
PAIR_CALLS: list[dict[str, Any]] = [
    {},
    {"padding": True, "return_special_tokens_mask": True},
    {"max_length": 16, "truncation": True},
    {"max_length": 17, "truncation": True, "padding": "max_length"},
    {"max_length": 60, "truncation": "only_second"},
    {"max_length": 60, "truncation": "only_first"},
]


def write_vocab(path: Path, texts: list[str]) -> None:
    """Write a small vocabulary: some words, and the corpus's most frequent characters in every place."""
    counts = Counter(character for text in texts for character in (text + text.lower()) if character.isprintable())
    kept = sorted(c for c, _ in counts.most_common(900) if not c.isspace())
    tokens = dict.fromkeys([*SPECIAL, *PIECES.split(), *kept, *(f"##{c}" for c in kept)])
    path.write_text("".join(f"{token}\n" for token in tokens), encoding="utf-8")


def both(family: str, vocab: Path, **settings: Any) -> tuple[Any, Any]:
    """Return transformers' slow and fast tokenizers of a family."""
    return tuple(getattr(transformers, f"{family}Tokenizer{kind}")(str(vocab), **settings) for kind in ("", "Fast"))


def agreed(slow: Any, fast: Any) -> Any:
    """Return what both say, or None."""
    return slow if slow == fast else None


def call(tokenizer: Any, texts: Any, pairs: Any, arguments: dict[str, Any]) -> Any:
    """Return what one call gives, as plain lists."""
    return dict(tokenizer(texts, pairs, **arguments))


def main() -> None:
    """Write the files."""
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--vocab", type=Path)
    parser.add_argument("--count", type=int, default=COUNT)
    parser.add_argument("--out", type=Path, default=FOLDER)
    options = parser.parse_args()
    texts = list(strings(options.count, SEED))
    options.out.mkdir(parents=True, exist_ok=True)
    vocab = options.vocab or options.out / "vocab.txt"
    if options.vocab is None:
        write_vocab(vocab, texts)
    found: dict[str, Any] = {
        "transformers": transformers.__version__,
        "seed": SEED,
        "count": options.count,
        "corpus": hashlib.sha256("\0".join(texts).encode()).hexdigest(),
        "ids": {},
        "decoded": {},
        "calls": [],
    }
    for name, settings in SETTINGS.items():
        slow, fast = both("MobileBert", vocab, **settings)
        ids = [agreed(slow(text)["input_ids"], fast(text)["input_ids"]) for text in texts]
        found["ids"][name] = ids
        print(f"{name}: slow and fast agree on {sum(row is not None for row in ids)} of {len(texts)} strings")
        found["decoded"][name] = [
            None
            if row is None
            else [
                agreed(slow.decode(row, **flags), fast.decode(row, **flags))
                for flags in ({}, {"skip_special_tokens": True, "clean_up_tokenization_spaces": True})
            ]
            for row in ids[:100]
        ]
    for family in FAMILIES:
        slow, fast = both(family, vocab)
        usable = [i for i, row in enumerate(found["ids"]["uncased"]) if row is not None and len(row) > 12][:12]
        first, second = [texts[i] for i in usable[:6]], [texts[i] for i in usable[6:]]
        for pairs, calls in ((None, CALLS), (second, PAIR_CALLS)):
            for arguments in calls:
                got = agreed(*(call(t, first, pairs, arguments) for t in (slow, fast)))
                if got is not None:
                    found["calls"].append(
                        {"family": family, "texts": usable[:6], "pairs": usable[6:] if pairs else None}
                        | {"arguments": arguments, "result": got}
                    )
    print(f"{len(found['calls'])} calls agree")
    path = options.out / "expected.json"
    path.write_text(json.dumps(found, separators=(",", ":")), encoding="utf-8")
    print(f"{path}: {path.stat().st_size} bytes")


if __name__ == "__main__":
    main()
