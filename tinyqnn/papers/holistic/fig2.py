"""Figures 1, 2, 3, 9 and 10: what weight and activation quantization do to a decision, on the rings

Fully connected networks learn which half ring a point of the plane belongs to; then copies with 2-bit weights, with
2-bit activations and with both are trained on from the float network, and one copy in float for as long, to compare
with. `_rings.py` says how a map is measured. Weights are quantized in every layer, activations in every hidden one.

The paper gives neither optimizer nor first values. Here: points scaled to standard deviation 1, He's normal weights,
Adam with a cosine, the rate in inverse proportion to the width.
"""

from __future__ import annotations

import contextlib
from collections.abc import Callable, Sequence
from dataclasses import dataclass
from functools import partial
from typing import Any

import numpy as np

from tinyqnn import graph, optim
from tinyqnn.data import Split
from tinyqnn.models import FCDNN
from tinyqnn.nn import Module
from tinyqnn.papers.claims import Claim, Finding, all_of, decide
from tinyqnn.papers.experiment import Cell, Report
from tinyqnn.papers.holistic import _rings as rings
from tinyqnn.papers.holistic._retrain import MODES, KeepsBoundsUp, groups, quantized
from tinyqnn.train import Trainer

NETWORKS = ("128-3", "128-4", "256-3", "256-4", "128-6", "128-8", "200-4")
SIZE = (13.0, 21.0)


@dataclass(frozen=True)
class Config:
    """One network, "width-depth", with or without residual connections, and its quantized copies."""

    network: str
    residual: bool = False
    epochs: int = 60
    retrain_epochs: int = 30
    copies: int = 9
    side: int = 421
    seed: int = 0


def cells(scale: str) -> list[Config]:
    if scale == "smoke":
        return [Config("16-3", residual, 2, 1, copies=0, side=85) for residual in (False, True)]
    return [Config(name, residual, seed=seed) for residual in (False, True) for seed in range(3) for name in NETWORKS]


def network(config: Config, rng: np.random.Generator) -> FCDNN:
    width, depth = map(int, config.network.split("-"))
    model = FCDNN(width, depth, residual=config.residual, rng=rng)
    for layer in model.layers.children():  # He et al. 2015: each layer keeps the size of what passes
        weight = layer.weight.data
        weight[...] = rng.normal(0, np.sqrt(2 / weight.shape[1]), weight.shape)
    return model


def fit(model: Module, points: Split, epochs: int, lr: float, seed: int) -> None:
    """Adam with a cosine; PACT's bounds have their L2 penalty."""
    optimizer = optim.Adam(groups(model, penalty=1e-3), lr=lr)
    schedule, hooks = optim.CosineAnnealingLR(epochs), [KeepsBoundsUp()]
    trainer = Trainer(model, optimizer, schedule=schedule, batch_size=250, seed=seed, hooks=hooks)
    trainer.fit(points, epochs=epochs, progress=False)


def run(config: Config, report: Report) -> dict[str, Any]:
    points = rings.training_points(config.copies)
    model = network(config, np.random.default_rng(config.seed))
    lr = 0.64 / model.layers[1].weight.shape[0]
    fit(model, points, config.epochs, lr, config.seed)
    maps = {"float": rings.decisions(model, config.side)}
    examples = points.x[:2000]
    copies: dict[str, Callable[[], Module]] = {"float again": partial(graph.generate, model, examples)}
    for mode, (weights, activations) in MODES.items():
        copies[mode] = partial(quantized, model, examples, 2 if weights else None, 2 if activations else None)
    for name, copy in copies.items():
        retrained = copy()
        fit(retrained, points, config.retrain_epochs, lr / 2, config.seed + 1)
        maps[name] = rings.decisions(retrained, config.side)
    found = {name: rings.measure(decided, maps["float again"])._asdict() for name, decided in maps.items()}
    for name, measured in found.items():
        report(f"{name}: " + ", ".join(f"{key} {value:.3f}" for key, value in measured.items()))
    kept = maps if config.seed == 0 else {}
    return {"measured": found, "maps": {name: rings.packed(decided) for name, decided in kept.items()}}


