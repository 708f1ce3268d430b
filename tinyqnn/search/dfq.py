"""DFQ: as small as a bound on the validation loss allows. Weights learn as ever; how many bits each layer gets is
learned next to them, by a second gradient on other data.

    minimise G(α)  subject to  L_valid(w*, α) ≤ θ,   w* = argmin_w L_train(w, α)                      DFQ eq. (2)-(4)

Algorithm 1, in its first-order form: after each step of the weights w down ∇_w L_train, one step of α on a batch of
validation data, down

    ∇_α G          where L_valid ≤ θ   (λ = 0)       there is room: shrink
    ∇_α L_valid    where L_valid > θ   (λ → ∞)       too small: recover

both of the same length, so that no step down the size outweighs one down the loss. Afterwards each layer takes its
argmax, and the network is trained once more. `relax.py` has the mixture that α weighs, `branch.py` puts it into a
network, `dfq_step.py` is the step of α.
"""

from __future__ import annotations

import math
from collections.abc import Iterable
from pathlib import Path
from typing import Any

import numpy as np

from tinyqnn import optim
from tinyqnn.data.loader import Augment
from tinyqnn.files.atomic import PathLike
from tinyqnn.functional import cross_entropy
from tinyqnn.graph import GraphModule
from tinyqnn.nn import Module
from tinyqnn.quant import scheme as _scheme
from tinyqnn.search.branch import relax, start
from tinyqnn.search.dfq_found import DFQPolicy
from tinyqnn.search.dfq_step import Search
from tinyqnn.search.network import OptimizerOf, fit, traced, trainable
from tinyqnn.search.policy import Policy
from tinyqnn.search.relax import Relaxed, probabilities, width
from tinyqnn.tensor import Tensor
from tinyqnn.train import evaluate
from tinyqnn.train.score import Data, Loss, source_of


def dfq(
    model: Module,
    train: Data,
    valid: Data,
    *,
    theta: float,
    example: Any = None,
    bits: Iterable[int | str] = (1, 8),
    scheme: str = "C",
    epochs: int = 10,
    retrain_epochs: int | None = None,
    widen: int = 0,
    keep: Iterable[str] = (),
    batch_axis: int = 0,
    optimizer: OptimizerOf | None = None,
    lr: float = 1e-3,
    retrain_lr: float | None = None,
    alpha_lr: float = 0.02,
    alpha_falls: bool = False,
    batch_size: int = 128,
    seq_len: int = 35,
    augment: Augment | None = None,
    clip_norm: float | None = None,
    loss: Loss = cross_entropy,
    seed: int = 0,
    folder: PathLike | None = None,
    resume: bool = False,
    progress: bool | None = None,
) -> DFQPolicy:
    """Search a width for every weight, so that the network is as small as `theta` allows (DFQ, algorithm 1).

    model           float, pretrained or fresh; it is not changed. For text: model(tokens, state) -> (scores, state)
    train, valid    a Split each, or a text each (a row of token numbers); α is learned on `valid`
    theta           θ > 0, the bound on the validation loss, in units of `loss`
    example         what the model is called with, as for `graph.generate`; None: a few examples of `train`
    bits            the candidates: widths out of 1 … 8 and 32 (float), or notations such as "P-4"
    scheme          the scheme of widths 2 … 8; width 1 is Binary
    epochs          of the search; retrain_epochs of the training afterwards (None: as many)
    widen           how often, while the retrained network breaks the bound, one more vertex may take its next wider
                    candidate, and the network be trained on: the one with the most probability for each bit it adds
    keep            expensive vertices that stay float: names, "first", "last"
    optimizer       a function of the parameters, for the weights; None: Adam, at `lr` in the search and at `retrain_lr`
                    (None: the same) afterwards. Their rate falls along a cosine
    alpha_lr        the rate of α, which has an Adam of its own
    alpha_falls     let it fall as the weights' does: the search comes to rest instead of swinging about the bound until
                    it is stopped; but one that finds the bound broken for long has little rate left, and ends wider
    folder          for checkpoints; with `resume` a search that was stopped goes on and ends with the same bits

    Returns a Policy with the retrained network as `.model` and `.history`; `.verdict` says whether the bound is kept.
    Raises ValueError for candidates, a bound or data that make no sense; KeyboardInterrupt after Ctrl-C.

    >>> from tinyqnn import data, nn
    >>> rng = np.random.default_rng(0)
    >>> net = nn.Sequential(nn.Linear(2, 16, rng=rng), nn.BatchNorm1d(16), nn.ReLU(), nn.Linear(16, 2, rng=rng))
    >>> x = rng.normal(size=(200, 2)).astype(np.float32)
    >>> split = data.Split(x, (x[:, 0] > 0).astype(int))
    >>> found = dfq(net, split, split, theta=0.5, epochs=10, lr=0.02, alpha_lr=0.1, batch_size=50, progress=False)
    >>> found.keeps_bound, sorted({choice.scheme for choice in found.of_role("weights")})
    (True, ['B-1'])
    """
    notations = candidates(bits, scheme)
    if not (isinstance(theta, (int, float)) and math.isfinite(theta) and theta > 0):
        raise ValueError(f"theta is a bound on the validation loss, a number above 0, got {theta!r}")
    retrain_epochs = epochs if retrain_epochs is None else retrain_epochs
    if epochs < 1 or retrain_epochs < 0 or widen < 0:
        raise ValueError(
            f"epochs is 1 or more, retrain_epochs and widen 0 or more, got {epochs}, {retrain_epochs}, {widen}"
        )
    retrain_lr = lr if retrain_lr is None else retrain_lr
    for name, rate in (("lr", lr), ("retrain_lr", retrain_lr), ("alpha_lr", alpha_lr)):
        if not rate > 0:
            raise ValueError(f"{name} is above 0, got {rate}")
    _check_data("train", train)
    _check_data("valid", valid)

    base, example = traced(model, train, example, batch_axis)
    relaxed, layers = relax(base, notations, _kept(base, keep))
    x, _ = next(iter(source_of(train, batch_size, seq_len).batches(None)))
    start(relaxed, layers, base, Tensor(x))
    search = Search(layers, valid, theta, loss, alpha_lr, alpha_falls, batch_size, seq_len, seed)
    settings = {"theta": float(theta), "alpha_lr": alpha_lr, "alpha_falls": alpha_falls, "bits": list(notations)}
    if folder is not None:
        Path(folder).mkdir(parents=True, exist_ok=True)

    def learn(
        network: GraphModule, epochs: int, rate: float, stem: str, label: str, hook: Search | None = None
    ) -> None:
        """Train all of a network but α."""
        path = None if folder is None else Path(folder) / f"{stem}.npz"
        history = fit(
            network, train, valid, epochs, hook, [layer.alpha for layer in layers], settings,
            optimizer=optimizer or (lambda weights: optim.Adam(weights, lr=rate)), checkpoint=path, resume=resume,
            progress=progress, label=label, loss=loss, batch_size=batch_size, seq_len=seq_len, augment=augment,
            clip_norm=clip_norm, seed=seed,
        )  # fmt: skip
        if history.interrupted:
            raise KeyboardInterrupt(f"{label} stopped" + ("" if path is None else f"; {path} has what was learned"))

    learn(relaxed, epochs, lr, "search", "search", search)
    policy = Policy.of(base).changed({layer.vertex: layer.notations[int(layer.p.argmax())] for layer in layers})
    base.load_state_dict(relaxed.state_dict(), strict=False)  # the weights as the search left them
    tried: list[tuple[float, float]] = []
    while True:
        network = policy.apply(base, example)
        learn(network, retrain_epochs, retrain_lr, f"retrain-{len(tried)}", "retraining")
        valid_loss = evaluate(trainable(network), valid, batch_size, loss, seq_len).loss
        tried.append((policy.average_bits(), valid_loss))
        wider = _wider(policy, layers)
        if valid_loss <= theta or len(tried) > widen or wider is None:
            break
        policy, base = policy.changed(wider), network
    return DFQPolicy(
        policy.choices, policy.floats, float(theta), valid_loss, network, tuple(search.history), tuple(tried)
    )


