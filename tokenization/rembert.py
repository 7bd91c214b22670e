"""RemBERT's tokenizers, in Python and on `tokenizers`: SentencePiece's Unigram, cased.

RemBERT (Chung et al. 2020, arXiv 2010.12821, section 4) has a vocabulary of 250,300 pieces for 110 languages. Its
model holds the special pieces itself, so a piece's place in the model is its id.
"""

from __future__ import annotations

from .unigram_tokenizers import UnigramTokenizer, UnigramTokenizerFast


class RemBertTokenizer(UnigramTokenizer):
    """RemBERT's tokenizer in Python, with offsets, word ids and overflowing windows like its fast twin.

    A row is `[CLS] A [SEP]`, or `[CLS] A [SEP] B [SEP]` with token type 0 for the first text and 1 for the second.

    The arguments are those of `UnigramTokenizer`.

    Example:
        >>> from isobert.tokenization.sentencepiece_model import CONTROL, NORMAL, UNKNOWN, SentencePieceModel
        >>> special = ["<pad>", "<unk>", "[CLS]", "[SEP]", "[MASK]"]
        >>> pieces = (*special, "\u2581she", "\u2581is", "\u2581un", "aff", "able", "?")
        >>> types = bytes([CONTROL, UNKNOWN, *[CONTROL] * 3, *[NORMAL] * 6])
        >>> model = SentencePieceModel(pieces, (0.0,) * 5 + (-1.0,) * 6, types)
        >>> tokenizer = RemBertTokenizer(model=model)
        >>> batch = tokenizer("she is unaffable?", "is she", return_offsets_mapping=True)
        >>> batch["input_ids"]
        [2, 5, 6, 7, 8, 9, 10, 3, 6, 5, 3]
        >>> batch["token_type_ids"]
        [0, 0, 0, 0, 0, 0, 0, 0, 1, 1, 1]
        >>> batch["offset_mapping"][1:5]
        [(0, 3), (3, 6), (6, 9), (9, 12)]
        >>> tokenizer.decode(batch["input_ids"], skip_special_tokens=True)
        'she is unaffable? is she'
    """


class RemBertTokenizerFast(UnigramTokenizerFast):
    """RemBERT's tokenizer on `tokenizers`: the arguments and the rows of `RemBertTokenizer`.

    Example:
        >>> from isobert.tokenization.sentencepiece_model import CONTROL, NORMAL, UNKNOWN, SentencePieceModel
        >>> special = ["<pad>", "<unk>", "[CLS]", "[SEP]", "[MASK]"]
        >>> pieces = (*special, "\u2581she", "\u2581is", "\u2581un", "aff", "able", "?")
        >>> types = bytes([CONTROL, UNKNOWN, *[CONTROL] * 3, *[NORMAL] * 6])
        >>> model = SentencePieceModel(pieces, (0.0,) * 5 + (-1.0,) * 6, types)
        >>> tokenizer = RemBertTokenizerFast(model=model, model_max_length=512)
        >>> batch = tokenizer(["she is unaffable?", "is she [MASK]?"], padding=True, return_tensors="np")
        >>> batch["input_ids"]
        array([[ 2,  5,  6,  7,  8,  9, 10,  3],
               [ 2,  6,  5,  4,  1, 10,  3,  0]])
        >>> batch.word_ids(0)
        [None, 0, 1, 2, 2, 2, 2, None]
    """
