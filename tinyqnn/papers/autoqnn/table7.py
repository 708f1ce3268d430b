"""Table 7 and figures 6 to 9: QSS and QPL on the VGG-like network, beside every single scheme

The network is the paper's with 8 channels in the place of 64; the last layer stays float, as there. CIFAR-10 is a part
of it, and of a copy that went through JPEG. QSS, fine and coarse, chooses among the eight schemes at 3 bits. QPL learns
ClipQ's widths for an average of 3. "B-1/3" in the paper is Binary for weights and ClipQ for activations, "P-3/3" is
PotQ for both.

Every policy, searched or single, is put into the same float network of its seed and retrained alike; FP32 is that
network trained on for as long. The paper's own courses are read from its text: fine QSS takes P-3 for all weights, R-3
for the first activation and C-3 for the others; the widths that QPL learns are {7, 8, 6, 6, 7, 5, 2} for weights.
"""

from __future__ import annotations

from dataclasses import dataclass
from typing import Any

import numpy as np

from tinyqnn import graph, search
from tinyqnn.papers.autoqnn import _pictures as pictures
from tinyqnn.papers.claims import Claim, Finding, all_of, decide
from tinyqnn.papers.experiment import Cell, Report
from tinyqnn.search.courses import draw_probabilities, draw_widths
from tinyqnn.search.policy import ROLES

VERSION = 2  # QPL moves widths by Adam and makes them whole by what the vertices wish
KEEP = ("last",)
SINGLE = {  # the paper's names
    "B-1/C-3": "B-1/3",
    "T-2/C-3": "T-2/3",
    "Q-2/C-3": "Q-2/3",
    "F-3/F-3": "F-3/3",
    "Z-3/Z-3": "Z-3/3",
    "P-3/P-3": "P-3/3",
    "R-3/R-3": "R-3/3",
    "C-3/C-3": "C-3/C-3",
    "P-3/C-3": "P-3/C-3",
}
PAPER = {
    "B-1/C-3": 90.83,
    "T-2/C-3": 91.97,
    "Q-2/C-3": 92.07,
    "F-3/F-3": 78.86,
    "Z-3/Z-3": 91.44,
    "P-3/P-3": 92.56,
    "R-3/R-3": 92.72,
    "C-3/C-3": 92.48,
    "P-3/C-3": 92.90,
    "FP32": 93.49,
    "QSS fine": 93.07,
    "QPL": 93.03,
}
BASELINES = tuple(SINGLE)[:-1]  # P-3/C-3 is what coarse QSS found there
METHODS = ("FP32", *SINGLE, "QSS fine", "QSS coarse", "QPL")
SIZE = (11.0, 14.0)


@dataclass(frozen=True)
class Config:
    """One policy, or one search and its policy, of one seed."""

    method: str
    width: int = 8
    train: int = 6_000
    test: int = 3_000
    epochs: int = 14
    search_epochs: int = 6
    retrain_epochs: int = 6
    seed: int = 0


def cells(scale: str) -> list[Config]:
    if scale == "smoke":
        tiny = {"width": 1, "train": 128, "test": 64, "epochs": 1, "search_epochs": 1, "retrain_epochs": 1}
        return [Config(method, **tiny) for method in ("QSS fine", "QSS coarse", "QPL")]
    sizes = {} if scale == "small" else {"width": 64, "train": 0, "test": 0, "epochs": 150, "search_epochs": 150}
    if scale == "paper":
        sizes["retrain_epochs"] = 150
    return [Config(method, seed=seed, **sizes) for method in METHODS for seed in range(3)]


def run(config: Config, report: Report) -> dict[str, Any]:
    task = pictures.Task(
        "cifar10", f"vgg-{config.width}", config.train, config.test, config.epochs, 0.05, config.retrain_epochs, 0.02,
        augment=True,
    )  # fmt: skip
    train, test, note = task.split()
    model, floating = pictures.float_network(task, config.seed, train, test, report)
    result: dict[str, Any] = {"note": note, "float": floating}
    how = {
        "epochs": config.search_epochs,
        "lr": task.retrain_lr,
        "weight_decay": task.weight_decay,
        "seed": config.seed,
        "progress": False,
        "checkpoint": report.folder / "search.npz",
        "resume": True,
        **task.options(config.search_epochs),
    }
    if config.method.startswith("QSS"):
        found = search.qss(model, train, test, fine=config.method == "QSS fine", keep=KEEP, **how)
        result["course"] = [_rounded(point) for point in found.course]
        qmodel = pictures.follow(model, task, train, found)
    elif config.method == "QPL":
        start = pictures.uniform(model, task, train, "C-3/C-3", KEEP)
        widths = search.qpl(start, train, test, target_bits=3.0, **how)
        result["course"] = [_rounded(point) for point in widths.course]
        qmodel = pictures.follow(model, task, train, widths)
    elif config.method == "FP32":
        qmodel = graph.generate(model, pictures.examples(task, train)[0])
    else:
        qmodel = pictures.uniform(model, task, train, config.method, KEEP)
    policy = search.Policy.of(qmodel)
    result |= pictures.told(policy) | {"layers": [[c.vertex, c.role, c.elements] for c in policy]}
    result["accuracy"] = pictures.retrained(qmodel, task, config.seed, train, test)
    report(f"{config.method}: float {floating:.4f}, retrained {result['accuracy'][-1]:.4f}")
    return result


