"""Eight seeds and what they say together; and how often a test finds something where there is nothing.

python figures/tutorial_15_claims.py       six seconds
"""

from __future__ import annotations

import numpy as np
from drawing import beside, page

from tinyqnn.picture import BLUE, GREY, INK, RED


def main() -> None:
    told = page("15")
    d = np.array(told["differences"])
    with beside(__file__, 8, 3.6) as figure:
        left, right = figure.subplots(1, 2)
        seeds = np.arange(1, len(d) + 1)
        left.plot(seeds - 0.12, d, "o", color=GREY, label="the seed alone")
        counts = seeds[2:]
        means = [d[:n].mean() for n in counts]
        errors = [2 * d[:n].std(ddof=1) / n**0.5 for n in counts]
        left.errorbar(counts + 0.12, means, errors, fmt="s", color=BLUE, capsize=4,
                      label="mean of all so far, ± 2 standard errors")  # fmt: skip
        left.axhline(0, color=INK, linewidth=1)
        left.set(xlabel="seeds", ylabel="16 wide loses more than 64 wide (points)", title="a claim with chance in it")
        left.set(xticks=seeds, ylim=(min(-5, d.min() - 2), max(d.max(), means[0] + errors[0]) * 1.4))
        left.legend(loc="upper right", fontsize=9)

        counts = [3, 4, 5, 7, 10, 15, 20, 30]
        for wordings, colour, look, name in ((10, RED, "^--", "best of ten wordings, afterwards"),
                                             (1, BLUE, "o-", "one wording, before")):  # fmt: skip
            rates = [told["false_holds"](n, wordings, 5_000) for n in counts]
            right.plot(counts, rates, look, color=colour, label=name)
        right.axhline(2.3, color=GREY, linestyle=":", label="2.3 %, if the spread were known")
        right.set(xscale="log", ylim=(0, 80), xlabel="seeds", ylabel="“holds” (%)", title="where there is nothing")
        right.set_xticks([3, 5, 10, 20, 30], ["3", "5", "10", "20", "30"])
        right.set_xticks([], minor=True)
        right.legend(fontsize=9)


if __name__ == "__main__":
    main()
