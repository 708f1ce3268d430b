"""How fast are products of codes, next to the float32 ones that they replace?

    tinyqnn bench gemm              matrix products     against NumPy's sgemm, and PyTorch where it is installed
    tinyqnn bench gemv              one row at a time   against sgemv
    tinyqnn bench layer             a convolution       against PyTorch's float32 and ONNX Runtime's 8 bits
    tinyqnn bench --host            what this processor has, and the most that it can do

Every engine runs in a process of its own and they take turns, so that no engine's threads are in another's way and a
busy minute of the machine counts for all. A ratio is another's time divided by ours, of the best calls and of the
medians. Compile time is printed apart; it is paid once and then read from the cache.
"""

from __future__ import annotations

import importlib
import multiprocessing
import os
import statistics
import tempfile
import time
from collections.abc import Callable
from multiprocessing.connection import Connection
from typing import Any, NamedTuple

import numpy as np

from tinyqnn.bench import first, roofline
from tinyqnn.kernels import fastest

__all__ = ["CASES", "Case", "choices", "first_calls", "host", "host_table", "measure", "run", "table"]

Array = np.ndarray
Call = Callable[[], Any]

REST = 0.04  # seconds before a turn: threads of the engine before look for more work as long, and take a core with them


class Case(NamedTuple):
    """A product to measure: x (M, K) · wᵀ (K, N), or a 3×3 convolution of M = (images, height, width)."""

    group: str  # gemm, gemv, layer or choice
    name: str
    kernel: str  # binary, bitserial, int8, shift, or chosen: by the table of `kernels/fastest.py`
    bits: tuple[int, int]  # of weights and activations
    shape: tuple[int, ...]  # (M, K, N); a layer's (images, channels, size)
    packing: bool = False  # from codes, or from packed activations

    @property
    def key(self) -> str:
        """The name and the shape."""
        return f"{self.name} {'×'.join(map(str, self.shape))}"

    @property
    def serves(self) -> str:
        """The kernel that runs here."""
        if self.kernel != "chosen":
            return self.kernel
        images, size = self.shape[0], self.shape[-1]
        return fastest.fastest(*self.bits, images * size * size if self.group == "layer" else images)

    @property
    def operations(self) -> int:
        """Products and sums, two each."""
        if self.group == "layer":
            images, channels, size = self.shape
            return 2 * images * size * size * channels * channels * 9
        m, k, n = self.shape
        return 2 * m * k * n

    @property
    def moved(self) -> float:
        """Bytes of both packed factors and of the int32 result."""
        if self.group == "layer":
            images, channels, size = self.shape
            pixels = images * size * size * channels
            return pixels * (self.bits[1] / 8 + 4) + channels * channels * 9 * self.bits[0] / 8
        m, k, n = self.shape
        return m * k * self.bits[1] / 8 + n * k * self.bits[0] / 8 + 4 * m * n


_SHAPES = ((1024, 1024, 1024), (4096, 1152, 128), (16384, 576, 64), (1024, 8192, 1024))
_LAYER = (32, 128, 16)
_MANY, _ONE = (512, 1024, 512), (1, 4096, 4096)
_WIDTHS = ((1, 1), (1, 2), (2, 2), (2, 3), (2, 4), (3, 3), (4, 4), (2, 8), (4, 8))

CASES = (
    *(Case("gemm", "binary", "binary", (1, 1), shape) for shape in _SHAPES),
    *(Case("gemm", "binary, packing too", "binary", (1, 1), shape, True) for shape in _SHAPES),
    *(Case("gemm", "W1A1, as chosen, packing too", "chosen", (1, 1), shape, True) for shape in _SHAPES),
    Case("gemm", "W1A2", "bitserial", (1, 2), _SHAPES[0]),
    Case("gemm", "W2A2", "bitserial", (2, 2), _SHAPES[0]),
    *(Case("gemm", f"W{w}A{x}, as chosen", "chosen", (w, x), _SHAPES[0]) for w, x in ((1, 1), (1, 2), (2, 2))),
    *(Case("gemm", "bytes", "int8", (8, 8), shape) for shape in _SHAPES[:2]),
    *(Case("gemm", "shifts", "shift", (4, 8), (m, 1024, 1024)) for m in (64, 256)),
    Case("gemv", "1 bit", "binary", (1, 1), _ONE),
    Case("gemv", "2 bits", "bitserial", (2, 2), _ONE),
    Case("gemv", "shifts", "shift", (4, 8), _ONE),
    Case("gemv", "bytes", "int8", (8, 8), _ONE),
    Case("layer", "conv W1A1", "binary", (1, 1), _LAYER, True),
    Case("layer", "conv W1A2", "bitserial", (1, 2), _LAYER, True),
    Case("layer", "conv W2A2", "bitserial", (2, 2), _LAYER, True),
    *(Case("layer", f"conv W{w}A{x}, as chosen", "chosen", (w, x), _LAYER, True) for w, x in ((1, 1), (1, 2), (2, 2))),
    Case("layer", "conv bytes", "int8", (8, 8), _LAYER, True),
    *(Case("choice", f"bits W{w}A{x}", "bitserial", (w, x), shape) for shape in (_MANY, _ONE) for w, x in _WIDTHS),
    *(Case("choice", "bytes", "int8", (8, 8), shape) for shape in (_MANY, _ONE)),
)


