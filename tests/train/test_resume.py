"""A run that is stopped and resumed ends with the same bits as one that was never stopped."""

from __future__ import annotations

import os
import signal
import subprocess
import sys
import threading
import time

import numpy as np
import pytest
from test_trainer import LanguageModel, blobs

import tinyqnn as tq
from tinyqnn import Tensor, files, nn, random
from tinyqnn.data import Split, batches, crop_and_flip
from tinyqnn.optim import SGD, Adam, CosineAnnealingLR
from tinyqnn.train import Hook, Trainer


class PowerCutError(Exception):
    """The run ends here, as by a cut of power: nothing is saved."""


class StopAt(Hook):
    def __init__(self, step=None):
        self.left = step

    def after_step(self, trainer):
        if self.left is not None:
            self.left -= 1
            if self.left < 0:
                raise PowerCutError


class Search(Hook):
    """What DFQ does: a second optimizer, walking through other data in an order of its own."""

    def __init__(self):
        self.alpha = Tensor(np.zeros(3, np.float32), requires_grad=True)
        self.optimizer = Adam([self.alpha], lr=0.05)
        self.rng = np.random.default_rng(5)
        self.valid = blobs(np.random.default_rng(6), 32)

    def penalty(self, trainer):
        return (self.alpha**2).sum() * 0.1

    def after_step(self, trainer):
        x, y = next(iter(batches(self.valid, 8, self.rng)))
        self.optimizer.zero_grad()
        trainer.loss(Tensor(x) * self.alpha, y).backward()
        self.optimizer.step()

    def state_dict(self):
        state = {"alpha": self.alpha.data, "optimizer": self.optimizer.state_dict()}
        return {**state, "rng": random.get_state(self.rng)}

    def load_state_dict(self, state):
        self.alpha.data[...] = state["alpha"]
        self.optimizer.load_state_dict(state["optimizer"])
        random.set_state(self.rng, state["rng"])


def points(stop=None):
    """Batch norm, dropout from the default generator and from one of its own, momentum, a schedule, a search."""
    tq.manual_seed(1)
    rng = np.random.default_rng(2)
    model = nn.Sequential(
        nn.Linear(3, 8, rng=rng), nn.BatchNorm1d(8), nn.ReLU(), nn.Dropout(0.3),
        nn.Dropout(0.2, rng=np.random.default_rng(3)), nn.Linear(8, 3, rng=rng),
    )  # fmt: skip
    optimizer = SGD(model.parameters(), lr=0.1, momentum=0.9, weight_decay=1e-3)
    hooks = [Search(), StopAt(stop)]
    trainer = Trainer(
        model, optimizer, schedule=CosineAnnealingLR(3), batch_size=16, clip_norm=1.0, seed=4, hooks=hooks
    )
    data = np.random.default_rng(7)
    return trainer, blobs(data, 70), blobs(data, 20)


def images(stop=None):
    """Augmented pictures, Adam."""
    tq.manual_seed(1)
    rng = np.random.default_rng(2)
    model = nn.Sequential(
        nn.Conv2d(1, 4, 3, rng=rng), nn.BatchNorm2d(4), nn.ReLU(), nn.Flatten(), nn.Linear(64, 2, rng=rng)
    )
    trainer = Trainer(
        model, Adam(model.parameters()), batch_size=8, augment=crop_and_flip, seed=4, hooks=[StopAt(stop)]
    )
    pixels = np.random.default_rng(7).integers(0, 256, (30, 1, 6, 6)).astype(np.uint8)
    split = Split(pixels, np.arange(30) % 2, mean=(0.5,), std=(0.3,))
    return trainer, split, split


def text(stop=None):
    """A state that is carried from piece to piece, dropout between the layers."""
    tq.manual_seed(1)
    model = LanguageModel(5, 4, np.random.default_rng(2), dropout=0.3)
    model.lstm.rng = None
    trainer = Trainer(
        model, SGD(model.parameters(), lr=0.5), batch_size=3, seq_len=4, clip_norm=1.0, hooks=[StopAt(stop)]
    )
    tokens = np.random.default_rng(7).integers(0, 5, 80)
    return trainer, tokens, tokens[:30]


