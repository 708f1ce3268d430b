"""The loop learns, tells what happened, and says clearly when something is wrong."""

from __future__ import annotations

import io
import math
import sys

import numpy as np
import pytest

from tinyqnn import Tensor, nn, warmup
from tinyqnn.data import Split
from tinyqnn.functional import mse_loss
from tinyqnn.optim import SGD, Adam, CosineAnnealingLR, StepLR
from tinyqnn.train import Hook, Trainer, evaluate
from tinyqnn.train.console import Display


def blobs(rng, n=60, classes=3):
    """Points around three corners: easy."""
    y = rng.integers(0, classes, n)
    x = np.eye(classes)[y] * 2 + rng.normal(size=(n, classes)) * 0.3
    return Split(x.astype(np.float32), y)


class LanguageModel(nn.Module):
    def __init__(self, words, width, rng, dropout=0.0):
        super().__init__()
        self.embedding = nn.Embedding(words, width, rng=rng)
        self.lstm = nn.LSTM(width, width, num_layers=2, dropout=dropout, rng=rng)
        self.decoder = nn.Linear(width, words, rng=rng)

    def forward(self, x, state=None):
        output, state = self.lstm(self.embedding(x), state)
        return self.decoder(output), state


def linear(rng, **options):
    model = nn.Linear(3, 3, rng=rng)
    return model, Trainer(model, SGD(model.parameters(), lr=0.5), batch_size=16, **options)


def test_learns_examples(rng):
    model, trainer = linear(rng)
    train, valid = blobs(rng), blobs(rng)
    history = trainer.fit(train, valid, epochs=5, progress=False)
    assert history["epoch"] == [1, 2, 3, 4, 5]
    assert history["train_loss"][-1] < history["train_loss"][0] / 2
    assert history["valid_accuracy"][-1] == 1.0
    assert evaluate(model, valid, batch_size=16) == (history["valid_loss"][-1], 1.0)
    assert len(history.seconds) == 5


def test_learns_text_that_needs_memory(rng):
    """Words repeat with period 4, two of them alike: only a carried state tells which comes next."""
    tokens = np.tile([0, 1, 0, 2], 100)
    model = LanguageModel(3, 8, rng)
    trainer = Trainer(model, Adam(model.parameters(), lr=0.02), batch_size=4, seq_len=10, clip_norm=1.0)
    history = trainer.fit(tokens, tokens[:100], epochs=12, progress=False)
    assert history["valid_perplexity"][-1] < 1.1
    assert history["valid_perplexity"] == [math.exp(loss) for loss in history["valid_loss"]]
    assert "valid_accuracy" not in history.rows[0]


def test_the_state_is_carried_from_piece_to_piece_and_its_history_is_cut(rng):
    model = LanguageModel(5, 4, rng)
    tokens = rng.integers(0, 5, 41)
    whole = evaluate(model, tokens, batch_size=1, seq_len=40)
    assert evaluate(model, tokens, batch_size=1, seq_len=7).loss == pytest.approx(whole.loss, rel=1e-5)
    seen = []

    class Look(Hook):
        def after_step(self, trainer):
            seen.append(trainer._carried)

    Trainer(model, SGD(model.parameters(), lr=0.1), batch_size=2, seq_len=5, hooks=[Look()]).fit(tokens, progress=False)
    assert len(seen) == 4
    assert all(not part.requires_grad and part.shape == (2, 2, 4) for state in seen for part in state)


def test_every_epoch_of_a_text_begins_without_a_state(rng):
    states = []

    class Remember(LanguageModel):
        def forward(self, x, state=None):
            states.append(state)
            return super().forward(x, state)

    model = Remember(5, 4, rng)
    trainer = Trainer(model, SGD(model.parameters(), lr=0.1), batch_size=2, seq_len=5)
    trainer.fit(rng.integers(0, 5, 41), epochs=2, progress=False)
    assert [state is None for state in states] == [True, False, False, False] * 2


def test_regression_has_a_loss_and_no_accuracy(rng):
    x = rng.normal(size=(40, 2)).astype(np.float32)
    split = Split(x, (x @ np.float32([[1], [-2]])))
    model = nn.Linear(2, 1, rng=rng)
    trainer = Trainer(model, SGD(model.parameters(), lr=0.1), loss=mse_loss, batch_size=8)
    history = trainer.fit(split, split, epochs=20, progress=False)
    assert history["valid_loss"][-1] < 1e-3
    assert set(history.rows[0]) == {"epoch", "lr", "train_loss", "valid_loss"}
    assert evaluate(model, split, loss=mse_loss).accuracy is None


def test_the_score_is_of_all_examples_whatever_the_batches(rng):
    split = blobs(rng, 50)
    model = nn.Linear(3, 3, rng=rng)
    logits = model(Tensor(split.x)).data.astype(np.float64)
    p = np.exp(logits) / np.exp(logits).sum(axis=1, keepdims=True)
    loss = -np.log(p[np.arange(50), split.y]).mean()
    for batch_size in (1, 7, 50, 1000):
        score = evaluate(model, split, batch_size)
        assert score.loss == pytest.approx(loss, rel=1e-6)
        assert score.accuracy == (logits.argmax(axis=1) == split.y).mean()


