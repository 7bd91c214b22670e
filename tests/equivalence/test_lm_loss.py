"""The loss of words without their scores is the plain one: its value, its slopes, what it refuses and what it takes.

The plain loss is `cross_entropy` of all scores, multiplied out and differentiated by PyTorch in float64.
"""

from __future__ import annotations

import re
from dataclasses import dataclass
from typing import Any

import numpy as np
import pytest
import tensorflow as tf
import torch

from isobert.errors import InputError
from isobert.pt.losses import cross_entropy
from isobert.pt.projection import Projection, projected_cross_entropy
from isobert.tf.projection import Projection as TFProjection
from isobert.tf.projection import projected_cross_entropy as tf_projected_cross_entropy
from support.compare import TOLERANCES, assert_close, relative_errors

NAMES = ("hidden", "table", "bias", "rest")


@dataclass
class Case:
    """Vectors, a projection and labels; `most_scores` decides how many positions are scored at a time."""

    arrays: dict[str, np.ndarray]
    labels: np.ndarray
    most_scores: int

    @classmethod
    def draw(cls, seed: int, *, counted: float, rows: int, has_rest: bool) -> Case:
        """Draw sizes and numbers; a share of the labels is `counted`, and `rows` positions may be scored at once."""
        random = np.random.default_rng(seed)
        vocab, width = int(random.integers(2, 60)), int(random.integers(1, 9))
        inner = width + int(random.integers(1, 5)) if has_rest else width
        positions = (int(random.integers(1, 5)), int(random.integers(1, 40)))
        arrays = {
            "hidden": random.normal(size=(*positions, inner)),
            "table": random.normal(size=(vocab, width)),
            "bias": random.normal(size=vocab),
        }
        if has_rest:
            arrays["rest"] = random.normal(size=(inner - width, vocab))
        labels = random.integers(0, vocab, positions)
        labels[random.random(positions) >= counted] = -100
        return cls(arrays, labels, rows * vocab)


def plain(case: Case, dtype: torch.dtype = torch.float64) -> dict[str, np.ndarray]:
    """Return the plain loss and its slopes."""
    given = {name: torch.tensor(array, dtype=dtype, requires_grad=True) for name, array in case.arrays.items()}
    table = given["table"].T if "rest" not in given else torch.cat([given["table"].T, given["rest"]])
    loss = cross_entropy(given["hidden"] @ table + given["bias"], torch.from_numpy(case.labels))
    slopes = torch.autograd.grad(loss, list(given.values()))
    return {"loss": loss.detach().numpy()} | {n: s.double().numpy() for n, s in zip(given, slopes, strict=True)}


def in_pytorch(case: Case, dtype: str, scale: float = 1.0) -> dict[str, np.ndarray]:
    """Return our loss and its slopes; the loss is multiplied by `scale`, and the slopes divided by it."""
    given = [torch.tensor(a, dtype=getattr(torch, dtype), requires_grad=True) for a in case.arrays.values()]
    labels = torch.from_numpy(case.labels)
    loss = projected_cross_entropy(given[0], Projection(*given[1:]), labels, most_scores=case.most_scores)
    slopes = torch.autograd.grad(loss * scale, given)
    found = [loss.detach(), *(slope / scale for slope in slopes)]
    return {name: x.double().numpy() for name, x in zip(("loss", *case.arrays), found, strict=True)}


def in_keras(case: Case, dtype: str, how: str = "eager", scale: float = 1.0) -> dict[str, np.ndarray]:
    """Return our loss and its slopes, computed eagerly, in a graph, or in one that XLA compiles."""
    given = [tf.constant(array, dtype) for array in case.arrays.values()]

    def step(labels: tf.Tensor, *given: tf.Tensor) -> Any:
        with tf.GradientTape() as tape:
            tape.watch(given)
            loss = tf_projected_cross_entropy(given[0], TFProjection(*given[1:]), labels, most_scores=case.most_scores)
            scaled = loss * scale
        return loss, tape.gradient(scaled, given)

    run = step if how == "eager" else tf.function(step, jit_compile=how == "xla")
    loss, slopes = run(tf.constant(case.labels), *given)
    found = [loss, *(slope / scale for slope in slopes)]
    return {name: tf.cast(x, "float64").numpy() for name, x in zip(("loss", *case.arrays), found, strict=True)}


