"""What figures 6, 7, 8 and table 4 share: a float network on CIFAR-10, and copies in 2 bits trained on from it.

The recipe is Holistic §5.2's: SGD with momentum 0.9, the rate cut to a tenth at a half and at three quarters of the
epochs, weight decay 5e-4; then retraining from a tenth of the rate, cut at 50 % and 80 %, without weight decay. At
scale `small` all is smaller: pictures shrunk to 16×16, a few thousand of them, a few epochs, narrow networks. What a
figure of this paper says is then put to the test on other networks than the paper's; a claim that stays undecided says
so.
"""

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass
from functools import cache
from typing import Any

import numpy as np

from tinyqnn import data, optim
from tinyqnn.data import Dataset, Split
from tinyqnn.nn import Module
from tinyqnn.papers.experiment import Report
from tinyqnn.papers.holistic._retrain import MODES, KeepsBoundsUp, groups, quantized
from tinyqnn.train import Hook, Trainer, evaluate

NOTE = "CIFAR-10 here is a copy whose pictures went through JPEG; accuracies are those of this copy."


@dataclass(frozen=True)
class Size:
    """How much of CIFAR-10, how small, and for how long.

    pictures, test     how many to learn from and to be tested on, drawn once for everybody; 0: all
    side               16: means of 2×2 pixels; 32: as they are; 8: from glyphs' digits, when no data may be asked for
    """

    pictures: int
    test: int
    side: int
    epochs: int
    retrain_epochs: int
    batch_size: int = 128
    lr: float = 0.1


SMOKE = Size(pictures=128, test=64, side=8, epochs=1, retrain_epochs=1, batch_size=64)
SMALL = Size(pictures=6000, test=10000, side=16, epochs=10, retrain_epochs=4, batch_size=64)
PAPER = Size(pictures=0, test=0, side=32, epochs=200, retrain_epochs=100)


@cache
def pictures(size: Size) -> Dataset:
    """The data at a size. At side 8 they are made on the spot, so that a smoke run needs no files."""
    loaded = data.load("glyphs" if size.side == 8 else "cifar10")
    assert isinstance(loaded, Dataset)
    found = loaded
    if size.side == 8:
        found = Dataset("glyphs", _colour(loaded.train), _colour(loaded.test), loaded.classes)
    rng = np.random.default_rng(0)

    def some(split: Split, count: int) -> Split:
        chosen = split if count in (0, len(split)) else split.take(np.sort(rng.choice(len(split), count, False)))
        return Split(shrunk(chosen.x, size.side), chosen.y, chosen.mean, chosen.std)

    return Dataset(found.name, some(found.train, size.pictures), some(found.test, size.test), found.classes, NOTE)


def _colour(split: Split) -> Split:
    """Grey pictures as coloured ones, 32×32: (N, 1, 28, 28) -> (N, 3, 32, 32)."""
    framed = np.pad(split.x[:256], ((0, 0), (0, 0), (2, 2), (2, 2)))
    return Split(np.repeat(framed, 3, axis=1), split.y[:256])


