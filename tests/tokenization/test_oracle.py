"""Both tokenizers say what transformers 4.57.6 says wherever its slow and fast tokenizers agree.

`make_oracle.py` wrote the files that are read here.
"""

from __future__ import annotations

import hashlib
import json
from pathlib import Path
from typing import Any

import pytest

import isobert
from support.corpus import strings

FOLDER = Path(__file__).parent / "oracle"
EXPECTED = json.loads((FOLDER / "expected.json").read_text(encoding="utf-8"))
TEXTS = list(strings(EXPECTED["count"], EXPECTED["seed"]))
SETTINGS: dict[str, dict[str, Any]] = {
    "uncased": {},
    "cased": {"do_lower_case": False},
    "accented": {"strip_accents": False},
    "unspaced": {"tokenize_chinese_chars": False},
}
kinds = pytest.mark.parametrize("kind", ["", "Fast"])


def tokenizer(family: str, kind: str, **settings: Any) -> Any:
    return getattr(isobert, f"{family}Tokenizer{kind}")(FOLDER / "vocab.txt", **settings)


def test_the_corpus_is_the_one_that_the_oracle_saw() -> None:
    assert hashlib.sha256("\0".join(TEXTS).encode()).hexdigest() == EXPECTED["corpus"], "run make_oracle.py again"


@kinds
@pytest.mark.parametrize("name", SETTINGS)
def test_ids_are_those_that_slow_and_fast_transformers_agree_on(name: str, kind: str) -> None:
    found = tokenizer("MobileBert", kind, **SETTINGS[name])(TEXTS)["input_ids"]
    agreed = [(i, row) for i, row in enumerate(EXPECTED["ids"][name]) if row is not None]
    assert len(agreed) > 300
    for index, row in agreed:
        assert found[index] == row, ascii(TEXTS[index])


@kinds
@pytest.mark.parametrize("name", SETTINGS)
def test_decoding_gives_the_text_that_slow_and_fast_transformers_agree_on(name: str, kind: str) -> None:
    ours = tokenizer("MobileBert", kind, **SETTINGS[name])
    flags: tuple[dict[str, Any], ...] = ({}, {"skip_special_tokens": True, "clean_up_tokenization_spaces": True})
    seen = 0
    for row, texts in zip(EXPECTED["ids"][name], EXPECTED["decoded"][name], strict=False):
        for arguments, text in zip(flags, texts or (), strict=False):
            if text is not None:
                seen += 1
                assert ours.decode(row, **arguments) == text
    assert seen > 100


@kinds
@pytest.mark.parametrize("call", EXPECTED["calls"], ids=lambda call: f"{call['family']}-{call['arguments']}")
def test_calls_return_what_slow_and_fast_transformers_agree_on(call: dict[str, Any], kind: str) -> None:
    texts = [TEXTS[i] for i in call["texts"]]
    pairs = None if call["pairs"] is None else [TEXTS[i] for i in call["pairs"]]
    found = tokenizer(call["family"], kind)(texts, pairs, **call["arguments"])
    assert dict(found) == call["result"]
