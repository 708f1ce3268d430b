"""From the data to the packed network.

    data -> models.create -> Trainer.fit -> QAG -> a method (methods.py) -> summary -> deploy.pack

Every phase has its checkpoint; a run that was stopped goes on in the middle of the phase it was in.
"""

from __future__ import annotations

import json
import math
import time
from collections.abc import Callable
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np

from tinyqnn import data, files, graph, models, random, warmup
from tinyqnn.data.dataset import Corpus, Dataset, Split
from tinyqnn.graph import GraphModule
from tinyqnn.nn import Module
from tinyqnn.provenance import environment
from tinyqnn.quantize.config import Config, as_json, configure, read_config
from tinyqnn.quantize.methods import Job, Outcome, Stopped, baselines, check, column, run_method
from tinyqnn.quantize.words import bits, compared, described, line, scored
from tinyqnn.search import CarriesState, Policy
from tinyqnn.search.network import example_of, trainable
from tinyqnn.tensor import Tensor, no_grad
from tinyqnn.train import Score
from tinyqnn.train.score import source_of

CALIBRATION_BATCHES = 8


@dataclass(frozen=True)
class Result:
    """What a run found.

    scores      of the test data: "float", "quantized", and where there are such "not retrained" and "packed"
    policy      the scheme and the width of every tensor
    packed      bytes of the packed file, and how many of the test data it answers as the quantized network does; None
                if this policy has no packed form
    baselines   uniform policies of the same size: (name, bytes, score)

    >>> import dataclasses
    >>> [field.name for field in dataclasses.fields(Result)][:3]
    ['config', 'scores', 'summary']
    """

    config: Config
    scores: dict[str, Score]
    summary: Any
    policy: Policy
    packed: dict[str, Any] | None
    baselines: list[tuple[str, int, Score]]
    course: Any
    folder: Path
    seconds: float

    def to_json(self) -> dict[str, Any]:
        """The result as result.json has it."""
        return {
            "config": as_json(self.config),
            "scores": {name: _plain(score) for name, score in self.scores.items()},
            "layers": self.summary.rows,
            "totals": self.summary.totals,
            "policy": {choice.vertex: choice.scheme for choice in self.policy},
            "packed": self.packed,
            "baselines": [{"policy": name, "bytes": size, **_plain(score)} for name, size, score in self.baselines],
            "course": self.course,
            "seconds": self.seconds,
            "environment": environment(),
        }


def run(
    config: Config,
    folder: Path | None = None,
    report: Callable[[str], None] = print,
    root: str | None = None,
    download: bool = False,
) -> Result:
    """Run the job, or go on with it where `folder` shows that it was stopped.

    folder   where the results go; None: the first of runs/DATASET-1, -2, … that is not there yet
    report   gets what a person would like to read, a line or a table at a time

    Raises Stopped after Ctrl-C, when what was learned is safe. Nothing is written before the data and the model are
    known to be there and what is asked for to be possible.

    >>> import tempfile
    >>> from tinyqnn.quantize.config import configure
    >>> config = configure("rings", method="fixed", model="fcdnn-8-3", epochs=1, retrain_epochs=1, batch_size=1000)
    >>> with tempfile.TemporaryDirectory() as folder:
    ...     result = run(config, Path(folder), report=lambda line: None)
    >>> sorted(result.scores)
    ['float', 'not retrained', 'packed', 'quantized']
    """
    started = time.perf_counter()
    rng = random.manual_seed(config.seed)
    source = data.load(config.dataset, root=root, download=download)
    report(line(config.dataset, f"{described(source)}, {time.perf_counter() - started:.1f} s"))
    if source.note:
        report(line("", source.note))
    job = _job(config, source, models.create(config.model, **_sizes(source), rng=rng), report)
    with warmup.told(lambda: report(line("kernels", "this takes longer now: they are compiled, once for all runs"))):
        check(job)
    job.folder = _made(folder, config)
    try:
        return _phases(job, started)
    except KeyboardInterrupt as stop:  # wherever it came: checkpoints have all that was learned
        raise (stop if isinstance(stop, Stopped) else Stopped(job.folder)) from None


