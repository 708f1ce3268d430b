"""Chance with a name: every random draw comes from a generator that someone passed in, or from the one kept here.

Layers, dropout and samplers take `rng=`; without it they draw from `default_rng()`, which `manual_seed` sets anew.
Independent streams (initialisation, shuffling, dropout, search) are children made by `Generator.spawn`.
"""

from __future__ import annotations

import json
from typing import Any

import numpy as np

_default = np.random.default_rng()


def default_rng() -> np.random.Generator:
    """The generator that is used where no `rng=` was passed.

    >>> default_rng() is default_rng()
    True
    """
    return _default


def manual_seed(seed: int) -> np.random.Generator:
    """Set the default generator to a fresh one made from `seed`, and return it.

    >>> bool(manual_seed(0).integers(100) == manual_seed(0).integers(100))
    True
    """
    global _default
    if isinstance(seed, bool) or not isinstance(seed, (int, np.integer)) or seed < 0:
        raise ValueError(f"a seed is a whole number from 0 upwards, got {seed!r}")
    _default = np.random.default_rng(int(seed))
    return _default


def get_state(rng: np.random.Generator) -> str:
    """The state of a generator as JSON text, to be kept in a checkpoint.

    >>> rng = np.random.default_rng(1); state = get_state(rng); first = rng.random()
    >>> set_state(rng, state); rng.random() == first
    True
    """
    return json.dumps(_plain(rng.bit_generator.state))


def set_state(rng: np.random.Generator, state: str) -> None:
    """Put a generator back to where `get_state` found it. Raises ValueError if the state is another kind's."""
    wanted = json.loads(state)
    here = rng.bit_generator.state["bit_generator"]
    if wanted.get("bit_generator") != here:
        raise ValueError(f"the saved state is of a {wanted.get('bit_generator')} generator, this one is a {here}")
    rng.bit_generator.state = wanted


def _plain(value: Any) -> Any:
    """Dictionaries of Python numbers, as JSON wants them."""
    if isinstance(value, dict):
        return {key: _plain(item) for key, item in value.items()}
    return value.tolist() if isinstance(value, (np.ndarray, np.generic)) else value
