"""The main job: train a float network, put quantizers into its graph, train on, and say what it cost and what it saved.

    data -> models.create -> Trainer.fit -> graph.generate -> calibrate -> Trainer.fit -> summary

`run(config, folder)` does it all and can be stopped and resumed anywhere. It leaves in the folder

    config.json      what was asked for           result.json    what came out, with versions, seeds and times
    float.npz        the float network            quantized.npz  the quantized one; both are checkpoints
    report.png       both in one picture
"""

from __future__ import annotations

import dataclasses
import json
import math
import os
import time
from collections.abc import Callable
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np

from tinyqnn import data, files, graph, kernels, models, optim, random
from tinyqnn.data.dataset import Corpus, Dataset, Split
from tinyqnn.nn import Module
from tinyqnn.provenance import environment
from tinyqnn.quant import calibrate, scheme
from tinyqnn.tensor import Tensor
from tinyqnn.train import History, Score, Trainer, evaluate

CALIBRATION_BATCHES = 8


@dataclass(frozen=True)
class Config:
    """All that decides the outcome of a run; two runs with equal configs on one machine end with the same bits.

    weights, activations   schemes, such as "C-3"; None leaves that side in float
    keep                   expensive layers left in float: "first", "last", or names
    lr, retrain_lr         where the cosine of the learning rate begins, before and after quantization
    """

    dataset: str = "glyphs"
    model: str = "lenet-bn"
    weights: str | None = "C-3"
    activations: str | None = "C-3"
    keep: tuple[str, ...] = ()
    epochs: int = 6
    retrain_epochs: int = 4
    batch_size: int = 64
    lr: float = 0.05
    retrain_lr: float = 0.02
    weight_decay: float = 1e-4
    augment: bool = False
    clip_norm: float | None = None
    seed: int = 0

    def __post_init__(self) -> None:
        if self.epochs < 1 or self.retrain_epochs < 0 or self.batch_size < 2:
            raise ValueError(
                f"epochs is 1 or more, retrain_epochs 0 or more and batch_size 2 or more, "
                f"got {self.epochs}, {self.retrain_epochs} and {self.batch_size}"
            )


RECIPES: dict[str, dict[str, Any]] = {
    "glyphs": {"model": "lenet-bn"},
    "rings": {"model": "fcdnn-128-4", "epochs": 20, "retrain_epochs": 10, "batch_size": 100},
    "mnist": {"model": "lenet-bn", "epochs": 8, "retrain_epochs": 4, "weight_decay": 5e-4},
    "cifar10": {
        "model": "resnet20-16",
        "epochs": 10,
        "retrain_epochs": 5,
        "batch_size": 128,
        "lr": 0.1,
        "augment": True,
    },
    "grammar": {"model": "lstm-64", "epochs": 6, "retrain_epochs": 3, "batch_size": 20, "lr": 8.0, "retrain_lr": 2.0}
    | {"clip_norm": 0.25, "weight_decay": 0.0},
    "ptb": {"model": "lstm-300", "epochs": 9, "retrain_epochs": 4, "batch_size": 20, "lr": 4.0, "retrain_lr": 1.0}
    | {"clip_norm": 0.25, "weight_decay": 0.0},
}
"""What `Config` says for a data set unless it is told otherwise."""