def _phases(job: Job, started: float) -> Result:
    """Train, search or quantize, pack, and tell, from the first phase that the folder does not have yet."""
    config, report = job.config, job.report
    floating = job.fit(job.model, config.epochs, config.lr, "float.npz", "float")
    scores = {"float": job.score(job.model)}
    size = sum(parameter.size for parameter in job.model.parameters())
    report(
        line(
            "float",
            f"{config.model}, {size:,} parameters, {config.epochs} epochs: {scored(scores['float'])}, "
            f"{sum(floating.seconds):.0f} s",
        )
    )

    random.manual_seed(config.seed + 1)
    everywhere = Policy.of(graph.generate(job.model, job.example, batch_axis=job.batch_axis))
    layers = len({choice.feeds for choice in everywhere})
    report(line("QAG", f"{layers} expensive vertices, {len(everywhere)} edges into them for quantizing vertices"))
    outcome = run_method(job)
    scores["quantized"] = job.score(outcome.model)
    if outcome.not_retrained is not None:
        scores["not retrained"] = outcome.not_retrained

    summary = graph.summary(outcome.model)
    report(f"\n{summary}\n")
    packed = _packed(job, outcome.model, scores)
    _tell(job, scores, packed)
    others = _baselines(job, outcome) if config.baselines else []

    _write(job.folder / "policy.json", outcome.policy.to_json())
    course = _course(outcome)
    result = Result(
        config, scores, summary, outcome.policy, packed, others, course, job.folder, time.perf_counter() - started
    )
    _write(job.folder / "result.json", json.dumps(result.to_json(), indent=2, ensure_ascii=False) + "\n")
    _draw(result, outcome, {"float": floating[column(job)], **outcome.curves})
    left = "result.json  policy.json  " + ("model.npz  " if packed else "") + "report.png"
    report(f"{job.folder}/   {left}   {result.seconds:.0f} s in all")
    again = "" if config.dataset == "glyphs" else f" {config.dataset}"
    report(line("next", f"edit policy.json, then  tinyqnn quantize{again} --policy {job.folder / 'policy.json'}"))
    return result


def _job(config: Config, source: Dataset | Corpus, model: Module, report: Callable[[str], None]) -> Job:
    """The data, split as the method needs it, and something to trace with."""
    train, valid = source.train, source.test
    if config.method == "dfq":  # it learns widths on data that the weights never see
        held = len(train) // 10
        if isinstance(train, Split):
            train, valid = (
                train.take(np.arange(len(train) - held)),
                train.take(np.arange(len(train) - held, len(train))),
            )
        else:
            train, valid = train[:-held], train[-held:]
    example, batch_axis = example_of(model, train, config.batch_size)
    examples = _examples(train, config.batch_size)
    return Job(config, Path(), model, train, valid, source.test, example, batch_axis, examples, report)


def _examples(train: Any, batch_size: int) -> list[Tensor]:
    """The first batches of training data as they lie there, for calibration; fewer where there are not so many."""
    if isinstance(train, Split):
        starts = range(0, len(train), batch_size)[:CALIBRATION_BATCHES]
        return [Tensor(train.inputs(slice(start, start + batch_size))) for start in starts]
    piece = 35 * batch_size
    starts = range(0, len(train) - piece + 1, piece)[:CALIBRATION_BATCHES]
    return [Tensor(train[start : start + piece].reshape(batch_size, 35).T) for start in starts]


def _sizes(source: Dataset | Corpus) -> dict[str, int]:
    """What `models.create` has to know of the data."""
    if isinstance(source, Corpus):
        return {"classes": len(source.vocabulary)}
    shape = source.train.x.shape[1:]
    return {"channels": shape[0], "classes": len(source.classes), "in_features": math.prod(shape)}


def _packed(job: Job, network: GraphModule, scores: dict[str, Score]) -> dict[str, Any] | None:
    """Pack the network into model.npz, ask it the test data, and count where both answer alike."""
    from tinyqnn.deploy import pack

    try:
        packed = pack(network.eval(), job.example)
    except (ValueError, RuntimeError) as error:
        job.report(line("packed", f"not packed: {error}"))
        return None
    packed.save(job.folder / "model.npz")
    runs = trainable(network)
    small = CarriesState(packed, runs.layers, runs.hidden) if isinstance(runs, CarriesState) else packed  # type: ignore[arg-type]
    scores["packed"] = job.score(small)
    agree, count = _agreement(runs, small, job)
    return {"bytes": packed.nbytes, "agree": agree, "of": count}


def _agreement(one: Module, other: Module, job: Job) -> tuple[int, int]:
    """On how many of the test data both give the highest score to the same class or word; and of how many."""
    source = source_of(job.test, 256 if isinstance(job.test, Split) else job.config.batch_size, 35)
    agree, count, states = 0, 0, (None, None)
    with no_grad():
        for x, y in source.batches(None):
            outputs, _, first = source.forward(one, x, y, states[0])
            others, targets, second = source.forward(other, x, y, states[1])
            states = (first, second)
            agree += int((outputs.data.argmax(axis=1) == others.data.argmax(axis=1)).sum())
            count += len(targets)
    return agree, count


