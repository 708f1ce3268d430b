"""How long does a packed network take to answer, next to the float network here, in NumPy and in PyTorch?

    tinyqnn bench inference              ours: packed at several widths, and float
    tinyqnn bench inference --vs torch   and PyTorch's float32, the faster of its two memory layouts

Each engine runs in a process of its own, and they take turns, as in `training.py`. Packed networks are checked against
the quantized network they were made from before time is taken.
"""

from __future__ import annotations

import multiprocessing
import os
import statistics
import time
from collections.abc import Callable
from dataclasses import dataclass
from multiprocessing.connection import Connection
from typing import Any

import numpy as np

from tinyqnn import deploy, graph, models, nn
from tinyqnn.bench import training
from tinyqnn.tensor import Array, Tensor, no_grad

HIDDEN, STEPS = 300, 35


@dataclass(frozen=True)
class Case:
    """A network, how its weights and activations are packed, and who it is compared with.

    title      what is measured
    model      "vgg-64", or "lstm" for one LSTM layer, whose time is that of one step
    schemes    weights and activations
    batch      samples at a time
    """

    name: str
    title: str
    model: str
    schemes: tuple[str, str]
    batch: int


CASES = {
    case.name: case
    for case in (
        Case("vgg-w1a1", "VGG-like, 64 wide, batch 32, W1A1", "vgg-64", ("B-1", "C-1"), 32),
        Case("vgg-w2a2", "VGG-like, 64 wide, batch 32, W2A2", "vgg-64", ("C-2", "C-2"), 32),
        Case("vgg-w4a4", "VGG-like, 64 wide, batch 32, W4A4", "vgg-64", ("C-4", "C-4"), 32),
        Case("lstm-w2a2", "LSTM 300, batch 1, a step, W2A2", "lstm", ("C-2", "C-2"), 1),
        Case("lstm-w2a4", "LSTM 300, batch 1, a step, W2A4", "lstm", ("C-2", "C-4"), 1),
    )
}


class _Layer(nn.Module):
    """An LSTM layer alone."""

    def __init__(self, rng: np.random.Generator) -> None:
        super().__init__()
        self.lstm = nn.LSTM(HIDDEN, HIDDEN, rng=rng)

    def forward(self, x: Tensor, state: Any) -> Any:
        return self.lstm(x, state)


def prepared(engine: str, case: Case) -> tuple[Callable[[], Any], int]:
    """What an engine does once, and how many steps that is: "packed", "float", "numpy", "torch…".

    >>> answer, steps = prepared("numpy", CASES["lstm-w2a2"])
    >>> answer().shape, steps
    ((300,), 35)
    """
    rng = np.random.default_rng(0)
    if case.model == "lstm":
        return _recurrent(engine, case, rng), STEPS
    x = rng.standard_normal((case.batch, 3, 32, 32), dtype=np.float32)
    x = np.ascontiguousarray(x.transpose(0, 2, 3, 1)).transpose(0, 3, 1, 2)
    if engine.startswith("torch"):
        return _torch(training.CASES["vgg"], x, engine.endswith("channels-last")), 1
    model = models.create(case.model, 3, 10, rng=rng).eval()
    if engine == "float":
        return no_grad()(lambda: model(Tensor(x))), 1
    packed = _packed(model, x, (x,), case, 0)
    return lambda: packed(x), 1


def _packed(model: Any, example: Any, inputs: tuple[Any, ...], case: Case, batch_axis: int) -> deploy.Packed:
    """The network packed, once it has agreed with the quantized one."""
    weights, activations = case.schemes
    qmodel = graph.generate(model, example, weights=weights, activations=activations, batch_axis=batch_axis).eval()
    return deploy.pack(qmodel, inputs if len(inputs) > 1 else inputs[0])


def _recurrent(engine: str, case: Case, rng: np.random.Generator) -> Callable[[], Any]:
    """STEPS steps of an LSTM layer, one after another."""
    layer = _Layer(rng).eval()
    x = rng.standard_normal((STEPS, case.batch, HIDDEN), dtype=np.float32)
    h, c = (0.3 * rng.standard_normal((1, case.batch, HIDDEN), dtype=np.float32) for _ in range(2))
    weights = [p.data for _, p in layer.named_parameters()]
    if engine == "numpy":
        return lambda: _numpy_steps(weights, x[:, 0], h[0, 0], c[0, 0])
    if engine.startswith("torch"):
        import torch

        theirs = torch.nn.LSTM(HIDDEN, HIDDEN)
        tx, state = torch.from_numpy(x), (torch.from_numpy(h), torch.from_numpy(c))
        return torch.inference_mode()(lambda: theirs(tx, state))
    if engine == "float":
        state_tensors = Tensor(h), Tensor(c)
        return no_grad()(lambda: layer(Tensor(x), state_tensors))
    packed = _packed(layer, (x, (Tensor(h), Tensor(c))), (x, (h, c)), case, 1)
    return lambda: packed(x, (h, c))


