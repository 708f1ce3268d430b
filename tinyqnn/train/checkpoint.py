"""A checkpoint is everything that a run knows, in one file: a run that is stopped and resumed ends with the same bits.

model, optimizer          what is learned, and what the optimizer remembers
generators                the default random generator, those that layers own, and the one that orders the data: as
                          it was when the epoch began, so that the same order can be drawn again
position, sums, carried   how far the epoch is, its running sums, a recurrent network's state between two pieces
history, hooks            what was reached so far, and what hooks want kept
config, data              what the run was made with; a run with something else is refused
"""

from __future__ import annotations

import functools
import math
from collections.abc import Iterator
from dataclasses import is_dataclass
from typing import TYPE_CHECKING, Any

import numpy as np

from tinyqnn import files, random
from tinyqnn.files.atomic import PathLike
from tinyqnn.files.tree import flatten, unflatten
from tinyqnn.nn import Module
from tinyqnn.tensor import Tensor
from tinyqnn.train.score import Sums, map_state

if TYPE_CHECKING:
    from tinyqnn.train.loop import Trainer


def save(trainer: Trainer, path: PathLike, overwrite: bool | None = None) -> None:
    """Write everything that the run knows to `path`; a checkpoint there is replaced, anything else only if `overwrite`.

    Raises FloatingPointError rather than save parameters that are NaN or infinite.
    """
    for name, parameter in trainer.model.named_parameters():
        if not np.isfinite(parameter.data).all():
            trainer._check_finite(f"parameter {name}", math.nan)
    tree = {
        "model": trainer.model.state_dict(),
        "optimizer": trainer.optimizer.state_dict(),
        "generators": {
            "default": random.get_state(random.default_rng()),
            "of layers": {name: random.get_state(rng) for name, rng in _generators(trainer.model)},
            "order": trainer._order,
            "order, next epoch": random.get_state(trainer.rng),
        },
        "position": {"epoch": trainer.epoch, "step": trainer.step, "elapsed": trainer._elapsed},
        "sums": vars(trainer._sums),
        "carried": map_state(lambda tensor: tensor.data, trainer._carried),
        "history": {"rows": trainer.history.rows, "seconds": trainer.history.seconds},
        "hooks": [hook.state_dict() for hook in trainer.hooks],
        "config": describe(trainer),
        "data": trainer._data,
    }
    files.save_arrays(path, *flatten(tree), kind="checkpoint", overwrite=overwrite)


def load(trainer: Trainer, path: PathLike) -> None:
    """Make `trainer` what was saved. Raises ValueError, before anything is changed, naming what differs."""
    tree = unflatten(*files.load_arrays(path, kind="checkpoint"))
    if found := differences(tree["config"], describe(trainer)):
        raise ValueError(
            f"{path} is of another run:\n  " + "\n  ".join(found) + "\nset these as they were, or begin anew"
        )
    trainer.model.load_state_dict(tree["model"])
    trainer.optimizer.load_state_dict(tree["optimizer"])
    generators, position = tree["generators"], tree["position"]
    random.set_state(random.default_rng(), generators["default"])
    for name, rng in _generators(trainer.model):
        random.set_state(rng, generators["of layers"][name])
    trainer._order = generators["order"]
    random.set_state(trainer.rng, generators["order, next epoch"])
    trainer.epoch, trainer.step, trainer._elapsed = position["epoch"], position["step"], position["elapsed"]
    trainer._sums = Sums(**tree["sums"])
    trainer._carried = map_state(Tensor, tree["carried"])
    trainer.history = type(trainer.history)(**tree["history"])
    for hook, state in zip(trainer.hooks, tree["hooks"]):
        hook.load_state_dict(state)
    trainer._data = tree["data"]


def describe(trainer: Trainer) -> dict[str, Any]:
    """Everything that a resumed run must have in common with the one before, as JSON.

    The learning rate of the moment is not part of it, the one that a schedule starts from is.
    """
    arrays = [(name, p.data) for name, p in trainer.model.named_parameters()] + list(trainer.model.named_buffers())
    groups = [
        {key: list(value) if isinstance(value, tuple) else value for key, value in group.items() if key != "lr"}
        | {"params": len(group["params"])}
        for group in trainer.optimizer.param_groups
    ]
    return {
        "model": {name: f"{a.dtype} {list(a.shape)}" for name, a in arrays},
        "optimizer": {"type": type(trainer.optimizer).__name__, "groups": groups},
        **{name: _name(getattr(trainer, name)) for name in ("loss", "schedule", "augment")},
        **{name: getattr(trainer, name) for name in ("batch_size", "seq_len", "drop_last", "clip_norm", "seed")},
        "hooks": [_name(hook) for hook in trainer.hooks],
        "config": unflatten(*flatten(trainer.config)),  # NumPy's numbers as Python's, as a file gives them back
    }


def differences(before: Any, now: Any, path: str = "") -> list[str]:
    """Where two descriptions differ, a line each.

    >>> differences({"lr": 0.1, "seed": 0}, {"lr": 0.2, "seed": 0})
    ['lr: 0.1 in the checkpoint, 0.2 here']
    """
    if isinstance(before, list) and isinstance(now, list):
        before, now = dict(enumerate(before)), dict(enumerate(now))
    if isinstance(before, dict) and isinstance(now, dict):
        lines = []
        for key in dict.fromkeys([*before, *now]):
            lines += differences(
                before.get(key, "nothing"), now.get(key, "nothing"), f"{path}.{key}" if path else str(key)
            )
        return lines
    return [] if before == now else [f"{path}: {before} in the checkpoint, {now} here"]


def _name(thing: Any) -> str | None:
    """A name that is the same in the next process."""
    if thing is None:
        return None
    if isinstance(thing, functools.partial):
        return f"{_name(thing.func)}{thing.args}{sorted(thing.keywords.items())}"
    if is_dataclass(thing):
        return repr(thing)
    return str(getattr(thing, "__qualname__", type(thing).__qualname__))


def _generators(model: Module) -> Iterator[tuple[str, np.random.Generator]]:
    """The random generators that layers were given as their own, with their dotted names."""
    for path, module in model.named_modules():
        for name, value in vars(module).items():
            if isinstance(value, np.random.Generator):
                yield f"{path}.{name}", value
