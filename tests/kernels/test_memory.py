"""Freed memory is kept for the next array, unless one asks for the C library's own ways."""

from __future__ import annotations

import os
import platform
import subprocess
import sys

import pytest

FAULTS = """
import resource
import numpy as np
from tinyqnn.kernels import memory
agreed = memory.keep_freed_memory()
def use():
    np.empty(2_000_000, np.float64).fill(1.0)  # 16 MB
def faults():
    return resource.getrusage(resource.RUSAGE_SELF).ru_minflt
for _ in range(3):
    use()
before = faults()
for _ in range(10):
    use()
print(agreed, faults() - before)
"""


def run(**environment: str) -> list[str]:
    clean = {name: value for name, value in os.environ.items() if not name.startswith(("MALLOC_", "TINYQNN_MALLOC"))}
    command = [sys.executable, "-c", FAULTS]
    return subprocess.run(
        command, env={**clean, **environment}, capture_output=True, text=True, check=True
    ).stdout.split()


@pytest.mark.skipif(platform.libc_ver()[0] != "glibc", reason="the switch is glibc's")
def test_an_array_of_the_size_of_a_freed_one_costs_no_page_faults():
    agreed, faults = run()
    assert agreed == "True"
    assert int(faults) < 100


@pytest.mark.parametrize("name", ["TINYQNN_MALLOC", "MALLOC_TOP_PAD_"])
def test_whoever_has_set_something_is_left_alone(name):
    agreed, _ = run(**{name: "system" if name == "TINYQNN_MALLOC" else "4096"})
    assert agreed == "False"