def _numpy_steps(weights: list[Array], x: Array, h: Array, c: Array) -> Array:
    """An LSTM in plain NumPy: the inputs' share in one product for all steps, the state's at each."""
    w_ih, w_hh, b_ih, b_hh = weights
    for gates in x @ w_ih.T + (b_ih + b_hh):
        a = gates + w_hh @ h
        i, f, o = (1 / (1 + np.exp(-a[n * HIDDEN : (n + 1) * HIDDEN])) for n in (0, 1, 3))
        c = f * c + i * np.tanh(a[2 * HIDDEN : 3 * HIDDEN])
        h = o * np.tanh(c)
    return h


def _torch(case: training.Case, x: Array, channels_last: bool) -> Callable[[], Any]:
    import torch

    model = training._torch_model(case).eval()
    images = torch.from_numpy(np.ascontiguousarray(x))
    if channels_last:
        model, images = (thing.to(memory_format=torch.channels_last) for thing in (model, images))
    return torch.inference_mode()(lambda: model(images))


def _serve(engine: str, name: str, threads: int, wire: Connection) -> None:
    """In a process of its own: answer as often as asked, and send back the seconds a step."""
    if engine.startswith("torch"):
        import torch

        torch.set_num_threads(threads)
    answer, steps = prepared(engine, CASES[name])
    for _ in range(3):
        answer()
    wire.send(None)
    for turns in iter(wire.recv, 0):
        seconds = []
        for _ in range(turns):
            started = time.perf_counter()
            answer()
            seconds.append((time.perf_counter() - started) / steps)
        wire.send(seconds)


def measure(name: str, engines: tuple[str, ...], threads: int = 2, rounds: int = 8) -> dict[str, list[float]]:
    """The seconds of each answer (of each step of an LSTM), by engine; the engines take turns."""
    context = multiprocessing.get_context("spawn")
    os.environ.update({key: str(threads) for key in ("OMP_NUM_THREADS", "OPENBLAS_NUM_THREADS", "TINYQNN_THREADS")})
    wires, processes = {}, []
    for engine in engines:
        wires[engine], theirs = context.Pipe()
        process = context.Process(target=_serve, args=(engine, name, threads, theirs), daemon=True)
        process.start()
        theirs.close()
        processes.append(process)
    for wire in wires.values():
        wire.recv()
    found: dict[str, list[float]] = {engine: [] for engine in engines}
    for _ in range(rounds):
        for engine, wire in wires.items():
            wire.send(10)
            found[engine] += wire.recv()
    for wire in wires.values():
        wire.send(0)
    for process in processes:
        process.join()
    return found


def run(names: list[str], vs_torch: bool, threads: int = 2, rounds: int = 8) -> list[dict[str, Any]]:
    """A row a case: the median and the best seconds of every engine, and how many times faster packed is."""
    rows = []
    for name in names:
        lstm = CASES[name].model == "lstm"
        others: tuple[str, ...] = ("numpy", "torch") if lstm else ("torch", "torch channels-last")
        if not vs_torch:
            others = tuple(other for other in others if not other.startswith("torch"))
        found = measure(name, ("packed", "float", *others), threads, rounds)
        seconds = {e: {"median": statistics.median(s), "best": min(s)} for e, s in found.items()}
        times = {e: s["median"] / seconds["packed"]["median"] for e, s in seconds.items() if e != "packed"}
        rows.append({"case": name, "title": CASES[name].title, "threads": threads, "seconds": seconds, "times": times})
    return rows


def table(rows: list[dict[str, Any]]) -> str:
    """Milliseconds, and how many times as long the others take.

    >>> row = {"title": "a case", "seconds": {"packed": {"median": 1e-3}, "float": {"median": 4e-3}}}
    >>> print(table([{**row, "times": {"float": 4.0}}]))
    median of an answer                         packed
    a case                                    1.000 ms   float 4.000 ms, 4.0 ×
    """
    lines = [f"{'median of an answer':<40} {'packed':>9}"]
    for row in rows:
        rest = ", ".join(
            f"{engine} {row['seconds'][engine]['median'] * 1e3:.3f} ms, {times:.1f} ×"
            for engine, times in row["times"].items()
        )
        lines.append(f"{row['title']:<38} {row['seconds']['packed']['median'] * 1e3:>8.3f} ms   {rest}")
    return "\n".join(lines)


__all__ = ["CASES", "Case", "measure", "prepared", "run", "table"]
