"""Step times here and in PyTorch on a processor without tile registers (AMX), or as if it had none.

    python figures/bench_training_without_tiles.py          a few minutes; wants PyTorch, and an idle machine
    python figures/bench_training_without_tiles.py --draw   the picture once more, from the figures of last time

Writes bench_training_without_tiles.json, .txt and .png beside this file. See bench_training.py.
"""

from __future__ import annotations

import os
import sys

from llvmlite import binding

if __name__ == "__main__":
    features = binding.get_host_cpu_features()
    if "NUMBA_CPU_NAME" not in os.environ and any(found for name, found in features.items() if name.startswith("amx")):
        features.update({name: False for name in features if name.startswith("amx")})
        told = {"NUMBA_CPU_NAME": binding.get_host_cpu_name(), "NUMBA_CPU_FEATURES": features.flatten()}
        os.execve(sys.executable, [sys.executable, *sys.argv], {**os.environ, **told})

    from bench_training import main

    main(__file__)
