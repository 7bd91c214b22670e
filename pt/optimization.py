"""Models for inference that compute the same with less work."""

from __future__ import annotations

import copy
import logging
from collections.abc import Callable
from typing import Any, TypeVar

import torch
from torch import nn

from ..errors import InputError, OptimizedModelError
from .modeling import PreTrainedModel, floating_dtype
from .optimized import convbert, mobilebert, rembert, squeezebert

logger = logging.getLogger("isobert")

Model = TypeVar("Model", bound=PreTrainedModel)

# Of a bare encoder and the dtype that it is to have: the stack of layers in its own's place, and what was done.
FAMILIES: dict[str, Callable[[Any, torch.dtype], tuple[nn.Module, tuple[str, ...]]]] = {
    "convbert": convbert.optimized,
    "mobilebert": mobilebert.optimized,
    "rembert": rembert.optimized,
    "squeezebert": squeezebert.optimized,
}


def optimize(model: Model, *, dtype: str | torch.dtype | None = None) -> Model:
    """Return a model of the same class that computes the same with less work, for inference alone.

    Its encoder is exchanged for one whose products are fewer and larger, and end in activations and sums; MobileBERT's
    NoNorms are folded into the weights (`core/folding.py`). It is called as the original is, and returns the same,
    hidden states and attentions included. `optimizations` tells what was done.

    The original is unchanged. What needs no change, such as the table of words, is in memory once for both; the layers'
    weights are copied, and once more where oneDNN's products read them laid out (`pt/optimized/layouts.py`).
    Training and saving are the original's. The model can be compiled (`torch.compile` with `fullgraph=True`) and
    exported (`torch.export`).

    Args:
        model: any model of the library, bare or with a head, on any device.
        dtype: of the new model; None is the original's. In float16, MobileBERT's streams are scaled by powers of two so
            that they stay within its range.

    Raises:
        InputError: it is no model of the library, or no floating dtype.
        OptimizedModelError: the model is optimized already, or parts of it have been exchanged (by an adapter or a
            quantised layer, say).

    Example:
        >>> import torch
        >>> from isobert import MobileBertConfig, MobileBertModel
        >>> from isobert.pt import optimize
        >>> model = MobileBertModel(MobileBertConfig.from_size("mobilebert-tiny", num_hidden_layers=2)).eval()
        >>> fast = optimize(model)
        >>> print(*fast.optimizations, sep="\\n")
        folded 11 NoNorms into the weights
        joined products of the same numbers: 16 in the layers instead of 20
        let products end in the activation or the sum that follows them
        >>> ids = torch.tensor([[101, 7592, 102]])
        >>> torch.allclose(fast(ids).last_hidden_state, model(ids).last_hidden_state, atol=1e-5)
        True
    """
    if not isinstance(model, PreTrainedModel):
        raise InputError(f"optimize takes a PyTorch model of isobert; it got a {type(model).__name__}.")
    _check(model)
    dtype = model.dtype if dtype is None else floating_dtype(dtype)
    optimized = _shared_copy(model)
    for module in list(optimized.modules()):
        for part, child in module.named_children():
            if isinstance(child, nn.Dropout):
                setattr(module, part, nn.Identity())
    base: Any = optimized.base_model
    base.encoder, done = FAMILIES[model.config.model_type](base, dtype)
    optimized.to(dtype).eval()
    optimized.optimizations = done
    logger.info("%s is optimized:\n%s", type(model).__name__, "\n".join(f"- {sentence}" for sentence in done))
    return optimized


def _check(model: PreTrainedModel) -> None:
    """Raise unless the parts that are to be exchanged are as they were made."""
    name, base = type(model).__name__, model.base_model
    if model.optimizations:
        raise OptimizedModelError(f"This {name} is optimized already.")
    with torch.device("meta"):
        expected = _parts(type(base)(base.config))
    found = _parts(base)
    strange = sorted(part for part in expected.keys() | found.keys() if expected.get(part) != found.get(part))
    if strange:
        raise OptimizedModelError(
            f"{strange[0]} of this {name} is not as its config has it, so it cannot be optimized. Merge adapters "
            "first; optimize before parts are quantised, distributed or exchanged."
        )


def _parts(base: PreTrainedModel) -> dict[str, tuple[Any, ...]]:
    """Return the kind of each part of a bare encoder but the pooler and the table of words, which stay."""
    return {
        name: (type(module), [(type(p), p.shape) for p in module.parameters(recurse=False)])
        for name, module in base.named_modules()
        if name and not name.startswith(("pooler", "embeddings.word_embeddings"))
    }


def _shared_copy(model: Model) -> Model:
    """Return a copy that shares the model's tensors, as parameters without gradients."""
    shared = {id(p): nn.Parameter(p.detach(), requires_grad=False) for p in model.parameters()}
    return copy.deepcopy(model, shared)
