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

LARGE_PAGES = """
import numpy as np
from tinyqnn.kernels import memory
memory.keep_freed_memory()
arrays = [np.ones(1 << 18, np.float32) for _ in range(100)]  # 1 MB each
print(next(line for line in open("/proc/self/smaps_rollup") if line.startswith("AnonHugePages")))
"""


def _large_pages_are_for_who_asks() -> bool:
    try:
        with open("/sys/kernel/mm/transparent_hugepage/enabled") as file:
            return "[madvise]" in file.read() and os.path.exists("/proc/self/smaps_rollup")
    except OSError:
        return False


def run(code: str = FAULTS, **environment: str) -> list[str]:
    clean = {name: value for name, value in os.environ.items() if not name.startswith(("MALLOC_", "TINYQNN_MALLOC"))}
    command = [sys.executable, "-c", code]
    return subprocess.run(
        command, env={**clean, **environment}, capture_output=True, text=True, check=True
    ).stdout.split()


@pytest.mark.skipif(platform.libc_ver()[0] != "glibc", reason="the switch is glibc's")
def test_an_array_of_the_size_of_a_freed_one_costs_no_page_faults():
    agreed, faults = run()
    assert agreed == "True"
    assert int(faults) < 100


@pytest.mark.skipif(platform.libc_ver()[0] != "glibc", reason="the switch is glibc's")
@pytest.mark.skipif(not _large_pages_are_for_who_asks(), reason="this system has none, or gives them to all")
def test_small_arrays_lie_in_large_pages():
    _, kilobytes, _ = run(LARGE_PAGES)
    assert int(kilobytes) > 50_000
    _, kilobytes, _ = run(LARGE_PAGES, TINYQNN_MALLOC="system")
    assert int(kilobytes) < 50_000


@pytest.mark.skipif(platform.libc_ver()[0] != "glibc", reason="the switch is glibc's")
def test_where_addresses_are_few_everything_goes_on_in_small_pieces():
    limited = "import resource; resource.setrlimit(resource.RLIMIT_DATA, (600 << 20,) * 2)"
    agreed, _ = run(limited + FAULTS)
    assert agreed == "True"


@pytest.mark.parametrize("name", ["TINYQNN_MALLOC", "MALLOC_TOP_PAD_"])
def test_whoever_has_set_something_is_left_alone(name):
    agreed, _ = run(**{name: "system" if name == "TINYQNN_MALLOC" else "4096"})
    assert agreed == "False"
