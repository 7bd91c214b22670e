"""SIGTERM, by which a cluster says that a machine will be gone in a moment."""

from __future__ import annotations

import os
import signal
from collections.abc import Iterator
from contextlib import contextmanager
from types import FrameType


class Stop:
    """Whether a signal asked to stop.

    Attributes:
        asked: whether it did.
    """

    def __init__(self) -> None:
        self.asked = False

    def _ask(self, number: int, frame: FrameType | None) -> None:
        self.asked = True


@contextmanager
def stops_politely() -> Iterator[Stop]:
    """Take SIGTERM as a wish to stop; at the end it is handled as it would have been, which mostly ends the process.

    Only the main thread may say what a signal does; in others this does nothing.
    """
    stop = Stop()
    try:
        before = signal.signal(signal.SIGTERM, stop._ask)
    except ValueError:
        yield stop
        return
    try:
        yield stop
    finally:
        signal.signal(signal.SIGTERM, before)
        if stop.asked:
            os.kill(os.getpid(), signal.SIGTERM)