def value(cells: Sequence[Cell], seed: int, name: str, mode: str, key: str, residual: bool = False) -> float:
    """What was measured of a network's map."""
    for cell in cells:
        if (cell.config.network, cell.config.residual, cell.config.seed) == (name, residual, seed):
            return cell.result["measured"][mode][key]
    raise LookupError(f"{name}{' with residuals' * residual}, seed {seed}")


def added_noise(cells: Sequence[Cell], seed: int, name: str, mode: str, residual: bool = False) -> float:
    """Noise beyond that of the float network's own map."""
    own = value(cells, seed, name, "float again", "noise", residual)
    return value(cells, seed, name, mode, "noise", residual) - own


def distortion(cells: Sequence[Cell], seed: int, name: str, mode: str, residual: bool = False) -> float:
    return value(cells, seed, name, mode, "distortion", residual)


def each_seed(cells: Sequence[Cell], difference: Callable[[int], float], **options: Any) -> Finding:
    """Decide from a difference that can be told for every seed."""
    seeds = sorted({cell.config.seed for cell in cells})
    return decide([difference(seed) for seed in seeds], unit="% of the plane", **options)


def _mean(values: Sequence[float]) -> float:
    return float(np.mean(values))


def _float_needs_size(cells: Sequence[Cell]) -> Finding:
    def gap(name: str) -> Callable[[int], float]:
        return lambda s: value(cells, s, name, "float", "accuracy") - value(cells, s, "128-3", "float", "accuracy")

    return all_of([each_seed(cells, gap(name), at_least=5.0) for name in ("128-4", "256-3")])


def _weights_distort(cells: Sequence[Cell]) -> Finding:
    def part(seed: int, name: str, mode: str) -> float:
        moved, noise = distortion(cells, seed, name, mode), max(added_noise(cells, seed, name, mode), 0.0)
        return moved / (moved + noise)

    def gap(seed: int) -> float:
        return 100 * _mean([part(seed, name, "W2") - part(seed, name, "A2") for name in NETWORKS])

    seeds = sorted({cell.config.seed for cell in cells})
    return decide([gap(seed) for seed in seeds], unit="points of the harm done")


def _activations_add_noise(cells: Sequence[Cell]) -> Finding:
    def gap(seed: int) -> float:
        return _mean([added_noise(cells, seed, n, "A2") - added_noise(cells, seed, n, "W2") for n in NETWORKS])

    return each_seed(cells, gap)


def _errors_combine(cells: Sequence[Cell]) -> Finding:
    def gap(seed: int) -> float:
        def right(name: str, mode: str) -> float:
            return value(cells, seed, name, mode, "accuracy")

        return _mean([min(right(n, "W2"), right(n, "A2")) - right(n, "W2A2") for n in NETWORKS])

    return each_seed(cells, gap)


def _less(
    what: Callable[..., float], mode: str, more: str, less: str, at_least: float = 0.0
) -> Callable[[Sequence[Cell]], Finding]:
    """The test that `more` suffers more than `less`."""
    return lambda cells: each_seed(
        cells, lambda seed: what(cells, seed, more, mode) - what(cells, seed, less, mode), at_least=at_least
    )


def _wide_resists_noise(cells: Sequence[Cell]) -> Finding:
    return all_of([_less(added_noise, "A2", deep, "200-4")(cells) for deep in ("128-6", "128-8")])


def _residuals_amplify_noise(cells: Sequence[Cell]) -> Finding:
    def gap(name: str) -> Callable[[int], float]:
        return lambda s: added_noise(cells, s, name, "A2", True) - added_noise(cells, s, name, "A2", False)

    return all_of([each_seed(cells, gap(name)) for name in ("128-6", "128-8")])


def _residuals_ease_distortion(cells: Sequence[Cell]) -> Finding:
    def gap(seed: int) -> float:
        return _mean(
            [distortion(cells, seed, n, "W2", False) - distortion(cells, seed, n, "W2", True) for n in NETWORKS]
        )

    return each_seed(cells, gap)