# Seed, share of labels that count, positions at once, whether there is a rest, how Keras runs.
CASES = [
    (0, 0.15, 1, False, "graph"),
    (1, 0.15, 7, True, "xla"),
    (2, 0.5, 1, True, "graph"),
    (3, 1.0, 5, False, "xla"),
    (4, 1.0, 3, True, "graph"),
    (5, 0.3, 1000, True, "eager"),
    (6, 1.0, 1000, False, "eager"),
    (7, 0.0, 4, True, "graph"),
    (8, 0.0, 1000, False, "eager"),
    (9, 0.7, 1000, True, "xla"),
]


@pytest.mark.parametrize("dtype", ["float64", "float32"])
@pytest.mark.parametrize(("seed", "counted", "rows", "has_rest", "how"), CASES)
def test_loss_and_slopes_are_the_plain_ones(
    seed: int, counted: float, rows: int, has_rest: bool, how: str, dtype: str
) -> None:
    case = Case.draw(seed, counted=counted, rows=rows, has_rest=has_rest)
    expected = plain(case)
    assert_close(relative_errors(in_pytorch(case, dtype), expected), TOLERANCES[dtype])
    assert_close(relative_errors(in_keras(case, dtype, how), expected), TOLERANCES[dtype])


def test_one_chunk_and_many_chunks_of_many_positions_are_computed_alike() -> None:
    random = np.random.default_rng(0)
    arrays = {name: random.normal(size=size) for name, size in {"hidden": (3, 70, 6), "table": (50, 4)}.items()}
    arrays |= {"bias": random.normal(size=50), "rest": random.normal(size=(2, 50))}
    # 210 positions: chunks of 64, so 40 labels are done in one go and 120 are summed up. At a time, 42 words of 50.
    for count in (64, 65, 210):
        labels = random.integers(0, 50, 210)
        labels[random.permutation(210)[count:]] = -100
        case = Case(arrays, labels.reshape(3, 70), most_scores=64 * 42 * 16)
        expected = plain(case)
        assert_close(relative_errors(in_pytorch(case, "float64"), expected), 1e-10)
        assert_close(relative_errors(in_keras(case, "float64", "xla"), expected), 1e-10)


@pytest.mark.parametrize("dtype", ["bfloat16", "float16"])
@pytest.mark.parametrize("rows", [1, 1000])
def test_half_precision_loses_no_more_than_the_plain_way(dtype: str, rows: int) -> None:
    case = Case.draw(11, counted=0.8, rows=rows, has_rest=True)
    kind = getattr(torch, dtype)
    # What is given is exact in half precision, so that all error is the computation's.
    case.arrays = {name: torch.tensor(a).to(kind).double().numpy() for name, a in case.arrays.items()}
    exact = plain(case)
    usual = relative_errors(plain(case, kind), exact)
    for found in (in_pytorch(case, dtype), in_keras(case, dtype, "graph")):
        for name, error in relative_errors(found, exact).items():
            assert error <= 2 * max(usual[name], float(torch.finfo(kind).eps)), name


def test_half_precision_sums_are_not_rounded_with_every_chunk() -> None:
    random = np.random.default_rng(3)
    arrays = {"hidden": random.uniform(1, 2, (1, 600, 4)), "table": random.normal(size=(9, 4)), "bias": np.zeros(9)}
    arrays = {name: torch.tensor(a).bfloat16().double().numpy() for name, a in arrays.items()}
    case = Case(arrays, random.integers(0, 3, (1, 600)), most_scores=9)  # a position at a time
    assert_close(relative_errors(in_pytorch(case, "bfloat16"), plain(case)), 2 * torch.finfo(torch.bfloat16).eps)


def test_float16_gradients_of_a_scaled_loss_do_not_vanish() -> None:
    random = np.random.default_rng(3)
    # Right words are nearly certain, so that the slopes by the others are far below what float16 can hold.
    arrays = {"hidden": random.normal(size=(1, 500, 4)), "table": 0.3 * random.normal(size=(20, 4))}
    arrays |= {"bias": 12.0 * (np.arange(20) == 5)}
    arrays = {name: a.astype(np.float16).astype(np.float64) for name, a in arrays.items()}
    case = Case(arrays, np.full((1, 500), 5), most_scores=2**26)
    exact = plain(case)
    for found in (in_pytorch(case, "float16", 4096.0), in_keras(case, "float16", "graph", 4096.0)):
        others = {name: np.delete(found[name], 5, axis=0) for name in ("table", "bias")}
        expected = {name: np.delete(exact[name], 5, axis=0) for name in others}
        assert_close(relative_errors(others, expected), 2e-2)


def test_the_loss_scales_its_slopes_in_place_of_a_copy() -> None:
    case = Case.draw(2, counted=0.5, rows=3, has_rest=True)
    assert_close(relative_errors(in_pytorch(case, "float64", -0.37), plain(case)), 1e-10)
    assert_close(relative_errors(in_keras(case, "float64", "graph", -0.37), plain(case)), 1e-10)


