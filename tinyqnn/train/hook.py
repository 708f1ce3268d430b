"""A search is a training loop with something added: this says where."""

from __future__ import annotations

from typing import TYPE_CHECKING, Any

from tinyqnn.tensor import Tensor

if TYPE_CHECKING:
    from tinyqnn.train.loop import Trainer


class Hook:
    """What a search adds to the training loop. Override what is needed; each method gets the trainer.

    before_epoch   model.train() has just been called. Set a temperature, freeze batch norm. It is called again when an
                   epoch is resumed in its middle: set things from `trainer.epoch`, do not add to them
    penalty        a Tensor that is added to the loss of each batch, e.g. weight · (b̄ − target)², or None
    after_step     the weights have moved: take another optimizer's step on other data, keep a value in its range
    after_epoch    the epoch is in `trainer.history`, the checkpoint not written yet
    state_dict     what else has to be in the checkpoint (arrays, numbers, text, nested), for `load_state_dict`

    >>> class Steps(Hook):
    ...     taken = 0
    ...     def after_step(self, trainer):
    ...         self.taken += 1
    >>> hook = Steps(); hook.after_step(None); hook.taken
    1
    """

    def before_epoch(self, trainer: Trainer) -> None:
        pass

    def penalty(self, trainer: Trainer) -> Tensor | None:
        return None

    def after_step(self, trainer: Trainer) -> None:
        pass

    def after_epoch(self, trainer: Trainer) -> None:
        pass

    def state_dict(self) -> dict[str, Any]:
        return {}

    def load_state_dict(self, state: dict[str, Any]) -> None:
        pass
