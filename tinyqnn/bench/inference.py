"""How long does a packed network take to answer, next to the float network here, in NumPy and in PyTorch?

    tinyqnn bench inference              ours: packed at several widths, and float
    tinyqnn bench inference --vs torch   and PyTorch's float32, in both of its memory layouts
    tinyqnn bench inference --vs onnx    and ONNX Runtime's 8 bits, of a network of the same shapes; `--vs all`: both

Each engine runs in a process of its own, and they take turns, as in `training.py`. Packed networks are checked against
the quantized network they were made from before time is taken.
"""

from __future__ import annotations

import importlib
import multiprocessing
import os
import statistics
import tempfile
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
    if engine == "onnxruntime":
        return _onnx(model, np.ascontiguousarray(x)), 1
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
        run = _numpy_lstm(weights)
        return lambda: run(x[:, 0], h[0, 0], c[0, 0])
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


def _numpy_lstm(weights: list[Array]) -> Callable[[Array, Array, Array], Array]:
    """An LSTM as one writes it in NumPy who wants it fast: (x (T, in), h, c) -> the last h.

    The inputs' share is one product for all steps, h · W_hhᵀ reads W_hhᵀ in rows, one tanh serves all four gates, for
    σ(x) = ½ + ½ · tanh(x/2), and every step writes to the same arrays. In the textbook's words it takes three times as
    long.
    """
    w_ih, w_hh, b_ih, b_hh = weights
    by_rows, bias, n = np.ascontiguousarray(w_hh.T), b_ih + b_hh, HIDDEN
    half = np.repeat(np.array([0.5, 0.5, 1, 0.5], np.float32), n)
    shift = np.repeat(np.array([0.5, 0.5, 0, 0.5], np.float32), n)
    a, kept = np.empty(4 * n, np.float32), np.empty(n, np.float32)
    i, f, g, o = np.split(a, 4)

    def run(x: Array, h: Array, c: Array) -> Array:
        h, c, shares = h.copy(), c.copy(), x @ w_ih.T
        shares += bias
        for share in shares:
            np.dot(h, by_rows, out=a)
            np.add(a, share, out=a)
            np.multiply(a, half, out=a)
            np.tanh(a, out=a)
            np.multiply(a, half, out=a)
            np.add(a, shift, out=a)
            np.multiply(f, c, out=c)
            np.multiply(i, g, out=kept)
            np.add(c, kept, out=c)
            np.tanh(c, out=kept)
            np.multiply(o, kept, out=h)
        return h

    return run


def _torch(case: training.Case, x: Array, channels_last: bool) -> Callable[[], Any]:
    import torch

    model = training._torch_model(case).eval()
    images = torch.from_numpy(np.ascontiguousarray(x))
    if channels_last:
        model, images = (thing.to(memory_format=torch.channels_last) for thing in (model, images))
    return torch.inference_mode()(lambda: model(images))


def _onnx(model: nn.Module, x: Array) -> Callable[[], Any]:
    """ONNX Runtime on the same VGG-like network, quantized statically to 8 bits; batch norm is taken as folded."""
    onnx, onnxruntime = importlib.import_module("onnx"), importlib.import_module("onnxruntime")
    quantization = importlib.import_module("onnxruntime.quantization")
    make, from_array, last = onnx.helper, onnx.numpy_helper.from_array, "x"
    nodes: list[Any] = []
    constants: list[Any] = []

    def add(op: str, given: list[str], **options: Any) -> None:
        nonlocal last
        nodes.append(make.make_node(op, [last, *given], [f"y{len(nodes)}"], **options))
        last = f"y{len(nodes) - 1}"

    for name, p in model.named_parameters():
        layer = name.split(".")[0]
        if p.ndim not in (2, 4):
            continue
        constants.append(from_array(np.ascontiguousarray(p.data), layer))
        constants.append(from_array(np.zeros(len(p.data), np.float32), f"{layer}_bias"))
        if p.ndim == 4:
            add("Conv", [layer, f"{layer}_bias"], pads=[1, 1, 1, 1])
        else:
            if layer == "fc7":
                add("Flatten", [])
            add("Gemm", [layer, f"{layer}_bias"], transB=1)
        if layer != "fc8":
            add("Relu", [])
        if layer in ("conv2", "conv4", "conv6"):
            add("MaxPool", [], kernel_shape=[2, 2], strides=[2, 2])
    kind = onnx.TensorProto.FLOAT
    ends = make.make_tensor_value_info("x", kind, x.shape), make.make_tensor_value_info(last, kind, None)
    graph_ = make.make_graph(nodes, "vgg", [ends[0]], [ends[1]], constants)
    network = make.make_model(graph_, opset_imports=[make.make_opsetid("", 13)], ir_version=8)
    images = iter([{"x": x}])

    class Images(quantization.CalibrationDataReader):  # type: ignore[name-defined]
        def get_next(self) -> Any:
            return next(images, None)

    options = onnxruntime.SessionOptions()
    options.intra_op_num_threads, options.log_severity_level = int(os.environ["TINYQNN_THREADS"]), 3
    with tempfile.TemporaryDirectory() as folder:
        quantization.quantize_static(network, f"{folder}/int8.onnx", Images(), per_channel=True)
        session = onnxruntime.InferenceSession(f"{folder}/int8.onnx", options, ["CPUExecutionProvider"])
    return lambda: session.run(None, {"x": x})


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
    turns, steps = {}, STEPS if CASES[name].model == "lstm" else 1
    for engine, wire in wires.items():  # a turn takes a tenth of a second: what is quick needs many to be warm
        wire.send(10)
        turns[engine] = max(10, int(0.1 / (statistics.median(wire.recv()) * steps)))
    found: dict[str, list[float]] = {engine: [] for engine in engines}
    for _ in range(rounds):
        for engine, wire in wires.items():
            wire.send(turns[engine])
            found[engine] += wire.recv()
    for wire in wires.values():
        wire.send(0)
    for process in processes:
        process.join()
    return found


def others(case: Case, vs: str | None) -> tuple[str, ...]:
    """Who else answers: with `vs` "torch", "onnx" or "all" also PyTorch, ONNX Runtime (no LSTM), both.

    >>> others(CASES["vgg-w2a2"], "all")
    ('torch', 'torch channels-last', 'onnxruntime')
    """
    lstm = case.model == "lstm"
    found: tuple[str, ...] = ("numpy",) if lstm else ()
    if vs in ("torch", "all"):
        found += ("torch",) if lstm else ("torch", "torch channels-last")
    return (*found, "onnxruntime") if vs in ("onnx", "all") and not lstm else found


def run(names: list[str], vs: str | None, threads: int = 2, rounds: int = 8) -> list[dict[str, Any]]:
    """A row a case: the median and the best seconds of every engine, and how many times as fast packed is."""
    rows = []
    for name in names:
        found = measure(name, ("packed", "float", *others(CASES[name], vs)), threads, rounds)
        seconds = {e: {"median": statistics.median(s), "best": min(s)} for e, s in found.items()}
        times = {e: s["median"] / seconds["packed"]["median"] for e, s in seconds.items() if e != "packed"}
        best = {e: s["best"] / seconds["packed"]["best"] for e, s in seconds.items() if e != "packed"}
        row = {"case": name, "title": CASES[name].title, "threads": threads, "seconds": seconds}
        rows.append({**row, "times": times, "times_best": best})
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


__all__ = ["CASES", "Case", "measure", "others", "prepared", "run", "table"]