CLAIMS = (
    Claim(
        "holistic.fig2.float-needs-size",
        "In float, 128-3 falls short of the rings, and one more layer (128-4) or twice the width (256-3) gains more "
        "than 5 % of the plane.",
        _float_needs_size,
    ),
    Claim(
        "holistic.fig2.weights-distort",
        "Of the harm that 2-bit weights do to the map, distortion is a larger part than of the harm that 2-bit "
        "activations do.",
        _weights_distort,
    ),
    Claim(
        "holistic.fig2.activations-add-noise",
        "2-bit activations add more noise to the map than 2-bit weights.",
        _activations_add_noise,
    ),
    Claim(
        "holistic.fig2.errors-combine",
        "With 2-bit weights and activations the map is worse than with either alone.",
        _errors_combine,
    ),
    Claim(
        "holistic.fig2.width-helps-weights",
        "Twice the width (128-4 to 256-4) makes the distortion by 2-bit weights smaller.",
        _less(distortion, "W2", "128-4", "256-4"),
    ),
    Claim(
        "holistic.fig2.width-helps-activations",
        "Twice the width (128-4 to 256-4) makes the noise by 2-bit activations smaller.",
        _less(added_noise, "A2", "128-4", "256-4"),
    ),
    Claim(
        "holistic.fig2.depth-helps-weights",
        "Twice the depth (128-4 to 128-8) makes the distortion by 2-bit weights smaller.",
        _less(distortion, "W2", "128-4", "128-8"),
    ),
    Claim(
        "holistic.fig2.depth-adds-noise",
        "Twice the depth (128-4 to 128-8) does not make the noise by 2-bit activations smaller, but larger.",
        _less(added_noise, "A2", "128-8", "128-4"),
    ),
    Claim(
        "holistic.fig2.deep-resists-distortion",
        "The deeper 128-6, with fewer parameters than 200-4, is distorted less by 2-bit weights (figure 9).",
        _less(distortion, "W2", "200-4", "128-6"),
    ),
    Claim(
        "holistic.fig2.wide-resists-noise",
        "The wider 200-4 has less noise by 2-bit activations than the deeper 128-6 and 128-8 (figure 9).",
        _wide_resists_noise,
    ),
    Claim(
        "holistic.fig2.residuals-amplify-noise",
        "Residual connections make the noise by 2-bit activations larger in deep networks (128-6, 128-8).",
        _residuals_amplify_noise,
    ),
    Claim(
        "holistic.fig2.residuals-ease-distortion",
        "Residual connections make the distortion by 2-bit weights smaller, on average over the networks.",
        _residuals_ease_distortion,
    ),
)

COLUMNS = ("float", "W2", "A2", "W2A2")


def table(cells: list[Cell]) -> str:
    """Means over the seeds, with their standard deviations. The paper shows maps and gives no numbers."""
    lines = [
        "Right, distorted and noisy, in % of the plane: mean ± standard deviation over the seeds.",
        "The paper has pictures only.",
        "",
        f"{'network':<16}" + "".join(f"{name:^33}" for name in COLUMNS),
        f"{'':<16}" + "".join(f"{'right':>13}{'distorted':>13}{'noise':>7}" for _ in COLUMNS),
    ]
    kinds = list(dict.fromkeys((cell.config.network, cell.config.residual) for cell in cells))
    for name, residual in kinds:
        found = [c.result["measured"] for c in cells if (c.config.network, c.config.residual) == (name, residual)]
        line = f"{name + ' residual' * residual:<16}"
        for mode in COLUMNS:
            right, moved, noise = ([one[mode][key] for one in found] for key in ("accuracy", "distortion", "noise"))
            line += f"{_spread(right):>13}{_spread(moved):>13}{np.mean(noise):7.2f}"
        lines.append(line)
    return "\n".join(lines)


def _spread(values: Sequence[float]) -> str:
    return f"{np.mean(values):.1f} ±{np.std(values, ddof=1) if len(values) > 1 else 0:.1f}"


def draw(cells: list[Cell], figure: Any) -> None:
    """Float maps (figure 1), all maps of the bottom right quarter (figures 2, 3, 9, 10), and what was measured."""
    shown = {(c.config.network, c.config.residual): c for c in cells if c.result["maps"]}
    names = list(dict.fromkeys(name for name, _ in shown))
    top, middle, bottom = figure.subfigures(3, 1, height_ratios=[3.4, 1.75 * len(names) + 0.3, 3.6])
    _draw_floats(top, shown)
    _draw_quarters(middle, shown, names)
    _draw_numbers(bottom, cells, names)


