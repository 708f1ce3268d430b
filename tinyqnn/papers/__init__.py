"""The papers' figures and tables, one file each: what is run, what came out, which claims hold.

    tinyqnn reproduce --list
    tinyqnn reproduce holistic.fig2

An experiment is a module, tinyqnn/papers/holistic/fig2.py, that has

    Config        a frozen dataclass: all that decides the outcome of one cell, its `seed` among it
    cells(scale)  the configs at a scale: "smoke" takes seconds, "small" minutes on two cores, "paper" is the paper's
    run(config, report)     one cell: trains and measures, and returns plain numbers
    CLAIMS        what the paper says, each with the test that decides it
    table(cells)  our numbers beside the paper's, as text
    draw(cells, figure)     the picture
"""
