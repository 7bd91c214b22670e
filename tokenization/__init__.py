"""Tokenizers: in Python and on the `tokenizers` library, with the same ids and the same offsets from both.

`base.py` is the call surface both share; `slow.py` and `fast.py` are the two ways to turn text into ids;
`wordpiece.py` holds WordPiece in both; one short file a family names its classes; `auto.py` picks the class.
"""
