"""Answers to the exercises of tutorials/04_the_gradient_that_is_not_there.md."""

from __future__ import annotations

import re

import numpy as np

import tinyqnn as tq

TRAINING = ("train(", "learned_end(")


def read(line):
    """Percent found, percent never moved, largest |w|."""
    return tuple(float(number) for number in re.findall(r"\d+\.?\d*", line))


def test_1_a_gate_with_a_direction_lets_weights_back_in_and_not_out(page):
    student = page("04", skip=TRAINING)["student"]
    found, never, largest = read(student(lambda w, grad: (np.abs(w) <= 1.5) | (w * grad > 0)))
    plain, clipped = read(student(lambda w, grad: 1.0)), read(student(lambda w, grad: np.abs(w) <= 1.5))
    assert found > clipped[0]  # plain's runaways happen to help the others here, and find a few more
    assert never <= 2 < 10 < clipped[1]  # the few that stay want to be 4 and began beyond the edge
    assert largest < 4 < plain[2]


def test_2_beyond_the_last_stair_plain_runs_away_and_clipped_stops(page):
    stairs = page("04", skip=TRAINING)["stairs"]

    def learn(passes):
        w, seen = 0.9, []
        for _ in range(2000):
            w -= 0.05 * 2 * (stairs(w) - 2.0) * passes(w)
            seen.append(stairs(w))
        return w, np.mean(seen[-1000:])

    plain, clipped = learn(lambda w: True), learn(lambda w: abs(w) <= 1.5)
    assert plain[0] > 100  # one twentieth a step, for ever
    assert 1.5 < clipped[0] < 1.56  # one step beyond the edge
    assert plain[1] == clipped[1] == 1.5  # and neither comes nearer to 2: the law of step 1 wants w to stay


def test_3_clipq_and_pact_and_unsigned_uniform_are_clipped_the_others_plain():
    x = np.append(np.random.default_rng(0).normal(size=1000), [50.0, -50.0])

    def clips(quantizer):
        tensor = tq.Tensor(x, requires_grad=True)
        quantizer(tensor).sum().backward()
        return not tensor.grad[-2:].any()

    names = ("B-1", "T-2", "Q-2", "F-3", "R-3", "Z-3", "C-3", "P-3", "U-3", "PACT-3")
    assert [name for name in names if clips(tq.quant.scheme(name))] == ["C-3", "PACT-3"]
    # Unsigned Uniform would stretch its step to reach 50, so its step is held.
    tensor = tq.Tensor(x, requires_grad=True)
    tq.quant.Uniform(bits=3, signed=False)(tensor, {"scale": np.array(0.5)}).sum().backward()
    assert not tensor.grad[-2:].any()


def test_the_average_is_right_whatever_the_target(page):
    stairs = page("04", skip=TRAINING)["stairs"]
    for target in (-1.3, -0.5, 0.0, 0.9):
        w, seen = 0.9, []
        for _ in range(4000):
            w -= 0.05 * 2 * (stairs(w) - target)
            seen.append(stairs(w))
        assert abs(np.mean(seen[-2000:]) - target) < 2e-2


def test_only_the_gate_at_equality_tells_clipping_codes_from_plain(page):
    names = page("04", skip=TRAINING)
    student, code = names["student"], names["code"]
    assert student(lambda w, g: (code(w) >= -2) & (code(w) <= 1)) == student(lambda w, g: 1.0)
    assert read(student(lambda w, g: (code(w) > -2) & (code(w) < 1)))[1] > 20
