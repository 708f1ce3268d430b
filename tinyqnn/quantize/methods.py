"""The ways from a float network to a quantized one. Each returns the policy it came to and the network, trained."""

from __future__ import annotations

from collections.abc import Callable, Iterator
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from tinyqnn import data, graph
from tinyqnn.data.dataset import Split
from tinyqnn.graph import GraphModule
from tinyqnn.nn import Module
from tinyqnn.quant import calibrate, scheme
from tinyqnn.quantize.config import SEARCHED, Config, as_json
from tinyqnn.quantize.words import bits, line, schemes, scored
from tinyqnn.search import AutoQNN, Policy, PrecisionSearch, SchemeSearch, autoqnn, dfq
from tinyqnn.search.autoqnn import fitting
from tinyqnn.search.network import fit, traced, trainable
from tinyqnn.search.policy import ROLES
from tinyqnn.search.qss import NOT_AFTER_RELU, default_candidates, put_mixtures, quantized_everywhere
from tinyqnn.train import History, Score, evaluate


class Stopped(KeyboardInterrupt):
    """Ctrl-C ended the run; `folder` has all that is needed to go on.

    >>> Stopped(Path("runs/glyphs-1")).args[0].splitlines()[-1]
    '  tinyqnn quantize --resume runs/glyphs-1'
    """

    def __init__(self, folder: Path) -> None:
        super().__init__(f"stopped; what was learned is in {folder}; go on with\n  tinyqnn quantize --resume {folder}")
        self.folder = folder


@dataclass
class Job:
    """What a method works with.

    model          the float network
    train, valid   what it learns from, and what a search may look at besides; test only keeps the score
    examples       a few batches of inputs; `example` is what the network is traced with, its samples on `batch_axis`
    report         gets lines of text
    """

    config: Config
    folder: Path
    model: Module
    train: Any
    valid: Any
    test: Any
    example: Any
    batch_axis: int
    examples: list[Any]
    report: Callable[[str], None]

    def quantized(self, weights: str | None, activations: str | None) -> GraphModule:
        """QAG with one scheme a role."""
        schemes: dict[str, Any] = {"weights": weights, "activations": activations, "keep": self.config.keep}
        return graph.generate(self.model, self.example, batch_axis=self.batch_axis, **schemes)

    def settings(self) -> dict[str, Any]:
        """How weights are trained after quantization."""
        config = self.config
        return {
            "batch_size": config.batch_size,
            "augment": data.crop_and_flip if config.augment else None,
            "clip_norm": config.clip_norm,
            "seed": config.seed,
            "config": as_json(config),
        }

    def score(self, model: Module) -> Score:
        """On the test data; a text is read in as many rows as in training, which decides how far it remembers."""
        return evaluate(
            trainable(model), self.test, batch_size=256 if isinstance(self.test, Split) else self.config.batch_size
        )

    def fit(self, model: Module, epochs: int, lr: float, checkpoint: str, label: str) -> History:
        """Train with a cosine rate, or go on from the checkpoint. Raises Stopped after Ctrl-C."""
        how = {"lr": lr, "weight_decay": self.config.weight_decay, **self.settings()}
        path = self.folder / checkpoint
        history = fit(model, self.train, self.test, epochs, checkpoint=path, resume=True, label=label, **how)
        if history.interrupted:
            raise Stopped(self.folder)
        return history


@dataclass(frozen=True)
class Outcome:
    """What a method came to.

    curves          the score on the test data after each epoch, by phase
    not_retrained   the score right after quantization, where there is such a moment
    search          what AutoQNN or DFQ found, with its course
    """

    policy: Policy
    model: GraphModule
    curves: dict[str, list[float]]
    not_retrained: Score | None = None
    search: Any = None


def run_method(job: Job) -> Outcome:
    """Quantize and train on. Raises Stopped after Ctrl-C."""
    return {"autoqnn": _autoqnn, "dfq": _dfq, "fixed": _fixed, "policy": _policy}[job.config.method](job)


def check(job: Job) -> None:
    """What does not fit is better known before the training: schemes, layers, a policy for another model, a target."""
    config = job.config
    if config.method == "fixed":
        job.quantized(config.weights, config.activations)
        return
    if config.method == "policy":
        assert config.policy is not None
        Policy.from_json(config.policy).apply(job.model, job.example, batch_axis=job.batch_axis)
        return
    network, _ = traced(job.model, job.train, job.example, job.batch_axis)
    if config.method == "autoqnn":
        _, sides = fitting(targets(config), default_candidates())
        put_mixtures(network, sides, config.fine, config.keep, config.seed)
    else:
        quantized_everywhere(network, ["weights"], config.keep)


