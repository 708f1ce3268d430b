"""Table 6: a language model on Penn Treebank at 2 and 3 bits, perplexity per word

The network is the paper's: an embedding of 300, one LSTM of 300, 10,000 words. The float network is trained by plain
SGD on the mean loss, gradients clipped, the rate times 0.55 an epoch from the seventh on. Then QAG puts quantizing
vertices on every weight matrix, the decoder's included, on what flows into the LSTM and the decoder, and on the LSTM's
state at each step; it is retrained for a few epochs. All widths are the same throughout and ClipQ quantizes both sides:
there is no search in it.

One float network serves all. `seeds` counts the retrainings of it at each width: they differ in their dropout.
"""

from __future__ import annotations

from dataclasses import dataclass
from typing import Any

import numpy as np

from tinyqnn import data, graph, models, optim, quant, random
from tinyqnn.papers.claims import Claim, Finding, all_of, decide
from tinyqnn.papers.experiment import Cell, Report
from tinyqnn.search import CarriesState
from tinyqnn.tensor import Tensor
from tinyqnn.train import History, Trainer, evaluate

BATCH, LENGTH = 20, 35
RECIPE = {"clip": 0.25, "dropout": 0.2}
PAPER = (  # method, bits of weights, bits of activations, perplexity per word
    ("EffectiveQ", "2", "2", 152.0),
    ("EffectiveQ", "2", "3", 142.0),
    ("EffectiveQ", "3", "3", 120.0),
    ("QNNs", "2", "3", 220.0),
    ("LP-RNNs", "2", "2", 152.2),
    ("BalancedQ", "2", "2", 126.0),
    ("BalancedQ", "2", "3", 123.0),
    ("HitNet", "2", "2", 110.3),
    ("AutoQNN, ResQ and ClipQ", "2.48", "2.28", 116.7),
)


@dataclass(frozen=True)
class Config:
    """One float network and its retrainings.

    policies   schemes of weights and activations, "C-2/C-3"
    seeds      retrainings at each of them
    tokens     how much of each of the three texts is read; 0 is all
    """

    policies: tuple[str, ...] = ("C-3/C-3", "C-2/C-2")
    hidden: int = 300
    epochs: int = 9
    lr: float = 20.0
    retrain_epochs: int = 3
    retrain_lr: float = 15.0
    seeds: int = 1
    tokens: int = 0
    seed: int = 0


def cells(scale: str) -> list[Config]:
    if scale == "smoke":
        return [Config(("C-3/C-3",), hidden=8, epochs=1, retrain_epochs=1, tokens=1_500)]
    if scale == "small":
        return [Config()]
    return [Config(("C-3/C-3", "C-2/C-3", "C-2/C-2"), epochs=40, retrain_epochs=20, seeds=3)]


def run(config: Config, report: Report) -> dict[str, Any]:
    rng = random.manual_seed(config.seed)
    corpus = data.load("ptb")
    assert isinstance(corpus, data.Corpus)
    texts = [text[: config.tokens or None] for text in (corpus.train, corpus.valid, corpus.test)]
    model = models.LanguageModel(len(corpus.vocabulary), config.hidden, config.hidden, dropout=0.2, rng=rng)
    floating = _float(config, model, texts, report)
    runs = []
    for policy in config.policies:
        for seed in range(config.seeds):
            random.manual_seed(config.seed + 1 + seed)
            runs.append(_quantized(config, model, policy, seed, texts, report))
    return {
        "parameters": sum(parameter.size for parameter in model.parameters()),
        "float": {"valid": _curve(floating), "test": _perplexity(model, texts[2]), "seconds": floating.seconds},
        "quantized": runs,
    }


def _float(config: Config, model: models.LanguageModel, texts: list[Any], report: Report) -> History:
    """The float network: rate 20 on the mean loss, and a gradient no longer than ¼."""
    last = config.epochs - 3  # the epochs at whose end the rate falls
    trainer = Trainer(
        model,
        optim.SGD(model.parameters(), lr=config.lr),
        schedule=optim.MultiStepLR([last, last + 1, last + 2], gamma=0.55),
        batch_size=BATCH,
        seq_len=LENGTH,
        clip_norm=0.25,
        seed=config.seed,
        config={"network": f"embedding {config.hidden}, LSTM {config.hidden}", "lr": config.lr} | RECIPE,
    )
    history = trainer.fit(
        texts[0], texts[1], config.epochs, report.folder / "float.npz", resume=True, progress=False, label="float"
    )
    report(f"float: perplexity {_curve(history)[-1]:.1f} on the validation text, {sum(history.seconds):.0f} s")
    return history


