"""What the experiments on pictures share: a float network that is trained once, and retraining that treats all alike.

A search only chooses: whatever is compared, found schemes and fixed ones, is put into the same float network and
retrained for the same number of epochs at the same rates.
"""

from __future__ import annotations

import hashlib
import json
from collections.abc import Sequence
from dataclasses import asdict, dataclass
from typing import Any

import numpy as np

from tinyqnn import data, graph, models, optim, quant, random
from tinyqnn.data.dataset import Split
from tinyqnn.nn import Module
from tinyqnn.papers.experiment import Report
from tinyqnn.search import Policy
from tinyqnn.tensor import Tensor
from tinyqnn.train import Trainer

CALIBRATION = 4  # batches from which running averages of activations start


@dataclass(frozen=True)
class Task:
    """Data, network, and how both are trained. `train` and `test` are how many pictures; 0 is all."""

    dataset: str
    model: str
    train: int
    test: int
    epochs: int
    lr: float
    retrain_epochs: int
    retrain_lr: float
    batch: int = 64
    weight_decay: float = 5e-4
    augment: bool = False

    def split(self) -> tuple[Split, Split, str]:
        """Training and test pictures, and what has to be said of this copy of the data."""
        found = data.load(self.dataset)
        assert isinstance(found, data.Dataset)
        train, test = (
            part.take(np.arange(count)) if count else part
            for part, count in ((found.train, self.train), (found.test, self.test))
        )
        return train, test, found.note

    def options(self, epochs: int) -> dict[str, Any]:
        """How a `Trainer` trains here, for so many epochs."""
        return {
            "schedule": optim.CosineAnnealingLR(epochs),
            "batch_size": self.batch,
            "augment": data.crop_and_flip if self.augment else None,
        }


def float_network(task: Task, seed: int, train: Split, test: Split, report: Report) -> tuple[Module, float]:
    """The float network of a seed and its accuracy. It lies beside the cells: whichever comes first trains it."""
    rng = random.manual_seed(seed)
    channels = train.x.shape[1]
    model = models.create(task.model, channels=channels, classes=int(train.y.max()) + 1, rng=rng)
    name = hashlib.sha256(json.dumps([asdict(task), seed], sort_keys=True).encode()).hexdigest()[:12]
    path = report.folder.parent / f"float-{name}.npz"
    curve = trained(model, task, task.epochs, task.lr, seed, train, test, path)
    return model, curve[-1]


def trained(
    model: Module, task: Task, epochs: int, lr: float, seed: int, train: Split, test: Split | None, path: Any = None
) -> list[float]:
    """SGD with a cosine rate; the accuracy on the test pictures after each epoch, nothing without such."""
    optimizer = optim.SGD(model.parameters(), lr=lr, momentum=0.9, weight_decay=task.weight_decay)
    trainer = Trainer(model, optimizer, seed=seed, **task.options(epochs))
    history = trainer.fit(train, test, epochs, path, resume=path is not None, progress=False)
    return [] if test is None else [float(value) for value in history["valid_accuracy"]]


def examples(task: Task, train: Split) -> list[Tensor]:
    """The batches that activations are calibrated with."""
    batch = min(task.batch, len(train) // CALIBRATION)
    return [Tensor(train.inputs(slice(i * batch, (i + 1) * batch))) for i in range(CALIBRATION)]


def retrained(
    qmodel: Module, task: Task, seed: int, train: Split, test: Split | None, epochs: int | None = None
) -> list[float]:
    """Calibrate a quantized network and train it on: accuracies after each epoch."""
    random.manual_seed(seed + 1000)
    quant.calibrate(qmodel, examples(task, train))
    epochs = task.retrain_epochs if epochs is None else epochs
    return trained(qmodel, task, epochs, task.retrain_lr, seed + 1000, train, test)


def uniform(model: Module, task: Task, train: Split, schemes: str, keep: Sequence[str]) -> graph.GraphModule:
    """One pair of schemes everywhere, "P-3/C-3", but for the layers in `keep`."""
    weights, activations = schemes.split("/")
    return graph.generate(model, examples(task, train)[0], weights=weights, activations=activations, keep=keep)


def follow(model: Module, task: Task, train: Split, policy: Policy) -> graph.GraphModule:
    """The float network quantized as a policy says."""
    return policy.apply(model, examples(task, train)[0])


def told(policy: Policy) -> dict[str, Any]:
    """A policy as a result keeps it."""
    return {
        "schemes": {choice.vertex: choice.scheme for choice in policy},
        "bits": [policy.average_bits("weights"), policy.average_bits("activations")],
        "bytes": policy.bytes,
    }
