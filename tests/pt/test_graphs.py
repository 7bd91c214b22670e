"""Models compile and export as one graph that computes the same, with labels and for other sizes too."""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

import pytest
import torch
from torch.export import Dim

from isobert.pt import products

Make = Callable[..., Any]


@pytest.fixture(autouse=True)
def _fresh_compiler() -> None:
    torch.compiler.reset()


def test_a_model_compiles_without_a_graph_break_and_learns_the_same(
    family: str, head: str, make_model: Make, make_inputs: Make
) -> None:
    model = make_model(family, head, 4)
    inputs = make_inputs(model, fully_padded_row=True)
    expected = model(**inputs)
    # This backend runs the traced graph as it is, forward and backward; what is tested is that there is one.
    found = torch.compile(model, fullgraph=True, backend="aot_eager")(**inputs)
    assert type(found) is type(expected)
    assert list(found) == list(expected)
    for name, value in expected.items():
        torch.testing.assert_close(found[name], value, rtol=1e-10, atol=1e-10)
    if head != "Model":
        trained = [parameter for parameter in model.parameters() if parameter.requires_grad]
        mine, other = (torch.autograd.grad(out.loss, trained, allow_unused=True) for out in (found, expected))
        torch.testing.assert_close(mine, other, rtol=1e-8, atol=1e-10)


def test_a_model_that_returns_everything_compiles_without_a_graph_break(
    family: str, make_model: Make, make_inputs: Make
) -> None:
    model = make_model(family, seed=4)
    inputs = make_inputs(model, square_mask=True, position_ids=True)
    wanted = {"output_hidden_states": True, "output_attentions": True}
    expected = model(**inputs, **wanted)
    found = torch.compile(model, fullgraph=True, backend="eager")(**inputs, **wanted)
    torch.testing.assert_close(dict(found), dict(expected))


def test_a_model_compiles_without_a_graph_break_where_nothing_is_learnt(
    family: str, make_model: Make, make_inputs: Make
) -> None:
    # What a layer asks about the machine, it asks while it is traced; here for the first time.
    products._processor.cache_clear()
    model = make_model(family, seed=4).float()
    inputs = {name: v.float() if v.is_floating_point() else v for name, v in make_inputs(model).items()}
    with torch.no_grad():
        found = torch.compile(model, fullgraph=True, backend="eager")(**inputs)
        torch.testing.assert_close(dict(found), dict(model(**inputs)))


def test_an_exported_model_serves_other_batches_and_lengths(family: str, make_model: Make, make_inputs: Make) -> None:
    model = make_model(family, "ForTokenClassification", 4)
    example = make_inputs(model, labels=False)
    shapes = {name: {0: Dim.AUTO, 1: Dim.AUTO} for name in example}
    exported = torch.export.export(model, (), example, dynamic_shapes=shapes)
    other = make_inputs(model, 1, batch=5, length=7, labels=False)
    out = exported.module()(**other)
    assert type(out) is type(model(**other))
    torch.testing.assert_close(out.logits, model(**other).logits)


def test_a_compiled_model_does_not_look_at_values(make_model: Make) -> None:
    # Looking at them would break the graph; on the CPU, outside a graph, an id out of range is an error.
    model = make_model("mobilebert", seed=4)
    compiled = torch.compile(model, fullgraph=True, backend="eager")
    ids = torch.tensor([[1, 2, 3]])
    torch.testing.assert_close(compiled(ids).last_hidden_state, model(ids).last_hidden_state)
