"""Models for inference on CPUs, in 8-bit integers."""

from __future__ import annotations

import logging
from collections.abc import Iterable, Mapping
from typing import Any, TypeVar

import torch
from torch import nn

from ..errors import InputError, OptimizedModelError
from .modeling import PreTrainedModel
from .optimization import optimize
from .optimized.int8 import LAYERS, Range, quantize_layer
from .optimized.mobilebert import Summand
from .optimized.parts import Mapping as DenseMap
from .optimized.parts import SumNorm

logger = logging.getLogger("isobert")

Model = TypeVar("Model", bound=PreTrainedModel)


def quantize(model: Model, batches: Iterable[Mapping[str, Any]]) -> Model:
    """Return a model of the same class that computes almost the same in 8-bit integers, for inference on a CPU.

    It is `optimize`d, and then the products of its layers are put into integers (`pt/optimized/int8.py`), for which it
    is run on some texts. Embeddings, norms, attention itself and heads stay in float32. It is called as the original
    is, and `optimizations` tells what was done. The original is unchanged. Measure it on examples of your own before
    you rely on it: integers round, unlike `optimize`.

    Args:
        model: any model of the library in float32, on a CPU.
        batches: what it is called with, as a tokenizer returns it with `return_tensors="pt"`: some hundred texts of the
            kind that it is for. The ranges of numbers that they lead to are what integers can hold later.

    Raises:
        InputError: it is no model of the library, it is not in float32 on a CPU, there are no batches, or they lead to
            numbers that are not finite.
        OptimizedModelError: the model is optimized already, it has exchanged parts, its layers are such as `optimize`
            leaves as they are (a decoder's, or MobileBERT's with layer norms), or this machine multiplies no bytes.
    """
    name = type(model).__name__
    if not isinstance(model, PreTrainedModel):
        raise InputError(f"quantize takes a PyTorch model of isobert; it got a {name}.")
    if model.dtype != torch.float32 or model.device.type != "cpu":
        raise InputError(
            f"quantize takes a model in float32 on a CPU; this {name} is in {model.dtype} on {model.device}. "
            "Load it with dtype=torch.float32, or call .float().cpu()."
        )
    if not multiplies_bytes():
        raise OptimizedModelError(
            "This machine's CPU, or this PyTorch, has no products of bytes (AVX-512 VNNI by oneDNN), without which "
            "8-bit integers are slow. Use optimize(model), or optimize(model, dtype=torch.bfloat16)."
        )
    fast = optimize(model)
    layers = [module for module in fast.base_model.modules() if isinstance(module, LAYERS)]
    if not layers:
        raise OptimizedModelError(f"The layers of this {name} cannot be quantised: optimize {fast.optimizations[0]}.")
    seen, count = _ranges(fast, layers, batches)
    neurons = sum(quantize_layer(layer, seen) for layer in layers)
    done = [f"put {len(seen)} products of the layers into 8-bit integers, for the ranges of {count} batches"]
    if neurons:
        done.append(f"kept {neurons} inner neurons in float32, which reach further than bytes do")
    fast.optimizations = (*fast.optimizations, *done)
    logger.info("%s is quantised:\n%s", name, "\n".join(f"- {sentence}" for sentence in done))
    return fast


def multiplies_bytes() -> bool:
    """Say whether this CPU multiplies bytes at once, and PyTorch has oneDNN's products of them."""
    return (
        torch.backends.mkldnn.is_available()
        and hasattr(torch.ops.onednn, "qlinear_pointwise")
        and torch.cpu._is_vnni_supported()
    )


def _ranges(
    fast: PreTrainedModel, layers: Iterable[nn.Module], batches: Iterable[Mapping[str, Any]]
) -> tuple[dict[nn.Module, Range], int]:
    """Run an optimized model; return the ranges of what goes into each product of its layers, and how many batches."""
    seen: dict[nn.Module, Range] = {}

    def look(product: nn.Module, inputs: tuple[Any, ...]) -> None:
        lowest, highest = torch.aminmax(inputs[-2].flatten(0, -2), dim=0)  # before the steps stand the values
        if product in seen:
            before = seen[product]
            lowest, highest = torch.minimum(lowest, before.lowest), torch.maximum(highest, before.highest)
        seen[product] = Range(lowest, highest)

    products = [part for layer in layers for part in layer.modules() if isinstance(part, DenseMap | SumNorm | Summand)]
    hooks = [part.register_forward_pre_hook(look) for part in products]
    count = 0
    try:
        for batch in batches:
            if not isinstance(batch, Mapping):
                raise InputError(
                    "quantize takes batches, each a mapping of what the model is called with, such as "
                    f'[tokenizer(texts, padding=True, return_tensors="pt")]; among them is a {type(batch).__name__}.'
                )
            with torch.inference_mode():
                fast(**batch)
            count += 1
    finally:
        for hook in hooks:
            hook.remove()
    if not count:
        raise InputError("quantize got no batches; it needs some texts to see the ranges of numbers that they lead to.")
    if not all(torch.isfinite(bound).all() for bounds in seen.values() for bound in bounds):
        raise InputError("The batches lead to numbers that are not finite, so there are no ranges for 8-bit integers.")
    return seen, count