LABELS = [1, -100, 8, 0, -100, 3]


def small(dtype: torch.dtype = torch.float64) -> tuple[torch.Tensor, Projection]:
    torch.manual_seed(0)
    hidden, table, bias = (torch.randn(size, dtype=dtype, requires_grad=True) for size in ((6, 4), (9, 4), (9,)))
    return hidden, Projection(table, bias)


def test_what_is_not_trained_gets_no_slope() -> None:
    hidden, projection = small()
    projection.table.requires_grad_(False)
    loss = projected_cross_entropy(hidden, projection, torch.tensor(LABELS))
    loss.backward()
    expected = torch.autograd.grad(
        cross_entropy(hidden @ projection.table.T + projection.bias, torch.tensor(LABELS)), [hidden, projection.bias]
    )
    torch.testing.assert_close((hidden.grad, projection.bias.grad), expected)
    assert projection.table.grad is None
    with torch.no_grad():
        assert projected_cross_entropy(hidden, projection, torch.tensor(LABELS)).equal(loss)


def test_gradients_accumulate_and_are_leaves_of_no_graph() -> None:
    hidden, projection = small()
    for _ in range(3):
        projected_cross_entropy(hidden, projection, torch.tensor(LABELS)).backward()
    once = torch.autograd.grad(
        cross_entropy(hidden @ projection.table.T + projection.bias, torch.tensor(LABELS)), [hidden, *projection[:2]]
    )
    for tensor, slope in zip((hidden, projection.table, projection.bias), once, strict=True):
        torch.testing.assert_close(tensor.grad, 3 * slope)
        assert tensor.grad is not None
        assert not tensor.grad.requires_grad


@pytest.mark.parametrize("use_reentrant", [True, False])
def test_the_loss_can_be_checkpointed(use_reentrant: bool) -> None:
    hidden, projection = small()

    def loss(hidden: torch.Tensor) -> torch.Tensor:
        return projected_cross_entropy(hidden * 2, projection, torch.tensor(LABELS))

    parts = [hidden, projection.table, projection.bias]
    loss(hidden).backward()
    expected = [part.grad for part in parts]
    for part in parts:
        part.grad = None
    torch.utils.checkpoint.checkpoint(loss, hidden, use_reentrant=use_reentrant).backward()
    torch.testing.assert_close([part.grad for part in parts], expected)


def test_autocast_computes_the_scores_in_half_precision_and_slopes_for_single() -> None:
    hidden, projection = small(torch.float32)
    with torch.autocast("cpu", torch.bfloat16):
        usual = cross_entropy(torch.nn.functional.linear(hidden, *projection[:2]), torch.tensor(LABELS))
        loss = projected_cross_entropy(hidden, projection, torch.tensor(LABELS))
    assert loss.dtype == torch.float32
    torch.testing.assert_close(loss, usual)
    parts = [hidden, *projection[:2]]
    torch.testing.assert_close(
        torch.autograd.grad(loss, parts), torch.autograd.grad(usual, parts), rtol=2e-2, atol=1e-2
    )


def test_a_second_backward_pass_is_refused() -> None:
    hidden, projection = small()
    for scale in (1.0, 3.0):
        loss = scale * projected_cross_entropy(hidden, projection, torch.tensor(LABELS))
        loss.backward(retain_graph=True)
        with pytest.raises(InputError, match="can be differentiated once"):
            loss.backward()


def test_a_second_derivative_is_refused() -> None:
    hidden, projection = small()
    loss = projected_cross_entropy(hidden, projection, torch.tensor(LABELS))
    (slope,) = torch.autograd.grad(loss, hidden, create_graph=True)
    with pytest.raises(NotImplementedError, match="no second derivative"):
        slope.sum().backward()
    table, bias, values = (tf.constant(x.detach().numpy()) for x in (projection.table, projection.bias, hidden))
    with tf.GradientTape() as outer:
        outer.watch(values)
        with tf.GradientTape() as tape:
            tape.watch(values)
            found = tf_projected_cross_entropy(values, TFProjection(table, bias), tf.constant(LABELS))
        slopes = tape.gradient(found, values)
    with pytest.raises(NotImplementedError, match="no second derivative"):
        outer.gradient(slopes, values)