def _rounded(point: Any) -> Any:
    """Four digits are enough for a picture."""
    return {k: _rounded(v) for k, v in point.items()} if isinstance(point, dict) else round(float(point), 4)


def accuracies(cells: list[Cell], method: str) -> dict[int, float]:
    """seed -> accuracy in per cent."""
    return {c.config.seed: 100 * c.result["accuracy"][-1] for c in cells if c.config.method == method}


def _gaps(cells: list[Cell], better: str, worse: str) -> list[float]:
    first, second = accuracies(cells, better), accuracies(cells, worse)
    return [first[seed] - second[seed] for seed in sorted(first)]


def _singles(cells: list[Cell]) -> dict[int, dict[str, float]]:
    """seed -> baseline -> accuracy."""
    by = {method: accuracies(cells, method) for method in BASELINES}
    return {seed: {method: by[method][seed] for method in BASELINES} for seed in by[BASELINES[0]]}


def _over_mean(method: str) -> Any:
    def decided(cells: list[Cell]) -> Finding:
        singles = _singles(cells)
        return decide([v - float(np.mean(list(singles[s].values()))) for s, v in accuracies(cells, method).items()])

    return decided


def _over_best(cells: list[Cell]) -> Finding:
    """The best single scheme is the one of the best mean over the seeds, named beforehand by no one."""
    singles = _singles(cells)
    best = max(BASELINES, key=lambda method: sum(by[method] for by in singles.values()))
    finding = decide(_gaps(cells, "QSS fine", best), note=f"the best single scheme is {best}")
    return finding


def _order(cells: list[Cell]) -> Finding:
    """Spearman's rank correlation with the paper's order, one a seed."""

    def ranks(values: list[float]) -> np.ndarray:
        return np.argsort(np.argsort(values)).astype(float)

    theirs = ranks([PAPER[method] for method in BASELINES])
    found = [
        float(np.corrcoef(theirs, ranks([by[method] for method in BASELINES]))[0, 1]) for by in _singles(cells).values()
    ]
    return decide(found, unit="rank correlation")


def _fixed_is_worst(cells: list[Cell]) -> Finding:
    return decide([min(v for m, v in by.items() if m != "F-3/F-3") - by["F-3/F-3"] for by in _singles(cells).values()])


def _levels(cells: list[Cell]) -> Finding:
    steps = (("T-2/C-3", "B-1/C-3"), ("Q-2/C-3", "T-2/C-3"), ("C-3/C-3", "Q-2/C-3"))
    return all_of([decide(_gaps(cells, more, less)) for more, less in steps])


def _share(role: str, letter: str) -> Any:
    """How many of the vertices fine QSS gives to a scheme, above one half."""

    def decided(cells: list[Cell]) -> Finding:
        shares = []
        for cell in cells:
            if cell.config.method == "QSS fine":
                roles = {vertex: kind for vertex, kind, _ in cell.result["layers"]}
                chosen = [s for v, s in cell.result["schemes"].items() if roles[v] == role and s != "float"]
                shares.append(100 * sum(scheme.startswith(letter) for scheme in chosen) / len(chosen))
        return decide(shares, at_least=50, unit="% of the vertices")

    return decided


def _largest_fewest(cells: list[Cell]) -> Finding:
    """The mean width of the other layers' weights, less that of fc7."""
    found = []
    for cell in cells:
        if cell.config.method == "QPL":
            roles = {vertex: kind for vertex, kind, _ in cell.result["layers"]}
            bits = {
                vertex: int(scheme.partition("-")[2])
                for vertex, scheme in cell.result["schemes"].items()
                if roles[vertex] == "weights" and scheme != "float"
            }
            large = bits.pop("fc7.quant.weight")
            found.append(float(np.mean(list(bits.values()))) - large)
    return decide(found, unit="bits")


def _on_target(cells: list[Cell]) -> Finding:
    found = [0.1 - max(abs(b - 3) for b in c.result["bits"]) for c in cells if c.config.method == "QPL"]
    return decide(found, at_least=-1e-9, unit="bits to spare")


def _claim(name: str, text: str, decided: Any) -> Claim:
    return Claim(f"autoqnn.table7.{name}", text, decided)


