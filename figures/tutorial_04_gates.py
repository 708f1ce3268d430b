"""Staircases, and below each the gradient that training lets through it.

python figures/tutorial_04_gates.py       a second
"""

from __future__ import annotations

import numpy as np
from drawing import beside

import tinyqnn as tq
from tinyqnn.picture import BLUE, GREY, LIGHT, RED


def main() -> None:
    x = np.linspace(-2.6, 2.6, 1041)
    scale = {"scale": np.array(1.0)}
    clip, through, pact = tq.quant.ClipQ(bits=2), tq.quant.Quaternary(), tq.quant.PACT(bits=2, clip=1.5)
    gates = (
        ("the true derivative", clip, scale),
        ("plain\n(Q-2)", through, scale),
        ("clipped\n(C-2)", clip, scale),
        ("PACT-2\na = 1.5, learned", pact, None),
    )

    with beside(__file__, 8, 4.2) as figure:
        axes = figure.subplots(2, 4, sharex=True, sharey="row", height_ratios=(1.5, 1))
        for column, (title, quantizer, params) in enumerate(gates):
            top, bottom = axes[:, column]
            tensor = tq.Tensor(x, requires_grad=True)
            y = quantizer(tensor, params)
            y.sum().backward()
            values, gate = y.data, np.zeros_like(x) if column == 0 else tensor.grad
            top.plot(x, x, color=LIGHT, linewidth=2)
            jumps = np.flatnonzero(np.diff(values))
            for start, stop in zip([0, *jumps + 1], [*jumps + 1, len(x)]):
                top.plot(x[[start, stop - 1]], values[[start, stop - 1]], color=BLUE, linewidth=2.5)
            top.set_title(title)
            bottom.fill_between(x, gate, step="mid", color=RED, alpha=0.25)
            bottom.plot(x, gate, color=RED, linewidth=2.5, drawstyle="steps-mid", label="to x")
            if column == 3:
                to_a = (x >= 1.5).astype(float)
                bottom.plot(x, to_a, color=GREY, linewidth=2, linestyle="--", drawstyle="steps-mid", label="to a")
                bottom.legend(loc="upper left")
            bottom.set(xlabel="x", ylim=(-0.1, 1.8), yticks=[0, 1], xticks=[-2, 0, 2])
            for ax in (top, bottom):
                for edge in (1.5,) if column == 3 else (-1.5, 1.5):
                    ax.axvline(edge, color=GREY, linewidth=0.7, linestyle=":")
        axes[0, 0].set_ylabel("Q(x)")
        axes[1, 0].set_ylabel("gradient\nthat passes")


if __name__ == "__main__":
    main()
