"""MobileBERT's tokenizers, in Python and on `tokenizers`: BERT's WordPiece, uncased unless the files say otherwise.

MobileBERT (Sun et al. 2020, arXiv 2004.02984) was distilled from a teacher with BERT's uncased English vocabulary
of 30,522 pieces, and uses it unchanged.
"""

from __future__ import annotations

from .wordpiece_tokenizers import WordPieceTokenizer, WordPieceTokenizerFast


class MobileBertTokenizer(WordPieceTokenizer):
    """MobileBERT's tokenizer in Python, with offsets, word ids and overflowing windows like its fast twin.

    A row is `[CLS] A [SEP]`, or `[CLS] A [SEP] B [SEP]` with token type 0 for the first text and 1 for the second.

    The arguments are those of `WordPieceTokenizer`.

    Example:
        >>> vocab = ["[PAD]", "[UNK]", "[CLS]", "[SEP]", "[MASK]", "un", "##aff", "##able", "is", "she", "?"]
        >>> tokenizer = MobileBertTokenizer(vocab=vocab)
        >>> tokenizer.tokenize("Is she unaffable?")
        ['is', 'she', 'un', '##aff', '##able', '?']
        >>> batch = tokenizer("Is she?", "Unaffable", return_offsets_mapping=True)
        >>> batch["input_ids"]
        [2, 8, 9, 10, 3, 5, 6, 7, 3]
        >>> batch["token_type_ids"]
        [0, 0, 0, 0, 0, 1, 1, 1, 1]
        >>> batch["offset_mapping"]
        [(0, 0), (0, 2), (3, 6), (6, 7), (0, 0), (0, 2), (2, 5), (5, 9), (0, 0)]
        >>> tokenizer.decode(batch["input_ids"], skip_special_tokens=True)
        'is she? unaffable'
    """


class MobileBertTokenizerFast(WordPieceTokenizerFast):
    """MobileBERT's tokenizer on `tokenizers`: the arguments and the rows of `MobileBertTokenizer`.

    Example:
        >>> vocab = ["[PAD]", "[UNK]", "[CLS]", "[SEP]", "[MASK]", "un", "##aff", "##able", "is", "she", "?"]
        >>> tokenizer = MobileBertTokenizerFast(vocab=vocab, model_max_length=512)
        >>> batch = tokenizer(["Is she unaffable?", "She is."], padding=True, return_tensors="np")
        >>> batch["input_ids"]
        array([[ 2,  8,  9,  5,  6,  7, 10,  3],
               [ 2,  9,  8,  1,  3,  0,  0,  0]])
        >>> batch["attention_mask"].sum(axis=1)
        array([8, 5])
        >>> batch.word_ids(0)
        [None, 0, 1, 2, 2, 2, 3, None]
    """