def _codes(case: Case) -> tuple[Array, Array]:
    """Weights and activations as small codes, the same for every engine; images channels-last in memory."""
    rng = np.random.default_rng(0)
    shapes: list[tuple[int, ...]]
    if case.group == "layer":
        images, channels, size = case.shape
        shapes = [(channels, channels, 3, 3), (images, size, size, channels)]
    else:
        m, k, n = case.shape
        shapes = [(n, k), (m, k)]
    drawn = []
    for shape, bits, is_weight in zip(shapes, case.bits, (True, False)):
        if bits == 1:
            drawn.append(rng.choice(np.array([-1, 1], np.int8), shape))
        elif case.kernel == "shift" and is_weight:
            drawn.append(_powers(rng.standard_normal(shape)))
        elif is_weight or bits == 8:
            drawn.append(rng.integers(-(2 ** (bits - 1)), 2 ** (bits - 1), shape).astype(np.int8))
        else:
            drawn.append(rng.integers(0, 2**bits, shape).astype(np.uint8))
    if case.group == "layer":
        drawn[1] = drawn[1].transpose(0, 3, 1, 2)
    return drawn[0], drawn[1]


def _powers(w: Array) -> Array:
    """PotQ's 4-bit codes of normal numbers."""
    n = np.clip(np.round(np.log2(abs(w) / 0.03276)), 0, 7)
    return np.where(w > 0, n, -1 - n).astype(np.int8)


def _result(m: int, n: int, dtype: type) -> Array:
    """Where a product goes: ours and NumPy's begin on a cache line, or it would be luck how they lie."""
    from tinyqnn.kernels.jit import aligned

    found: Array = aligned(m * n).view(dtype).reshape(m, n)
    return found


def ours(case: Case) -> Call:
    """Our product, weights packed."""
    from tinyqnn import kernels

    w, x = _codes(case)
    x_kind = "binary" if case.bits[1] == 1 else "signed" if case.bits[1] == 8 else "unsigned"
    make = {
        "binary": kernels.BinaryGemm,
        "int8": kernels.Int8Gemm,
        "shift": kernels.ShiftGemm,
        "bitserial": lambda w: kernels.BitSerialGemm(
            w, case.bits[0], "binary" if case.bits[0] == 1 else "signed", case.bits[1], x_kind
        ),
    }[case.serves]
    if case.group == "layer":
        conv = kernels.IntConv2d(w, make, padding=1)
        return lambda: conv(x)
    g = make(w)
    packed, out = g.pack(x), _result(len(x), len(w), np.int32)
    return (lambda: g(x, out)) if case.packing else lambda: g.multiply(packed, out)


def numpys(case: Case) -> Call | None:
    """NumPy's float32 product of the same shape."""
    if case.group == "layer":
        return None
    w, x = (codes.astype(np.float32) for codes in _codes(case))
    out = _result(len(x), len(w), np.float32)
    if len(x) == 1:
        return lambda: np.matmul(w, x[0], out=out[0])
    return lambda: np.matmul(x, w.T, out=out)


def torchs(case: Case, channels_last: bool = False) -> Call | None:
    """PyTorch's float32 product or convolution."""
    try:
        import torch
    except ImportError:
        return None
    w, x = (torch.from_numpy(np.ascontiguousarray(codes)).float() for codes in _codes(case))
    if case.group != "layer":
        return None if channels_last else lambda: torch.nn.functional.linear(x, w)
    if channels_last:
        w, x = w.to(memory_format=torch.channels_last), x.to(memory_format=torch.channels_last)
    return lambda: torch.nn.functional.conv2d(x, w, padding=1)


