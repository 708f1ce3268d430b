"""The main job on MNIST at 2 bits on average, beside everything else of the same size

AutoQNN from end to end (QSS, QPL, and training with what they found, for an average of 2 bits, a tenth allowed)
quantizes a LeNet with batch norm, all layers, on a part of MNIST. Beside it stand, trained from the same float network:

    every 2-bit scheme    the same for weights and activations; Ternary and Quaternary weights with ClipQ activations
    greedy                ClipQ or ZoomQ with 2 bits, and bits to spare where they lower the loss most for their size
    random                two policies of a seed: random schemes, and bits to spare at random places

Greedy and random policies may be as large as AutoQNN's: 2.1 bits on average for weights and for activations. All see
the pictures equally often: as many epochs as both of AutoQNN's searches and its last training take together, at the
same rates. An epoch of QSS takes several times as long as another (search_cost), so ZoomQ also gets twice as many.

Eight seeds: the spread of a seed's training is as large as what AutoQNN and the single schemes differ by. Three decided
little, and five all but one of the comparisons with single schemes.

The paper does not say with which weights the last training begins. AutoQNN goes on with those that the searches
moved; in "from float" it begins with the float network's.
"""

from __future__ import annotations

from dataclasses import dataclass
from typing import Any

import numpy as np

from tinyqnn import graph, search
from tinyqnn.data.dataset import Split
from tinyqnn.nn import Module
from tinyqnn.papers.autoqnn import _baselines as baselines
from tinyqnn.papers.autoqnn import _pictures as pictures
from tinyqnn.papers.claims import Claim, Finding, all_of, decide, exact
from tinyqnn.papers.experiment import Cell, Report
from tinyqnn.train import evaluate

VERSION = 3  # QPL moves widths by Adam and makes them whole by what the vertices wish
SEEDS = 8
BUDGET = 2.1
UNIFORM = ("T-2/C-2", "Q-2/C-2", "F-2/F-2", "R-2/R-2", "Z-2/Z-2", "C-2/C-2", "P-2/P-2", "P-2/C-2")
LONGER = "Z-2/Z-2 twice"
GREEDY, RANDOM = ("greedy C-2", "greedy Z-2"), ("random 1", "random 2")
FROM_FLOAT = "AutoQNN from float"
METHODS = ("FP32", *UNIFORM, LONGER, *GREEDY, *RANDOM, "AutoQNN", FROM_FLOAT)


@dataclass(frozen=True)
class Config:
    """One method of one seed. `train` and `test` are how many pictures, 0 is all.

    epochs                       of the float network
    search_epochs, bits_epochs   of QSS, and of QPL while widths are learned
    settled_epochs               of training with what was found; all other methods train for the sum of the three
    """

    method: str
    train: int = 10_000
    test: int = 0
    epochs: int = 8
    search_epochs: int = 2
    bits_epochs: int = 2
    settled_epochs: int = 8
    seed: int = 0


def cells(scale: str) -> list[Config]:
    if scale == "smoke":
        tiny = {"train": 128, "test": 64, "epochs": 1, "search_epochs": 1, "bits_epochs": 1, "settled_epochs": 1}
        return [Config(method, **tiny) for method in ("greedy Z-2", "AutoQNN", FROM_FLOAT)]
    sizes: dict[str, Any] = {}
    if scale == "paper":
        sizes = {"train": 0, "epochs": 20, "search_epochs": 10, "bits_epochs": 10, "settled_epochs": 30}
    return [Config(method, seed=seed, **sizes) for method in METHODS for seed in range(SEEDS)]


def run(config: Config, report: Report) -> dict[str, Any]:
    epochs = config.search_epochs + config.bits_epochs + config.settled_epochs
    task = pictures.Task("mnist", "lenet-bn", config.train, config.test, config.epochs, 0.05, epochs, 0.02)
    train, test, _ = task.split()
    model, floating = pictures.float_network(task, config.seed, train, test, report)
    result: dict[str, Any] = {"float": floating}
    if config.method.startswith("AutoQNN"):
        qmodel = searched(config, task, model, train, report)
        result |= pictures.told(search.Policy.of(qmodel))
        result["accuracy"] = float(evaluate(qmodel, test).accuracy or 0.0)
    else:
        qmodel = quantized(config, task, model, train)
        result |= pictures.told(search.Policy.of(qmodel))
        try:
            pictures.retrained(qmodel, task, config.seed, train, None, epochs * (2 if config.method == LONGER else 1))
            result["accuracy"] = float(evaluate(qmodel, test).accuracy or 0.0)
        except (FloatingPointError, ValueError) as error:
            if "finite" not in str(error) and not isinstance(error, FloatingPointError):
                raise
            result |= {"accuracy": 1 / (int(train.y.max()) + 1), "diverged": str(error)}  # it counts as guessing
    report(f"{config.method}: float {floating:.4f}, quantized {result['accuracy']:.4f}")
    return result


def searched(config: Config, task: pictures.Task, model: Module, train: Split, report: Report) -> graph.GraphModule:
    """The network that AutoQNN ends with."""
    options = task.options(1)
    del options["schedule"]  # each of its trainings has a cosine of its own
    policy = search.autoqnn(
        model, train, target_bits=2.0, start="float" if config.method == FROM_FLOAT else "search",
        search_epochs=config.search_epochs, epochs=config.bits_epochs + config.settled_epochs,
        settled=config.settled_epochs, lr=task.retrain_lr, weight_decay=task.weight_decay, seed=config.seed,
        folder=report.folder, progress=False, **options,
    )  # fmt: skip
    assert policy.model is not None
    return policy.model


