"""Shards a model over the processes, trains a step, and holds what is gathered to a model without shards."""

from __future__ import annotations

from typing import Any

import torch
from torch.distributed.fsdp import fully_shard

from isobert.core.training.options import TrainingOptions
from isobert.core.training.plan import decays
from isobert.pt.resuming import optimizer_state, restore_optimizer, whole_weights
from support.training import config_for, examples, model_for


def make(task: str, *, sharded: bool) -> tuple[Any, torch.optim.AdamW]:
    model = model_for(task, config_for(task, examples(task, 4), TrainingOptions(dropout=0.0)), "pt").double()
    if sharded:
        mesh = torch.distributed.init_device_mesh("cpu", (torch.distributed.get_world_size(),))
        for layer in model.base_model.encoder.layers:
            fully_shard(layer, mesh=mesh)
        fully_shard(model, mesh=mesh)
    named = list(model.named_parameters())
    groups = [
        {"params": [pair for pair in named if decays(pair[0])], "weight_decay": 0.1},
        {"params": [pair for pair in named if not decays(pair[0])], "weight_decay": 0.0},
    ]
    return model, torch.optim.AdamW(groups, lr=1e-2)


def step(model: Any, optimizer: torch.optim.AdamW) -> None:
    ids = torch.tensor([[2, 7, 8, 9, 3], [2, 8, 9, 10, 3]])
    model(input_ids=ids, labels=ids).loss.backward()
    optimizer.step()
    optimizer.zero_grad()


def main() -> None:
    torch.distributed.init_process_group("gloo")
    plain, sharded = (make("fill-mask", sharded=is_sharded) for is_sharded in (False, True))
    step(*plain)
    step(*sharded)
    state = optimizer_state(*sharded, is_sharded=True)
    whole = whole_weights(sharded[0], sharded[0])
    held: list[Any] = [state]
    # What the main process writes, every process reads.
    torch.distributed.broadcast_object_list(held)
    if torch.distributed.get_rank() == 0:
        expected = plain[1].state_dict()
        assert [g["param_names"] for g in state["param_groups"]] == [g["param_names"] for g in expected["param_groups"]]
        torch.testing.assert_close(state["state"], expected["state"])
        torch.testing.assert_close(dict(whole.named_parameters()), dict(plain[0].named_parameters()))
    again = make("fill-mask", sharded=True)
    restore_optimizer(*again, held[0], fused=True, is_sharded=True)
    torch.testing.assert_close(optimizer_state(*again, is_sharded=True)["state"], state["state"], rtol=0, atol=0)
    fresh = make("fill-mask", sharded=False)
    restore_optimizer(*fresh, held[0], fused=True, is_sharded=False)
    torch.testing.assert_close(fresh[1].state_dict()["state"], plain[1].state_dict()["state"])
    torch.distributed.destroy_process_group()


if __name__ == "__main__":
    main()
