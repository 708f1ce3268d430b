"""Pictures of searches: each scheme, and each layer, looks alike in all panels and is named once."""

import pytest

from tinyqnn import picture
from tinyqnn.search.courses import draw_probabilities, draw_widths


@pytest.fixture
def figure():
    return picture.figure(10, 5)


def drawn(axes):
    """{heights of a line: its colour and dash} of the lines that have any."""
    return {
        tuple(line.get_ydata()): (line.get_color(), line.get_linestyle())
        for line in axes.get_lines()
        if len(line.get_ydata())
    }


def legend(figure):
    (made,) = figure.legends
    return {
        t.get_text(): (line.get_color(), line.get_linestyle()) for t, line in zip(made.get_texts(), made.get_lines())
    }


def test_a_layer_looks_alike_in_both_panels_though_one_of_them_has_fewer(figure):
    layers = {
        "weights": [("a.quant.weight", "a", 10), ("b.quant.weight", "b", 30), ("c.quant.weight", "c", 5)],
        "activations": [("a.quant.input", "a", 10), ("b.quant.input", "b", 20)],
    }
    course = [
        {"a.quant.weight": 3, "b.quant.weight": 3, "b.quant.input": 4},
        {"a.quant.weight": 7, "b.quant.weight": 1, "b.quant.input": 5},
    ]
    draw_widths(figure, layers, course)
    weights, activations = map(drawn, figure.axes)
    looks = legend(figure)
    assert list(looks) == ["a", "b", "average"]  # c and a's input learned no width
    assert weights == {(3, 7): looks["a"], (3, 1): looks["b"], (3, 2.5): looks["average"]}
    assert set(activations) == {(4, 5)}


def test_of_many_layers_none_is_named(figure):
    names = [f"block{i}.conv" for i in range(60)]
    layers = {"weights": [(name, name, 1) for name in names], "activations": []}
    draw_widths(figure, layers, [dict.fromkeys(names, 3.0)] * 2)
    assert list(legend(figure)) == ["average"]
    figure.canvas.draw()  # and there is room for all


def test_a_scheme_looks_alike_in_all_panels_and_the_likeliest_is_named(figure):
    course = [
        {
            "a.quant.input": {"Z-3": p, "C-3": 1 - p},
            "a.quant.weight": {"B-1": 0.2, "C-3": 0.3 + p / 10, "Z-3": 0.5 - p / 10},
        }
        for p in (0.25, 0.75)
    ]
    draw_probabilities(figure, course)
    weights, activations = figure.axes
    assert [weights.get_title(), activations.get_title()] == ["a, weight", "a, input"]
    looks = legend(figure)
    assert drawn(activations) == {(0.25, 0.75): looks["Z-3"], (0.75, 0.25): looks["C-3"]}
    assert [text.get_text() for text in activations.texts] == ["Z-3"]
    assert drawn(weights)[(0.2, 0.2)] == looks["B-1"]


@pytest.mark.parametrize("draw", [draw_probabilities, lambda figure, course: draw_widths(figure, {}, course)])
def test_a_search_that_was_not_run_has_no_course(figure, draw):
    with pytest.raises(ValueError, match="no search was run"):
        draw(figure, [])
