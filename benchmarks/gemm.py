"""The machine's own float32 rate: what share of it a model reaches says how much is left to win.

Three libraries multiply two square matrices; the fastest of them is the rate. They take turns with the models, so the
rate is that of the very rounds it is compared with. The script is the worker: `gemm.py pt|tf THREADS`.
"""

from __future__ import annotations

import sys
from collections.abc import Callable
from functools import cache
from typing import Any

from runner import serve, timed

SIZE = 2048
GFLOP = 2 * SIZE**3 / 1e9

# The kinds of product that each framework offers.
KINDS = {"pt": ("PyTorch's matmul", "oneDNN's convolution"), "tf": ("TensorFlow's matmul",)}


@cache
def pytorch_product(kind: str, threads: int) -> Callable[[], Any]:
    import torch

    torch.set_num_threads(threads)
    a, b = torch.rand(SIZE, SIZE), torch.rand(SIZE, SIZE)
    if kind == "PyTorch's matmul":
        return lambda: a @ b
    # A convolution of size 1 is a dense map of the channels, which lie last; see `pt/layers.py` about the dilation.
    pixels, weight = a[None, None].permute(0, 3, 1, 2), b[..., None, None]

    def convolve() -> Any:
        with torch.no_grad():
            return torch.nn.functional.conv2d(pixels, weight, dilation=2)

    return convolve


@cache
def tensorflow_product(kind: str, threads: int) -> Callable[[], Any]:
    import tensorflow as tf

    tf.config.threading.set_intra_op_parallelism_threads(threads)
    tf.config.threading.set_inter_op_parallelism_threads(threads)
    a, b = tf.random.uniform([SIZE, SIZE]), tf.random.uniform([SIZE, SIZE])
    return lambda: tf.linalg.matmul(a, b)


def main() -> None:
    framework, threads = sys.argv[1], int(sys.argv[2])
    product = pytorch_product if framework == "pt" else tensorflow_product
    serve({"time": lambda kind, seconds: timed(product(kind, threads), seconds)})


if __name__ == "__main__":
    main()
