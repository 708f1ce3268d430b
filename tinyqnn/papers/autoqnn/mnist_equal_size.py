"""The main job on MNIST at 2 bits on average, beside everything else of the same size

AutoQNN from end to end (QSS, then QPL for an average of 2, a tenth allowed) quantizes a LeNet with batch norm, all
layers, on a part of MNIST. Beside it stand, retrained from the same float network for as many epochs as both searches
take together:

    every 2-bit scheme    the same for weights and activations; Ternary and Quaternary weights with ClipQ activations
    greedy                ClipQ with 2 bits, and bits to spare where they lower the loss most for their size
    random                three policies of a seed: random schemes, and bits to spare at random places
    AutoQNN's policy      what the searches chose, retrained from the float network like all others

Greedy and random policies may be as large as AutoQNN's: 2.1 bits on average for weights and for activations.
"""

from __future__ import annotations

from dataclasses import dataclass
from typing import Any

import numpy as np

from tinyqnn import graph, search
from tinyqnn.papers.autoqnn import _baselines as baselines
from tinyqnn.papers.autoqnn import _pictures as pictures
from tinyqnn.papers.claims import Claim, Finding, all_of, decide, exact
from tinyqnn.papers.experiment import Cell, Report
from tinyqnn.train import evaluate

BUDGET = 2.1
UNIFORM = ("T-2/C-2", "Q-2/C-2", "F-2/F-2", "R-2/R-2", "Z-2/Z-2", "C-2/C-2", "P-2/P-2", "P-2/C-2")
METHODS = ("FP32", *UNIFORM, "greedy", "random 1", "random 2", "random 3", "AutoQNN")


@dataclass(frozen=True)
class Config:
    """One policy of one seed; "AutoQNN" makes two rows, as it comes out and retrained."""

    method: str
    train: int = 6_000
    test: int = 5_000
    epochs: int = 6
    search_epochs: int = 2
    bits_epochs: int = 6
    seed: int = 0


def cells(scale: str) -> list[Config]:
    if scale == "smoke":
        tiny = {"train": 128, "test": 64, "epochs": 1, "search_epochs": 1, "bits_epochs": 1}
        return [Config(method, **tiny) for method in ("greedy", "AutoQNN")]
    sizes: dict[str, Any] = {}
    if scale == "paper":
        sizes = {"train": 0, "test": 0, "epochs": 20, "search_epochs": 10, "bits_epochs": 20}
    return [Config(method, seed=seed, **sizes) for method in METHODS for seed in range(3)]


def run(config: Config, report: Report) -> dict[str, Any]:
    both = config.search_epochs + config.bits_epochs
    task = pictures.Task("mnist", "lenet-bn", config.train, config.test, config.epochs, 0.05, both, 0.02)
    train, test, _ = task.split()
    model, floating = pictures.float_network(task, config.seed, train, test, report)
    result: dict[str, Any] = {"float": floating}
    start = search.Policy.of(pictures.uniform(model, task, train, "C-2/C-2", ()))
    if config.method == "AutoQNN":
        options = task.options(1)
        del options["schedule"]  # each search has a cosine of its own
        policy = search.autoqnn(
            model, train, test, target_bits=2.0, search_epochs=config.search_epochs, epochs=config.bits_epochs,
            lr=task.retrain_lr, weight_decay=task.weight_decay, seed=config.seed, folder=report.folder,
            progress=False, **options,
        )  # fmt: skip
        assert policy.model is not None
        result["end to end"] = float(evaluate(policy.model, test).accuracy or 0.0)
        qmodel = pictures.follow(model, task, train, policy)
    elif config.method == "FP32":
        qmodel = graph.generate(model, pictures.examples(task, train)[0])
    elif config.method == "greedy":
        part, examples = train.take(np.arange(min(1_000, len(train)))), pictures.examples(task, train)
        losses = baselines.sensitivities(model, start, part, examples)
        qmodel = pictures.follow(model, task, train, baselines.greedy(start, losses, BUDGET))
    elif config.method.startswith("random"):
        rng = np.random.default_rng([config.seed, int(config.method.split()[1])])
        qmodel = pictures.follow(model, task, train, baselines.drawn(start, BUDGET, rng))
    else:
        qmodel = pictures.uniform(model, task, train, config.method, ())
    result |= pictures.told(search.Policy.of(qmodel))
    try:
        result["accuracy"] = pictures.retrained(qmodel, task, config.seed, train, test)
    except (FloatingPointError, ValueError) as error:
        if "finite" not in str(error) and not isinstance(error, FloatingPointError):
            raise
        result |= {"accuracy": [1 / (int(train.y.max()) + 1)], "diverged": str(error)}  # it counts as guessing
    report(f"{config.method}: float {floating:.4f}, retrained {result['accuracy'][-1]:.4f}")
    return result


