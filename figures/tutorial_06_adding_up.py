"""Noise over width and over depth, singular values on their way to 1, and a learning rate that goes down and up.

python figures/tutorial_06_adding_up.py       seven seconds
"""

from __future__ import annotations

import numpy as np
from drawing import beside, page
from matplotlib.ticker import FuncFormatter

from tinyqnn.picture import BLUE, GREY, INK, ORANGE, RED

LOOKS = {"plain": (BLUE, "s", "--"), "residual": (RED, "^", "-."), "pulled": (ORANGE, "D", "-")}


def main() -> None:
    told = page("06")
    with beside(__file__, 8, 6.2) as figure:
        (width, depth), (pull, rate) = figure.subplots(2, 2)

        ns = [1, 2, 4, 8, 16, 32, 64, 128, 256]
        width.plot(ns, np.power(ns, -0.5), color=GREY, linewidth=5, alpha=0.5, label="predicted, 1/√n")
        width.plot(ns, [told["width_error"](n, 1) for n in ns], "o", color=INK, label="each its own bias")
        width.plot(ns, [told["width_error"](n, 0) for n in ns], "--s", color=RED, label="copies")
        width.set(xscale="log", yscale="log", title="width averages, if neurons differ", xlabel="neurons n")
        width.set_ylabel("error of the mean")
        width.xaxis.set_major_formatter(FuncFormatter(lambda value, _: f"{value:g}"))
        width.yaxis.set_major_formatter(FuncFormatter(lambda value, _: f"{value:g}"))
        width.legend(loc="lower left")

        layers = np.arange(1, 11)
        depth.plot(layers, layers, color=GREY, linewidth=5, alpha=0.5, label="predicted, l")
        share = told["walk"]([(W, 0) for W in told["turns"]], told["x"])[:, 0]
        depth.plot(layers, share / share[0], "o", color=INK, label="random")
        for name, (colour, marker, dash) in LOOKS.items():
            shares = [
                told["walk"](
                    told["hidden"](model), told["half_rings"].x.astype(float), told["relu"], name == "residual"
                )
                for model in told["trained"][name]
            ]
            mean = np.mean([share[:, 0] / share[0, 0] for share in shares], axis=0)
            depth.plot(layers, mean, dash, marker=marker, color=colour, markersize=5, label=f"trained, {name}")
        depth.set(title="depth adds", xlabel="layer l", ylabel="share of noise, first layer = 1", xticks=(1, 4, 7, 10))
        depth.legend(loc="upper left", fontsize=9)

        W, values = told["chains"]["random"][0][0], []
        for _ in range(61):
            values.append(np.linalg.svd(W, compute_uv=False))
            W = told["pulled"](W, steps=1)
        pull.plot(np.array(values)[:, ::2], color=INK, linewidth=1.2)
        pull.axhline(1, color=ORANGE, linewidth=5, alpha=0.5)
        pull.set(title="‖WᵀW − I‖² pulls singular values to 1", xlabel="steps", xlim=(0, 60), ylim=(0, None))

        t = np.arange(0, 16.001, 0.01)
        rate.plot(t, [told["cyclic"](time) for time in t], color=INK, linewidth=2)
        rate.axhline(2 / told["narrow"] / told["base"], color=RED, linestyle="--")
        rate.text(4.5, 2.8, "above: out of\nthe narrow\nvalley", color=RED, ha="center", va="bottom", fontsize=9)
        rate.set(yscale="log", title="two cycles of the learning rate", xlabel="epoch", ylabel="times the base rate")
        rate.set(xticks=range(0, 17, 4), yticks=[0.1, 1, 10])
        rate.yaxis.set_major_formatter(FuncFormatter(lambda value, _: f"{value:g}"))


if __name__ == "__main__":
    main()