def targets(config: Config) -> dict[str, float | None]:
    """The average to reach, for each role; None for one that stays float."""
    sides = {"weights": config.weights, "activations": config.activations}
    return {role: config.target_bits if sides[role] == SEARCHED else None for role in ROLES}


def _autoqnn(job: Job) -> Outcome:
    config, measure = job.config, column(job)

    def tell(found: SchemeSearch | PrecisionSearch) -> None:
        if found.history.interrupted:
            return
        if isinstance(found, SchemeSearch):
            name, what = "QSS", schemes(found)
        else:
            name, what = "QPL", f"{bits(found)} bits on average, target {config.target_bits:g}"
        last = found.history.rows[-1]
        score = Score(last["valid_loss"], last.get("valid_accuracy"))
        job.report(
            line(name, f"{what}, {len(found.history)} epochs: {scored(score)}, {sum(found.history.seconds):.0f} s")
        )

    found: AutoQNN = autoqnn(
        job.model,
        job.train,
        job.test,
        targets(config),
        fine=config.fine,
        keep=config.keep,
        search_epochs=config.search_epochs,
        epochs=config.retrain_epochs,
        folder=job.folder,
        report=tell,
        example=job.example,
        batch_axis=job.batch_axis,
        lr=config.retrain_lr,
        weight_decay=config.weight_decay,
        **job.settings(),
    )
    if found.interrupted:
        raise Stopped(job.folder)
    assert found.model is not None
    assert found.precision is not None
    curves = {"QSS": found.schemes.history[measure], "QPL": found.precision.history[measure]}
    return Outcome(found, found.model, curves, search=found)


def _dfq(job: Job) -> Outcome:
    config, settings = job.config, job.settings()
    del settings["config"]
    theta = config.theta
    if theta is None:
        theta = evaluate(job.model, job.valid, batch_size=config.batch_size).loss + 0.05
    try:
        found = dfq(
            job.model,
            job.train,
            job.valid,
            theta=theta,
            example=job.example,
            batch_axis=job.batch_axis,
            keep=config.keep,
            epochs=config.search_epochs,
            retrain_epochs=config.retrain_epochs,
            folder=job.folder,
            resume=True,
            **settings,
        )
    except KeyboardInterrupt:
        raise Stopped(job.folder) from None
    job.report(line("DFQ", f"{schemes(found)}; {bits(found)} bits on average"))
    job.report(line("", found.verdict))
    return Outcome(found, found.model, {}, search=found)


def _fixed(job: Job) -> Outcome:
    config = job.config
    return _retrained(job, job.quantized(config.weights, config.activations), "quantized")


def _policy(job: Job) -> Outcome:
    assert job.config.policy is not None
    policy = Policy.from_json(job.config.policy)
    return _retrained(job, policy.apply(job.model, job.example, batch_axis=job.batch_axis), "policy")


def _retrained(job: Job, network: GraphModule, word: str) -> Outcome:
    """Running averages from a few batches, then training."""
    config = job.config
    calibrate(trainable(network), job.examples)
    before, policy = job.score(network), Policy.of(network)
    job.report(line(word, f"{schemes(policy)}: {scored(before)}"))
    history = job.fit(network, config.retrain_epochs, config.retrain_lr, "quantized.npz", "retrained")
    told = f"{config.retrain_epochs} epochs: {scored(job.score(network))}, {sum(history.seconds):.0f} s"
    job.report(line("retrained", told))
    return Outcome(policy, network, {"retrained": history[column(job)] if len(history) else []}, before)


def baselines(job: Job) -> Iterator[tuple[str, Policy, Score]]:
    """Uniform policies of at most the target's width, each shown the data as often as in search and retraining."""
    config = job.config
    width = int(config.target_bits)
    for notation in default_candidates(width):
        letter = scheme(notation).letter
        if scheme(notation).bits > width:
            continue
        other = f"C-{width}" if letter in NOT_AFTER_RELU else notation
        sides = targets(config)
        network = job.quantized(notation if sides["weights"] else None, other if sides["activations"] else None)
        calibrate(trainable(network), job.examples)
        epochs = config.search_epochs + config.retrain_epochs
        job.fit(network, epochs, config.retrain_lr, f"baseline-{notation}.npz", f"{notation}/{other}")
        yield f"{notation}/{other}", Policy.of(network), job.score(network)


def column(job: Job) -> str:
    """Where the trainer's history has the score on the test data."""
    return "valid_accuracy" if isinstance(job.test, Split) else "valid_perplexity"
