"""Trains as `test_trainer.KILLED` says, and dies at a moment that its second argument names.

"write N": in the middle of the checkpoint after N steps. "term N": is told to end when N steps are done.
"""

from __future__ import annotations

import importlib.util
import os
import signal
import sys
from pathlib import Path
from typing import Any

from isobert.core.training import state
from isobert.tf import trainer


def main() -> None:
    spec = importlib.util.spec_from_file_location("test_trainer", Path(__file__).with_name("test_trainer.py"))
    assert spec is not None
    assert spec.loader is not None
    tests: Any = importlib.util.module_from_spec(spec)
    spec.loader.exec_module(tests)
    moment, number = sys.argv[2].split()
    note, write = trainer._Run.note, state.RunState.save

    def noted(self: Any, *arguments: Any) -> None:
        note(self, *arguments)
        if moment == "term" and self.state.step == int(number):
            os.kill(os.getpid(), signal.SIGTERM)

    def written(self: Any, folder: Any) -> None:
        if moment == "write" and self.step == int(number):
            os.kill(os.getpid(), signal.SIGKILL)
        write(self, folder)

    trainer._Run.note, state.RunState.save = noted, written  # type: ignore[method-assign]
    tests.run("text-classification", tests.KILLED, Path(sys.argv[1]))


if __name__ == "__main__":
    main()
