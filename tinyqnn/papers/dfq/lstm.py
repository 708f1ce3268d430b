"""Beyond the paper: DFQ on an LSTM, among 1, 2, 4 and 8 bits

"It can potentially be extended to … RNN and LSTM", says the conclusion, and that more widths are on their way. Here an
LSTM language model reads a text from a grammar whose own perplexity is known. Its weights (embedding, both matrices of
the LSTM, decoder) are relaxed as `search/relax.py` says: quantized weights are mixed, without batch normalisation.
Uniform widths start from the same float network and are trained for as many epochs as search and retraining together,
and so is the float one. The bounds lie between the validation losses of the float and the binary network
as they were seen on another seed, 100.

The rate of α is constant. With one that falls to zero and begins twice as high, the same seeds ended wider, and the
second claim was undecided.
"""

from __future__ import annotations

import math
from dataclasses import dataclass
from typing import Any

import numpy as np

from tinyqnn import data, models, optim, random
from tinyqnn.data import Corpus
from tinyqnn.nn import Module
from tinyqnn.papers.claims import Claim, decide
from tinyqnn.papers.dfq._cells import compression, mean
from tinyqnn.papers.experiment import Cell, Report
from tinyqnn.search.dfq import candidates, dfq
from tinyqnn.search.network import traced, trainable
from tinyqnn.search.policy import Policy
from tinyqnn.train import Trainer, evaluate

VERSION = 2  # the switch asks the mean of several batches, and both steps of α are of one length
UNIFORM = (8, 4, 2, 1)
SIZE = (9.0, 4.0)


@dataclass(frozen=True)
class Config:
    """One seed: a float model, uniform widths, and searches for a series of bounds."""

    seed: int
    hidden: int = 64
    train: int = 60_000
    batch_size: int = 20
    seq_len: int = 20
    epochs: int = 6
    search_epochs: int = 3
    retrain_epochs: int = 6
    lr: float = 5e-3
    quantized_lr: float = 3e-3
    alpha_lr: float = 0.05
    slacks: tuple[float, ...] = (0.015, 0.03, 0.05)


def cells(scale: str) -> list[Config]:
    if scale == "smoke":
        return [Config(seed, 6, 600, 4, 10, 1, 1, 1, slacks=(0.1,)) for seed in range(3)]
    if scale == "small":
        return [Config(seed) for seed in range(3)]
    return [Config(seed, 300, 1_000_000, 20, 35, 20, 10, 10) for seed in range(5)]