RUNS = [points, images, text]


def everything(trainer):
    """All that a run ends with, as comparable values."""
    state = {
        "model": trainer.model.state_dict(),
        "optimizer": trainer.optimizer.state_dict(),
        "hooks": [hook.state_dict() for hook in trainer.hooks],
        "history": trainer.history.rows,
        "default generator": random.get_state(tq.default_rng()),
        "order": random.get_state(trainer.rng),
        "position": (trainer.epoch, trainer.step),
    }
    arrays, skeleton = files.tree.flatten(state)
    return {name: (a.dtype, a.shape, a.tobytes()) for name, a in arrays.items()}, skeleton


def uninterrupted(run, epochs=3):
    trainer, train, valid = run()
    trainer.fit(train, valid, epochs, progress=False)
    return everything(trainer)


@pytest.mark.parametrize("run", RUNS)
@pytest.mark.parametrize("stop", [1, 2])
def test_resumed_after_an_epoch_ends_with_the_same_bits(run, stop, tmp_path):
    path = tmp_path / "run.npz"
    trainer, train, valid = run()
    trainer.fit(train, valid, stop, checkpoint=path, progress=False)
    resumed, train, valid = run()
    tq.manual_seed(99)
    resumed.fit(train, valid, 3, checkpoint=path, resume=True, progress=False)
    assert everything(resumed) == uninterrupted(run)


