"""AutoQNN from end to end (algorithm 2): rewrite the graph, find the schemes, then learn the widths while retraining.

QAG    a quantizing vertex on every edge into an expensive vertex                                §5.1
QSS    which scheme where                                                                        §3.2
QPL    how many bits where                                                                       §4
       and training with what was found, to the end

The paper does not say with which weights it "retrains/fine-tunes" (§5.2): those that the searches moved all the while,
or the float network's once more. Both can be had, as `start`; papers/autoqnn/mnist_equal_size.py compares them.
"""

from __future__ import annotations

from collections.abc import Callable, Iterable, Mapping
from dataclasses import dataclass, field, replace
from pathlib import Path
from typing import Any

from tinyqnn import picture
from tinyqnn.files.atomic import PathLike
from tinyqnn.graph import GraphModule
from tinyqnn.nn import Module
from tinyqnn.quant import scheme
from tinyqnn.search.courses import draw_probabilities, draw_widths, layers_of
from tinyqnn.search.learned import widths_of
from tinyqnn.search.network import fit, traced
from tinyqnn.search.policy import ROLES, Policy
from tinyqnn.search.qpl import PrecisionSearch, qpl
from tinyqnn.search.qss import Candidates, SchemeSearch, candidates_by_role, default_candidates, qss
from tinyqnn.search.targets import Target, reach
from tinyqnn.train import History


