"""What a person at the terminal sees of a run, and how they stop it."""

from __future__ import annotations

import contextlib
import os
import signal
import sys
import threading
from collections.abc import Mapping
from typing import Any

from tinyqnn import warmup
from tinyqnn.train.score import Sums


class Interrupt:
    """Turns the first Ctrl-C into `asked`; the second one does what it always did."""

    def __init__(self) -> None:
        self.asked = False
        self.before: Any = None

    def __enter__(self) -> Interrupt:
        # Handlers can be set in the main thread only, and a process that was told to ignore Ctrl-C goes on ignoring it.
        if threading.current_thread() is threading.main_thread() and callable(signal.getsignal(signal.SIGINT)):
            self.before = signal.signal(signal.SIGINT, self.handle)
        return self

    def handle(self, *_: Any) -> None:
        self.asked = True
        self.restore()
        with contextlib.suppress(OSError, RuntimeError, ValueError):
            os.write(2, b"\nfinishing this step; Ctrl-C again stops at once\n")

    def restore(self) -> None:
        if self.before is not None:
            signal.signal(signal.SIGINT, self.before)
            self.before = None

    def __exit__(self, *_: object) -> None:
        self.restore()


class Display:
    """A bar on a terminal, a line an epoch elsewhere, or nothing."""

    def __init__(self, progress: bool | None, label: str, epochs: int, steps: int, done: int) -> None:
        self.label, self.epochs, self.lines, self.last = label, epochs, False, ""
        self.bar: Any = None
        self.waiting = contextlib.ExitStack()
        if progress is False or sys.stderr is None:
            return
        self.lines = not sys.stderr.isatty()
        if not self.lines:
            from tqdm import tqdm

            self.bar = tqdm(total=epochs * steps, initial=done, desc=label, unit="step", dynamic_ncols=True)

    def __enter__(self) -> Display:
        if self.bar is not None:
            self.waiting.enter_context(warmup.told(self.compiling, again=True))
        return self

    def compiling(self) -> None:
        self.bar.set_postfix_str("compiling, once for all runs")

    def step(self, sums: Sums) -> None:
        if self.bar is not None:
            self.bar.set_postfix_str(f"{self.last}loss {sums.loss / sums.count:.4f}", refresh=False)
            self.bar.update()

    def epoch(self, row: Mapping[str, Any]) -> None:
        told = ", ".join(
            f"{name.replace('_', ' ')} {value:.2%}"
            if name.endswith("accuracy")
            else f"{name.replace('_', ' ')} {value:.4g}"
            for name, value in row.items()
            if name not in ("epoch", "lr")
        )
        if self.lines:
            print(f"{self.label} {row['epoch']}/{self.epochs}: {told}", file=sys.stderr, flush=True)
        valid = row.get("valid_accuracy", row.get("valid_perplexity", row.get("valid_loss")))
        self.last = (
            "" if valid is None else f"valid {valid:.2%}, " if "valid_accuracy" in row else f"valid {valid:.4g}, "
        )

    def __exit__(self, *_: object) -> None:
        if self.bar is not None:
            self.waiting.close()
            self.bar.close()