def onnxs(case: Case, threads: int) -> Call | None:
    """ONNX Runtime's 8-bit product or convolution; needs the packages onnxruntime and onnx."""
    if case.kernel != "int8":
        return None
    try:
        onnx, onnxruntime = importlib.import_module("onnx"), importlib.import_module("onnxruntime")
    except ImportError:
        return None
    w, x = _codes(case)
    x = np.ascontiguousarray(x).view(np.uint8) ^ np.uint8(128)  # unsigned with zero point 128
    layer = case.group == "layer"
    b = np.ascontiguousarray(w if layer else w.T)
    kinds, make = onnx.TensorProto, onnx.helper
    constants = {"w": b, "zero": np.uint8(128), "w_zero": np.int8(0), "one": np.float32(1), "much": np.float32(1000)}
    if layer:  # its fast convolution is the one that rounds to 8 bits at the end
        inputs = ["x", "one", "zero", "w", "one", "w_zero", "much", "zero"]
        node = make.make_node("QLinearConv", inputs, ["y"], pads=[1, 1, 1, 1])
    else:
        node = make.make_node("MatMulInteger", ["x", "w", "zero"], ["y"])
    graph = make.make_graph(
        [node],
        "product",
        [make.make_tensor_value_info("x", kinds.UINT8, x.shape)],
        [make.make_tensor_value_info("y", kinds.UINT8 if layer else kinds.INT32, None)],
        [onnx.numpy_helper.from_array(np.asarray(value), name) for name, value in constants.items()],
    )
    model = make.make_model(graph, opset_imports=[make.make_opsetid("", 13)], ir_version=8)
    options = onnxruntime.SessionOptions()
    options.intra_op_num_threads = threads
    session = onnxruntime.InferenceSession(model.SerializeToString(), options, ["CPUExecutionProvider"])
    return lambda: session.run(None, {"x": x})


def _prepare(engine: str, case: Case, threads: int) -> Call | None:
    if engine == "tinyqnn":
        return ours(case)
    if engine == "numpy":
        return numpys(case)
    if engine == "onnxruntime":
        return onnxs(case, threads)
    return torchs(case, engine.endswith("channels-last"))


def _serve(engine: str, cases: list[Case], threads: int, wire: Connection) -> None:
    """In a process of its own: prepare a case, then run it as often as asked and send back the seconds."""
    if engine.startswith("torch"):
        try:
            import torch

            torch.set_num_threads(threads)
        except ImportError:
            pass
    for case in cases:
        started = time.perf_counter()
        call = _prepare(engine, case, threads)
        if call is not None:
            call()
        wire.send(None if call is None else time.perf_counter() - started)
        for calls in iter(wire.recv, 0):
            seconds = []
            for _ in range(calls):
                started = time.perf_counter()
                call()  # type: ignore[misc]
                seconds.append(time.perf_counter() - started)
            wire.send(seconds)


def measure(cases: list[Case], threads: int = 2, rounds: int = 8) -> list[dict[str, Any]]:
    """Let the engines take turns on each case; a row of results a case, as JSON wants them."""
    variables = ("TINYQNN_THREADS", "OPENBLAS_NUM_THREADS", "MKL_NUM_THREADS", "OMP_NUM_THREADS")
    before = {name: os.environ.get(name) for name in variables}
    os.environ.update(dict.fromkeys(variables, str(threads)))
    context = multiprocessing.get_context("spawn")
    engines, wires, processes = ("tinyqnn", "numpy", "torch", "torch channels-last", "onnxruntime"), {}, []
    try:
        for engine in engines:
            wires[engine], theirs = context.Pipe()
            process = context.Process(target=_serve, args=(engine, cases, threads, theirs), daemon=True)
            process.start()
            theirs.close()
            processes.append(process)
    finally:
        for name, value in before.items():
            os.environ.pop(name) if value is None else os.environ.__setitem__(name, value)
    rows = [_take_turns(case, wires, rounds) for case in cases]
    for process in processes:
        process.join()
    return rows


