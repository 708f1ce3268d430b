"""Where a number comes from: the versions, the machine and the commit that every result file carries."""

from __future__ import annotations

import os
import platform
import subprocess
import sys
from importlib import metadata
from pathlib import Path
from typing import Any


def environment() -> dict[str, Any]:
    """Versions, processor, threads and commit of this run, as JSON wants them.

    >>> sorted(environment())
    ['commit', 'cores', 'machine', 'processor', 'python', 'system', 'threads', 'versions']
    """
    from tinyqnn.kernels import jit

    return {
        "python": platform.python_version(),
        "versions": {name: _version(name) for name in ("tinyqnn", "numpy", "numba", "matplotlib", "torch")},
        "system": platform.system(),
        "machine": platform.machine(),
        "processor": _processor(),
        "cores": os.cpu_count(),
        "threads": jit.get_num_threads(),
        "commit": _commit(),
    }


def _version(package: str) -> str | None:
    """The installed version, None where the package is not there."""
    try:
        return metadata.version(package)
    except metadata.PackageNotFoundError:
        return None


def _processor() -> str:
    """The processor's own name, where the system tells it."""
    try:
        if sys.platform == "darwin":
            command = ["sysctl", "-n", "machdep.cpu.brand_string"]
            return subprocess.run(command, capture_output=True, text=True, timeout=5, check=True).stdout.strip()
        for line in Path("/proc/cpuinfo").read_text(encoding="utf-8").splitlines():
            if line.startswith("model name"):
                return line.split(":", 1)[1].strip()
    except (OSError, subprocess.SubprocessError):
        pass
    return platform.processor() or platform.machine()


def _commit() -> str | None:
    """The commit this copy was checked out from, with "+" where files were changed since; None outside a repository."""
    folder = Path(__file__).resolve().parent

    def git(*args: str) -> str:
        command = ["git", "-C", str(folder), *args]
        return subprocess.run(command, capture_output=True, text=True, timeout=5, check=True).stdout.strip()

    try:
        if not (Path(git("rev-parse", "--show-toplevel")) / "tinyqnn" / "provenance.py").exists():
            return None
        changed = git("status", "--porcelain", "--untracked-files=no", "--", str(folder))
        return git("rev-parse", "HEAD") + ("+" if changed else "")
    except (OSError, subprocess.SubprocessError):
        return None