def test_evaluation_leaves_every_layer_in_its_mode(rng):
    model = nn.Sequential(nn.BatchNorm1d(3), nn.Dropout(0.5), nn.Linear(3, 3, rng=rng))
    model[0].eval()
    before = model.state_dict()
    evaluate(model, blobs(rng))
    assert [layer.training for layer in model.modules()] == [True, False, True, True]
    assert all(np.array_equal(before[name], array) for name, array in model.state_dict().items())


def test_the_schedule_is_asked_before_every_step(rng):
    rates = []

    class Look(Hook):
        def after_step(self, trainer):
            rates.append(trainer.optimizer.param_groups[0]["lr"])

    schedule = CosineAnnealingLR(3)
    _, trainer = linear(rng, schedule=schedule, hooks=[Look()])
    trainer.fit(blobs(rng, 64), epochs=3, progress=False)
    assert rates == [schedule(step / 4, 0.5) for step in range(12)]


def test_every_epoch_sees_every_example_once_in_a_new_order(rng):
    split = Split(np.arange(10, dtype=np.float32).reshape(10, 1), np.zeros(10, int))
    seen = []

    class Remember(nn.Linear):
        def forward(self, x):
            seen.extend(x.data[:, 0].tolist())
            return super().forward(x)

    model = Remember(1, 2, rng=rng)
    Trainer(model, SGD(model.parameters(), lr=0.1), batch_size=3).fit(split, epochs=2, progress=False)
    assert sorted(seen[:10]) == sorted(seen[10:]) == list(range(10))
    assert seen[:10] != seen[10:]


def test_a_penalty_is_part_of_what_is_minimised(rng):
    class Small(Hook):
        def penalty(self, trainer):
            return (trainer.model.weight**2).sum() * 10.0

    model, trainer = linear(rng, hooks=[Small()])
    trainer.optimizer.param_groups[0]["lr"] = 0.02
    trainer.fit(blobs(rng), epochs=10, progress=False)
    assert np.abs(model.weight.data).max() < 0.1


def test_gradients_do_not_pile_up_in_parameters_that_are_not_optimized(rng):
    lengths = []

    class Look(Hook):
        def after_step(self, trainer):
            lengths.append(float(np.abs(trainer.model.bias.grad).sum()))

    model = nn.Linear(3, 3, rng=rng)
    split = blobs(rng, 16)
    Trainer(model, SGD([model.weight], lr=1e-6), hooks=[Look()]).fit(split, epochs=5, progress=False)
    assert lengths == pytest.approx([lengths[0]] * 5, rel=1e-3)


def test_a_hook_may_take_another_optimizers_step_on_other_data(rng):
    """DFQ: after each step of the weights, one of the architecture on validation data."""
    valid = blobs(rng)

    class Alternate(Hook):
        def __init__(self, model):
            self.scale = Tensor(np.float32([0.0]), requires_grad=True)
            self.optimizer = SGD([self.scale], lr=0.1)

        def after_step(self, trainer):
            self.optimizer.zero_grad()
            trainer.loss(trainer.model(Tensor(valid.x)) * self.scale, valid.y).backward()
            self.optimizer.step()

    model = nn.Linear(3, 3, rng=rng)
    alone = nn.Linear(3, 3, rng=rng)
    alone.load_state_dict(model.state_dict())
    train = blobs(rng)
    hook = Alternate(model)
    Trainer(model, SGD(model.parameters(), lr=0.5), hooks=[hook]).fit(train, epochs=4, progress=False)
    Trainer(alone, SGD(alone.parameters(), lr=0.5)).fit(train, epochs=4, progress=False)
    assert hook.scale.item() > 0.1
    # The gradients that the hook left on the weights moved nothing.
    assert np.array_equal(model.weight.data, alone.weight.data)


def test_hooks_see_every_epoch_and_may_freeze_layers(rng):
    calls = []

    class Freeze(Hook):
        def before_epoch(self, trainer):
            calls.append(("before", trainer.epoch))
            trainer.model[0].eval()

        def after_epoch(self, trainer):
            calls.append(("after", trainer.epoch, len(trainer.history)))

    model = nn.Sequential(nn.BatchNorm1d(3), nn.Linear(3, 3, rng=rng))
    Trainer(model, SGD(model.parameters(), lr=0.1), hooks=[Freeze()]).fit(blobs(rng), blobs(rng), 2, progress=False)
    assert calls == [("before", 0), ("after", 1, 1), ("before", 1), ("after", 2, 2)]
    assert model[0].running_mean.tolist() == [0.0] * 3