def quantized(config: Config, task: pictures.Task, model: Module, train: Split) -> graph.GraphModule:
    """The float network with the policy of a method other than AutoQNN."""
    name, _, which = config.method.partition(" ")
    if name == "FP32":
        return graph.generate(model, pictures.examples(task, train)[0])
    if "/" in name:
        return pictures.uniform(model, task, train, name, ())
    if name == "random":
        start = search.Policy.of(pictures.uniform(model, task, train, "C-2/C-2", ()))
        rng = np.random.default_rng([config.seed, int(which)])
        return pictures.follow(model, task, train, baselines.drawn(start, BUDGET, rng))
    start = search.Policy.of(pictures.uniform(model, task, train, f"{which}/{which}", ()))
    part, examples = train.take(np.arange(min(1_000, len(train)))), pictures.examples(task, train)
    losses = baselines.sensitivities(model, start, part, examples)
    return pictures.follow(model, task, train, baselines.greedy(start, losses, BUDGET))


def accuracies(cells: list[Cell], method: str) -> dict[int, float]:
    """seed -> accuracy in per cent; "float" is the network that all methods start from."""
    key, method = ("float", "FP32") if method == "float" else ("accuracy", method)
    return {c.config.seed: 100 * c.result[key] for c in cells if c.config.method == method}


def _gaps(cells: list[Cell], other: str) -> list[float]:
    ours, theirs = accuracies(cells, "AutoQNN"), accuracies(cells, other)
    return [ours[seed] - theirs[seed] for seed in sorted(ours)]


def _on_target(cells: list[Cell]) -> Finding:
    bits = [max(c.result["bits"]) for c in cells if c.config.method == "AutoQNN"]
    return exact(max(bits) <= BUDGET + 1e-9, max(bits), "bits at most")


def _within(other: str) -> Any:
    return lambda cells: decide([0.7 + gap for gap in _gaps(cells, other)], unit="points to spare")


def _over(methods: tuple[str, ...]) -> Any:
    """Over each of them."""
    return lambda cells: all_of([decide(_gaps(cells, method), note=f"closest: {method}") for method in methods])


def _over_random(cells: list[Cell]) -> Finding:
    gaps = np.array([_gaps(cells, method) for method in RANDOM])
    return decide(list(gaps.mean(axis=0)), note=f"against the mean of a seed's {len(RANDOM)}")


def _claim(name: str, text: str, decided: Any) -> Claim:
    return Claim(f"autoqnn.mnist_equal_size.{name}", text, decided)


CLAIMS = (
    _claim(
        "average",
        "AutoQNN for 2 bits ends, with every seed, with at most 2.1 bits on average for weights and for activations.",
        _on_target,
    ),
    _claim("float", "It stays within 0.7 points of the float network that it starts from.", _within("float")),
    _claim(
        "float-as-long",
        "It stays within 0.7 points of that network trained on in float for as many epochs as AutoQNN takes.",
        _within("FP32"),
    ),
    _claim(
        "uniform",
        "It is more accurate than each of the 2-bit schemes used everywhere and trained for as many epochs.",
        _over(UNIFORM),
    ),
    _claim(
        "zoom-twice",
        "It is more accurate than 2-bit ZoomQ everywhere trained for twice as many epochs.",
        _over((LONGER,)),
    ),
    _claim(
        "greedy",
        "It is more accurate than 2-bit ClipQ and than 2-bit ZoomQ with spare bits in the order of sensitivity.",
        _over(GREEDY),
    ),
    _claim("random", "It is more accurate than random policies of its size are on average.", _over_random),
    _claim(
        "start",
        "It is more accurate if its last epochs go on with the weights that the searches left than if they begin with "
        "the float network's.",
        _over((FROM_FLOAT,)),
    ),
)


def rows(cells: list[Cell]) -> list[str]:
    """The rows of the table for which there are cells."""
    return [method for method in ("float", *METHODS) if accuracies(cells, method)]


def table(cells: list[Cell]) -> str:
    width = 8 * len({cell.config.seed for cell in cells}) - 2
    head = f"{'accuracy (%), each seed':<{max(width, 23)}}"
    lines = [f"{'':<18}  {head}   mean ± sd       bits W   bits A     kB"]
    for method in rows(cells):
        values = list(accuracies(cells, method).values())
        chosen = [cell.result for cell in cells if cell.config.method == method]
        sizes = ""
        if chosen:
            w, a = np.mean([found["bits"] for found in chosen], axis=0)
            sizes = f"{w:8.2f} {a:8.2f} {np.mean([found['bytes'] for found in chosen]) / 1000:8.1f}"
        spread = np.std(values, ddof=1) if len(values) > 1 else 0.0
        each = "  ".join(f"{value:6.2f}" for value in values)
        lines.append(f"{method:<18}  {each:<{len(head)}}   {np.mean(values):6.2f} ± {spread:4.2f}   {sizes}")
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
        away = [value for value in accuracies(cells, method).values() if value <= left]
        if away:
            axes.annotate(f"◂ {min(away):.1f} … {max(away):.1f}", (left, place), va="center", fontsize=8)
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
    axes.set(xlabel="accuracy on MNIST (%)", title="2 bits on average, 2.1 at most: each seed, and the mean")
