"""The machine's own rate: what share of it a model reaches says how much is left to win.

Three libraries multiply two square matrices; the fastest of them is the rate. They take turns with the models, so the
rate is that of the very rounds it is compared with. The script is the worker: `gemm.py pt|tf THREADS DEVICE`.
"""

from __future__ import annotations

import sys
from collections.abc import Callable
from functools import cache
from typing import Any

from measured import PRODUCT_SIZE
from runner import serve, timed

# The kinds of product that each framework offers, by dtype.
KINDS: dict[str, dict[str, tuple[str, ...]]] = {
    "pt": {
        "float32": ("PyTorch's matmul", "oneDNN's convolution"),
        "bfloat16": ("PyTorch's matmul",),
        "float16": ("PyTorch's matmul",),
    },
    "tf": {"float32": ("TensorFlow's matmul",), "bfloat16": ("TensorFlow's matmul",)},
}

# On a GPU a product of the usual size is over too soon to show the rate; a larger one's time is scaled down.
GPU_TIMES = 4


@cache
def pytorch_product(kind: str, dtype: str, threads: int, device: str) -> Callable[[], Any]:
    import torch

    torch.set_num_threads(threads)
    size = PRODUCT_SIZE if device == "cpu" else GPU_TIMES * PRODUCT_SIZE
    a, b = (torch.rand(size, size, dtype=getattr(torch, dtype), device=device) for _ in range(2))
    if device != "cpu":

        def multiply() -> None:
            torch.matmul(a, b)
            torch.cuda.synchronize()

        return multiply
    if kind == "PyTorch's matmul":
        return lambda: a @ b
    # A convolution of size 1 is a dense map of the channels, which lie last. PyTorch hands it to oneDNN if it is
    # dilated, which changes nothing at this size.
    pixels, weight = a[None, None].permute(0, 3, 1, 2), b[..., None, None]

    def convolve() -> Any:
        with torch.no_grad():
            return torch.nn.functional.conv2d(pixels, weight, dilation=2)

    return convolve


@cache
def tensorflow_product(kind: str, dtype: str, threads: int) -> Callable[[], Any]:
    import tensorflow as tf

    tf.config.threading.set_intra_op_parallelism_threads(threads)
    tf.config.threading.set_inter_op_parallelism_threads(threads)
    a, b = (tf.cast(tf.random.uniform([PRODUCT_SIZE, PRODUCT_SIZE]), dtype) for _ in range(2))
    return lambda: tf.linalg.matmul(a, b)


def main() -> None:
    framework, threads, device = sys.argv[1], int(sys.argv[2]), sys.argv[3]

    def time(kind: str, dtype: str, seconds: float) -> list[float]:
        if framework == "tf":
            return timed(tensorflow_product(kind, dtype, threads), seconds)
        took = timed(pytorch_product(kind, dtype, threads, device), seconds)
        return took if device == "cpu" else [once / GPU_TIMES**3 for once in took]

    serve({"time": time})


if __name__ == "__main__":
    main()
