"""What a search does before it searches: quantizing vertices in every place, and something that can be trained.

A language model is traced with the state that it carries from one piece of text to the next; trained and evaluated it
starts from none. `CarriesState` stands between the two.
"""

from __future__ import annotations

from collections.abc import Callable, Iterable, Mapping
from typing import Any

import numpy as np

from tinyqnn.data.dataset import Split
from tinyqnn.files.atomic import PathLike
from tinyqnn.graph import GraphModule, generate
from tinyqnn.graph.vertices import Input
from tinyqnn.models import LanguageModel
from tinyqnn.nn import Module
from tinyqnn.optim import SGD, CosineAnnealingLR, Optimizer
from tinyqnn.tensor import Tensor
from tinyqnn.train import History, Hook, Trainer

OptimizerOf = Callable[[list[Tensor]], Optimizer]


class CarriesState(Module):
    """A traced language model with the call of an untraced one: without a state it starts from zeros.

    >>> from tinyqnn import models
    >>> model = models.LanguageModel(words=9, embedding=4, hidden=4)
    >>> example, _ = example_of(model, np.arange(99) % 9, size=2)
    >>> CarriesState(generate(model, example, batch_axis=1), layers=1, hidden=4)(Tensor(np.zeros((3, 2), int)))[0].shape
    (3, 2, 9)
    """

    def __init__(self, model: GraphModule, layers: int, hidden: int) -> None:
        super().__init__()
        self.model, self.layers, self.hidden = model, layers, hidden

    def forward(self, tokens: Any, state: Any = None) -> Any:
        if state is None:
            zeros = np.zeros((self.layers, tokens.shape[1], self.hidden), np.float32)
            state = Tensor(zeros), Tensor(zeros)
        return self.model(tokens, state)


def example_of(model: Module, train: Any, size: int = 8) -> tuple[Any, int]:
    """An example to trace `model` with, out of its training data, and the axis that counts samples.

    A Split gives its first `size` inputs; a text 35 words of `size` rows and, for a LanguageModel, a state of zeros.
    """
    if isinstance(train, Split):
        return Tensor(train.inputs(slice(0, size))), 0
    if not isinstance(model, LanguageModel):
        raise TypeError(
            f"how is a {type(model).__name__} called with text? Pass example=(tokens, (h, c)), as its forward takes "
            "them, and batch_axis=1"
        )
    tokens = Tensor(np.asarray(train)[: 35 * size].reshape(size, -1).T)  # (T, N)
    zeros = np.zeros((model.lstm.num_layers, tokens.shape[1], model.lstm.hidden_size), np.float32)
    return (tokens, (Tensor(zeros), Tensor(zeros))), 1


def traced(model: Module, train: Any, example: Any = None, batch_axis: int = 0) -> tuple[GraphModule, Any]:
    """The float network as a copy of its own, and an example of its inputs (None if it was traced already)."""
    if isinstance(model, GraphModule):
        return model.without_quantizers(), example
    if example is None:
        example, batch_axis = example_of(model, train)
    return generate(model, example, batch_axis=batch_axis), example


def trainable(network: Module) -> Module:
    """The network as `Trainer` and `evaluate` call it: one that was traced with (tokens, (h, c)) starts from zeros."""
    if not isinstance(network, GraphModule):
        return network
    inputs = network.graph.inputs
    if len(inputs) != 2 or not isinstance(inputs[1], (tuple, list)) or not isinstance(inputs[1][0], Input):
        return network
    by_number = {vertex.value: vertex for vertex in network.graph if vertex.kind == "input"}
    layers, _, hidden = by_number[inputs[1][0].number].shapes[0]  # (layers, N, hidden)
    return CarriesState(network, layers, hidden)


def fit(
    network: Module,
    train: Any,
    valid: Any,
    epochs: int,
    hook: Hook | None = None,
    searched: Iterable[Tensor] = (),
    settings: Mapping[str, Any] | None = None,
    *,
    lr: float = 0.01,
    weight_decay: float = 0.0,
    optimizer: OptimizerOf | None = None,
    checkpoint: PathLike | None = None,
    resume: bool = False,
    progress: bool | None = None,
    label: str = "training",
    config: Mapping[str, Any] | None = None,
    **more: Any,
) -> History:
    """Train the weights, the same way whatever is searched for meanwhile.

    hook, searched   what is searched for: the hook moves these parameters, the optimizer all others
    settings         what of the search the checkpoint keeps: gone on from it is only with the same
    optimizer        a function of the parameters, or None: SGD with momentum 0.9, for text without
    checkpoint       a file, written after each epoch and on Ctrl-C; with `resume` it is gone on from
    progress         None: a bar on a terminal, a line an epoch elsewhere; False: nothing
    more             what else `Trainer` takes: loss, batch_size, seq_len, augment, clip_norm, seed, and schedule; by
                     default a cosine from `lr` to 0 over all epochs

    >>> from tinyqnn import nn
    >>> split = Split([[-1.0], [1.0], [-2.0], [2.0]], [0, 1, 0, 1])
    >>> history = fit(nn.Linear(1, 2, rng=np.random.default_rng(0)), split, split, 3, lr=0.5, progress=False)
    >>> history["valid_accuracy"][-1]
    1.0
    """
    model, left_out = trainable(network), {id(parameter) for parameter in searched}
    params: list[Tensor] = [p for p in model.parameters() if id(p) not in left_out]
    if optimizer is not None:
        made = optimizer(params)
    else:
        made = SGD(params, lr=lr, momentum=0.9 if isinstance(train, Split) else 0.0, weight_decay=weight_decay)
    more = {"schedule": CosineAnnealingLR(max(epochs, 1)), **more}
    config = {**(config or {}), **(settings or {}), "epochs": epochs}
    trainer = Trainer(model, made, hooks=() if hook is None else (hook,), config=config, **more)
    return trainer.fit(train, valid, epochs, checkpoint, resume, progress=progress, label=label)