@pytest.mark.parametrize("clip_norm", [None, 1.0])
def test_a_loss_that_is_not_finite_is_told_and_the_last_checkpoint_kept(rng, tmp_path, clip_norm):
    _, trainer = linear(rng, clip_norm=clip_norm)
    split, path = blobs(rng, 64), tmp_path / "run.npz"
    trainer.fit(split, split, epochs=1, checkpoint=path, progress=False)
    before = path.read_bytes()

    class Poison(Hook):
        def before_epoch(self, trainer):
            trainer.model.weight.data[0, 0] = np.nan

    trainer.hooks = (Poison(),)
    message = r"the loss is nan in epoch 2, step 1; try a lower learning rate \(it was 0.5\).*run.npz is of before"
    with pytest.raises(FloatingPointError, match=message):
        trainer.fit(split, split, epochs=2, checkpoint=path, progress=False)
    assert path.read_bytes() == before


def test_weights_that_became_nan_in_the_last_step_are_not_saved(rng, tmp_path):
    class Poison(Hook):
        def after_step(self, trainer):
            if trainer.step == 4:
                trainer.model.weight.data[0, 0] = np.inf

    _, trainer = linear(rng, hooks=[Poison()])
    with pytest.raises(FloatingPointError, match="parameter weight is nan in epoch"):
        trainer.fit(blobs(rng, 64), epochs=1, checkpoint=tmp_path / "run.npz", progress=False)
    other, again = linear(rng, hooks=[Poison()])
    again.load(tmp_path / "run.npz")
    assert again.epoch == 0
    assert np.isfinite(other.weight.data).all()


def test_a_gradient_that_is_not_finite_moves_nothing(rng):
    class Poison(Hook):
        def penalty(self, trainer):
            return (trainer.model.weight * 0.0).abs().sqrt().sum()  # 0, with an infinite slope

    model, trainer = linear(rng, clip_norm=1.0, hooks=[Poison()])
    before = model.weight.data.copy()
    with pytest.raises(FloatingPointError, match=r"gradient's length is (nan|inf) in epoch 1, step 1"):
        trainer.fit(blobs(rng), progress=False)
    assert np.array_equal(model.weight.data, before)


def test_data_of_another_kind_are_refused(rng):
    _, trainer = linear(rng)
    for data in ([1, 2], np.zeros((3, 3)), np.zeros(5)):
        with pytest.raises(TypeError, match=r"expected a Split, or a text .*pass \.train"):
            trainer.fit(data, progress=False)


class Terminal(io.StringIO):
    def isatty(self):
        return True


def test_a_line_an_epoch_goes_to_stderr_and_nothing_if_unwanted(rng, capsys):
    _, trainer = linear(rng)
    split = blobs(rng)
    trainer.fit(split, split, epochs=2, label="float")
    captured = capsys.readouterr()
    assert captured.out == ""
    first, second = captured.err.splitlines()
    row = trainer.history.rows[0]
    assert first == (
        f"float 1/2: train loss {row['train_loss']:.4g}, train accuracy {row['train_accuracy']:.2%}, "
        f"valid loss {row['valid_loss']:.4g}, valid accuracy {row['valid_accuracy']:.2%}"
    )
    assert second.startswith("float 2/2: ")
    trainer.fit(split, split, epochs=3, progress=False)
    assert capsys.readouterr() == ("", "")


def test_a_bar_goes_to_a_terminal(rng, monkeypatch):
    terminal = Terminal()
    monkeypatch.setattr(sys, "stderr", terminal)
    _, trainer = linear(rng, schedule=StepLR(1))
    split = blobs(rng, 64)
    trainer.fit(split, split, epochs=2, label="float")
    assert "float: 100%" in terminal.getvalue()
    assert "8/8" in terminal.getvalue()
    assert "float 1/2" not in terminal.getvalue()


def test_a_bar_says_when_somebody_waits_for_the_compiler(rng, monkeypatch):
    terminal = Terminal()
    monkeypatch.setattr(sys, "stderr", terminal)
    with Display(None, "float", 1, 8, 0):
        assert "compiling" not in terminal.getvalue()
        warmup.compiling(False)
        assert "compiling, once for all runs" in terminal.getvalue()
    said = terminal.getvalue()
    warmup.compiling(False)
    assert terminal.getvalue() == said


def test_every_epochs_seconds_are_its_own(rng, monkeypatch):
    """With a clock that ticks once a look, equal epochs take equally long."""
    ticks = iter(range(10**6))
    monkeypatch.setattr("tinyqnn.train.loop.time.perf_counter", lambda: float(next(ticks)))
    _, trainer = linear(rng)
    seconds = trainer.fit(blobs(rng), epochs=4, progress=False).seconds
    assert len(set(seconds)) == 1


def test_a_configuration_may_hold_tuples(rng, tmp_path):
    _, trainer = linear(rng, config={"keep": ("first", "last")})
    trainer.fit(blobs(rng), epochs=1, checkpoint=tmp_path / "c.npz", progress=False)
    _, again = linear(rng, config={"keep": ("first", "last")})
    assert again.load(tmp_path / "c.npz").epoch == 1
    _, other = linear(rng, config={"keep": ("first",)})
    with pytest.raises(ValueError, match=r"config\.keep"):
        other.load(tmp_path / "c.npz")
