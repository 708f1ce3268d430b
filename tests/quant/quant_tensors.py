"""Arrays that quantizers have stumbled over, for hypothesis to draw from."""

from __future__ import annotations

import numpy as np
import pytest
from hypothesis import strategies as st

import tinyqnn as tq

MAIN = [
    *map(tq.quant.scheme, ["B-1", "T-2", "Q-2", "F-3", "R-3", "Z-3", "C-3", "P-3", "U-3", "PACT-3"]),
    tq.quant.Uniform(bits=2, levels=4),
    tq.quant.Uniform(bits=3, signed=False),
]
EDGES = [
    *map(tq.quant.scheme, ["F-2", "F-8", "R-1", "R-8", "Z-2", "Z-8", "C-1", "C-8", "P-2", "P-4", "U-8", "PACT-1"]),
    tq.quant.Uniform(bits=4, levels=16),
    tq.quant.Uniform(bits=1, signed=False),
]


def each(*, but: str = "") -> pytest.MarkDecorator:
    """Run a test with `qs`, all schemes; and in the full run with them at the smallest and largest widths.

    One drawn tensor serves all of them: drawing takes longer than quantizing.
    """
    main, edges = ([q for q in group if q.letter not in but.split()] for group in (MAIN, EDGES))
    cases = [pytest.param(main, id="main"), pytest.param(edges, id="edges", marks=pytest.mark.slow)]
    return pytest.mark.parametrize("qs", cases)


_NUMBERS = st.one_of(
    st.sampled_from([0.0, -0.0, 0.5, -0.5, 1.0, -1.0, 1.5, 2.0, -3.0, 7.0, 0.001, 1024.0, 1e30, -1e-30, 1e-45, 5e-324]),
    st.floats(-4, 4),
)
_SCALES = st.sampled_from([1.0, 1.0, 1.0, 1e-30, 1e30, 1e-42])


@st.composite
def tensors(draw: st.DrawFn, ndim: int | None = None) -> np.ndarray:
    """Small float32 and float64 arrays: zeros, ties, one element, constant, huge, tiny, mixed magnitudes, strided."""
    values = draw(st.lists(_NUMBERS, min_size=1, max_size=12))
    dtype, scale, kind = draw(st.sampled_from([np.float32, np.float64])), draw(_SCALES), draw(st.integers(0, 5))
    x = (np.clip(np.array(values) * scale, -1e30, 1e30)).astype(dtype)
    if kind == 0:
        x = np.full_like(x, x[0])
    if ndim == 2 or kind in (1, 2):
        rows = next(n for n in (3, 2, 1) if x.size % n == 0)
        x = x.reshape(rows, -1)
    if kind == 2:
        x = x.T
    if kind == 3:
        x = np.repeat(x, 2, axis=-1)[..., ::2]
    return x
