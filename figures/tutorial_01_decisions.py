"""What the small network of tutorial 1 decides over the plane, with float weights and with rounded ones.

python figures/tutorial_01_decisions.py       two seconds
"""

from __future__ import annotations

from drawing import beside, decision_map, page


def main() -> None:
    told = page("01")
    value, network = told["Value"], told["network"]

    with beside(__file__, 8, 2.6) as figure:
        for axes, bits in zip(figure.subplots(1, 4), (None, 8, 4, 2)):
            parameters = told["parameters"] if bits is None else told["rounded"](bits)
            decision_map(
                axes, lambda plane, p=parameters: network(value(plane), p).data > 0, told["points"], told["labels"]
            )
            axes.set_title("float weights" if bits is None else f"{bits} bits, {2**bits - 1} levels")
            axes.set_xlabel(f"{told['right'](parameters)} right")


if __name__ == "__main__":
    main()
