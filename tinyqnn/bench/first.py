"""How long does one wait for the first training step? With an empty cache kernels are compiled in it; later they are
found on disk.

    tinyqnn bench first                 all networks of `bench training`
    tinyqnn bench first resnet20

Each step is the first of a new process: the network is made, and trained for one batch. The second process begins when
the first has ended.
"""

from __future__ import annotations

import os
import subprocess
import sys
import tempfile

from tinyqnn.bench.training import title

__all__ = ["HEADING", "in_new_process", "line", "measure"]

HEADING = f"{'seconds until the first step is done':<53}{'empty cache':>11}{'second process':>16}"

_FIRST_STEP = """
import sys, time
from tinyqnn.bench import training
started = time.perf_counter()
training.our_step(training.CASES[sys.argv[1]])()
print(time.perf_counter() - started)
"""


def measure(name: str) -> dict[str, float]:
    """Seconds of the first step of a case: of a process that finds an empty cache, and of the next one."""
    with tempfile.TemporaryDirectory() as folder:
        empty = in_new_process(_FIRST_STEP, folder, name)
        return {"empty_cache": empty, "second_process": in_new_process(_FIRST_STEP, folder, name)}


def in_new_process(program: str, cache: str, *args: str) -> float:
    """The number that a program prints, with compiled kernels in the folder `cache`."""
    done = subprocess.run(
        [sys.executable, "-c", program, *args],
        env={**os.environ, "NUMBA_CACHE_DIR": cache},
        stdout=subprocess.PIPE,
        text=True,
        check=True,
    )
    return float(done.stdout)


def line(name: str, seconds: dict[str, float]) -> str:
    """One row of the table under `HEADING`.

    >>> line("vgg", {"empty_cache": 10.04, "second_process": 0.52})
    'VGG-like, 64 wide, batch 64                                 10.0             0.5'
    """
    return f"{title(name):<53}{seconds['empty_cache']:>11.1f}{seconds['second_process']:>16.1f}"
