"""Many cells, a few processes: what is finished is never done again, what fails does not stop the rest.

Every cell has a folder named by the hash of its config. A result.json in it means that the cell is finished; whoever
comes later, after Ctrl-C, after a kill, with another scale, finds it there.
"""

from __future__ import annotations

import contextlib
import dataclasses
import json
import multiprocessing
import os
import sys
import time
import traceback
from collections.abc import Callable, Iterator
from concurrent.futures import Executor, Future, ProcessPoolExecutor, as_completed
from concurrent.futures.process import BrokenProcessPool
from pathlib import Path
from typing import Any, NamedTuple

from tinyqnn import files
from tinyqnn.papers import experiment as experiments
from tinyqnn.papers.experiment import Cell, Report, describe, key

THREADS = ("TINYQNN_THREADS", "OPENBLAS_NUM_THREADS", "OMP_NUM_THREADS", "MKL_NUM_THREADS")
ATTEMPTS = 2  # for a cell whose process was killed: it may have been a neighbour that took the memory


class Sweep(NamedTuple):
    """What a sweep left: the finished cells in the order asked for, those that failed with why, and their commits."""

    cells: list[Cell]
    failures: list[tuple[Any, str]]
    environments: list[dict[str, Any]]


def run_cells(
    name: str,
    configs: list[Any],
    folder: Path,
    jobs: int | None = None,
    executor: Callable[[], Executor] | None = None,
    progress: Callable[[str], None] | None = None,
) -> Sweep:
    """Run the cells that `folder` does not have yet.

    jobs       worker processes, which share the cores, or $TINYQNN_THREADS threads. None: one for each of them
    executor   makes any other `concurrent.futures.Executor` to run the cells on
    progress   gets a line for each cell that ends; None: a bar on a terminal, lines elsewhere

    Ctrl-C ends the workers and leaves finished cells, and the checkpoints of the others, where they are.
    """
    from tinyqnn.kernels.jit import get_num_threads  # loads Numba, which `reproduce --list` does without

    experiment = experiments.load(name)
    places = {config: folder / key(name, experiment, config) for config in configs}
    threads = get_num_threads()
    jobs = min(jobs or threads, max(len(configs), 1))
    make = executor or (lambda: _processes(jobs))
    waiting = [config for config in places if not (places[config] / "result.json").exists()]
    failures: dict[Any, str] = {}
    attempts: dict[Any, int] = {}
    with _display(name, len(places), len(places) - len(waiting), progress) as tell:
        while waiting:
            with _few_threads(max(threads // jobs, 1)), make() as pool:
                futures = {pool.submit(_run_cell, name, config, places[config]): config for config in waiting}
                try:
                    broken = _collect(futures, failures, tell)
                except BaseException:
                    pool.shutdown(wait=False, cancel_futures=True)
                    for process in multiprocessing.active_children():
                        process.terminate()
                    raise
            waiting = []
            for config in broken:
                attempts[config] = attempts.get(config, 0) + 1
                if attempts[config] < ATTEMPTS:
                    waiting.append(config)
                else:
                    failures[config] = "its process was killed; perhaps the memory was too small for so many jobs"
                    tell(config, "killed")
    cells, environments = [], []
    for config in configs:
        if config not in failures:
            kept = json.loads((places[config] / "result.json").read_text(encoding="utf-8"))
            cells.append(Cell(config, kept["result"], kept["seconds"]))
            environments.append(kept["environment"])
    return Sweep(cells, list(failures.items()), environments)


def _collect(futures: dict[Future[Any], Any], failures: dict[Any, str], tell: Callable[[Any, str], None]) -> list[Any]:
    """Wait for all; returns the configs whose process died under them."""
    broken = []
    for future in as_completed(futures):
        config = futures[future]
        try:
            seconds, error = future.result()
        except BrokenProcessPool:
            broken.append(config)
            continue
        if error is not None:
            failures[config] = error
        tell(config, f"{seconds:.0f} s" if error is None else f"failed: {error.strip().splitlines()[-1]}")
    return broken


def _run_cell(name: str, config: Any, folder: Path) -> tuple[float, str | None]:
    """In a worker: run one cell and write its result, or keep why it failed."""
    from tinyqnn.provenance import environment

    folder.mkdir(parents=True, exist_ok=True)
    started = time.process_time()
    try:
        result = experiments.load(name).run(config, Report(folder))
        seconds = time.process_time() - started
        record = {
            "config": dataclasses.asdict(config),
            "result": result,
            "seconds": seconds,
            "environment": environment(),
        }
        text = json.dumps(record, indent=1, ensure_ascii=False)
    except Exception:
        _write(folder / "error.txt", traceback.format_exc())
        return time.process_time() - started, traceback.format_exc()
    _write(folder / "result.json", text + "\n")
    return seconds, None


def _write(path: Path, text: str) -> None:
    with files.atomic_write(path, overwrite=True) as file:
        file.write(text.encode("utf-8"))


def _processes(jobs: int) -> Executor:
    """Processes begun afresh, so that threads and locks of this one do not come along."""
    return ProcessPoolExecutor(jobs, multiprocessing.get_context("spawn"), _detach)


def _detach() -> None:
    """Ctrl-C on the terminal is for the process that holds the sweep; it ends its workers itself."""
    if hasattr(os, "setsid"):
        with contextlib.suppress(OSError):
            os.setsid()


@contextlib.contextmanager
def _few_threads(threads: int) -> Iterator[None]:
    """Let each worker that begins in here have so many threads, instead of one a core."""
    before = {name: os.environ.get(name) for name in THREADS}
    os.environ.update(dict.fromkeys(THREADS, str(threads)))
    try:
        yield
    finally:
        for name, value in before.items():
            if value is None:
                os.environ.pop(name, None)
            else:
                os.environ[name] = value


@contextlib.contextmanager
def _display(
    name: str, total: int, done: int, progress: Callable[[str], None] | None
) -> Iterator[Callable[[Any, str], None]]:
    """A bar over the cells on a terminal; a line a cell elsewhere."""
    count = done

    if progress is None and sys.stderr.isatty():
        from tqdm import tqdm

        with tqdm(total=total, initial=done, desc=name, unit="cell", dynamic_ncols=True) as bar:

            def step(config: Any, how: str) -> None:
                bar.update(1)
                bar.write(f"  {describe(config)}: {how}", file=sys.stderr)

            yield step
        return

    def line(config: Any, how: str) -> None:
        nonlocal count
        count += 1
        text = f"{name} {count}/{total}  {describe(config)}: {how}"
        if progress is None:
            print(text, file=sys.stderr, flush=True)
        else:
            progress(text)

    yield line
