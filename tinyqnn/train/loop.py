"""Training: show a batch, measure how wrong the answer is, walk the error back, move the weights; again and again.

`Trainer._step` is that sentence in code, `Trainer.fit` the "again and again".
"""

from __future__ import annotations

import math
import time
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

import numpy as np

from tinyqnn import random
from tinyqnn.data.loader import Augment
from tinyqnn.files.atomic import PathLike
from tinyqnn.functional import cross_entropy
from tinyqnn.nn import Module
from tinyqnn.optim import Optimizer, Schedule, clip_grad_norm
from tinyqnn.tensor import Array
from tinyqnn.train import checkpoint as checkpoints
from tinyqnn.train.console import Display, Interrupt
from tinyqnn.train.hook import Hook
from tinyqnn.train.score import Batches, Data, Loss, Score, Source, Sums, score_of, source_of


@dataclass
class History:
    """What a run did: one dictionary an epoch, and its columns by name.

    rows          epoch (from 1), lr, train_loss, train_accuracy, valid_loss, valid_accuracy; perplexity for text
    seconds       how long each epoch took
    interrupted   whether Ctrl-C ended it before its time

    >>> History([{"epoch": 1, "train_loss": 0.5}])["train_loss"]
    [0.5]
    """

    rows: list[dict[str, Any]] = field(default_factory=list)
    seconds: list[float] = field(default_factory=list, compare=False)
    interrupted: bool = field(default=False, compare=False)

    def __getitem__(self, column: str) -> list[Any]:
        return [row[column] for row in self.rows]

    def __len__(self) -> int:
        return len(self.rows)


