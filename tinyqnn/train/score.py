"""How good is a model? Walk through data without learning, and keep the sums.

Data are examples that have nothing to do with each other, or a running text whose state is carried on; training and
evaluation walk through both in the same way.
"""

from __future__ import annotations

import math
import zlib
from collections.abc import Callable
from dataclasses import dataclass
from typing import Any, NamedTuple, Union

import numpy as np

from tinyqnn.data.dataset import Split
from tinyqnn.data.loader import Augment, batches, bptt_batches
from tinyqnn.functional import cross_entropy
from tinyqnn.nn import Module
from tinyqnn.nn.module import evaluating
from tinyqnn.tensor import Array, Tensor, no_grad

Loss = Callable[[Tensor, Any], Tensor]
Data = Union[Split, Array]
Batches = Union[batches, bptt_batches]


class Score(NamedTuple):
    """The mean loss, and the part of the examples that is answered rightly (None where that makes no sense).

    >>> Score(loss=0.0, accuracy=1.0).perplexity
    1.0
    """

    loss: float
    accuracy: float | None

    @property
    def perplexity(self) -> float:
        """e to the loss: of a text, among how many words the model hesitates."""
        return math.exp(min(self.loss, 700.0))


def evaluate(model: Module, data: Data, batch_size: int = 256, loss: Loss = cross_entropy, seq_len: int = 35) -> Score:
    """The loss and the accuracy of a model on a Split, or its loss and perplexity on a text (a row of token numbers).

    The model is put into evaluation mode and left as it was. `seq_len` is for texts: words a piece.

    >>> from tinyqnn import nn
    >>> score = evaluate(nn.Identity(), Split([[2.0, 0.0], [0.0, 2.0]], [0, 0]))
    >>> round(score.loss, 3), score.accuracy
    (1.127, 0.5)
    """
    score = score_of(model, source_of(data, batch_size, seq_len), loss, lambda: False)
    assert score is not None
    return score


def score_of(model: Module, source: Source, loss: Loss, stopped: Callable[[], bool]) -> Score | None:
    """The score, or None if `stopped` before the end."""
    sums, carried = Sums(source.measure), None
    with evaluating(model), no_grad():
        for x, y in source.batches(None):
            outputs, targets, carried = source.forward(model, x, y, carried)
            sums.add(loss(outputs, targets), outputs, targets)
            if stopped():
                return None
    return sums.score()


@dataclass
class Sums:
    """Running sums of an epoch, from which its score is made."""

    measure: str | None
    loss: float = 0.0
    right: int = 0
    count: int = 0

    def add(self, loss: Tensor, outputs: Tensor, y: Array) -> None:
        self.loss += float(loss.item()) * len(y)
        self.count += len(y)
        if self.measure == "accuracy":
            self.right += int((outputs.data.argmax(axis=1) == y).sum())

    def score(self) -> Score:
        return Score(self.loss / self.count, self.right / self.count if self.measure == "accuracy" else None)


class Examples:
    """Examples that have nothing to do with each other: model(x) is compared with y."""

    def __init__(self, split: Split, batch_size: int, augment: Augment | None = None, drop_last: bool = False) -> None:
        self.split, self.batch_size, self.augment, self.drop_last = split, batch_size, augment, drop_last
        self.measure = "accuracy" if split.y.ndim == 1 and split.y.dtype.kind in "iu" else None

    def batches(self, rng: np.random.Generator | None, start: int = 0) -> Batches:
        augment = None if rng is None else self.augment
        return batches(self.split, self.batch_size, rng, augment, self.drop_last, start)

    def forward(self, model: Module, x: Array, y: Array, carried: Any) -> tuple[Tensor, Array, Any]:
        return model(Tensor(x)), y, None

    def fingerprint(self) -> dict[str, Any]:
        split = self.split
        return {"examples": len(split), "shape": list(split.x.shape[1:]), "answers": zlib.crc32(split.y.tobytes())}


class Text:
    """Running text: model(x, state) gives scores of every word at every place, and the state for the next piece.

    Back-propagation through time is cut between the pieces: the state is carried over, its history is not.
    """

    measure = "perplexity"

    def __init__(self, tokens: Array, batch_size: int, seq_len: int) -> None:
        self.tokens, self.batch_size, self.seq_len = tokens, batch_size, seq_len

    def batches(self, rng: np.random.Generator | None, start: int = 0) -> Batches:
        return bptt_batches(self.tokens, self.batch_size, self.seq_len, start=start)

    def forward(self, model: Module, x: Array, y: Array, carried: Any) -> tuple[Tensor, Array, Any]:
        logits, state = model(Tensor(x), carried)  # (T, N) -> (T, N, words)
        return logits.reshape(-1, logits.shape[-1]), y.reshape(-1), map_state(lambda tensor: tensor.detach(), state)

    def fingerprint(self) -> dict[str, Any]:
        return {"tokens": len(self.tokens), "content": zlib.crc32(np.ascontiguousarray(self.tokens).tobytes())}


Source = Union[Examples, Text]


def source_of(
    data: Data, batch_size: int, seq_len: int, augment: Augment | None = None, drop_last: bool = False
) -> Source:
    """A Split is examples, a row of whole numbers is a text."""
    if isinstance(data, Split):
        return Examples(data, min(batch_size, len(data)), augment, drop_last)
    if isinstance(data, np.ndarray) and data.ndim == 1 and data.dtype.kind in "iu":
        return Text(data, batch_size, seq_len)
    raise TypeError(
        f"expected a Split, or a text as a one-dimensional array of token numbers, got {type(data).__name__}; "
        "of a Dataset or Corpus pass .train"
    )


def map_state(function: Callable[[Any], Any], state: Any) -> Any:
    """The state of a recurrent network, tensors or arrays in nested tuples, with `function` applied to each."""
    if isinstance(state, (tuple, list)):
        return tuple(map_state(function, part) for part in state)
    return None if state is None else function(state)
