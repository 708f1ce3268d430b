"""A training run sees its data as small batches in a fresh random order each epoch.

All that is random about an epoch is drawn at its beginning: the order, and one number from which every batch derives
its own augmentation. So batch 17 of an epoch can be made without making the sixteen before it, and a run that was
stopped there goes on exactly as if it had not been.
"""

from __future__ import annotations

from collections.abc import Callable, Iterator

import numpy as np
from numpy.typing import NDArray

from .dataset import Split, pick

Augment = Callable[[NDArray, np.random.Generator], NDArray]


class batches:
    """Mini-batches (x, y) of a split: x as `Split.inputs` gives it, y (B,). Has a `len`; can be walked more than once.

    rng        shuffles; None keeps the order of the split
    augment    a function (images, generator) -> images, applied to the stored images before they are normalized;
               needs an rng
    drop_last  leaves out a last batch that is not full
    start      the batch to begin with. To resume in the middle of an epoch, give the rng the state it had before the
               epoch's `batches` was called, and the number of the batch that comes next

    >>> split = Split(np.arange(10.0).reshape(5, 2), range(5))
    >>> [y.tolist() for x, y in batches(split, 2)]
    [[0, 1], [2, 3], [4]]
    >>> whole = [y.tolist() for x, y in batches(split, 2, np.random.default_rng(0))]
    >>> rest = [y.tolist() for x, y in batches(split, 2, np.random.default_rng(0), start=1)]
    >>> rest == whole[1:]
    True
    """

    def __init__(
        self,
        split: Split,
        batch_size: int,
        rng: np.random.Generator | None = None,
        augment: Augment | None = None,
        drop_last: bool = False,
        start: int = 0,
    ) -> None:
        n = len(split)
        self.count = n // batch_size if drop_last and batch_size > 0 else -(-n // max(batch_size, 1))
        if batch_size < 1 or self.count == 0:
            raise ValueError(f"batch_size: expected 1 … {n} for {n} examples, got {batch_size}")
        if not 0 <= start <= self.count:
            raise ValueError(f"start: expected 0 … {self.count}, the number of batches, got {start}")
        if augment is not None and rng is None:
            raise ValueError("augment draws random numbers; pass an rng")
        self.split, self.batch_size, self.augment, self.start = split, batch_size, augment, start
        self.order, self.seed = np.arange(n), 0
        if rng is not None:
            self.order, self.seed = rng.permutation(n), int(rng.integers(2**63))

    def __len__(self) -> int:
        return self.count - self.start

    def __iter__(self) -> Iterator[tuple[NDArray, NDArray]]:
        for number in range(self.start, self.count):
            indices = self.order[number * self.batch_size : (number + 1) * self.batch_size]
            if self.augment is None:
                x = self.split.inputs(indices)
            else:
                raw = pick(self.split.x, indices)
                x = self.split.normalize(self.augment(raw, np.random.default_rng((self.seed, number))))
            yield x, self.split.y[indices]


class bptt_batches:
    """Pieces of running text for back-propagation through time: `batch_size` rows of the text read side by side.

    The tokens are cut into `batch_size` rows of equal length (what is left over at the end is not used). Each piece is
    (x, y), both (seq_len, batch_size), or (batch_size, seq_len) if `batch_first`; y is x one word later. A row's
    pieces follow each other, so the state of a recurrent network is carried from one to the next; the last piece may
    be shorter.

    >>> for x, y in bptt_batches(np.arange(9), batch_size=2, seq_len=2):
    ...     print(x.T.tolist(), y.T.tolist())
    [[0, 1], [4, 5]] [[1, 2], [5, 6]]
    [[2], [6]] [[3], [7]]
    """

    def __init__(
        self, tokens: NDArray, batch_size: int, seq_len: int, batch_first: bool = False, start: int = 0
    ) -> None:
        tokens = np.asarray(tokens)
        if tokens.ndim != 1 or tokens.dtype.kind not in "iu":
            raise ValueError(f"tokens: expected one row of integers, got {tokens.dtype} {tokens.shape}")
        if batch_size < 1 or seq_len < 1 or len(tokens) < 2 * batch_size:
            raise ValueError(
                f"batch_size {batch_size}, seq_len {seq_len}: expected at least 1 each, and two of the "
                f"{len(tokens):,} tokens for each row; use smaller ones"
            )
        length = len(tokens) // batch_size
        self.rows = tokens[: length * batch_size].reshape(batch_size, length)
        self.seq_len, self.batch_first = seq_len, batch_first
        self.count = -(-(length - 1) // seq_len)
        if not 0 <= start <= self.count:
            raise ValueError(f"start: expected 0 … {self.count}, the number of pieces, got {start}")
        self.start = start

    def __len__(self) -> int:
        return self.count - self.start

    def __iter__(self) -> Iterator[tuple[NDArray, NDArray]]:
        last = self.rows.shape[1] - 1
        for piece in range(self.start, self.count):
            begin, end = piece * self.seq_len, min((piece + 1) * self.seq_len, last)
            x, y = self.rows[:, begin:end], self.rows[:, begin + 1 : end + 1]  # (B, T)
            yield (x, y) if self.batch_first else (x.T, y.T)  # (T, B)
