"""A digest of a checkpoint's tensors that does not depend on the form that they lie in."""

from __future__ import annotations

import hashlib
from collections.abc import Mapping, Sequence

import numpy as np

from .base import elements_of


def digest_of(name: str, array: np.ndarray) -> str:
    """Return the digest of one tensor: the SHA-256 of its dtype, its shape and its elements row by row.

    Example:
        >>> digest_of("a", np.zeros(3))[:12], digest_of("a", np.zeros((3, 1)))[:12]
        ('7645cab9df69', '7a61c07d5d4b')
    """
    return digest_of_elements(array.dtype.name, array.shape, elements_of(name, array))


def digest_of_elements(dtype: str, shape: Sequence[int], elements: memoryview) -> str:
    """Return the digest of one tensor, given its elements as of `elements_of`."""
    found = hashlib.sha256(f"{dtype} {list(shape)} ".encode())
    found.update(elements)
    return found.hexdigest()


def digest_of_all(digests: Mapping[str, str]) -> str:
    """Return the digest of a checkpoint, given that of each tensor by its name on the Hub."""
    lines = (f"{name} {digest}\n" for name, digest in sorted(digests.items()))
    return hashlib.sha256("".join(lines).encode()).hexdigest()