def _quantized(
    config: Config, model: models.LanguageModel, policy: str, seed: int, texts: list[Any], report: Report
) -> dict[str, Any]:
    """QAG, averages from four pieces of text, and a few epochs at a rate that falls by half."""
    weights, activations = policy.split("/")
    piece = BATCH * LENGTH
    examples = [Tensor(texts[0][i * piece : (i + 1) * piece].reshape(BATCH, LENGTH).T) for i in range(2)]
    zeros = Tensor(np.zeros((1, BATCH, config.hidden), np.float32))
    traced = graph.generate(
        model, (examples[0], (zeros, zeros)), weights=weights, activations=activations, batch_axis=1
    )
    qmodel = CarriesState(traced, 1, config.hidden)
    quant.calibrate(qmodel, examples)
    before = _perplexity(qmodel, texts[1])
    trainer = Trainer(
        qmodel,
        optim.SGD(qmodel.parameters(), lr=config.retrain_lr),
        schedule=optim.StepLR(1, gamma=0.45),
        batch_size=BATCH,
        seq_len=LENGTH,
        clip_norm=0.25,
        seed=config.seed,
        config={"policy": policy, "seed": seed},
    )
    path = report.folder / f"{policy.replace('/', '-')}-{seed}.npz"
    history = trainer.fit(texts[0], texts[1], config.retrain_epochs, path, resume=True, progress=False, label=policy)
    curve = _curve(history)
    report(f"{policy}: perplexity {before:.1f} before and {curve[-1]:.1f} after retraining")
    cost = graph.cost(traced)
    return {
        "policy": policy,
        "seed": seed,
        "bits": [cost.average_bits("weights"), cost.average_bits("activations")],
        "bytes": [cost.bytes, cost.float32_bytes],
        "not retrained": before,
        "valid": curve,
        "test": _perplexity(qmodel, texts[2]),
        "seconds": history.seconds,
    }


def _curve(history: History) -> list[float]:
    return [float(value) for value in history["valid_perplexity"]]


def _perplexity(model: Any, text: Any) -> float:
    return evaluate(model, text, batch_size=BATCH, seq_len=LENGTH).perplexity


def _found(cells: list[Cell], policy: str) -> list[float]:
    """The perplexities on the validation text of a policy's retrainings."""
    return [run["valid"][-1] for cell in cells for run in cell.result["quantized"] if run["policy"] == policy]


def _floats(cells: list[Cell]) -> float:
    return cells[0].result["float"]["valid"][-1]


def _within(cells: list[Cell]) -> Finding:
    """The loss in per cent of the float perplexity, against 15."""
    parts = [
        decide([15 - 100 * (value / _floats(cells) - 1) for value in _found(cells, policy)], unit="% to spare")
        for policy in cells[0].config.policies
    ]
    return all_of(parts, "retrainings of one float network")


def _third_bit(cells: list[Cell]) -> Finding:
    pairs = zip(_found(cells, "C-2/C-2"), _found(cells, "C-3/C-3"), strict=True)
    return decide([few - many for few, many in pairs], unit="of perplexity", note="retrainings of one float network")


CLAIMS = (
    Claim(
        "autoqnn.table6.within-15-percent",
        "At 2 and 3 bits for all weights and activations, the recurrent state included, the perplexity stays within "
        "15 % of the float network's.",
        _within,
    ),
    Claim(
        "autoqnn.table6.third-bit",
        "A third bit for weights and activations lowers the perplexity, as it does for EffectiveQ.",
        _third_bit,
    ),
)


def table(cells: list[Cell]) -> str:
    lines = ["method                       bits W    A     perplexity per word", "the paper"]
    lines += [f"  {name:<26} {w:>6} {a:>6}   {ppw:>9.1f}" for name, w, a, ppw in PAPER]
    lines += ["here                                       valid    test   not retrained (valid)"]
    for cell in cells:
        found = cell.result["float"]
        lines.append(f"  {'float':<26} {32:>6} {32:>6}   {found['valid'][-1]:>9.1f} {found['test']:>7.1f}")
        for run in cell.result["quantized"]:
            w, a = run["bits"]
            smaller = run["bytes"][1] / run["bytes"][0]
            loss = 100 * (run["valid"][-1] / found["valid"][-1] - 1)
            lines.append(
                f"  {run['policy']:<26} {w:>6.2f} {a:>6.2f}   {run['valid'][-1]:>9.1f} {run['test']:>7.1f}"
                f" {run['not retrained']:>10.1f}      {loss:+.1f} % of float, {smaller:.1f}× smaller"
            )
    return "\n".join(lines)


def draw(cells: list[Cell], figure: Any) -> None:
    """The perplexity epoch by epoch: float, and from where it ended the retrainings."""
    from tinyqnn import picture

    axes = figure.subplots()
    result = cells[0].result
    curve = result["float"]["valid"]
    axes.plot(range(1, len(curve) + 1), curve, **picture.line(0), label="float")
    for number, run in enumerate(result["quantized"], 1):
        epochs = range(len(curve), len(curve) + len(run["valid"]) + 1)
        axes.plot(epochs, [run["not retrained"], *run["valid"]], **picture.line(number), label=run["policy"])
    axes.axhline(1.15 * curve[-1], color=picture.GREY, linewidth=1, linestyle=":")
    axes.annotate("float + 15 %", (1, 1.15 * curve[-1]), color=picture.GREY, va="bottom", fontsize=8)
    axes.set(xlabel="epoch", ylabel="perplexity on the validation text", yscale="log")
    ticks = [90, 100, 120, 150, 200, 300]
    axes.set_yticks(ticks, [str(tick) for tick in ticks])
    axes.minorticks_off()
    axes.legend(title="weights/activations")