def candidates(bits: Iterable[int | str], scheme: str = "C") -> tuple[str, ...]:
    """The notations of widths, narrow ones first: 1 is Binary, 32 float, what lies between has `scheme`.

    >>> candidates((8, 1)), candidates((2, 4, 32, "P-3"), "R")
    (('B-1', 'C-8'), ('R-2', 'P-3', 'R-4', 'float'))
    """
    if isinstance(bits, (str, int)):
        bits = (bits,)
    found: list[str] = []
    for wanted in bits:
        if isinstance(wanted, str):
            found.append("float" if wanted == "float" else _scheme(wanted).notation)
        elif isinstance(wanted, (bool, np.bool_)) or wanted not in (*range(1, 9), 32):
            raise ValueError(f"bits: widths are 1 … 8 and 32 for float, or notations such as 'P-4', got {wanted!r}")
        else:
            found.append("B-1" if wanted == 1 else "float" if wanted == 32 else _scheme(f"{scheme}-{wanted}").notation)
    if len(found) < 2:
        raise ValueError(
            f"bits: there is nothing to choose with {len(found)} candidates; give two or more, such as (1, 8)"
        )
    if twice := sorted({name for name in found if found.count(name) > 1}):
        raise ValueError(f"bits: {', '.join(twice)} stands there twice")
    return tuple(sorted(found, key=width))


def _wider(policy: Policy, layers: list[Relaxed]) -> dict[str, str] | None:
    """The next wider candidate with the most probability for each bit that it adds, as a change of the policy.

    None if all are as wide as can be.
    """
    found: list[tuple[float, str, str]] = []
    for layer in layers:
        place = layer.notations.index(policy[layer.vertex].scheme)
        if place + 1 < len(layer.notations):
            following = probabilities(layer.alpha.data[place:])[1]  # of those not narrower
            added = layer.elements * (layer.bits[place + 1] - layer.bits[place])
            found.append((float(following) / max(added, 1), layer.vertex, layer.notations[place + 1]))
    return None if not found else {max(found)[1]: max(found)[2]}


def _check_data(name: str, data: Any) -> None:
    if data is None or (isinstance(data, np.ndarray) and data.size == 0):
        use = "α is learned on it, and the bound is about it" if name == "valid" else "the weights are learned on it"
        raise ValueError(
            f"{name}: there is no such data; {use}: pass a Split or a text, see tinyqnn.data.validation_split"
        )


def _kept(base: GraphModule, keep: Iterable[str]) -> tuple[str, ...]:
    """Names of vertices that stay float."""
    keep = (keep,) if isinstance(keep, str) else tuple(keep)
    names = list(dict.fromkeys(choice.feeds for choice in Policy.of(base).of_role("weights")))
    ends = {"first": names[:1], "last": names[-1:]}
    if unknown := [name for name in keep if name not in names and name not in ends]:
        raise ValueError(f"keep: {', '.join(unknown)} is no expensive vertex; there are {', '.join(names)}")
    kept = tuple(found for name in keep for found in ends.get(name, [name]))
    if set(names) <= set(kept):
        raise ValueError("there is no weight to search a width for; let fewer layers stay float")
    return kept