def run(config: Config, report: Report) -> dict[str, Any]:
    """{float, uniform, search}: perplexity of the test text, compression, layers; a bound is slack above float."""
    rng = random.manual_seed(config.seed)
    text = data.load("grammar", train=config.train, valid=max(config.train // 6, 400), test=max(config.train // 3, 400))
    assert isinstance(text, Corpus)
    model = models.LanguageModel(len(text.vocabulary), config.hidden, config.hidden, rng=rng)
    base, example = traced(model, text.train)

    def fit(network: Module, epochs: int, lr: float) -> None:
        trainer = Trainer(
            network, optim.Adam(network.parameters(), lr=lr), schedule=optim.CosineAnnealingLR(epochs),
            batch_size=config.batch_size, seq_len=config.seq_len, clip_norm=1.0, seed=config.seed,
        )  # fmt: skip
        trainer.fit(text.train, None, epochs, progress=False)

    def scored(policy: Policy, network: Module) -> dict[str, Any]:
        options = {"batch_size": config.batch_size, "seq_len": config.seq_len}
        return {
            "perplexity": evaluate(network, text.test, **options).perplexity,  # type: ignore[arg-type]
            "valid_loss": evaluate(network, text.valid, **options).loss,  # type: ignore[arg-type]
            "compression": compression(policy),
            "layers": [[c.vertex.replace(".quant", ""), c.elements, c.scheme] for c in policy.of_role("weights")],
        }

    fit(trainable(base), config.epochs, config.lr)
    every = Policy.of(base)
    found: dict[str, Any] = {"uniform": [], "search": []}
    for bits in (32, *UNIFORM):
        notation = "float" if bits == 32 else candidates((bits, 32))[0]
        policy = every.changed({c.vertex: notation for c in every.of_role("weights")})
        network = trainable(policy.apply(base, example))
        fit(network, config.search_epochs + config.retrain_epochs, config.quantized_lr)
        row = scored(policy, network)
        report(f"{bits} bits: {row}")
        if bits == 32:
            found["float"] = row
        else:
            found["uniform"].append(row)
    for slack in config.slacks:
        ours = dfq(
            base, text.train, text.valid, theta=found["float"]["valid_loss"] + slack, bits=UNIFORM, example=example,
            epochs=config.search_epochs, retrain_epochs=config.retrain_epochs, lr=config.quantized_lr,
            alpha_lr=config.alpha_lr, batch_size=config.batch_size, seq_len=config.seq_len, clip_norm=1.0,
            seed=config.seed, progress=False,
        )  # fmt: skip
        bound = {"theta": ours.theta, "keeps_bound": ours.keeps_bound}
        found["search"].append({**scored(ours, trainable(ours.model)), **bound})
        report(f"{found['search'][-1]}\n{ours.verdict}\n{ours.history}")
    return {**found, "best_perplexity": text.best_perplexity}


def _over_uniform(cell: Cell) -> float:
    """100 · log of the perplexity of uniform widths at the same compression over the search's, mean over the bounds."""
    points = sorted((p["compression"], p["perplexity"]) for p in cell.result["uniform"])
    xs, ys = np.log([x for x, _ in points]), np.log([y for _, y in points])
    gains = [
        float(np.interp(math.log(p["compression"]), xs, ys)) - math.log(p["perplexity"]) for p in cell.result["search"]
    ]
    return 100 * float(np.mean(gains))


def _over_binary(cell: Cell) -> float:
    worst = max(point["perplexity"] for point in cell.result["search"])
    return 100 * math.log(cell.result["uniform"][-1]["perplexity"] / worst)


CLAIMS = (
    Claim(
        "dfq.lstm.above-binary",
        "Extended to an LSTM, every network that the search finds has a lower perplexity than the binary one.",
        lambda cells: decide([_over_binary(cell) for cell in cells], unit="% of perplexity"),
    ),
    Claim(
        "dfq.lstm.above-uniform",
        "Extended to an LSTM, networks that the search finds have a lower perplexity than uniform widths at the same "
        "compression (on a line between them), on the mean over the bounds.",
        lambda cells: decide([_over_uniform(cell) for cell in cells], unit="% of perplexity"),
    ),
)


def table(cells: list[Cell]) -> str:
    c = cells[0].config
    lines = ["               compression     perplexity      bound kept"]

    def row(label: str, points: list[dict[str, Any]]) -> str:
        kept = f"{sum(p['keeps_bound'] for p in points)} of {len(points)}" if "keeps_bound" in points[0] else ""
        times = mean([p["compression"] for p in points]) + "×"
        return f"{label:<13}  {times:<14}  {mean([p['perplexity'] for p in points]):<14}  {kept}".rstrip()

    lines.append(row("float", [cell.result["float"] for cell in cells]))
    for number, bits in enumerate(UNIFORM):
        lines.append(row(f"{bits} bits", [cell.result["uniform"][number] for cell in cells]))
    for number, slack in enumerate(c.slacks):
        lines.append(row(f"DFQ +{slack:g}", [cell.result["search"][number] for cell in cells]))
    lines.append("")
    for cell in cells:
        for slack, point in zip(c.slacks, cell.result["search"]):
            widths = ", ".join(f"{name} {scheme}" for name, _, scheme in point["layers"])
            lines.append(f"seed {cell.config.seed}, θ = float + {slack:g}: {widths}")
    return "\n".join(lines) + (
        f"\n\nLSTM of {c.hidden}, a text from a grammar ({c.train:,} words to learn from; its own perplexity is "
        f"{cells[0].result['best_perplexity']:.2f}), {c.epochs} epochs in float, {c.search_epochs} of search and "
        f"{c.retrain_epochs} after it; mean ± sd of {len(cells)} seeds. The paper has no LSTM."
    )


def draw(cells: list[Cell], figure: Any) -> None:
    """Perplexity against compression, every seed."""
    from tinyqnn import picture

    axes = figure.subplots()
    for cell in cells:
        first = cell is cells[0]
        for label, key, number in (("uniform widths", "uniform", 6), ("DFQ among 1, 2, 4, 8 bits", "search", 2)):
            points = sorted((p["compression"], p["perplexity"]) for p in cell.result[key])
            style = {**picture.line(number), "linestyle": ":" if key == "uniform" else "none"}
            axes.plot([x for x, _ in points], [y for _, y in points], **style, label=label if first else "_")
    level = float(np.mean([cell.result["float"]["perplexity"] for cell in cells]))
    axes.axhline(level, color=picture.INK, linestyle="--", label="float")
    axes.set(xlabel="compression of the weights", ylabel="test perplexity", xscale="log")
    axes.set_xticks([4, 8, 16, 32], labels=["4", "8", "16", "32"])
    axes.minorticks_off()
    axes.legend()
