"""Which average of bits is asked of weights and of activations, and which averages there can be."""

from __future__ import annotations

from collections.abc import Collection, Mapping
from typing import Union

from tinyqnn.graph import average_bits
from tinyqnn.search.learned import widths_of
from tinyqnn.search.policy import ROLES, Policy

Target = Union[float, Mapping[str, Union[float, None]]]


def targets_of(policy: Policy, target_bits: Target, positive: Collection[str] = ()) -> dict[str, float | None]:
    """The target of each role, checked against what the policy's schemes can reach; see `reach`.

    Raises ValueError for a target that is out of reach, an unknown role, or nothing to learn.

    >>> import numpy as np
    >>> from tinyqnn import nn
    >>> from tinyqnn.graph import generate
    >>> policy = Policy.of(generate(nn.Linear(4, 2), np.eye(4), weights="P-3", activations="C-3"))
    >>> targets_of(policy, 3), targets_of(policy, {"weights": 2.5})
    ({'weights': 3.0, 'activations': 3.0}, {'weights': 2.5, 'activations': None})
    """
    given = dict(target_bits) if isinstance(target_bits, Mapping) else dict.fromkeys(ROLES, target_bits)
    if unknown := sorted(set(given) - set(ROLES)):
        raise ValueError(f"targets are for weights and for activations, got {', '.join(map(repr, unknown))}")
    targets: dict[str, float | None] = {}
    for role in ROLES:
        target = given.get(role)
        quantized = [choice for choice in policy.of_role(role) if choice.letter is not None]
        targets[role] = None if target is None or not quantized else float(target)
        if targets[role] is None:
            continue
        low, high = reach(policy, role, positive)
        if not low <= target <= high:  # type: ignore[operator]
            raise ValueError(
                f"no widths bring the {role} to {target:g} bits on average: their schemes "
                f"({', '.join(sorted({c.letter for c in quantized if c.letter}))}) have from {low:.3g} to {high:.3g}; "
                "choose a target in between, or other schemes"
            )
    if all(target is None for target in targets.values()):
        raise ValueError("there is no width to learn: no vertex is quantized, or no target is given")
    return targets


def reach(policy: Policy, role: str, positive: Collection[str] = ()) -> tuple[float, float]:
    """The least and the greatest average that the schemes of one role can have.

    positive   vertices of the graph whose output is never negative, as `not_negative` finds them

    >>> import numpy as np
    >>> from tinyqnn import nn
    >>> from tinyqnn.graph import generate
    >>> policy = Policy.of(generate(nn.Linear(4, 2), np.eye(4), weights="P-3", activations="C-3"))
    >>> reach(policy, "weights"), reach(policy, "activations"), reach(policy, "activations", positive=["x"])
    ((2.0, 4.0), (1.0, 8.0), (2.0, 8.0))
    """
    quantized = [choice for choice in policy.of_role(role) if choice.letter is not None]
    ranges = [widths_of(choice.letter, choice.source in positive) for choice in quantized if choice.letter]
    sizes = [choice.elements for choice in quantized]
    return average_bits([r[0] for r in ranges], sizes), average_bits([r[-1] for r in ranges], sizes)
