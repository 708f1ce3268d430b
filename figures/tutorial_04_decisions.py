"""What four networks decide over the plane: float, rounded afterwards, trained with slope 0, trained straight through.

python figures/tutorial_04_decisions.py       eight seconds
"""

from __future__ import annotations

from drawing import beside, decision_map, page

from tinyqnn import Tensor


def main() -> None:
    told = page("04")
    honest, straight = {"on_weights": told["honest"]}, {"on_weights": told["straight"]}
    networks = (
        ("float weights", told["floats"][2], {}),
        ("rounded to 2 bits\nafterwards", told["floats"][2], straight),
        ("2 bits, trained with\nthe true derivative", told["stuck"][2], honest),
        ("2 bits, trained\nstraight through", told["learned"][2], straight),
    )

    with beside(__file__, 8, 2.8) as figure:
        for axes, (title, parameters, how) in zip(figure.subplots(1, 4), networks):

            def decide(plane, parameters=parameters, how=how):
                logits = told["network"](Tensor(plane), parameters, **how).data
                return logits[:, 1] > logits[:, 0]

            decision_map(axes, decide, *told["half_rings"])
            axes.set_title(title)
            axes.set_xlabel(f"{told['right'](parameters, told['half_rings'], **how)} % right")


if __name__ == "__main__":
    main()
