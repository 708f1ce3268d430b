"""Training: a loop, what searches add to it, and checkpoints from which it goes on as if it had never been stopped.

loop.py         `Trainer`: one batch, one epoch, all epochs
score.py        `evaluate`, and the two kinds of data: examples and running text
hook.py         `Hook`: what a search adds
lipschitz.py    `Lipschitz`: a hook that keeps layers from making noise larger
checkpoint.py   everything a run knows, in one file
console.py      the progress bar and Ctrl-C
"""

from tinyqnn.train.hook import Hook
from tinyqnn.train.lipschitz import Lipschitz, lipschitz
from tinyqnn.train.loop import History, Trainer
from tinyqnn.train.score import Score, evaluate

__all__ = ["History", "Hook", "Lipschitz", "Score", "Trainer", "evaluate", "lipschitz"]
