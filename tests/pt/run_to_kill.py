"""Trains as `test_trainer.KILLED` says, and dies at a moment that its second argument names.

"step N": when N steps are done. "write N": in the middle of the checkpoint after N steps. "move N": when the checkpoint
before has left its place and the new one is not there. "term N": is told to end when N steps are done.
"""

from __future__ import annotations

import importlib.util
import os
import signal
import sys
from pathlib import Path
from typing import Any

import torch

from isobert.core.training import state
from isobert.pt import trainer


def main() -> None:
    spec = importlib.util.spec_from_file_location("test_trainer", Path(__file__).with_name("test_trainer.py"))
    assert spec is not None
    assert spec.loader is not None
    tests: Any = importlib.util.module_from_spec(spec)
    spec.loader.exec_module(tests)
    moment, number = sys.argv[2].split()
    step, rename, write = trainer._Run.step, os.rename, state.RunState.save
    done = 0

    def at(wanted: str) -> None:
        if moment == wanted and done == int(number):
            os.kill(os.getpid(), signal.SIGTERM if moment == "term" else signal.SIGKILL)

    def stepped(self: Any, *arguments: Any) -> None:
        nonlocal done
        step(self, *arguments)
        done = self.state.step
        at("step")
        at("term")

    def renamed(source: Any, target: Any) -> None:
        rename(source, target)
        if str(target).endswith(".old"):
            at("move")

    def written(self: Any, folder: Any) -> None:
        at("write")
        write(self, folder)

    trainer._Run.step, os.rename, state.RunState.save = stepped, renamed, written  # type: ignore[method-assign, assignment]
    torch.manual_seed(0)
    tests.run("text-classification", tests.KILLED, Path(sys.argv[1]))


if __name__ == "__main__":
    main()