CLAIMS = (
    _claim("order", "The single schemes stand in an order that agrees with the paper's more than by chance.", _order),
    _claim("fixedq-worst", "FixedQ is the worst of the eight single schemes (by 12 points in the paper).",
           _fixed_is_worst),
    _claim("levels", "Binary, Ternary, Quaternary and 3-bit ClipQ weights are more accurate in this order.", _levels),
    _claim("qss-fine-over-mean", "Fine QSS is more accurate than the mean of the single schemes (2.70 in the paper).",
           _over_mean("QSS fine")),
    _claim("qss-coarse-over-mean", "Coarse QSS is more accurate than the mean of the single schemes.",
           _over_mean("QSS coarse")),
    _claim("qss-over-best", "Fine QSS is more accurate than the best of the single schemes (0.35 in the paper).",
           _over_best),
    _claim("qss-potq-weights", "Fine QSS chooses PotQ for most of the weights.", _share("weights", "P")),
    _claim("qss-clipq-activations", "Fine QSS chooses ClipQ for most of the activations.", _share("activations", "C")),
    _claim("qpl-over-fixed", "QPL at an average of 3 bits is more accurate than ClipQ with 3 bits (0.55 in the paper).",
           lambda cells: decide(_gaps(cells, "QPL", "C-3/C-3"))),
    _claim("qpl-largest-fewest", "QPL gives the largest layer, fc7, fewer bits than the others have on average.",
           _largest_fewest),
    _claim("qpl-on-target", "The averages that QPL ends with, of weights and of activations, are within 0.1 of 3.",
           _on_target),
)  # fmt: skip


def table(cells: list[Cell]) -> str:
    note = cells[0].result["note"]
    seeds = len({cell.config.seed for cell in cells})
    lines = [
        f"accuracy (%), mean ± sd of {seeds} seed{'s' * (seeds != 1)}; CIFAR-10{': ' * bool(note)}{note}",
        "",
        "policy        paper    here             bits W   bits A   weights' kB",
    ]
    for method in METHODS:
        values = list(accuracies(cells, method).values())
        if not values:
            continue
        chosen = [cell.result for cell in cells if cell.config.method == method]
        w, a = np.mean([found["bits"] for found in chosen], axis=0)
        size = np.mean([found["bytes"] for found in chosen]) / 1000
        spread = np.std(values, ddof=1) if len(values) > 1 else 0.0
        paper = f"{PAPER[method]:.2f}" if method in PAPER else ""
        lines.append(
            f"{SINGLE.get(method, method):<12} {paper:>6}   {np.mean(values):5.2f} ± {spread:4.2f}     "
            f"{w:6.2f}   {a:6.2f}   {size:8.1f}"
        )
    for method in ("QSS fine", "QSS coarse", "QPL"):
        lines += ["", f"{method} chose"]
        for cell in cells:
            if cell.config.method == method:
                roles = {vertex: kind for vertex, kind, _ in cell.result["layers"]}
                for role in ("weights", "activations"):
                    chosen_ = [s for v, s in cell.result["schemes"].items() if roles[v] == role and s != "float"]
                    lines.append(f"  seed {cell.config.seed}, {role:<12} {' '.join(chosen_)}")
    return "\n".join(lines)


def draw(cells: list[Cell], figure: Any) -> None:
    """Figure 7's accuracies, figure 8's and figure 6's probabilities, figure 9's bits; courses of the first seed."""
    from tinyqnn import picture

    top, middle, bottom = figure.subfigures(3, 1, height_ratios=(1, 1, 2.6))
    axes = top.subplots()
    methods = [method for method in METHODS if accuracies(cells, method)]
    for place, method in enumerate(methods):
        values = list(accuracies(cells, method).values())
        colour = picture.GREY if method in SINGLE else picture.INK if method == "FP32" else picture.BLUE
        axes.plot([place] * len(values), values, "o", color=colour, markersize=4, fillstyle="none")
        axes.plot([place - 0.3, place + 0.3], [np.mean(values)] * 2, color=colour, linewidth=2)
    names = [SINGLE.get(method, method) for method in methods]
    axes.set_xticks(range(len(methods)), names, fontsize=8)
    axes.set(ylabel="accuracy (%)", title="every policy, retrained alike: each seed, and the mean")

    first = {cell.config.method: cell for cell in reversed(cells)}
    left, right = middle.subfigures(1, 2)
    draw_probabilities(left, first["QSS coarse"].result["course"], legend=False)
    learned = first["QPL"].result
    layers: dict[str, list[tuple[str, str, int]]] = {role: [] for role in ROLES}
    for vertex, role, elements in learned["layers"]:
        layers[role].append((vertex, vertex.partition(".")[0], elements))
    draw_widths(right, layers, learned["course"])
    draw_probabilities(bottom, first["QSS fine"].result["course"])
    for part, title in ((left, "coarse QSS"), (right, "QPL, target 3"), (bottom, "fine QSS")):
        part.suptitle(title, fontsize=11)