def _plain(axes: Any) -> None:
    axes.set(xticks=[], yticks=[])
    axes.grid(False)
    for spine in axes.spines.values():
        spine.set_visible(True)


def _paint(axes: Any, decided: rings.Map) -> None:
    from matplotlib.colors import ListedColormap

    axes.imshow(decided, cmap=ListedColormap(["#fbe3d4", "#2a78b5"]), interpolation="nearest", vmin=0, vmax=1)
    _plain(axes)


def _draw_floats(figure: Any, shown: dict[tuple[str, bool], Cell]) -> None:
    from tinyqnn import picture

    figure.suptitle("What is learned from, and what float networks decide (figure 1)", fontsize=12)
    wanted = [name for name in ("128-3", "128-4", "256-3") if (name, False) in shown] or [next(iter(shown))[0]]
    first, *others = figure.subplots(1, 1 + len(wanted), squeeze=False)[0]
    points = rings.training_points()
    some = np.random.default_rng(0).choice(len(points), 4000, replace=False)
    for label, colour in ((0, picture.ORANGE), (1, picture.BLUE)):
        where = some[points.y[some] == label]
        first.plot(*points.x[where].T, ".", color=colour, markersize=1.5)
    first.set_aspect("equal")
    first.set_title("4,000 of the 20,000 points", fontsize=10)
    _plain(first)
    for axes, name in zip(others, wanted):
        result = shown[name, False].result
        _paint(axes, rings.unpacked(result["maps"]["float"]))
        axes.set_title(f"{name}: {result['measured']['float']['accuracy']:.1f} % right", fontsize=10)


def _draw_quarters(figure: Any, shown: dict[tuple[str, bool], Cell], names: Sequence[str]) -> None:
    figure.suptitle("The bottom right quarter: without residual connections (left) and with (right)", fontsize=12)
    grid = figure.subplots(len(names), 2 * len(COLUMNS), squeeze=False)
    for row, name in zip(grid, names):
        for number, axes in enumerate(row):
            mode, residual = COLUMNS[number % len(COLUMNS)], number >= len(COLUMNS)
            if (name, residual) not in shown:
                axes.set_axis_off()
                continue
            decided = rings.unpacked(shown[name, residual].result["maps"][mode])
            half = len(decided) // 2
            _paint(axes, decided[half:, half:])
            if name == names[0]:
                axes.set_title(mode + ", residual" * residual, fontsize=10)
            if number == 0:
                axes.set_ylabel(name, fontsize=11)


def _draw_numbers(figure: Any, cells: Sequence[Cell], names: Sequence[str]) -> None:
    from tinyqnn import picture

    figure.suptitle("Measured on all seeds: the mean, and each seed", fontsize=12)
    panels = figure.subplots(1, 2)
    seeds = sorted({cell.config.seed for cell in cells})
    for axes, (title, what) in zip(
        panels,
        (("distortion: what moved as a whole", distortion), ("added noise: flips that stand alone", added_noise)),
    ):
        for number, (mode, residual) in enumerate((m, r) for m in ("W2", "A2") for r in (False, True)):
            colour = picture.BLUE if mode == "W2" else picture.RED
            values = [_found(what, cells, seeds, name, mode, residual) for name in names]
            places = np.arange(len(names)) + 0.2 * (number - 1.5)
            axes.bar(
                places, [np.mean(v) if v else 0.0 for v in values], 0.18, color=colour, alpha=0.45 if residual else 0.9,
                hatch="//" if residual else None, label=mode + ", residual" * residual,
            )  # fmt: skip
            for place, each in zip(places, values):
                axes.plot([place] * len(each), each, ".", color=picture.INK, markersize=4)
        axes.set(title=title, ylabel="% of the plane", xticks=range(len(names)), xticklabels=names)
        axes.legend(fontsize=9, ncols=4, loc="upper center", bbox_to_anchor=(0.5, -0.08))


def _found(
    what: Callable[..., float], cells: Sequence[Cell], seeds: Sequence[int], name: str, mode: str, residual: bool
) -> list[float]:
    """What was measured with the seeds that are there."""
    found = []
    for seed in seeds:
        with contextlib.suppress(LookupError):
            found.append(what(cells, seed, name, mode, residual))
    return found