@dataclass(frozen=True)
class Result:
    """What a run found. `scores` are those of the test data: float, quantized but not retrained, retrained."""

    config: Config
    scores: dict[str, Score]
    summary: Any
    folder: Path
    seconds: float

    def to_json(self) -> dict[str, Any]:
        """The result as result.json has it."""
        return {
            "config": dataclasses.asdict(self.config),
            "scores": {name: {"loss": s.loss, "accuracy": s.accuracy} for name, s in self.scores.items()},
            "layers": self.summary.rows,
            "totals": self.summary.totals,
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
    known to be there.
    """
    started = time.perf_counter()
    rng = random.manual_seed(config.seed)
    source = data.load(config.dataset, root=root, download=download)
    report(f"{config.dataset:<10} {_described(source)}, {time.perf_counter() - started:.1f} s")
    if source.note:
        report(f"{'':<10} {source.note}")
    train, test = source.train, source.test
    if _never_compiled():
        report(f"{'kernels':<10} the first steps take longer: they compile the kernels, once")

    model = models.create(config.model, **_sizes(source), rng=rng)
    parameters = sum(parameter.size for parameter in model.parameters())
    examples = [_batch(train, config.batch_size, number) for number in range(CALIBRATION_BATCHES)]
    _quantized(config, model, examples[:1])  # a scheme or a layer that does not fit is better known before the training
    folder = _made(folder, config)
    floating = _train(config, model, train, test, config.epochs, config.lr, folder / "float.npz", "float")
    if floating.interrupted:
        raise Stopped(folder)
    scores = {"float": _evaluated(config, model, test)}
    report(
        f"{'float':<10} {config.model}, {parameters:,} parameters, {config.epochs} epochs: "
        f"{_score(scores['float'])}, {sum(floating.seconds):.0f} s"
    )

    random.manual_seed(config.seed + 1)
    qmodel = _quantized(config, model, examples)
    scores["not retrained"] = _evaluated(config, qmodel, test)
    report(
        f"{'quantized':<10} weights {config.weights or 'float'}, activations {config.activations or 'float'}, "
        f"{len(list(_graph(qmodel).quantizers()))} quantizing vertices: {_score(scores['not retrained'])}"
    )

    retrained = _train(
        config, qmodel, train, test, config.retrain_epochs, config.retrain_lr, folder / "quantized.npz", "retrained"
    )
    if retrained.interrupted:
        raise Stopped(folder)
    scores["quantized"] = _evaluated(config, qmodel, test)
    seconds = sum(retrained.seconds)
    report(f"{'retrained':<10} {config.retrain_epochs} epochs: {_score(scores['quantized'])}, {seconds:.0f} s")

    summary = graph.summary(_graph(qmodel))
    report(f"\n{summary}\n\n{_verdict(scores)}")
    result = Result(config, scores, summary, folder, time.perf_counter() - started)
    _write_json(folder / "result.json", result.to_json())
    _draw(result, _graph(qmodel), floating, retrained)
    report(f"{f'{folder}/':<10} result.json  float.npz  quantized.npz  report.png   {result.seconds:.0f} s in all")
    return result


class Stopped(KeyboardInterrupt):
    """Ctrl-C ended the run; `folder` has all that is needed to go on."""

    def __init__(self, folder: Path) -> None:
        super().__init__(f"stopped; what was learned is in {folder}; go on with\n  tinyqnn quantize --resume {folder}")
        self.folder = folder


class CarriesState(Module):
    """A traced language model with the call of an untraced one: without a state it starts from zeros."""

    def __init__(self, model: graph.GraphModule, layers: int, hidden: int) -> None:
        super().__init__()
        self.model, self.layers, self.hidden = model, layers, hidden

    def forward(self, tokens: Any, state: Any = None) -> Any:
        if state is None:
            zeros = np.zeros((self.layers, tokens.shape[1], self.hidden), np.float32)
            state = Tensor(zeros), Tensor(zeros)
        return self.model(tokens, state)


def _quantized(config: Config, model: Module, examples: list[Any]) -> Module:
    """QAG, and running averages from a few batches."""
    schemes: dict[str, Any] = {"weights": config.weights, "activations": config.activations, "keep": config.keep}
    if not isinstance(model, models.LanguageModel):
        qmodel: Module = graph.generate(model, examples[0], **schemes)
    else:
        layers, hidden = model.lstm.num_layers, model.lstm.hidden_size
        zeros = np.zeros((layers, examples[0].shape[1], hidden), np.float32)
        traced = graph.generate(model, (examples[0], (Tensor(zeros), Tensor(zeros))), batch_axis=1, **schemes)
        qmodel = CarriesState(traced, layers, hidden)
    calibrate(qmodel, examples)
    return qmodel


def _graph(qmodel: Module) -> graph.GraphModule:
    """The traced network in a quantized model."""
    return qmodel.model if isinstance(qmodel, CarriesState) else qmodel  # type: ignore[return-value]


def _train(
    config: Config, model: Module, train: Any, test: Any, epochs: int, lr: float, checkpoint: Path, label: str
) -> History:
    """Train with a cosine rate, or go on from the checkpoint."""
    optimizer = optim.SGD(
        model.parameters(), lr=lr, momentum=0.9 if isinstance(train, Split) else 0.0, weight_decay=config.weight_decay
    )
    trainer = Trainer(
        model,
        optimizer,
        schedule=optim.CosineAnnealingLR(max(epochs, 1)),
        batch_size=config.batch_size,
        augment=data.crop_and_flip if config.augment else None,
        clip_norm=config.clip_norm,
        seed=config.seed,
        config=dataclasses.asdict(config),
    )
    return trainer.fit(train, test, epochs=epochs, checkpoint=checkpoint, resume=True, label=label)


def _never_compiled() -> bool:
    """Is this the first run of this copy, as far as the folder beside the kernels tells?"""
    cache = Path(kernels.__file__).parent / "__pycache__"
    return not (kernels.use_reference() or "NUMBA_CACHE_DIR" in os.environ or any(cache.glob("*.nbi")))


def _evaluated(config: Config, model: Module, test: Any) -> Score:
    """The score on the test data; a text is read in as many rows as in training, which decides how far it remembers."""
    return evaluate(model, test, batch_size=256 if isinstance(test, Split) else config.batch_size)


def _sizes(source: Dataset | Corpus) -> dict[str, int]:
    """What `models.create` has to know of the data."""
    if isinstance(source, Corpus):
        return {"classes": len(source.vocabulary)}
    shape = source.train.x.shape[1:]
    return {"channels": shape[0], "classes": len(source.classes), "in_features": math.prod(shape)}


def _batch(train: Any, batch_size: int, number: int) -> Tensor:
    """One batch of training data in the order it lies there, for tracing and calibration."""
    if isinstance(train, Split):
        return Tensor(train.inputs(slice(number * batch_size, (number + 1) * batch_size)))
    piece = 35 * batch_size
    return Tensor(train[number * piece : (number + 1) * piece].reshape(batch_size, 35).T)


def _described(source: Dataset | Corpus) -> str:
    """How much data there is, and where it is from."""
    if isinstance(source, Corpus):
        text = f"{len(source.train):,} training and {len(source.test):,} test words out of {len(source.vocabulary):,}"
    else:
        text = f"{len(source.train):,} training and {len(source.test):,} test examples in {len(source.classes)} classes"
    return f"{text}, {'read from ' + source.source if source.source else 'made on the spot'}"


def _score(score: Score) -> str:
    """Accuracy in per cent, or perplexity."""
    return f"{100 * score.accuracy:.2f} %" if score.accuracy is not None else f"perplexity {score.perplexity:.1f}"


def _verdict(scores: dict[str, Score]) -> str:
    """The two scores that count, side by side."""
    first, last = scores["float"], scores["quantized"]
    text = f"{'compared':<10} float {_score(first)}   quantized {_score(last)}"
    if first.accuracy is not None and last.accuracy is not None:
        return f"{text}   ({100 * (last.accuracy - first.accuracy):+.2f} points)"
    return f"{text}   ({100 * (last.perplexity / first.perplexity - 1):+.1f} %)"


def _write_json(path: Path, content: dict[str, Any]) -> None:
    with files.atomic_write(path, overwrite=True) as file:
        file.write((json.dumps(content, indent=2, ensure_ascii=False) + "\n").encode())


def _draw(result: Result, qmodel: graph.GraphModule, floating: History, retrained: History) -> None:
    """report.png"""
    from tinyqnn.report import draw

    config, scores, rows = result.config, result.scores, result.summary.rows
    column = "valid_accuracy" if scores["float"].accuracy is not None else "valid_perplexity"
    percent = 100 if column == "valid_accuracy" else 1
    slots = [slot for slot in qmodel.quantizers() if slot.role == "weights"]
    weights = None
    if slots:
        largest = max(slots, key=lambda slot: slot.elements)
        before = dict(qmodel.named_parameters())[largest.name.replace(".quant.", ".")].data
        weights = (largest.feeds, before, largest.module.scheme.quantize(before))
    draw(
        result.folder / "report.png",
        f"{config.dataset}, {config.model}: {_score(scores['float'])} float, {_score(scores['quantized'])} "
        f"with weights {config.weights or 'float'} and activations {config.activations or 'float'}",
        {
            "float": [percent * value for value in floating[column]],
            "quantized": [percent * value for value in retrained[column]],
        },
        "accuracy on the test data (%)" if percent == 100 else "perplexity on the test data",
        weights,
        [(row["layer"], row["float32_bytes"], row["bytes"]) for row in rows],
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
        _write_json(folder / "config.json", dataclasses.asdict(config))
    return folder


def main(args: Any) -> int:
    """`tinyqnn quantize`: `args` are the parsed arguments, see `tinyqnn.cli`."""
    folder = None
    if args.resume:
        folder = Path(args.resume)
        config = _read_config(folder)
    else:
        config = configure(
            args.dataset,
            model=args.model,
            weights=args.weights,
            activations=args.activations,
            keep=args.keep,
            epochs=args.epochs,
            retrain_epochs=args.retrain_epochs,
            batch_size=args.batch_size,
            seed=args.seed,
        )
        if args.out is not None:
            folder = _free(Path(args.out).expanduser())
    run(config, folder, root=args.root, download=args.download)
    return 0


def configure(dataset: str, **wishes: Any) -> Config:
    """The recipe for a data set, with what was wished for otherwise; None is no wish.

    weights, activations   a notation, or "float"
    keep                   names with commas, or "none"

    Raises ValueError for what does not exist, before anything is trained.

    >>> configure("glyphs", weights="P-3", activations="float").weights
    'P-3'
    """
    recipe = dict(RECIPES.get(dataset, {})) | {name: wish for name, wish in wishes.items() if wish is not None}
    for side in ("weights", "activations"):
        if recipe.get(side) is not None:
            recipe[side] = None if recipe[side] == "float" else scheme(recipe[side]).notation
    if isinstance(recipe.get("keep"), str):
        recipe["keep"] = tuple(name for name in recipe["keep"].split(",") if name not in ("", "none"))
    if dataset not in RECIPES:
        if dataset in data.NAMES:
            raise ValueError(f"there is no recipe for {dataset} yet; there are {', '.join(RECIPES)}")
        data.load(dataset)  # says what there is, and what was probably meant
    return Config(dataset=dataset, **recipe)


def _free(folder: Path) -> Path:
    """`folder`, if no run is in it: what another run left is not touched."""
    if (folder / "config.json").exists():
        raise FileExistsError(
            f"{folder} has a run in it already; go on with it by --resume {folder}, or choose another --out"
        )
    return folder


def _read_config(folder: Path) -> Config:
    """What the run in `folder` was asked for."""
    path = folder / "config.json"
    try:
        content = json.loads(path.read_text(encoding="utf-8"))
        return Config(**{**content, "keep": tuple(content["keep"])})
    except FileNotFoundError:
        raise FileNotFoundError(
            f"{folder} holds no run: there is no {path}; runs are folders such as runs/glyphs-1"
        ) from None
    except (json.JSONDecodeError, TypeError, KeyError) as error:
        raise ValueError(f"{path} is not what a run wrote ({error}); begin a new run") from None