class Trainer:
    """A model, an optimizer, and how they are brought together with data.

    model        for examples model(x) -> (N, classes); for text model(x, state) -> (scores (T, N, words), state), where
                 x is (T, N) and state None at the beginning
    loss         loss(outputs, answers) -> Tensor of one number, the mean over the answers
    schedule     sets the learning rates before each step, from the epochs that have passed
    batch_size   examples a step, or rows of text side by side; seq_len words of each row a step
    augment      a function (images, generator) -> images for training data, see `tinyqnn.data.crop_and_flip`
    clip_norm    the longest that the gradient of all parameters together may be
    seed         of the order of the data. Dropout and the like use `tinyqnn.default_rng()`, or a generator of their own
    hooks        see `Hook`
    config       anything that JSON can hold; it is kept in the checkpoint, and a resumed run must have the same

    After `epoch` whole epochs and `step` steps of the next one, `fit` can be called again and goes on from there.

    >>> from tinyqnn import data, nn, optim
    >>> rng = np.random.default_rng(0)
    >>> model = nn.Linear(1, 2, rng=rng)
    >>> trainer = Trainer(model, optim.SGD(model.parameters(), lr=0.5), batch_size=2)
    >>> split = data.Split([[-1.0], [1.0], [-2.0], [2.0]], [0, 1, 0, 1])
    >>> trainer.fit(split, split, epochs=10, progress=False)["valid_accuracy"][-1]
    1.0
    """

    def __init__(
        self,
        model: Module,
        optimizer: Optimizer,
        loss: Loss = cross_entropy,
        schedule: Schedule | None = None,
        batch_size: int = 128,
        seq_len: int = 35,
        augment: Augment | None = None,
        drop_last: bool = False,
        clip_norm: float | None = None,
        seed: int = 0,
        hooks: Sequence[Hook] = (),
        config: Mapping[str, Any] | None = None,
    ) -> None:
        self.model, self.optimizer, self.loss, self.schedule = model, optimizer, loss, schedule
        self.batch_size, self.seq_len, self.augment, self.drop_last = batch_size, seq_len, augment, drop_last
        self.clip_norm, self.seed, self.hooks, self.config = clip_norm, seed, tuple(hooks), dict(config or {})
        self.rng = np.random.default_rng(seed)
        self.epoch, self.step = 0, 0
        self.history = History()
        self._order = random.get_state(self.rng)  # the generator's state when the epoch began
        self._carried: Any = None
        self._sums = Sums(None)
        self._elapsed = 0.0
        self._data: dict[str, Any] | None = None
        self._path: Path | None = None

    def fit(
        self,
        train: Data,
        valid: Data | None = None,
        epochs: int = 1,
        checkpoint: PathLike | None = None,
        resume: bool = False,
        overwrite: bool = False,
        checkpoint_steps: int | None = None,
        progress: bool | None = None,
        label: str = "training",
    ) -> History:
        """Train until `epochs` epochs are done, those before included.

        train, valid       a Split, or a text as a row of token numbers. The score on `valid` is taken after each epoch
        checkpoint         a file that is written at the beginning, after each epoch and on Ctrl-C
        resume             if that file is there, go on from it; the run ends as if it had never been stopped
        overwrite          if that file is there, begin anew and replace it
        checkpoint_steps   write it after every so many steps, too
        progress           None: a bar on a terminal, a line an epoch elsewhere (on stderr); False: nothing
        label              the word before the bar

        The first Ctrl-C finishes the step, writes the checkpoint and returns with `history.interrupted`; a second one
        stops at once. Raises FileExistsError for a checkpoint that is there if neither `resume` nor `overwrite`;
        ValueError if the checkpoint is of another model, configuration or data; FloatingPointError when the loss is NaN
        or infinite, and the checkpoint stays what it was before.
        """
        source = source_of(train, self.batch_size, self.seq_len, self.augment, self.drop_last)
        valid_source = None if valid is None else source_of(valid, self.batch_size, self.seq_len)
        data = {"train": source.fingerprint(), "valid": valid_source and valid_source.fingerprint()}
        self._begin(checkpoint, resume, overwrite, data)

        steps = len(source.batches(None))
        self.history.interrupted = False
        with (
            Interrupt() as interrupt,
            Display(progress, label, epochs, steps, self.epoch * steps + self.step) as display,
            np.errstate(over="ignore", invalid="ignore", divide="ignore"),  # `_check_finite` says it in words
        ):
            while self.epoch < epochs and not self.history.interrupted:
                batches = self._begin_epoch(source)
                begun = time.perf_counter() - self._elapsed
                for x, y in batches:
                    self._step(source, x, y, steps)
                    self._elapsed = time.perf_counter() - begun
                    display.step(self._sums)
                    if interrupt.asked:
                        break
                    if checkpoint_steps and self.step % checkpoint_steps == 0:
                        self._save_to_path()

                score = None
                if not interrupt.asked and valid_source is not None:
                    score = score_of(self.model, valid_source, self.loss, lambda: interrupt.asked)
                if interrupt.asked:
                    self.history.interrupted = True
                else:
                    self._elapsed = time.perf_counter() - begun
                    display.epoch(self._end_epoch(source, score))
                self._save_to_path()
        return self.history

    def _step(self, source: Source, x: Array, y: Array, steps: int) -> None:
        """One batch: forward, loss, backward, and the weights move."""
        if self.schedule is not None:
            self.schedule.set_lr(self.optimizer, self.epoch + self.step / steps)
        self.model.zero_grad()
        self.optimizer.zero_grad()  # it may have parameters that the model does not

        outputs, targets, self._carried = source.forward(self.model, x, y, self._carried)
        loss = self.loss(outputs, targets)
        total = loss
        for hook in self.hooks:
            penalty = hook.penalty(self)
            total = total if penalty is None else total + penalty
        self._check_finite("loss", float(total.item()))

        total.backward()
        if self.clip_norm is not None:
            params = [p for group in self.optimizer.param_groups for p in group["params"]]
            self._check_finite("gradient's length", clip_grad_norm(params, self.clip_norm))
        self.optimizer.step()

        self.step += 1
        self._sums.add(loss, outputs, targets)
        for hook in self.hooks:
            hook.after_step(self)

    def _begin_epoch(self, source: Source) -> Batches:
        """The batches of the epoch that are still to come, in the order that was drawn at its beginning."""
        if self.step == 0:
            self._order = random.get_state(self.rng)
            self._carried, self._sums, self._elapsed = None, Sums(source.measure), 0.0
        else:
            random.set_state(self.rng, self._order)
        self.model.train()
        for hook in self.hooks:
            hook.before_epoch(self)
        return source.batches(self.rng, self.step)

    def _end_epoch(self, source: Source, valid: Score | None) -> dict[str, Any]:
        """Put the epoch down in the history."""
        if valid is not None:
            self._check_finite("loss on the validation data", valid.loss)
        row: dict[str, Any] = {"epoch": self.epoch + 1, "lr": float(self.optimizer.param_groups[0]["lr"])}
        for part, score in (("train", self._sums.score()), ("valid", valid)):
            if score is not None:
                row[f"{part}_loss"] = score.loss
                if source.measure is not None:
                    row[f"{part}_{source.measure}"] = getattr(score, source.measure)
        self.history.rows.append(row)
        self.history.seconds.append(self._elapsed)
        self.epoch, self.step = self.epoch + 1, 0
        for hook in self.hooks:
            hook.after_epoch(self)
        return row

    def _check_finite(self, what: str, value: float) -> None:
        if math.isfinite(value):
            return
        kept = f"the checkpoint {self._path} is of before" if self._path else "no checkpoint was asked for"
        rate = self.optimizer.param_groups[0]["lr"]
        raise FloatingPointError(
            f"the {what} is {value} in epoch {self.epoch + 1}, step {self.step + 1}; try a lower learning rate "
            f"(it was {rate:g}) or clip_norm=1.0, and look for huge values in the data; {kept}"
        )

    def save(self, path: PathLike, overwrite: bool | None = None) -> None:
        """Write everything that the run knows to one file, see `checkpoint.py`; a kill leaves the old or the new one.

        Another checkpoint there is replaced, anything else only if `overwrite`. Raises FileExistsError, OSError, and
        FloatingPointError rather than save parameters that are NaN or infinite.
        """
        checkpoints.save(self, path, overwrite)

    def load(self, path: PathLike) -> Trainer:
        """Become the trainer that was saved: model, optimizer, random generators (the default one, too), position.

        Raises ValueError, before anything is changed, naming what differs, if the checkpoint is of another model or
        configuration; FileError if it is damaged.
        """
        checkpoints.load(self, path)
        self._path = Path(path)
        return self

    def _begin(self, checkpoint: PathLike | None, resume: bool, overwrite: bool, data: dict[str, Any]) -> None:
        """Resume, or begin and write the first checkpoint: a path that cannot be written to is better known now."""
        path = None if checkpoint is None else Path(checkpoint)
        if path is not None and path.exists():
            if resume:
                self.load(path)
            elif not overwrite and path != self._path:
                raise FileExistsError(
                    f"{path} is there already; go on from it with resume=True, replace it with overwrite=True, "
                    "or choose another name"
                )
        if self._data is not None and self._data != data:
            raise ValueError(
                "these are not the data that the run began with:\n  "
                + "\n  ".join(checkpoints.differences(self._data, data))
                + "\nbegin anew with another Trainer"
            )
        self._data = data
        if path is not None and path != self._path:
            self.save(path, overwrite=overwrite or None)
        self._path = path

    def _save_to_path(self) -> None:
        if self._path is not None:
            self.save(self._path)