@pytest.mark.parametrize("run", RUNS)
def test_cut_off_after_any_step_and_resumed_ends_with_the_same_bits(run, tmp_path):
    expected = uninterrupted(run, 2)
    trainer, train, valid = run()
    steps = 2 * -(-len(train) // trainer.batch_size) if isinstance(train, Split) else 14
    for stop in range(steps):
        path = tmp_path / f"{stop}.npz"
        trainer, train, valid = run(stop)
        with pytest.raises(PowerCutError):
            trainer.fit(train, valid, 2, checkpoint=path, checkpoint_steps=2, progress=False)
        resumed, train, valid = run()
        tq.manual_seed(99)
        resumed.fit(train, valid, 2, checkpoint=path, resume=True, progress=False)
        assert everything(resumed) == expected


def test_the_same_trainer_goes_on_without_a_file():
    trainer, train, valid = points()
    for epochs in (1, 2, 2, 3):
        trainer.fit(train, valid, epochs, progress=False)
    assert everything(trainer) == uninterrupted(points)


@pytest.mark.parametrize(
    "forget",
    [
        lambda t: t["generators"].__setitem__("default", random.get_state(np.random.default_rng(0))),
        lambda t: t["generators"].__setitem__("order", random.get_state(np.random.default_rng(0))),
        lambda t: t["generators"]["of layers"].__setitem__("4.rng", random.get_state(np.random.default_rng(0))),
        lambda t: t["optimizer"]["state"].clear(),
        lambda t: t["position"].__setitem__("step", t["position"]["step"] + 1),
        lambda t: t["model"]["1.running_mean"].fill(0),
        lambda t: t["hooks"][0].__setitem__("rng", random.get_state(np.random.default_rng(0))),
        lambda t: t["sums"].__setitem__("loss", 0.0),
    ],
)
def test_each_part_of_a_checkpoint_is_needed(forget, tmp_path):
    path = tmp_path / "run.npz"
    trainer, train, valid = points(stop=7)
    with pytest.raises(PowerCutError):
        trainer.fit(train, valid, 3, checkpoint=path, checkpoint_steps=1, progress=False)
    tree = files.tree.unflatten(*files.load_arrays(path, kind="checkpoint"))
    forget(tree)
    files.save_arrays(path, *files.tree.flatten(tree), kind="checkpoint")
    resumed, train, valid = points()
    resumed.fit(train, valid, 3, checkpoint=path, resume=True, progress=False)
    assert everything(resumed) != uninterrupted(points)


def test_resume_begins_anew_where_there_is_no_file(tmp_path):
    trainer, train, valid = points()
    trainer.fit(train, valid, 3, checkpoint=tmp_path / "run.npz", resume=True, progress=False)
    assert everything(trainer) == uninterrupted(points)


def test_an_existing_file_is_neither_resumed_nor_replaced_unasked(tmp_path):
    path = tmp_path / "run.npz"
    trainer, train, valid = points()
    trainer.fit(train, valid, 1, checkpoint=path, progress=False)
    other, train, valid = points()
    with pytest.raises(FileExistsError, match=r"run.npz is there already; go on from it with resume=True, replace"):
        other.fit(train, valid, 1, checkpoint=path, progress=False)
    other.fit(train, valid, 2, checkpoint=path, overwrite=True, progress=False)
    assert len(other.history) == 2
    (tmp_path / "mine.npz").write_bytes(b"mine")
    with pytest.raises(files.FileError, match=r"mine\.npz is not a tinyqnn checkpoint"):
        other.fit(train, valid, 1, checkpoint=tmp_path / "mine.npz", resume=True, progress=False)
    assert (tmp_path / "mine.npz").read_bytes() == b"mine"


def test_a_path_that_cannot_be_written_is_known_before_the_first_step(tmp_path):
    trainer, train, valid = points()
    with pytest.raises(FileNotFoundError, match="no folder"):
        trainer.fit(train, valid, 1, checkpoint=tmp_path / "nowhere" / "run.npz", progress=False)
    assert trainer.step == trainer.epoch == 0


@pytest.mark.parametrize(
    ("change", "message"),
    [
        (lambda t: setattr(t, "batch_size", 8), "batch_size: 16 in the checkpoint, 8 here"),
        (lambda t: setattr(t, "seed", 5), "seed: 4 in the checkpoint, 5 here"),
        (lambda t: setattr(t, "config", {"bits": 3}), "config.bits: nothing in the checkpoint, 3 here"),
        (lambda t: setattr(t, "schedule", None), r"schedule: CosineAnnealingLR\(T_max=3.*\) in the checkpoint, None"),
        (lambda t: setattr(t, "optimizer", Adam(t.model.parameters())), "optimizer.type: SGD in the checkpoint, Adam"),
        (lambda t: t.optimizer.param_groups[0].update(momentum=0.5), r"groups.0.momentum: 0.9 in .*, 0.5 here"),
        (
            lambda t: t.model.add_module("0", nn.Linear(3, 8, bias=False)),
            r"model.0.bias: float32 .*, nothing here",
        ),
        (
            lambda t: t.model.to(np.float64),
            r"model.0.weight: float32 \[8, 3\] in .*, float64 \[8, 3\] here",
        ),
        (lambda t: setattr(t, "hooks", ()), "hooks.0: Search in the checkpoint, nothing here"),
    ],
)
def test_another_run_is_refused_naming_what_differs_and_nothing_is_changed(change, message, tmp_path):
    trainer, train, valid = points()
    trainer.fit(train, valid, 1, checkpoint=tmp_path / "run.npz", progress=False)
    other, train, valid = points()
    change(other)
    before = everything(other)
    with pytest.raises(ValueError, match=rf"(?s)run.npz is of another run:.*{message}"):
        other.fit(train, valid, 2, checkpoint=tmp_path / "run.npz", resume=True, progress=False)
    assert everything(other) == before


def test_other_data_are_refused(tmp_path):
    trainer, train, valid = points()
    trainer.fit(train, valid, 1, checkpoint=tmp_path / "run.npz", progress=False)
    other, _, valid = points()
    with pytest.raises(ValueError, match=r"(?s)not the data that the run began with:.*train.examples: 70 .*, 60 here"):
        other.fit(blobs(np.random.default_rng(0), 60), valid, 2, tmp_path / "run.npz", resume=True, progress=False)


def test_the_weights_in_a_checkpoint_are_a_state_dict(tmp_path):
    trainer, train, valid = points()
    trainer.fit(train, valid, 1, checkpoint=tmp_path / "run.npz", progress=False)
    other, _, _ = points()
    other.model.load_state_dict(files.load_state(tmp_path / "run.npz"))
    for name, array in trainer.model.state_dict().items():
        assert np.array_equal(other.model.state_dict()[name], array)


class Pause(Hook):
    """Says "now" in the third step and waits: for Ctrl-C to be noticed, or for ever."""

    def __init__(self, until=None):
        self.until = until

    def after_step(self, trainer):
        if self.until and (trainer.epoch, trainer.step) == (1, 2):
            print("now", flush=True)
            while self.until == "never" or signal.getsignal(signal.SIGINT) is not signal.default_int_handler:
                time.sleep(0.01)


def paused(until=None):
    trainer, train, valid = points()
    trainer.hooks += (Pause(until),)
    return trainer, train, valid


PROGRAM = """
import signal, sys
sys.path.insert(0, sys.argv[1])
import test_resume
trainer, train, valid = test_resume.paused(sys.argv[3])
history = trainer.fit(train, valid, 3, checkpoint=sys.argv[2], progress=False)
print(history.interrupted, trainer.epoch, trainer.step, signal.getsignal(signal.SIGINT) is signal.default_int_handler)
"""


def start(path, until):
    command = [sys.executable, "-c", PROGRAM, os.path.dirname(__file__), str(path), until]
    environment = {**os.environ, "PYTHONPATH": os.getcwd()}
    run = subprocess.Popen(command, stdout=subprocess.PIPE, stderr=subprocess.PIPE, text=True, env=environment)
    assert run.stdout.readline() == "now\n"
    return run


def test_one_ctrl_c_finishes_the_step_and_saves(tmp_path):
    run = start(tmp_path / "run.npz", "noticed")
    run.send_signal(signal.SIGINT)
    out, err = run.communicate(timeout=60)
    assert (out, run.returncode) == ("True 1 2 True\n", 0)
    assert err == "\nfinishing this step; Ctrl-C again stops at once\n"

    trainer, train, valid = paused()
    trainer.fit(train, valid, 3, checkpoint=tmp_path / "run.npz", resume=True, progress=False)
    assert not trainer.history.interrupted
    assert everything(trainer) == uninterrupted(paused)


def test_a_second_ctrl_c_stops_at_once(tmp_path):
    run = start(tmp_path / "run.npz", "never")
    run.send_signal(signal.SIGINT)
    assert run.stderr.readline() + run.stderr.readline() == "\nfinishing this step; Ctrl-C again stops at once\n"
    run.send_signal(signal.SIGINT)
    out, err = run.communicate(timeout=60)
    assert out == ""
    assert err.endswith("KeyboardInterrupt\n")
    position = files.load_arrays(tmp_path / "run.npz", kind="checkpoint")[1]["position"]
    assert (position["epoch"], position["step"]) == (1, 0)


def test_ctrl_c_during_validation_keeps_the_epochs_training(tmp_path):
    """The scores are taken again when the run goes on."""
    trainer, train, valid = points()
    steps, forward = [], trainer.model.forward

    def interrupt_validation(x):
        if not trainer.model.training and not steps:
            steps.append(trainer.step)
            os.kill(os.getpid(), signal.SIGINT)
        return forward(x)

    trainer.model.forward = interrupt_validation
    history = trainer.fit(train, valid, 3, checkpoint=tmp_path / "run.npz", progress=False)
    assert history.interrupted
    assert (len(history), trainer.epoch, trainer.step, steps) == (0, 0, 5, [5])
    del trainer.model.forward
    resumed, train, valid = points()
    resumed.fit(train, valid, 3, checkpoint=tmp_path / "run.npz", resume=True, progress=False)
    assert everything(resumed) == uninterrupted(points)


def test_outside_the_main_thread_ctrl_c_is_left_to_others():
    handlers = []

    class Look(Hook):
        def after_step(self, trainer):
            handlers.append(signal.getsignal(signal.SIGINT))

    trainer, train, valid = points()
    trainer.hooks = (Look(),)
    thread = threading.Thread(target=trainer.fit, args=(train, valid), kwargs={"progress": False})
    before = signal.getsignal(signal.SIGINT)
    thread.start()
    thread.join()
    assert set(handlers) == {before}
    assert len(trainer.history) == 1