def _take_turns(case: Case, wires: dict[str, Connection], rounds: int) -> dict[str, Any]:
    """The seconds of every engine on one case, and what they say of each other."""
    first = {engine: wire.recv() for engine, wire in wires.items()}
    there = [engine for engine, seconds in first.items() if seconds is not None]
    seconds: dict[str, list[float]] = {engine: [] for engine in there}
    calls = {}
    for engine in there:  # warm up, and see how many calls make a turn
        wires[engine].send(2)
        calls[engine] = max(2, min(200, int(0.05 / min(wires[engine].recv()))))
    for _ in range(rounds):
        for engine in there:
            time.sleep(REST)
            wires[engine].send(calls[engine])
            seconds[engine] += wires[engine].recv()
    for wire in wires.values():
        wire.send(0)
    row: dict[str, Any] = {"case": case.key, **case._asdict(), "first_call": first["tinyqnn"]}
    row["operations"], row["bytes"], row["serves"] = case.operations, case.moved, case.serves
    row["seconds"] = {e: {"best": min(s), "median": statistics.median(s), "calls": len(s)} for e, s in seconds.items()}
    mine = row["seconds"]["tinyqnn"]
    row["ratio"] = {
        engine: {which: value[which] / mine[which] for which in ("best", "median")}
        for engine, value in row["seconds"].items()
        if engine != "tinyqnn"
    }
    return row


def host(threads: int = 2) -> dict[str, Any]:
    """What this processor has and, in operations a second on all threads, the most that it can do."""
    from tinyqnn.kernels import limits, simd, tiles

    plain, added, saved = (
        roofline.most(loop, threads) for loop in (limits.popcount_loop, limits.adder_loop, limits.carry_save_loop)
    )
    dots, products = roofline.most(limits.bytes_loop, threads), roofline.most(limits.tiles_loop, threads)
    return {
        "vector_bits": 32 * simd.LANES,
        "popcount": simd.HAS_POPCOUNT,
        "byte_dot": simd.HAS_BYTE_DOT,
        "tiles": tiles.allowed(),
        "threads": threads,
        "limits": {
            "popcount": plain,
            "full_adder": added,
            "carry_save": saved,
            "bits": max(plain, added, saved),
            "byte_dot": dots,
            "tiles": products,
            "bytes": products if tiles.allowed() else dots,
        },
        "read_bytes_per_second": roofline.reading(threads),
    }


def host_table(found: dict[str, Any]) -> str:
    """`host()` in words."""
    limits = {name: f"{value / 1e9:,.0f} Gop/s" for name, value in found["limits"].items()}
    yes, taken = {True: "yes", False: "no "}, ["", "   (taken here)"]
    return "\n".join(
        (
            f"vectors               {found['vector_bits']} bits",
            f"popcount of vectors   {yes[found['popcount']]}   xor, popcount, add: {limits['popcount']}",
            f"                            full adders: {limits['full_adder']}{taken[found['popcount']]}",
            f"                            carry-save: {limits['carry_save']}{taken[not found['popcount']]}",
            f"byte-dot              {yes[found['byte_dot']]}   {limits['byte_dot']}",
            f"tiles of bytes        {yes[found['tiles']]}   {limits['tiles'] if found['tiles'] else ''}".rstrip(),
            f"reading memory        {found['read_bytes_per_second'] / 1e9:.1f} GB/s on all threads",
            f"threads               {found['threads']}; the limits are of all together",
        )
    )


_FIRST_CALL = """
import time, numpy as np
w, x = np.ones((40, 70), np.int8), np.ones(({rows}, 70), np.int8)
from tinyqnn import kernels
make = {make}
started = time.perf_counter()
make(w)(x)
print(time.perf_counter() - started)
"""


def first_calls() -> dict[str, float]:
    """Seconds of each kernel's first call with an empty cache: nearly all of it is compiling."""
    makers = {
        "BinaryGemm": "kernels.BinaryGemm",
        "BitSerialGemm": "lambda w: kernels.BitSerialGemm(w, 2)",
        "Int8Gemm": "kernels.Int8Gemm",
        "ShiftGemm": "lambda w: kernels.ShiftGemm(w, 4)",
        "IntConv2d": "lambda w: lambda x: kernels.IntConv2d(w[..., None, None], kernels.Int8Gemm)(x[..., None, None])",
    }
    found = {}
    for name, make in makers.items():
        for rows in (64, 1) if name != "IntConv2d" else (64,):
            with tempfile.TemporaryDirectory() as folder:
                seconds = first.in_new_process(_FIRST_CALL.format(rows=rows, make=make), folder)
            found[name + (", one row" if rows == 1 else "")] = seconds
    return found


