"""What people already use with PyTorch works with the models: optimizers and a bare loop, copies, `torch.export`."""

from __future__ import annotations

import copy
import io
from collections.abc import Callable
from typing import Any

import pytest
import torch
from torch import Tensor
from torch.export import Dim
from torch.optim.swa_utils import AveragedModel
from torch.utils.data import DataLoader, TensorDataset

from isobert.errors import InputError

Make = Callable[..., Any]


def learner(make_model: Make, family: str) -> Any:
    """Return a float32 model of two classes without dropout, in which every position sees every other."""
    fields: dict[str, Any] = {"is_decoder": False} if family == "rembert" else {}
    fields |= {"num_labels": 2, "problem_type": None, "num_hidden_layers": 1}
    return make_model(family, "ForSequenceClassification", 4, **fields).float()


def test_a_bare_loop_with_an_optimizer_a_schedule_and_clipping_learns_a_task(family: str, make_model: Make) -> None:
    model = learner(make_model, family)
    ids = torch.randint(2, 20, (64, 8))
    labels = (ids[:, 1] > 10).long()
    loader = DataLoader(TensorDataset(ids, labels), batch_size=16, shuffle=True)
    optimizer = torch.optim.AdamW(model.parameters(), lr=1e-2, weight_decay=0.01)
    schedule = torch.optim.lr_scheduler.OneCycleLR(optimizer, max_lr=1e-2, total_steps=25 * len(loader))
    for _ in range(25):
        for batch, wanted in loader:
            optimizer.zero_grad()
            model(batch, labels=wanted).loss.backward()
            torch.nn.utils.clip_grad_norm_(model.parameters(), 1.0, error_if_nonfinite=True)
            optimizer.step()
            schedule.step()
    with torch.no_grad():
        assert (model(ids).logits.argmax(-1) == labels).float().mean() > 0.9


@pytest.mark.parametrize("optimizer_class", [torch.optim.SGD, torch.optim.Adam, torch.optim.RMSprop, torch.optim.LBFGS])
def test_a_step_of_an_optimizer_lowers_the_loss(
    optimizer_class: Any, family: str, make_model: Make, make_inputs: Make
) -> None:
    model = make_model(family, "ForMaskedLM", 4)
    inputs = make_inputs(model)
    optimizer = optimizer_class([p for p in model.parameters() if p.requires_grad], lr=1e-3)

    def loss() -> Tensor:
        optimizer.zero_grad()
        found = model(**inputs).loss
        found.backward()
        return found

    before = optimizer.step(loss)
    with torch.no_grad():
        assert model(**inputs).loss < before


def test_copies_and_running_means_of_a_model_are_models_with_tied_words(make_model: Make, make_inputs: Make) -> None:
    model = make_model("mobilebert", "ForMaskedLM", 4, tie_word_embeddings=True)
    other = copy.deepcopy(model)
    with torch.no_grad():
        for parameter in other.parameters():
            parameter.add_(0.5)
    mean = AveragedModel(model)
    mean.update_parameters(model)
    mean.update_parameters(other)
    for name, parameter in model.named_parameters():
        torch.testing.assert_close(mean.module.get_parameter(name), parameter + 0.25)
    inputs = make_inputs(model)
    assert mean(**inputs).loss != model(**inputs).loss
    table = mean.module.get_input_embeddings().weight
    assert table is mean.module.get_lm_head().decoder.weight is not model.get_input_embeddings().weight


def test_an_exported_program_is_saved_and_serves_batches_and_lengths_by_name(
    family: str, make_model: Make, make_inputs: Make
) -> None:
    model = make_model(family, "ForMaskedLM", 4, num_hidden_layers=1)
    example = make_inputs(model, labels=False)
    longest = model.config.max_position_embeddings
    sizes = {0: Dim("batch", min=1, max=64), 1: Dim("length", min=2, max=longest)}
    exported = torch.export.export(model, (), example, dynamic_shapes=dict.fromkeys(example, sizes))
    file = io.BytesIO()
    torch.export.save(exported, file)
    file.seek(0)
    served = torch.export.load(file).module()
    for seed, batch, length in ((1, 5, 7), (2, 1, longest)):
        other = make_inputs(model, seed, batch=batch, length=length, labels=False)
        found, expected = served(**other), model(**other)
        assert type(found) is type(expected)
        torch.testing.assert_close(found.logits, expected.logits)


def test_return_dict_false_gives_a_tuple_as_code_for_transformers_expects(
    family: str, make_model: Make, make_inputs: Make
) -> None:
    model = make_model(family, "ForTokenClassification", 4)
    inputs = make_inputs(model)
    expected = model(**inputs, output_hidden_states=True)
    assert type(model(**inputs, return_dict=True)) is type(expected)
    loss, logits, hidden_states = model(**inputs, output_hidden_states=True, return_dict=False)
    torch.testing.assert_close((loss, logits, hidden_states), expected.to_tuple())


def test_checkpointing_takes_the_argument_that_tools_pass_and_says_whether_it_is_on(make_model: Make) -> None:
    model = make_model("mobilebert", "ForTokenClassification")
    assert not model.is_gradient_checkpointing
    model.gradient_checkpointing_enable(gradient_checkpointing_kwargs={"use_reentrant": False})
    assert model.is_gradient_checkpointing
    model.gradient_checkpointing_disable()
    assert not model.is_gradient_checkpointing
    with pytest.raises(InputError, match="use_reentrant"):
        model.gradient_checkpointing_enable({"use_reentrant": True})
    assert not model.is_gradient_checkpointing


def test_the_names_that_a_checkpoint_leaves_out_are_those_of_shared_tensors(make_model: Make) -> None:
    tied = make_model("squeezebert", "ForMaskedLM", tie_word_embeddings=True)
    left_out = tied._keys_to_ignore_on_save
    assert "cls.predictions.decoder.weight" in left_out
    written = dict(tied.named_parameters())
    assert not written.keys() & set(left_out)
    assert written.keys() | set(left_out) == tied.state_dict().keys()
    assert make_model("squeezebert", "ForTokenClassification")._keys_to_ignore_on_save == []