@pytest.mark.parametrize(
    ("labels", "words"),
    [
        ([0, 1], r"labels has the shape \[2\]; it must be \[6\]"),
        ([0, 9, 1, 1, 1, 1], "labels holds 9; a label must be within 0 to 8, or -100"),
        ([0, -1, 1, 1, 1, 1], "labels holds -1"),
        ([0.0] * 6, "labels has dtype .*float"),
    ],
)
def test_labels_that_do_not_suit_are_refused(labels: list[Any], words: str) -> None:
    hidden, projection = small()
    with pytest.raises(InputError, match=words):
        projected_cross_entropy(hidden, projection, torch.tensor(labels))
    arrays = [tf.constant(x.detach().numpy()) for x in (hidden, projection.table, projection.bias)]
    with pytest.raises(InputError, match=words):
        tf_projected_cross_entropy(arrays[0], TFProjection(*arrays[1:]), tf.constant(labels))


def test_a_graph_for_any_batch_computes_the_plain_loss() -> None:
    case = Case.draw(4, counted=0.5, rows=1000, has_rest=True)
    words = TFProjection(*(tf.Variable(array) for name, array in case.arrays.items() if name != "hidden"))
    inner = case.arrays["hidden"].shape[-1]
    signature = [tf.TensorSpec([None, None, inner], tf.float64), tf.TensorSpec([None, None], tf.int64)]

    @tf.function(input_signature=signature)
    def step(hidden: tf.Tensor, labels: tf.Tensor) -> Any:
        with tf.GradientTape() as tape:
            tape.watch(hidden)
            loss = tf_projected_cross_entropy(hidden, words, labels)
        return loss, *tape.gradient(loss, [hidden, *words])

    found = dict(zip(("loss", *case.arrays), step(case.arrays["hidden"], case.labels), strict=True))
    assert_close(relative_errors(found, plain(case)), 1e-10)


WIDE = 3000  # words; there are 640 positions, and of each 7 one counts


def wide_case() -> Case:
    random = np.random.default_rng(0)
    labels = np.full((5, 128), -100)
    labels[:, ::7] = 17
    arrays = {"hidden": random.normal(size=(5, 128, 8)), "table": random.normal(size=(WIDE, 6))}
    arrays |= {"bias": np.zeros(WIDE), "rest": random.normal(size=(2, WIDE))}
    return Case(arrays, labels, most_scores=20 * WIDE)


@pytest.mark.parametrize("scale", [1.0, 0.25])
def test_a_step_in_pytorch_needs_little_more_room_than_its_results(scale: float) -> None:
    case = wide_case()
    given = [torch.tensor(array, requires_grad=True) for array in case.arrays.values()]
    labels = torch.from_numpy(case.labels)
    with torch.profiler.profile(profile_memory=True) as profile:
        loss = projected_cross_entropy(given[0], Projection(*given[1:]), labels, most_scores=case.most_scores)
        (loss * scale).backward()
    held = peak = 0
    for event in profile.profiler.kineto_results.events():
        if event.name() == "[memory]":
            held += event.nbytes()
            peak = max(peak, held)
    results = sum(tensor.nbytes for tensor in given)
    assert results < peak < results + 8 * 3 * case.most_scores
    assert peak < 8 * case.labels.size * WIDE / 4


@pytest.mark.parametrize(("how", "rows"), [("graph", 20), ("xla", 20), ("graph", 120)])
def test_no_array_of_a_keras_step_is_as_wide_as_all_scores(how: str, rows: int) -> None:
    case = wide_case()
    # However many there may be at once, a chunk is no more than 3/16 of the 640 positions.
    case.most_scores = 20 * WIDE if rows == 20 else 10**9
    given = [tf.constant(array, "float32") for array in case.arrays.values()]

    @tf.function(jit_compile=how == "xla", autograph=False)
    def step(labels: tf.Tensor, *given: tf.Tensor) -> Any:
        with tf.GradientTape() as tape:
            tape.watch(given)
            loss = tf_projected_cross_entropy(given[0], TFProjection(*given[1:]), labels, most_scores=case.most_scores)
        return loss, tape.gradient(loss, given)

    if how == "xla":
        text = step.experimental_get_compiler_ir(tf.constant(case.labels), *given)(stage="optimized_hlo")
        shapes = [[int(n) for n in found.split(",")] for found in re.findall(r"f32\[([\d,]+)\]", text)]
    else:
        graph = step.get_concrete_function(tf.constant(case.labels), *given).graph
        graphs = [graph, *(function.graph for function in graph._functions.values() if hasattr(function, "graph"))]
        outputs = [tensor for g in graphs for op in g.get_operations() for tensor in op.outputs]
        shapes = [tensor.shape.as_list() for tensor in outputs if tensor.shape.is_fully_defined()]
    largest = max(int(np.prod(shape)) for shape in shapes)
    assert largest == rows * WIDE  # a chunk's scores