def share(row: dict[str, Any], found: dict[str, Any]) -> float | None:
    """Which part of the processor's limit a case reaches, a pair of planes counted as a product of its own.

    Bits are held against the fastest of the loops that count them, bytes against tiles where there are any. Above 1 the
    work is not done by counting any more: see `tiles_share`. For one row memory is the limit, for shifts additions of
    bytes: these get None.
    """
    kernel, (w, x) = row["serves"], row["bits"]
    if kernel == "shift" or (row["group"] != "layer" and row["shape"][0] == 1):
        return None
    limit = found["limits"]["bytes"] if kernel == "int8" else found["limits"]["bits"] / (w * x)
    return row["operations"] / row["seconds"]["tinyqnn"]["best"] / limit


def tiles_share(row: dict[str, Any], found: dict[str, Any]) -> float | None:
    """For bits of many rows that become bytes on tiles: which part of the tiles' limit they reach; None for others."""
    from tinyqnn.kernels.product import MANY

    if row["serves"] not in ("binary", "bitserial") or row["group"] not in ("gemm", "choice"):
        return None
    if row["shape"][0] < MANY or not found.get("tiles"):
        return None
    return row["operations"] / row["seconds"]["tinyqnn"]["best"] / found["limits"]["tiles"]


def told(row: dict[str, Any]) -> str:
    """The share of the limit, and for bits on tiles that of the tiles' limit behind it.

    >>> told({"share_of_limit": 1.1, "share_of_tiles": 0.5}), told({"share_of_limit": None})
    ('110% (50%)', '–')
    """
    part, tiled = row["share_of_limit"], row.get("share_of_tiles")
    return "–" if part is None else f"{part:.0%}" + ("" if tiled is None else f" ({tiled:.0%})")


def run(groups: list[str], threads: int = 2, rounds: int = 8) -> dict[str, Any]:
    """Measure the groups of cases named, and the processor in between."""
    cases = [case for case in CASES if case.group in groups]
    rows = measure(cases, threads, rounds)
    found = host(threads)
    for row in rows:
        row["share_of_limit"], row["share_of_tiles"] = share(row, found), tiles_share(row, found)
    return {"host": found, "cases": rows}


def table(results: dict[str, Any]) -> str:
    """The figures, a line a case: our time, ratios of best calls and (of medians), the share of the limit (tiles)."""
    engines = {"numpy": "NumPy", "torch": "PyTorch", "torch channels-last": "ch.-last", "onnxruntime": "ONNX int8"}
    head = f"{'best call, times as fast (median)':<40}{'ms':>8} {'Gop/s':>7}"
    lines = [head + "".join(f"{name:>14}" for name in engines.values()) + f"{'of limit':>12}{'first call':>12}"]
    for row in results["cases"]:
        best = row["seconds"]["tinyqnn"]["best"]
        line = f"{row['case']:<40}{best * 1e3:>8.3f} {row['operations'] / best / 1e9:>7,.0f}"
        for engine in engines:
            ratio = row["ratio"].get(engine)
            line += f"{'–':>14}" if ratio is None else f"{ratio['best']:>6.1f} ({ratio['median']:.1f})".rjust(14)
        lines.append(f"{line}{told(row):>12}{row['first_call']:>10.2f} s")
    return "\n".join(lines)


def choices(results: dict[str, Any]) -> list[dict[str, Any]]:
    """For each width and shape measured both ways: how many times as fast bits were as bytes, and what is chosen."""
    rows = [row for row in results["cases"] if row["group"] == "choice"]
    host_ = results.get("measured", {}).get("choice", results)["host"]  # parts may have been measured apart
    found = []
    for row in rows:
        if row["kernel"] == "int8":
            continue
        rival = next(r for r in rows if r["kernel"] == "int8" and r["shape"] == row["shape"])
        gain = rival["seconds"]["tinyqnn"]["best"] / row["seconds"]["tinyqnn"]["best"]
        bits, x_bits = row["bits"]
        machine = host_["popcount"], host_.get("tiles", False)
        chosen = fastest.fastest(bits, x_bits, row["shape"][0], *machine)
        found.append({"bits": row["bits"], "shape": row["shape"], "gain": gain, "chosen": chosen})
    return found
