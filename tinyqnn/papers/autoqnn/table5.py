"""Table 5: news told apart by an LSTM, float and at 2 and 3 bits

The paper classifies 50,000 Chinese news texts (THUCNews, 10 classes) by an embedding, an LSTM of 512 and two linear
layers. Here it is AG News in 4 classes, the 6,400 texts that can be trained on where only its test.csv is at hand, 32
words of each, and an LSTM of 64. Weights and activations of all layers are quantized, the LSTM's state at each step.
ZoomQ for weights with PotQ for activations is what the paper's search found; ClipQ for both stands beside it.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from typing import Any

import numpy as np

from tinyqnn import data, graph, models, optim, quant, random
from tinyqnn.data.dataset import Split
from tinyqnn.nn import Module
from tinyqnn.papers.claims import Claim, Finding, all_of, decide
from tinyqnn.papers.experiment import Cell, Report
from tinyqnn.train import Trainer, evaluate

PAPER = {"float": 95.52, "2/2": 94.53, "2/3": 95.03, "3/3": 95.46}
WIDTHS = ("2/2", "2/3", "3/3")


@dataclass(frozen=True)
class Config:
    """One float network, and its retrainings at all widths.

    pairs      letters of the schemes of weights and activations
    words      size of the vocabulary; `length` words of a text are read
    texts      how many texts are trained on; 0 is all
    """

    pairs: tuple[str, ...] = ("ZP", "CC")
    words: int = 5_000
    length: int = 32
    embedding: int = 64
    hidden: int = 64
    features: int = 32
    epochs: int = 6
    lr: float = 3e-3
    retrain_epochs: int = 4
    retrain_lr: float = 2e-3
    texts: int = 0
    seed: int = 0


def cells(scale: str) -> list[Config]:
    if scale == "smoke":
        small: dict[str, Any] = {"words": 200, "length": 8, "embedding": 8, "hidden": 8, "features": 8}
        return [Config(("ZP",), **small, epochs=1, retrain_epochs=1, texts=256)]
    if scale == "small":
        return [Config(seed=seed) for seed in range(3)]
    large: dict[str, Any] = {"words": 10_000, "length": 64, "embedding": 128, "hidden": 512, "features": 128}
    return [Config(**large, epochs=10, lr=1e-3, retrain_epochs=10, retrain_lr=1e-3, seed=seed) for seed in range(3)]


def run(config: Config, report: Report) -> dict[str, Any]:
    rng = random.manual_seed(config.seed)
    news = data.ag_news.load(words=config.words, length=config.length)
    train, test = (_backwards(split, config.texts) for split in (news.train, news.test))
    model = models.TextClassifier(
        config.words, config.embedding, config.hidden, config.features, len(news.classes), dropout=0.3, rng=rng
    )
    accuracy = {"float": _trained(model, train, test, config.epochs, config.lr, config.seed)}
    before = {}
    report(f"float: {accuracy['float'][-1]:.4f}")
    for pair in config.pairs:
        for widths in WIDTHS:
            policy = "/".join(f"{letter}-{bits}" for letter, bits in zip(pair, widths.split("/")))
            weights, activations = policy.split("/")
            random.manual_seed(config.seed + 1)
            examples = [train.x[start : start + 64] for start in range(0, 256, 64)]
            qmodel = graph.generate(model, examples[0], weights=weights, activations=activations)
            quant.calibrate(qmodel, examples)
            before[policy] = evaluate(qmodel, test).accuracy
            accuracy[policy] = _trained(qmodel, train, test, config.retrain_epochs, config.retrain_lr, config.seed + 1)
            report(f"{policy}: {before[policy]:.4f}, retrained {accuracy[policy][-1]:.4f}")
    return {"note": news.note, "texts": len(train), "accuracy": accuracy, "not retrained": before}


def _backwards(split: Split, count: int) -> Split:
    """The texts read from their ends, so that what fills up short ones comes first."""
    return Split(np.ascontiguousarray(split.x[: count or None, ::-1]), split.y[: count or None])


def _trained(model: Module, train: Split, test: Split, epochs: int, lr: float, seed: int) -> list[float]:
    """Adam with a cosine rate; the accuracy on the test texts after each epoch."""
    trainer = Trainer(
        model,
        optim.Adam(model.parameters(), lr=lr),
        schedule=optim.CosineAnnealingLR(epochs),
        batch_size=64,
        clip_norm=1.0,
        seed=seed,
    )
    return [float(value) for value in trainer.fit(train, test, epochs, progress=False)["valid_accuracy"]]


def _policy(pair: str, widths: str) -> str:
    return "/".join(f"{letter}-{bits}" for letter, bits in zip(pair, widths.split("/")))


def _gap(cells: list[Cell], better: str, worse: str, spare: float = 0.0) -> list[float]:
    """Points between two policies, a seed each; with `spare`, what is left of it."""
    sign = -1 if spare else 1
    return [
        spare + sign * 100 * (cell.result["accuracy"][better][-1] - cell.result["accuracy"][worse][-1])
        for cell in cells
    ]


def _within(widths: str, points: float) -> Claim:
    paper = PAPER["float"] - PAPER[widths]
    words = {"3/3": "3-bit weights and activations", "2/2": "2-bit weights and activations"}[widths]
    return Claim(
        f"autoqnn.table5.{widths.replace('/', '-')}",
        f"ZoomQ weights with PotQ activations: {words} cost less than {points:g} "
        f"point{'s' * (points != 1)} ({paper:.2f} in the paper).",
        lambda cells: decide(_gap(cells, "float", _policy("ZP", widths), spare=points), unit="points to spare"),
    )


def _order(cells: list[Cell]) -> Finding:
    steps = [("Z-2/P-3", "Z-2/P-2"), ("Z-3/P-3", "Z-2/P-3")]
    return all_of([decide(_gap(cells, more, less)) for more, less in steps])


CLAIMS = (
    _within("3/3", 1.0),
    _within("2/2", 2.0),
    Claim(
        "autoqnn.table5.each-bit",
        "ZoomQ weights with PotQ activations: a third bit for the activations raises the accuracy, and then a third "
        "bit for the weights raises it again.",
        _order,
    ),
    Claim(
        "autoqnn.table5.zoom-pot",
        "At 2 bits ZoomQ weights with PotQ activations, which the paper's search chose, are more accurate than ClipQ "
        "for both.",
        lambda cells: decide(_gap(cells, "Z-2/P-2", "C-2/C-2")),
    ),
)


def table(cells: list[Cell]) -> str:
    def row(name: str, paper: str, policy: str) -> str:
        values = [100 * cell.result["accuracy"][policy][-1] for cell in cells]
        before = [100 * cell.result["not retrained"][policy] for cell in cells if policy != "float"]
        told = f"{np.mean(before):12.2f}" if before else f"{'':12}"
        return f"{name:<10} {paper:>8}   {np.mean(values):8.2f} ± {_spread(values):.2f}{told}"

    first = cells[0]
    lines = [
        f"accuracy (%); here AG News, {first.result['note'] or 'the whole set'}, {len(cells)} seeds",
        "",
        "W/A          paper       here           not retrained",
        row("float", f"{PAPER['float']:.2f}", "float"),
    ]
    for pair in first.config.pairs:
        for widths in WIDTHS:
            policy = _policy(pair, widths)
            lines.append(row(policy, f"{PAPER[widths]:.2f}" if pair == "ZP" else "", policy))
    return "\n".join(lines)


def _spread(values: Sequence[float]) -> float:
    return float(np.std(values, ddof=1)) if len(values) > 1 else 0.0


def draw(cells: list[Cell], figure: Any) -> None:
    """Accuracy over the width, a line a pair of schemes, each seed a faint one."""
    from tinyqnn import picture

    axes = figure.subplots()
    names = {"ZP": "ZoomQ weights, PotQ activations", "CC": "ClipQ for both"}
    for number, pair in enumerate(cells[0].config.pairs, 1):
        style = picture.line(number)
        values = np.array(
            [[100 * cell.result["accuracy"][_policy(pair, widths)][-1] for widths in WIDTHS] for cell in cells]
        )
        axes.errorbar(
            WIDTHS,
            values.mean(axis=0),
            [_spread(column) for column in values.T],
            **style,
            capsize=3,
            label=names.get(pair, pair),
        )
    floats = [100 * cell.result["accuracy"]["float"][-1] for cell in cells]
    axes.axhline(np.mean(floats), color=picture.INK, linewidth=1, linestyle=":", label="float")
    axes.plot(WIDTHS, [PAPER[widths] for widths in WIDTHS], **picture.line(6), label="the paper, on THUCNews")
    axes.set(xlabel="bits of weights / activations", ylabel="accuracy on the test texts (%)")
    axes.legend()