def accuracies(cells: list[Cell], method: str) -> dict[int, float]:
    """seed -> accuracy in per cent. "AutoQNN" is end to end, "AutoQNN's policy" retrained, "float" before it all."""
    cell_of = "AutoQNN" if method in ("AutoQNN's policy", "float") else method
    found = [cell for cell in cells if cell.config.method == cell_of]
    key = {"AutoQNN": "end to end", "float": "float"}.get(method)
    return {c.config.seed: 100 * (c.result[key] if key else c.result["accuracy"][-1]) for c in found}


def _gaps(cells: list[Cell], other: str) -> list[float]:
    ours, theirs = accuracies(cells, "AutoQNN"), accuracies(cells, other)
    return [ours[seed] - theirs[seed] for seed in sorted(ours)]


def _on_target(cells: list[Cell]) -> Finding:
    bits = [max(c.result["bits"]) for c in cells if c.config.method == "AutoQNN"]
    return exact(max(bits) <= BUDGET + 1e-9, max(bits), "bits at most")


def _close(cells: list[Cell]) -> Finding:
    return decide([0.7 + gap for gap in _gaps(cells, "float")], unit="points to spare")


def _over_uniform(cells: list[Cell]) -> Finding:
    return all_of([decide(_gaps(cells, method), note=f"closest: {method}") for method in UNIFORM])


def _over_random(cells: list[Cell]) -> Finding:
    gaps = np.array([_gaps(cells, f"random {number}") for number in (1, 2, 3)])
    return decide(list(gaps.mean(axis=0)), note="against the mean of a seed's three")


CLAIMS = (
    Claim(
        "autoqnn.mnist_equal_size.average",
        "AutoQNN for 2 bits ends, with every seed, with at most 2.1 bits on average for weights and for activations.",
        _on_target,
    ),
    Claim("autoqnn.mnist_equal_size.float", "It stays within 0.7 points of the float network.", _close),
    Claim(
        "autoqnn.mnist_equal_size.uniform",
        "It is more accurate than each of the 2-bit schemes used everywhere.",
        _over_uniform,
    ),
    Claim(
        "autoqnn.mnist_equal_size.greedy",
        "It is more accurate than 2-bit ClipQ with spare bits in the order of sensitivity.",
        lambda cells: decide(_gaps(cells, "greedy")),
    ),
    Claim(
        "autoqnn.mnist_equal_size.random",
        "It is more accurate than random policies of its size are on average.",
        _over_random,
    ),
)


def rows(cells: list[Cell]) -> list[str]:
    """The rows of the table for which there are cells."""
    return [m for m in ("float", *METHODS, "AutoQNN's policy") if accuracies(cells, m)]


def table(cells: list[Cell]) -> str:
    lines = ["                    accuracy (%), each seed              mean ± sd       bits W   bits A     kB"]
    for method in rows(cells):
        values = list(accuracies(cells, method).values())
        cell_of = "AutoQNN" if method == "AutoQNN's policy" else method
        chosen = [cell.result for cell in cells if cell.config.method == cell_of]
        sizes = ""
        if chosen:
            w, a = np.mean([found["bits"] for found in chosen], axis=0)
            sizes = f"{w:8.2f} {a:8.2f} {np.mean([found['bytes'] for found in chosen]) / 1000:8.1f}"
        spread = np.std(values, ddof=1) if len(values) > 1 else 0.0
        each = "  ".join(f"{value:6.2f}" for value in values)
        lines.append(f"{method:<18}  {each:<34}   {np.mean(values):6.2f} ± {spread:4.2f}   {sizes}")
    lines += ["", "what AutoQNN chose"]
    for cell in cells:
        if cell.config.method == "AutoQNN":
            chosen_ = ", ".join(f"{v.replace('.quant.', ' ')} {s}" for v, s in cell.result["schemes"].items())
            lines.append(f"  seed {cell.config.seed}: {chosen_}")
    return "\n".join(lines)


def draw(cells: list[Cell], figure: Any) -> None:
    """Each seed a ring, the mean a bar; the searched ones in blue."""
    from tinyqnn import picture

    axes = figure.subplots()
    shown = rows(cells)
    left = max(value for method in shown for value in accuracies(cells, method).values()) - 6
    for place, method in enumerate(shown):
        values = [value for value in accuracies(cells, method).values() if value > left]
        away = [f"{value:.1f}" for value in accuracies(cells, method).values() if value <= left]
        if away:
            axes.annotate(f"◂ {', '.join(away)}", (left, place), va="center", fontsize=8)
        if not values:
            continue
        colour = picture.INK if method in ("float", "FP32") else picture.GREY
        colour = picture.BLUE if method.startswith("AutoQNN") else colour
        axes.plot(values, [place] * len(values), "o", color=colour, markersize=5, fillstyle="none")
        if not away:
            axes.plot([np.mean(values)] * 2, [place - 0.3, place + 0.3], color=colour, linewidth=2)
    axes.set_xlim(left=left)
    axes.set_yticks(range(len(shown)), shown, fontsize=9)
    axes.invert_yaxis()
    axes.set(xlabel="accuracy on MNIST (%)", title="2 bits on average, everything of one size: each seed, and the mean")