def _tell(job: Job, scores: dict[str, Score], packed: dict[str, Any] | None) -> None:
    """The scores that count, side by side."""
    word = "accuracy" if scores["float"].accuracy is not None else "perplexity"
    told = [f"{name} {scored(scores[name]).removeprefix('perplexity ')}" for name in ("float", "quantized")]
    told[-1] += f" ({compared(scores['float'], scores['quantized'])})"
    if packed is not None:
        told.append(f"packed {scored(scores['packed']).removeprefix('perplexity ')}")
        told[-1] += f" ({packed['agree']:,} of {packed['of']:,} agree)"
    job.report(line(word, "   ".join(told)))
    if packed is not None:
        job.report(line("file", f"model.npz, {packed['bytes']:,} bytes with its header"))


def _baselines(job: Job, outcome: Outcome) -> list[tuple[str, int, Score]]:
    """Train the uniform policies and say which is the best."""
    found = []
    for name, policy, score in baselines(job):
        found.append((name, policy.bytes, score))
        job.report(line("uniform", f"{name:<8} {scored(score)}, {policy.bytes:,} bytes"))
    name, _, score = min(found, key=lambda row: row[2].loss if row[2].accuracy is None else -row[2].accuracy)
    job.report(
        line("best", f"of the uniform policies: {name}, {scored(score)}; searched: {outcome.policy.bytes:,} bytes")
    )
    return found


def _course(outcome: Outcome) -> Any:
    """How the search went, for result.json."""
    search = outcome.search
    if hasattr(search, "schemes"):
        return {"probabilities": search.schemes.course, "bits": search.precision.course}
    return {"rows": search.history} if search is not None else None


def _plain(score: Score) -> dict[str, float | None]:
    return {"loss": score.loss, "accuracy": score.accuracy}


def _write(path: Path, text: str) -> None:
    with files.atomic_write(path, overwrite=True) as file:
        file.write(text.encode("utf-8"))


def _draw(result: Result, outcome: Outcome, curves: dict[str, list[float]]) -> None:
    """report.png"""
    from tinyqnn.quantize.report import draw

    config, scores = result.config, result.scores
    percent = 100 if scores["float"].accuracy is not None else 1
    slots = [slot for slot in outcome.model.quantizers() if slot.role == "weights"]
    weights = None
    if slots:
        largest = max(slots, key=lambda slot: slot.elements)
        before = dict(outcome.model.named_parameters())[result.policy[largest.name].source].data
        weights = (f"{largest.feeds}, {largest.module.scheme.notation}", before, largest.module.scheme.quantize(before))
    draw(
        result.folder / "report.png",
        f"{config.dataset}, {config.model}: {scored(scores['float'])} float, {scored(scores['quantized'])} at "
        f"{bits(result.policy)} bits",
        {name: [percent * value for value in curve] for name, curve in curves.items()},
        "accuracy on the test data (%)" if percent == 100 else "perplexity on the test data",
        weights,
        [(row["layer"], row["float32_bytes"], row["bytes"]) for row in result.summary.rows],
        result.policy,
        result.course if config.method == "autoqnn" else None,
    )


def _made(folder: Path | None, config: Config) -> Path:
    """The folder of this run, made, with config.json in it."""
    number = 1
    while folder is None:
        candidate = Path("runs") / f"{config.dataset}-{number}"
        try:
            candidate.mkdir(parents=True)
            folder = candidate
        except FileExistsError:
            number += 1
    folder.mkdir(parents=True, exist_ok=True)
    if not (folder / "config.json").exists():
        _write(folder / "config.json", json.dumps(as_json(config), indent=2, ensure_ascii=False) + "\n")
    return folder


def main(args: Any) -> int:
    """`tinyqnn quantize`: `args` are the parsed arguments, see `tinyqnn.cli`."""
    folder = None
    if args.resume:
        folder = Path(args.resume)
        config = read_config(folder)
    else:
        wishes = [
            *("model", "method", "target_bits", "weights", "activations", "policy", "theta", "keep", "epochs"),
            *("search_epochs", "retrain_epochs", "batch_size", "baselines", "seed"),
        ]
        config = configure(
            args.dataset, fine=False if args.coarse else None, **{name: getattr(args, name) for name in wishes}
        )
        if args.out is not None:
            folder = _free(Path(args.out).expanduser())
    run(config, folder, root=args.root, download=args.download)
    return 0


def _free(folder: Path) -> Path:
    """`folder`, if no run is in it: what another run left is not touched."""
    if (folder / "config.json").exists():
        raise FileExistsError(
            f"{folder} has a run in it already; go on with it by --resume {folder}, or choose another --out"
        )
    return folder