@dataclass(frozen=True, eq=False)
class AutoQNN(Policy):
    """What AutoQNN found: a Policy, the network, and how both searches went.

    model        the quantized network, trained
    schemes      what QSS found, a `SchemeSearch`
    precision    what QPL found, a `PrecisionSearch`; None before that
    retrained    the last training, where it began with the float weights; else None
    interrupted  whether Ctrl-C ended it early; call again with the same folder to go on

    >>> AutoQNN(()).interrupted
    False
    """

    model: GraphModule | None = None
    schemes: SchemeSearch = field(default_factory=lambda: SchemeSearch(()))
    precision: PrecisionSearch | None = None
    retrained: History | None = None

    @property
    def interrupted(self) -> bool:
        return self.history.interrupted

    @property
    def history(self) -> History:
        """Of the last training."""
        if self.retrained is not None:
            return self.retrained
        return self.schemes.history if self.precision is None else self.precision.history

    def save_picture(self, path: PathLike) -> None:
        """The probabilities of the schemes and the course of the widths in one PNG file."""
        rows = -(-len(self.schemes.course[0]) // 4)
        with picture.look():
            figure = picture.figure(10, 5 + 2.2 * rows)
            top, bottom = figure.subfigures(2, 1, height_ratios=[1 + 2.2 * rows, 4])
            draw_probabilities(top, self.schemes.course)
            if self.precision is not None:
                draw_widths(bottom, layers_of(self.precision), self.precision.course)
            picture.save(figure, path)


def autoqnn(
    model: Module,
    train: Any,
    valid: Any = None,
    target_bits: Target = 2.0,
    *,
    candidates: Candidates = None,
    search_bits: int = 3,
    fine: bool = True,
    keep: Iterable[str] = (),
    search_epochs: int = 5,
    epochs: int = 10,
    settled: int | None = None,
    start: str = "search",
    search: Mapping[str, Any] | None = None,
    precision: Mapping[str, Any] | None = None,
    folder: PathLike | None = None,
    resume: bool = True,
    report: Callable[[SchemeSearch | PrecisionSearch], None] = lambda found: None,
    **training: Any,
) -> AutoQNN:
    """Quantize a trained float network to an average of `target_bits`; `model` is not changed.

    target_bits    the average for weights and activations, or {"weights": 2, "activations": 4}; None for a role leaves
                   it float
    candidates     as for `qss`; by default AutoQNN's eight schemes at `search_bits`. Those that cannot be as narrow as
                   the target are left out
    fine           search for a scheme a vertex; False: one for all weights and one for all activations
    keep           expensive vertices that stay float: names, "first", "last"
    search_epochs  of QSS
    epochs         of QPL and of training with what was found. In the last `settled` of them the widths are whole and
                   fixed; three quarters if not given
    start          with which weights the settled epochs begin: "search", as the searches left them, with a learning
                   rate that falls over all `epochs`; or "float", those of `model`, and the rate begins once more
    search         more for `qss`: temperature, exponent, state_lr
    precision      more for `qpl`: strength, bits_lr, tolerance
    folder         where the checkpoints qss.npz, qpl.npz and, if `start` is "float", retrained.npz go; what is there is
                   gone on from, unless not `resume`
    report         gets what each search found, as soon as it has
    training       for both, see `qss`: lr, batch_size, seed, augment, example, progress, …

    Raises ValueError for a target that no candidate reaches and for an empty candidate set.

    >>> import numpy as np
    >>> from tinyqnn import data, nn
    >>> rng = np.random.default_rng(0)
    >>> x = rng.normal(size=(64, 4)).astype(np.float32)
    >>> policy = autoqnn(nn.Linear(4, 2, rng=rng), data.Split(x, (x[:, 0] > 0).astype(int)), target_bits=2,
    ...                  search_epochs=1, epochs=3, progress=False)
    >>> policy.average_bits("weights") <= 2.1, Policy.of(policy.apply(nn.Linear(4, 2), x[:2])) == policy
    (True, True)
    """
    targets, sides = fitting(target_bits, candidates if candidates is not None else default_candidates(search_bits))
    settled = 3 * epochs // 4 if settled is None else settled
    if not 0 <= settled < epochs:
        raise ValueError(f"settled leaves one epoch or more to learn the widths in: 0 to {epochs - 1}, got {settled}")
    if start not in ("search", "float"):
        raise ValueError(f'start is "search" or "float", got {start!r}')

    def kept(name: str) -> dict[str, Any]:
        return {"checkpoint": None if folder is None else Path(folder) / f"{name}.npz", "resume": resume}

    schemes = qss(
        model, train, valid, candidates=sides, fine=fine, keep=keep, epochs=search_epochs,
        **{**training, **(search or {}), **kept("qss")},
    )  # fmt: skip
    report(schemes)
    found = AutoQNN(schemes.choices, schemes.floats, schemes.model, schemes)
    if schemes.history.interrupted:
        return found
    assert schemes.model is not None
    reachable = {
        role: min(target, reach(schemes, role)[1])  # the schemes may all be narrower than the target
        for role, target in targets.items()
        if target is not None and any(choice.letter for choice in schemes.of_role(role))
    }
    goes_on = start == "search"
    learned = qpl(
        schemes.model, train, valid, target_bits=reachable,
        epochs=epochs if goes_on else epochs - settled, settled=settled if goes_on else 0,
        **{**training, **(precision or {}), **kept("qpl")},
    )  # fmt: skip
    report(learned)
    found = AutoQNN(learned.choices, learned.floats, learned.model, schemes, learned)
    if goes_on or found.interrupted:
        return found
    base, example = traced(model, train, training.pop("example", None), training.pop("batch_axis", 0))
    network = found.apply(base, example)
    history = fit(network, train, valid, settled, **{"label": "training", **training, **kept("retrained")})
    return replace(found, model=network, retrained=history)


def fitting(
    target_bits: Target, candidates: Candidates
) -> tuple[dict[str, float | None], dict[str, tuple[str, ...] | None]]:
    """The target of each role, and the candidates that can be as narrow as that, activations behind a ReLU, too.

    >>> fitting({"weights": 1}, ["B-1", "C-3", "P-3"])
    ({'weights': 1.0, 'activations': None}, {'weights': ('B-1', 'C-3'), 'activations': None})
    """
    given = dict(target_bits) if isinstance(target_bits, Mapping) else dict.fromkeys(ROLES, target_bits)
    if unknown := sorted(set(given) - set(ROLES)):
        raise ValueError(f"targets are for weights and for activations, got {', '.join(map(repr, unknown))}")
    targets: dict[str, float | None] = {}
    sides: dict[str, tuple[str, ...] | None] = {}
    asked = candidates_by_role(candidates)
    for role in ROLES:
        target, names = given.get(role), asked[role]
        targets[role] = None if target is None else float(target)
        sides[role] = None if target is None else names
        if target is None or names is None:
            continue
        widths = [widths_of(scheme(name).letter, after_relu=role == "activations") for name in names]
        sides[role] = tuple(name for name, r in zip(names, widths) if r[0] <= target)
        if not sides[role] or target > max(r[-1] for r in widths):
            raise ValueError(
                f"no candidate brings the {role} to {target:g} bits on average: they have from "
                f"{min(r[0] for r in widths)} to {max(r[-1] for r in widths)}; choose a target in between"
            )
    if all(names is None for names in sides.values()):
        raise ValueError("there is nothing to search for: no role has both a target and candidates")
    return targets, sides
