"""Tokenizers: in Python and on the `tokenizers` library, with the same ids and the same offsets from both.

`base.py` is the call surface both share; `slow.py` and `fast.py` are the two ways to turn text into ids;
`wordpiece.py` holds the algorithm, `wordpiece_tokenizers.py` its two tokenizers; one short file a family names its
classes; `auto.py` picks the class; `train.py` learns a vocabulary.
"""
