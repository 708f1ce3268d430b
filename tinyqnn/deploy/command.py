"""`tinyqnn inspect model.npz` says what is in a packed model; `tinyqnn run model.npz --data mnist` lets it answer."""

from __future__ import annotations

import argparse
import math
import time
from collections.abc import Iterator

import numpy as np

from tinyqnn import data
from tinyqnn.data.dataset import Corpus, Split
from tinyqnn.deploy.format import load
from tinyqnn.deploy.layers import FLOAT
from tinyqnn.deploy.model import Packed
from tinyqnn.tensor import Tensor
from tinyqnn.train import evaluate

HEAD = ("layer", "operation", "shape", "weights", "activations", "bytes", "float32")
WIDEST = 40  # characters of a layer's name


def inspect(args: argparse.Namespace) -> int:
    """`tinyqnn inspect`."""
    packed = load(args.model)
    print(table(packed))
    return 0


def run(args: argparse.Namespace) -> int:
    """`tinyqnn run`."""
    for name, value in (("--limit", args.limit), ("--batch-size", args.batch_size)):
        if value is not None and value < 1:
            raise ValueError(f"{name} is 1 or more, got {value}")
    packed = load(args.model)
    source = data.load(args.data, root=args.root)
    if source.note:
        print(source.note)
    test = source.test if args.limit is None else _first(source.test, args.limit)
    batch = args.batch_size
    try:
        _once(packed, test, batch)
    except (ValueError, TypeError) as error:
        raise ValueError(f"{args.model} does not answer {args.data}: {error}") from error
    start = time.perf_counter()
    score = evaluate(packed, test, batch_size=batch)
    seconds = time.perf_counter() - start
    answer = (
        f"{100 * score.accuracy:.2f} % right" if score.accuracy is not None else f"perplexity {score.perplexity:.1f}"
    )
    what = "words" if isinstance(source, Corpus) else "examples"
    print(f"{len(test):,} {what} of {args.data}: {answer}")
    print(f"{seconds:.2f} s, {1000 * seconds / len(test):.3f} ms each, {batch} at a time")
    return 0


def table(packed: Packed) -> str:
    """The layers that store numbers, a row each, and what the file's bytes are.

    >>> from tinyqnn import graph, nn
    >>> from tinyqnn.deploy import pack
    >>> x = np.random.default_rng(0).normal(size=(8, 100)).astype(np.float32)
    >>> model = graph.generate(nn.Sequential(nn.Linear(100, 10)), x, weights="P-3", activations="C-2")
    >>> print(table(pack(model)))
    layer  operation  shape   weights  activations  bytes  float32
    ──────────────────────────────────────────────────────────────
    0      linear     10×100  P-3      C-2            379    4,000
    ──────────────────────────────────────────────────────────────
    file   ... bytes: 375 codes, 8 scales, 40 floats (biases, norms), ... header
    takes  x (any, 100)
    """
    rows = list(_rows(packed))
    widths = [max(len(row[i]) for row in (HEAD, *rows)) for i in range(len(HEAD))]
    widths[0] = min(widths[0], WIDEST)
    lines = [
        "  ".join(cell.rjust(w) if i >= 5 else cell.ljust(w) for i, (cell, w) in enumerate(zip(row, widths))).rstrip()
        for row in (HEAD, *rows)
    ]
    rule = "─" * max(map(len, lines))
    sizes, lengths = packed.sizes, packed.lengths
    free = {axis for axes in lengths.free for axis in axes}
    takes = []
    for i, layer in enumerate(layer for layer in packed.layers if layer.op == "input"):
        shape = ["any" if (i, k) in free else str(n) for k, n in enumerate(lengths.shapes[i])]
        takes.append(f"{layer.name} ({', '.join(shape)})")
    float_sums = [
        layer.name for layer in packed.layers if layer.options.get("sums") == FLOAT and "weight" in layer.coded
    ]
    notes = [f"sums   in float32: {', '.join(float_sums)}"] if float_sums else []
    return "\n".join(
        [
            lines[0],
            rule,
            *lines[1:],
            rule,
            f"file   {packed.nbytes:,} bytes: {sizes['codes']:,} codes, {sizes['scales']:,} scales, "
            f"{sizes['floats']:,} floats (biases, norms), {sizes['header']:,} header",
            f"takes  {', '.join(takes)}",
            *notes,
        ]
    )


def _rows(packed: Packed) -> Iterator[tuple[str, ...]]:
    """A row for each layer with weights."""
    schemes = {layer.name: layer.coded["x"].quantizer.notation for layer in packed.layers if layer.op == "quantize"}
    for layer in packed.layers:
        weights = {name: coded for name, coded in layer.coded.items() if coded.codes is not None}
        floats = {name: array for name, array in layer.numbers.items() if name.startswith("weight")}
        if not weights and not floats:
            continue
        arrays = [*(coded.codes for coded in weights.values()), *floats.values()]
        shapes = [array.shape for array in arrays if array is not None]
        codes = sum(
            math.ceil(math.prod(c.codes.shape) * c.quantizer.bits / 8) for c in weights.values() if c.codes is not None
        )
        scales = sum(value.size for coded in weights.values() for value in coded.params.values())
        flowing = [schemes.get(layer.arguments[0].vertex, "float")]
        flowing += [layer.coded["hidden"].quantizer.notation] if "hidden" in layer.coded else []
        yield (
            layer.name if len(layer.name) <= WIDEST else "…" + layer.name[1 - WIDEST :],
            layer.op,
            ", ".join("×".join(map(str, shape)) for shape in shapes),
            ", ".join(dict.fromkeys(coded.quantizer.notation for coded in weights.values())) or "float",
            "" if layer.op == "embedding" else ", ".join(dict.fromkeys(flowing)),
            f"{codes + 4 * scales + 4 * sum(array.size for array in floats.values()):,}",
            f"{4 * sum(math.prod(shape) for shape in shapes):,}",
        )


def _first(test: Split | np.ndarray, limit: int) -> Split | np.ndarray:
    """The first `limit` examples, or words."""
    if isinstance(test, np.ndarray):
        return test[:limit]
    return Split(test.x[:limit], test.y[:limit])


def _once(packed: Packed, test: Split | np.ndarray, batch: int) -> None:
    """One batch, so that kernels are compiled and weights packed before time is taken."""
    if isinstance(test, Split):
        packed(Tensor(test.inputs(slice(0, batch))))
    else:
        evaluate(packed, test[: 36 * batch], batch_size=batch)
