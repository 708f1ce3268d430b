"""Ctrl-C in the middle of a search, at a step that the test chooses."""

from __future__ import annotations

import signal
from collections.abc import Iterator
from contextlib import contextmanager

import pytest

from tinyqnn.train import Trainer


@contextmanager
def ctrl_c_after(steps: int) -> Iterator[None]:
    """The step of that number, counted over all trainings inside, ends with a Ctrl-C."""
    step, count = Trainer._step, [0]

    def stopping(self, *args):
        step(self, *args)
        count[0] += 1
        if count[0] == steps:
            signal.raise_signal(signal.SIGINT)

    before = signal.signal(signal.SIGINT, signal.default_int_handler)  # a job in the background ignores Ctrl-C
    try:
        with pytest.MonkeyPatch.context() as patch:
            patch.setattr(Trainer, "_step", stopping)
            yield
    finally:
        signal.signal(signal.SIGINT, before)