def shrunk(images: Any, side: int) -> Any:
    """Bytes (N, C, H, W) -> (N, C, side, side): the means of squares of pixels, cut to whole numbers.

    >>> shrunk(np.arange(16, dtype=np.uint8).reshape(1, 1, 4, 4), 2)[0, 0].tolist()
    [[2, 4], [10, 12]]
    """
    n, c, height, _ = images.shape
    times = height // side
    if times == 1:
        return images
    squares = images.reshape(n, c, side, times, side, times).astype(np.uint16)
    return (squares.sum(axis=(3, 5)) // times**2).astype(np.uint8)


def augmented(images: Any, rng: np.random.Generator) -> Any:
    """Random crops and mirrors; the frame is an eighth of the picture, 4 at 32×32."""
    return data.crop_and_flip(images, rng, padding=images.shape[-1] // 8)


def fit(
    model: Module,
    split: Split,
    size: Size,
    epochs: int,
    lr: float,
    cuts: Sequence[float],
    weight_decay: float,
    seed: int,
    hooks: Sequence[Hook] = (),
    schedule: optim.Schedule | None = None,
) -> None:
    """SGD; the rate is cut to a tenth at the parts `cuts` of all epochs, unless a schedule is given."""
    optimizer = optim.SGD(groups(model, 5e-4, weight_decay), lr=lr, momentum=0.9)
    steps = schedule or optim.MultiStepLR([cut * epochs for cut in cuts])
    trainer = Trainer(
        model,
        optimizer,
        schedule=steps,
        batch_size=size.batch_size,
        augment=augmented,
        clip_norm=5.0,
        seed=seed,
        hooks=[KeepsBoundsUp(), *hooks],
    )
    trainer.fit(split, epochs=epochs, progress=False)


def pretrain(model: Module, size: Size, seed: int) -> None:
    """The float network."""
    fit(model, pictures(size).train, size, size.epochs, size.lr, (0.5, 0.75), 5e-4, seed)


def retrain(model: Module, size: Size, mode: str, seed: int, bits: int = 2, hooks: Sequence[Hook] = ()) -> Module:
    """A copy with 2 bits where `mode` says (nowhere: "float"), trained on."""
    weights, activations = MODES.get(mode, (False, False))
    train = pictures(size).train
    copy = quantized(model, train.inputs(slice(256)), bits if weights else None, bits if activations else None)
    fit(copy, train, size, size.retrain_epochs, size.lr / 10, (0.5, 0.8), 0.0, seed + 1, hooks)
    return copy


def accuracy(model: Module, size: Size) -> float:
    """Per cent right on the test pictures."""
    return 100 * float(evaluate(model, pictures(size).test).accuracy or 0.0)


def compare(make: Callable[[np.random.Generator], Module], size: Size, seed: int, report: Report) -> dict[str, Any]:
    """Float, W2, A2, W2A2: what figures 6, 7 and 8 show of one network.

    The float network, too, is trained on for as long as its copies in 2 bits: else a short run would take the longer
    training for a gain of quantization.
    """
    model = make(np.random.default_rng(seed))
    pretrain(model, size, seed)
    found = {}
    for mode in ("float", *MODES):
        found[mode] = accuracy(retrain(model, size, mode, seed), size)
        report(f"{mode} {found[mode]:.2f} %")
    return {"parameters": sum(p.size for p in model.parameters()), "accuracy": found}


def described(size: Size) -> str:
    """What was run, in one sentence."""
    count = f"{size.pictures:,}" if size.pictures else "all"
    return (
        f"{count} training pictures of {size.side}×{size.side}, {size.epochs} epochs in float, then "
        f"{size.retrain_epochs} of retraining; mean ± standard deviation over the seeds, in %."
    )


def header(name: str) -> str:
    """The first line of a table whose other lines are `row`s."""
    return f"{name:<24}{'parameters':>11}" + "".join(f"{mode:>13}" for mode in ("float", *MODES))


def row(name: str, found: Sequence[dict[str, Any]]) -> str:
    """A network in a line: its accuracies over the seeds.

    >>> row("tiny", [{"parameters": 9, "accuracy": {"float": 50.0, "W2": 40.0, "A2": 40.0, "W2A2": 30.0}}])[:48]
    'tiny                              9    50.0 ±0.0'
    """
    text = f"{name:<24}{found[0]['parameters']:>11,}"
    for mode in ("float", *MODES):
        values = [one["accuracy"][mode] for one in found]
        text += f"{spread(values):>13}"
    return text


def spread(values: Sequence[float]) -> str:
    """Mean and standard deviation.

    >>> spread([1.0, 2.0, 3.0])
    '2.0 ±1.0'
    """
    return f"{np.mean(values):.1f} ±{_deviation(values):.1f}"


def lines(axes: Any, found: Mapping[Any, Sequence[dict[str, Any]]]) -> None:
    """Accuracies over the keys of `found`, a line a mode, with the standard deviation over the seeds."""
    from tinyqnn import picture

    keys = list(found)
    for number, mode in enumerate(("float", *MODES)):
        values = [[one["accuracy"][mode] for one in found[key]] for key in keys]
        means, spreads = [np.mean(each) for each in values], [_deviation(each) for each in values]
        axes.errorbar(range(len(keys)), means, spreads, capsize=3, label=mode, **picture.line(number))
    axes.set_xticks(range(len(keys)), [str(key) for key in keys])


def _deviation(values: Sequence[float]) -> float:
    return float(np.std(values, ddof=1)) if len(values) > 1 else 0.0
